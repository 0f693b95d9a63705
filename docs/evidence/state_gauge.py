"""Train an augmented neural ODE from scrambled states, and write what one projection changes to state_gauge.md.

python docs/evidence/state_gauge.py

Handwritten digits, three seeds, 300 steps each, about four minutes on one core.
"""

import statistics
import time
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

import gaugefix
from gaugefix.demo.digits import CLASSES, PIXELS, DigitsData
from gaugefix.symmetry import Element, GaugeGroup
from gaugefix.testing import Probe, relative_change

STATES, HIDDEN, SOLVER_STEPS = 16, 32, 8
STEPS, BATCH, EVERY, CONDITION = 300, 128, 100, 1e3
SEEDS, SCRAMBLES = (0, 1, 2), (1, 2)
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
}
SLICES = ("none", "minimal_norm", "spectral")


class NeuralOde(nn.Module):
    """x₀ = E u + e, dx/dt = W₂ tanh(W₁ (x, t) + b₁) + b₂ on [0, 1] by rk4, y = D x(1) + d."""

    times: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(PIXELS, STATES), nn.Linear(STATES, CLASSES)
        self.inner, self.outer = nn.Linear(STATES + 1, HIDDEN), nn.Linear(HIDDEN, STATES)
        self.register_buffer("times", torch.linspace(0, 1, SOLVER_STEPS + 1))

    def field(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt."""
        return self.outer(torch.tanh(self.inner(torch.cat([x, t.expand(*x.shape[:-1], 1)], -1))))

    def forward(self, u: Tensor) -> Tensor:
        """Return y, (batch, 10), for u (batch, 64)."""
        return self.decoder(odeint(self.field, self.encoder(u), self.times, method="rk4")[-1])


class Run:
    """One training run, from the state at which a scramble (None: no one) and a projection leave the network.

    Attributes:
        loss: mean cross entropy of the validation part at the end.
        accuracy: there.
        change: largest relative change of the outputs at a projection, as the network computes in float32.
        rounding: the same, computed in float64: what the parameters, rounded to float32, have become.
    """

    def __init__(self, seed: int, optimizer: str, scramble: int | None, slice: str, every: int = 0) -> None:
        torch.manual_seed(seed)
        self.net, self.slice, self.change, self.rounding = NeuralOde(), slice, 0.0, 0.0
        self.gauge = gaugefix.discover(self.net, (DATA.inputs[:4],))
        if scramble is not None:
            gaugefix.act_(self.net, self.gauge, scrambling(self.gauge, scramble))
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters())
        if slice != "none":
            self.project()
        order = torch.Generator().manual_seed(seed)
        for step in range(STEPS):
            if step and every and step % every == 0:
                self.project()
            rows = torch.randint(len(DATA.inputs), (BATCH,), generator=order)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.net(DATA.inputs[rows]), DATA.labels[rows]).backward()
            self.optimizer.step()
        with torch.no_grad():
            out = self.net(DATA.val_inputs)
        self.loss = nn.functional.cross_entropy(out, DATA.val_labels).item()
        self.accuracy = (out.argmax(1) == DATA.val_labels).float().mean().item()

    def project(self) -> None:
        """Project, and compare the outputs before and after."""
        inputs = DATA.val_inputs[:64]
        probes = [Probe(self.net, (inputs,)), lambda: Probe(self._wide(), (inputs.double(),))()]
        before = [probe() for probe in probes]
        gaugefix.project_(self.net, self.gauge, self.slice, optimizers=[self.optimizer])
        after = [probe() for probe in probes]
        change, rounding = map(relative_change, before, after)
        self.change, self.rounding = max(self.change, change), max(self.rounding, rounding)

    def _wide(self) -> NeuralOde:
        wide = NeuralOde().double()
        wide.load_state_dict({name: value.double() for name, value in self.net.state_dict().items()})
        return wide


class Data:
    """The digits."""

    def __init__(self) -> None:
        data = DigitsData()
        data.setup()
        assert data.train_data is not None
        assert data.val_data is not None
        self.inputs, self.labels = data.train_data.tensors
        self.val_inputs, self.val_labels = data.val_data.tensors


def scrambling(gauge: GaugeGroup, seed: int) -> Element:
    """Return a random change of the state's coordinates of condition CONDITION."""
    mixing = next(s for s in gauge.applied if s.group.symbol == f"GL({STATES})")
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(STATES, STATES, generator=generator, dtype=torch.float64))[0] for _ in "lr"
    )
    scales = torch.logspace(-0.5, 0.5, STATES, base=CONDITION, dtype=torch.float64)
    change = (left * scales) @ right
    return Element(((mixing.name, change.reshape(mixing.group.identity().shape)),))


