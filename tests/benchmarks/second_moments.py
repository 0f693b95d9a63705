"""How good exp_avg_sq is after a change of gauge that mixes entries, and what training makes of it.

    python -m tests.benchmarks.second_moments

A character model with causal attention is trained by AdamW. Squared gradients of the new gauge are averaged along, for
elements that are known beforehand: that is the true exp_avg_sq. Then training goes on: with the state transported, with
the true second moments, with the state left in the old gauge, and reset. Prints the two tables of docs/transport.md, in
about four minutes on one core.
"""

from __future__ import annotations

import copy
import pydoc_data.topics
import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix import act_, discover
from gaugefix.slices import get_slice
from gaugefix.symmetry import GRADIENT, Element
from tests.discovery.transformers_small import Block
from tests.transport.attention_nets import matrices

STEPS, AFTER, TAIL, CONTEXT, BATCH, WIDTH, BETA = 300, 200, 50, 64, 16, 64, 0.999
CHANGES = ("transported", "true", "left", "reset")
RANDOM = {scale: [f"random {scale}, seed {seed}" for seed in range(3)] for scale in (0.1, 0.3, 1.0)}
LEAST = "minimal norm"
Squares = dict[str, Tensor]


class Characters(nn.Module):
    """Two pre-norm blocks of four heads."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block(WIDTH, n=4, inner=4 * WIDTH) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def text() -> tuple[Tensor, int]:
    """The help texts of Python as character numbers."""
    characters = "".join(pydoc_data.topics.topics.values())
    alphabet = {c: k for k, c in enumerate(sorted(set(characters)))}
    return torch.tensor([alphabet[c] for c in characters]), len(alphabet)


def batches(ids: Tensor, seed: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        starts = torch.randint(len(ids) - CONTEXT - 1, (BATCH,), generator=generator)
        windows = torch.stack([ids[s : s + CONTEXT + 1] for s in starts])
        yield windows[:, :-1], windows[:, 1:]


def adamw(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.parameters(), lr=2e-3, betas=(0.9, BETA), weight_decay=0.1)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> float:
    """One step; the gradients stay."""
    optimizer.zero_grad()
    loss = F.cross_entropy(net(batch[0]).flatten(0, 1), batch[1].flatten())
    loss.backward()
    optimizer.step()
    return float(loss.detach())


class Run:
    """A training up to the change of gauge, with the true second moments of every element.

    Args:
        size: of the matrices that act on the initial weights of all queries, keys, values and outputs (1: none does).
        drawn: random elements, by name: (scale, seed). The element of least norm joins them.
    """

    def __init__(self, size: float, drawn: dict[str, tuple[float, int]]) -> None:
        self.ids, self.vocabulary = text()
        self.size = size
        torch.manual_seed(0)
        self.gauge = matrices(discover(Characters(self.vocabulary), (self.ids[None, :CONTEXT],)))
        self.elements = {name: self.gauge.random(*how) for name, how in drawn.items()}
        self.train()  # the element of least norm is known at the end: then the same training again
        self.elements[LEAST] = get_slice("minimal_norm").solve(self.gauge, self.gauge.check(self.net))
        self.train()
        self.base = self.go_on("untouched", LEAST)

    def train(self) -> None:
        torch.manual_seed(0)
        self.net = Characters(self.vocabulary)
        if self.size != 1:
            start = self.gauge.random(1.0, seed=9)
            act_(self.net, self.gauge, Element(tuple((name, self.size * g) for name, g in start.steps)))
        self.optimizer = adamw(self.net)
        self.true = {e: {n: torch.zeros_like(p) for n, p in self.net.named_parameters()} for e in self.elements}
        for batch in batches(self.ids, 1, STEPS):
            step(self.net, self.optimizer, batch)
            for e, element in self.elements.items():
                moved = {n: p.grad for n, p in self.net.named_parameters()}
                for name, g in element.steps:
                    moved.update(self.gauge[name].transport(moved, g, GRADIENT))
                for n, g in moved.items():
                    self.true[e][n].lerp_(g.square(), 1 - BETA)

    def moved(self, change: str, e: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A copy in the gauge of element ``e``, and its optimizer."""
        net = copy.deepcopy(self.net)
        optimizer = adamw(net)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        if change != "untouched":
            act_(net, self.gauge, self.elements[e], [] if change == "left" else [optimizer])
        if change == "reset":
            optimizer.state.clear()
        if change == "true":
            for n, p in net.named_parameters():
                optimizer.state[p]["exp_avg_sq"].copy_(self.true[e][n])
        return net, optimizer

    def go_on(self, change: str, e: str) -> Tensor:
        """(mean loss of the next AFTER steps, of the last TAIL of them)."""
        net, optimizer = self.moved(change, e)
        losses = torch.tensor([step(net, optimizer, batch) for batch in batches(self.ids, 2, AFTER)])
        return torch.stack([losses.mean(), losses[-TAIL:].mean()])

    def errors(self, change: str, e: str) -> Tensor:
        """(role, 2): relative error of exp_avg_sq; by what factor its root is off at the 95th percentile."""
        net, optimizer = self.moved(change, e)
        found = roles({n: optimizer.state[p]["exp_avg_sq"] for n, p in net.named_parameters()})
        rows = []
        for f, t in zip(found, roles(self.true[e]), strict=True):
            factor = ((f / t).log().abs() / 2).flatten().quantile(0.95).exp()
            rows.append(torch.stack([(f - t).norm() / t.norm(), factor]))
        return torch.stack(rows)


def roles(tensors: Squares) -> list[Tensor]:
    """The weights of queries, keys, values and outputs, each stacked over layers."""
    fused = torch.stack([t for n, t in tensors.items() if n.endswith("qkv.weight")]).chunk(3, 1)
    return [*fused, torch.stack([t for n, t in tensors.items() if n.endswith("out.weight")])]


def report(run: Run, title: str, names: list[str]) -> tuple[list[str], str]:
    """Rows of the two tables: means over ``names``."""
    first = []
    for change in ("transported", "left"):
        mean = torch.stack([run.errors(change, e) for e in names]).mean(0).tolist()
        first.append(f"| {title} | {change} | " + " | ".join(f"{100 * r:.0f} % ×{f:.2f}" for r, f in mean) + " |\n")
    cells = []
    for change in CHANGES:
        every = torch.stack([run.go_on(change, e) - run.base for e in names]).mean(0).tolist()
        cells.append(" / ".join(f"{x:+.3f}" for x in every))
    return first, f"| {title} | " + " | ".join(cells) + " |\n"


def main() -> None:
    balanced = Run(1.0, {e: (scale, k) for scale, names in RANDOM.items() for k, e in enumerate(names)})
    unbalanced = Run(4.0, {})
    rows = [report(balanced, f"random, scale {scale}", names) for scale, names in RANDOM.items()]
    rows.append(report(balanced, "minimal norm", [LEAST]))
    rows.append(report(unbalanced, "minimal norm, unbalanced start", [LEAST]))
    write = sys.stdout.write
    write("| element | state | q | k | v | out |\n|---|---|---|---|---|---|\n")
    write("".join(line for first, _ in rows for line in first))
    write(f"\n| element | {' | '.join(CHANGES)} |\n|---|{'---|' * len(CHANGES)}\n")
    write("".join(second for _, second in rows))
    for run in (balanced, unbalanced):
        write(f"\nUntouched: {run.base[0]:.3f} / {run.base[1]:.3f}")
    write("\n")


if __name__ == "__main__":
    main()