def from_scrambles() -> str:
    """Compare runs from the same function in several gauges."""
    rows = []
    for optimizer, slice in product(OPTIMIZERS, SLICES):
        for seed in SEEDS:
            runs = [Run(seed, optimizer, scramble, slice) for scramble in (None, *SCRAMBLES)]
            losses = [run.loss for run in runs]
            spread = (max(losses) - min(losses)) / abs(statistics.mean(losses))
            changes = [f"{max(run.change for run in runs):.1e}", f"{max(run.rounding for run in runs):.1e}"]
            shown = [f"{loss:.5g}" for loss in losses] + [f"{spread:.1e}"]
            rows.append([optimizer, slice, str(seed), *shown, *(changes if slice != "none" else ["", ""])])
    scrambled = [f"scramble {number}" for number in SCRAMBLES]
    header = ["optimizer", "projection", "seed", "normal start", *scrambled, "spread", "float32", "float64"]
    return table(header, rows)


def from_normal_start() -> str:
    """Compare repeated projection with none, from a normal start."""
    rows = []
    for optimizer in OPTIMIZERS:
        plain = [Run(seed, optimizer, None, "none") for seed in SEEDS]
        for slice in SLICES:
            runs = plain if slice == "none" else [Run(seed, optimizer, None, slice, EVERY) for seed in SEEDS]
            losses, wanted = [run.loss for run in runs], [run.loss for run in plain]
            pooled = ((statistics.variance(losses) + statistics.variance(wanted)) / 2) ** 0.5
            difference = statistics.mean(losses) - statistics.mean(wanted)
            each = ", ".join(f"{loss:.4f}" for loss in losses)
            accuracy = f"{100 * statistics.mean(run.accuracy for run in runs):.1f} %"
            by_seed = ", ".join(f"{a - b:+.4f}" for a, b in zip(losses, wanted, strict=True))
            found = ["", ""] if slice == "none" else [by_seed, f"{difference / pooled:+.1f}"]
            rows.append([optimizer, slice, each, f"{statistics.mean(losses):.4f}", accuracy, *found])
    header = ["optimizer", "projection", "seeds 0, 1, 2", "mean", "accuracy", "difference by seed", "mean / std"]
    return table(header, rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def main() -> None:
    """Run everything and write the page."""
    start = time.process_time()
    gauge = gaugefix.discover(NeuralOde(), (DATA.inputs[:4],))
    scrambles, normal = from_scrambles(), from_normal_start()
    seconds = time.process_time() - start
    text = f"""# The gauge of a neural ODE's state

Written by `python docs/evidence/state_gauge.py` in {seconds:.0f} s of one core, torch {torch.__version__}.

Handwritten digits; x₀ = E u + e, dx/dt = W₂ tanh(W₁ (x, t) + b₁) + b₂, y = D x(1) + d with {STATES} states and
{HIDDEN} hidden units; rk4 in {SOLVER_STEPS} steps, float32, {STEPS} steps of SGD (lr 0.02, momentum 0.9) or Adam
(lr 0.003). What `gaugefix.discover` finds through the solver:

```
{gauge}
```

## From a scrambled start

The same function in other coordinates of the state: x → G x, with G random and of condition {CONDITION:.0e}. Either
training starts there, or after one projection. Validation loss at the end, and its spread, (max − min)/mean, over the
three starts. The last columns are the largest relative change of the outputs at the projection: as the network
computes in float32, where a scrambled network rounds itself off, and in float64, which shows what the projection has
done to the parameters.

{scrambles}

SGD goes the same way from every gauge that differs by a rotation, so that any point of minimal norm serves. Adam does
not: minimal norm leaves the rotation that the scramble has left behind, `spectral` fixes it too.

## From a normal start

Projection at the start and every {EVERY} steps, with the state of the optimizer. Difference to no projection, seed by
seed, and its mean in standard deviations of the loss over seeds (pooled): well below 2 is noise. A projection repairs
a bad gauge; here is none to repair, and it does not lower the loss.

{normal}
"""
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    DATA = Data()
    main()
