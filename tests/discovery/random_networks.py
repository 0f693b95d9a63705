"""Random small networks, drawn operation by operation, to hunt for false symmetries.

A network is a program: registers hold values, every instruction reads one, two or three registers and appends one.
It is run while it is drawn, so shapes always fit, and each instruction is an operation (a module with parameters, or
a function) that its string names: a failing network can be read and built by hand.

The draws come from a ``random.Random``: a seeded one gives a reproducible suite, one that hypothesis controls shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 240  # entries of a value without its batch axis
EPS = 0.05


class Function(nn.Module):
    """A function of tensors, with parameters of its own."""

    def __init__(self, text: str, function: Callable[..., Tensor], *parameters: nn.Parameter) -> None:
        super().__init__()
        self.text, self.function = text, function
        self.own = nn.ParameterList(parameters)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, *self.own)

    def extra_repr(self) -> str:
        return self.text


class Borrowed(nn.Module):
    """A function that also reads a parameter of another module (tied weights)."""

    def __init__(self, text: str, function: Callable[..., Tensor], owner: nn.Module, name: str) -> None:
        super().__init__()
        self.text, self.function, self.owner, self.name = text, function, owner, name

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, getattr(self.owner, self.name))

    def extra_repr(self) -> str:
        return self.text


class ByMode(nn.Module):
    """A function that asks for the mode itself."""

    def __init__(self, text: str, function: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.text, self.function = text, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.training)

    def extra_repr(self) -> str:
        return self.text


class Program(nn.Module):
    """Registers and instructions."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = nn.ModuleList()
        self.reads: list[tuple[int, ...]] = []
        self.inputs = 0
        self.outputs: tuple[int, ...] = ()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        registers = list(inputs)
        for operation, reads in zip(self.operations, self.reads, strict=True):
            registers.append(operation(*[registers[k] for k in reads]))
        return tuple(registers[k] for k in self.outputs)

    def __str__(self) -> str:
        lines = [
            f"r{k + self.inputs} = {operation}({', '.join(f'r{r}' for r in reads)})"
            for k, (operation, reads) in enumerate(zip(self.operations, self.reads, strict=True))
        ]
        frozen = [name for name, p in self.named_parameters() if not p.requires_grad]
        return "\n".join([*lines, f"return {', '.join(f'r{k}' for k in self.outputs)}", f"frozen: {frozen}"])


@dataclass
class Draw:
    """A program in the making."""

    random: Random
    program: Program = field(default_factory=Program)
    values: list[Tensor] = field(default_factory=list)

    # ---- choices ---------------------------------------------------------------------------------------------------
    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, options: Sequence[object]) -> object:
        return options[self.random.randrange(len(options))]

    def size(self, low: int = 2, high: int = 6) -> int:
        return self.random.randint(low, high)

    def register(self) -> int:
        """Mostly the newest value; older ones make branches and skip connections."""
        last = len(self.values) - 1
        if self.chance(0.7):
            return last
        return self.random.randint(0, last)

    def like(self, k: int) -> int | None:
        """Another value that broadcasts with this one."""
        fits = [j for j, v in enumerate(self.values) if j != k and v.shape == self.values[k].shape and _float(v)]
        return self.random.choice(fits) if fits else None

    # ---- program ---------------------------------------------------------------------------------------------------
    def add(self, operation: nn.Module, *reads: int) -> int | None:
        """Append an instruction if it runs on the example and gives a tensor of a sensible size."""
        inputs = [self.values[k].clone() for k in reads]
        try:
            with torch.no_grad():
                value = operation.train(False)(*inputs)
                operation.train(True)(*[v.clone() for v in inputs])
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError, AssertionError):
            return None
        if not isinstance(value, Tensor) or not _float(value) or value.ndim < 2 or value.shape[0] != 3:
            return None
        if not 0 < value[0].numel() <= LARGEST or not bool(value.isfinite().all()):
            return None
        self.program.operations.append(operation)
        self.program.reads.append(reads)
        self.values.append(value.detach())
        return len(self.values) - 1

    def parameter(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape))

    def function(self, text: str, function: Callable[..., Tensor], *reads: int) -> int | None:
        return self.add(Function(text, function), *reads)


def _float(v: Tensor) -> bool:
    return v.is_floating_point()


# ---- instructions: each reads some registers of a drawing and may append one -----------------------------------------
Instruction = Callable[[Draw, int], object]


def linear(d: Draw, k: int) -> object:
    x = d.values[k]
    out = x.shape[-1] if d.chance(0.4) else d.size()
    layer: nn.Module = nn.Linear(x.shape[-1], out, bias=d.chance(0.6))
    if d.chance(0.1):
        layer = nn.utils.parametrizations.weight_norm(layer, dim=d.some([0, 1]))
    return d.add(layer, k)


def convolution(d: Draw, k: int) -> object:
    x = d.values[k]
    if x.ndim not in (3, 4):
        return linear(d, k)
    n, channels = x.ndim - 2, x.shape[1]
    transposed = d.chance(0.25)
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    groups = d.some(divisors) if d.chance(0.4) else 1
    out = groups * d.size(1, 3) if groups > 1 else d.size()
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d)
    options: dict[str, object] = {"padding": d.some([0, 0, 1]), "stride": d.some([1, 1, 2]), "groups": groups}
    if not transposed and d.chance(0.2):
        options["padding_mode"] = d.some(["circular", "reflect", "replicate"])
    layer: nn.Module = kinds[n - 1](channels, out, d.some([1, 1, 2, 3]), bias=d.chance(0.6), **options)
    if d.chance(0.08):
        layer = nn.utils.parametrizations.weight_norm(layer)
    return d.add(layer, k)


def normalization(d: Draw, k: int) -> object:
    x = d.values[k]
    channels, affine = x.shape[1], d.chance(0.7)
    options: list[Callable[[], nn.Module]] = [
        lambda: nn.LayerNorm(x.shape[-1], eps=EPS, elementwise_affine=affine, bias=d.chance(0.7)),
        lambda: nn.RMSNorm(x.shape[-1], eps=EPS, elementwise_affine=affine),
    ]
    groups = d.some([g for g in range(1, channels + 1) if channels % g == 0])
    options.append(lambda: nn.GroupNorm(groups, channels, eps=EPS, affine=affine))
    if x.ndim <= 4:
        kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[x.ndim - 2]
        tracked = d.chance(0.85)
        batch = lambda: kind(channels, eps=EPS, affine=affine, track_running_stats=tracked)  # noqa: E731
        options += [batch, batch]
    if x.ndim in (3, 4):
        kind_i = (nn.InstanceNorm1d, nn.InstanceNorm2d)[x.ndim - 3]
        options.append(lambda: kind_i(channels, eps=EPS, affine=affine, track_running_stats=d.chance(0.3)))
        options.append(lambda: nn.LayerNorm(tuple(x.shape[1:]), eps=EPS))
    return d.add(d.some(options)(), k)  # type: ignore[operator]


_ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Identity,
    nn.Softsign,
    nn.Hardtanh,
    nn.ReLU6,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardswish,
    nn.Tanhshrink,
    nn.Softshrink,
    nn.PReLU,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.2, inplace=True),
    lambda: nn.ELU(inplace=True),
    lambda: nn.Hardtanh(inplace=True),
]
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "square": torch.square,
    "pow 3": lambda x: x**3,
    "sqrt(|x| + 1)": lambda x: (x.abs() + 1).sqrt(),
    "sqrt(x²)": lambda x: x.square().sqrt(),
    "reciprocal": lambda x: 1 / (x.abs() + 1),
    "sin": torch.sin,
    "cos": torch.cos,
    "neg": torch.neg,
    "2x": lambda x: 2 * x,
    "x + 1": lambda x: x + 1,
    "1 − x": lambda x: 1 - x,
    "x/3": lambda x: x / 3,
    "0·x": lambda x: x * 0.0,
    "x + x": lambda x: x + x,
    "x·x": lambda x: x * x,
    "sign·x": lambda x: x.sign() * x,
    "clamp": lambda x: x.clamp(-0.5, 1.0),
    "clamp min 0": lambda x: torch.clamp_min(x, 0.0),
    "where(x > 0, x, x/5)": lambda x: torch.where(x > 0, x, 0.2 * x),
    "masked_fill": lambda x: x.masked_fill(x > 1, 0.0),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(1),
    "round trip through integers": lambda x: (3 * x).long().to(x.dtype) + 0.1,
    "(x > 0)·1": lambda x: (x > 0).to(x.dtype),
    "detach": lambda x: x.detach(),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.contiguous(),
    "exp": lambda x: (0.1 * x).exp(),
    "x + zeros": lambda x: x + torch.zeros_like(x),
    "x·ones": lambda x: x * torch.ones_like(x),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "sort": lambda x: x.sort(-1).values,
    "cumsum": lambda x: x.cumsum(-1),
    "glu": lambda x: F.glu(x, -1),
    "glu over channels": lambda x: F.glu(x, 1),
}


def activation(d: Draw, k: int) -> object:
    if d.chance(0.6):
        if d.chance(0.1):
            return d.add(nn.PReLU(d.values[k].shape[1]), k)
        return d.add(d.some(_ACTIVATIONS)(), k)  # type: ignore[operator]
    name = str(d.some(list(_FUNCTIONS)))
    return d.function(name, _FUNCTIONS[name], k)


def combination(d: Draw, k: int) -> object:
    """Two values: sums, gates, concatenations, contractions."""
    j = d.like(k)
    if j is None:
        return parameter_use(d, k)
    axis = d.random.randrange(1, d.values[k].ndim)
    options: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "add, alpha=2": lambda a, b: torch.add(a, b, alpha=2),
        "mul": lambda a, b: a * b,
        "silu(a)·b": lambda a, b: F.silu(a) * b,
        "relu(a)·b": lambda a, b: F.relu(a) * b,
        "sigmoid(a)·b": lambda a, b: a.sigmoid() * b,
        "a/(|b| + 1)": lambda a, b: a / (b.abs() + 1),
        "a/exp(b)": lambda a, b: a / (0.1 * b).exp(),
        "maximum": torch.maximum,
        "max": torch.max,
        "where(a > 0, a, b)": lambda a, b: torch.where(a > 0, a, b),
        "lerp": lambda a, b: torch.lerp(a, b, 0.3),
        "addcmul": lambda a, b: torch.addcmul(a, a, b),
        f"cat {axis}": lambda a, b: torch.cat([a, b], axis),
        f"cat {axis} with zeros": lambda a, b: torch.cat([a, torch.zeros_like(b)], axis),
        f"cat {axis} of halves": lambda a, b: torch.cat(
            [
                a.narrow(axis, 0, a.shape[axis] // 2),
                b.narrow(axis, a.shape[axis] // 2, b.shape[axis] - a.shape[axis] // 2),
            ],
            axis,
        ),
        f"stack {axis}": lambda a, b: torch.stack([a, b], axis),
        "a @ bᵀ": lambda a, b: a @ b.mT if a.ndim > 2 else a.unsqueeze(2) @ b.unsqueeze(1),
        "attention": lambda a, b: (a @ b.mT).softmax(-1) @ b if a.ndim > 2 else a * b.softmax(-1),
        "a·mean(b)": lambda a, b: a * b.mean(-1, keepdim=True),
        "a + mean(b)": lambda a, b: a + b.mean(-1, keepdim=True),
        "einsum": lambda a, b: torch.einsum("b...i,b...j->bij", a.flatten(1), b.flatten(1)),
        "clone, add in place": lambda a, b: a.clone().add_(b),
        "add in place": lambda a, b: a.add_(b),
        "mul in place": lambda a, b: a.mul_(b),
        "copy part": _copy_part,
    }
    if d.chance(0.1):
        shape = d.values[k].shape
        return d.add(nn.Bilinear(shape[-1], shape[-1], d.size(), bias=d.chance(0.5)), k, j)
    likely = ["add", "add", "add", "mul", f"cat {axis}", f"cat {axis}", "silu(a)·b"]
    name = str(d.some(likely if d.chance(0.5) else list(options)))
    return d.function(name, options[name], k, j)


def _copy_part(a: Tensor, b: Tensor) -> Tensor:
    a = a.clone()
    a[..., :1] = b[..., :1]
    return a


def movement(d: Draw, k: int) -> object:
    """Slices, permutations, reshapes, padding, reductions over positions."""
    x = d.values[k]
    n = x.ndim
    axis = d.random.randrange(1, n)
    size = x.shape[axis]
    cut = d.random.randrange(1, size) if size > 1 else 1
    order = [0, *d.random.sample(range(1, n), n - 1)]
    shuffle = d.random.sample(range(size), size)
    picks = [d.random.randrange(size) for _ in range(d.size())]
    inner = d.some([f for f in range(1, size + 1) if size % f == 0])
    split = [*x.shape[1:axis], int(inner), size // int(inner), *x.shape[axis + 1 :]]  # type: ignore[call-overload]
    pad = [0, 0] * (n - 1 - axis) + d.some([[0, 1], [1, 0], [2, 1], [0, -1]])  # type: ignore[operator]
    options: dict[str, Callable[[Tensor], Tensor]] = {
        f"narrow({axis}, 0, {cut})": lambda x: x.narrow(axis, 0, cut),
        f"narrow({axis}, {cut}, …)": lambda x: x.narrow(axis, cut, size - cut),
        f"every other of {axis}": lambda x: x[(slice(None),) * axis + (slice(None, None, 2),)],
        f"select({axis}, 0)": lambda x: x.select(axis, 0),
        f"flip {axis}": lambda x: x.flip(axis),
        f"roll {axis}": lambda x: x.roll(1, axis),
        f"roll part of {axis}": lambda x: torch.cat(
            [x.narrow(axis, 0, cut).roll(1, -1), x.narrow(axis, cut, size - cut)], axis
        ),
        f"chunk {axis}, swapped": lambda x: torch.cat(x.chunk(2, axis)[::-1], axis),
        f"split {axis}, halves multiplied": lambda x: x.chunk(2, axis)[0] * x.chunk(2, axis)[1],
        f"split {axis}, halves added": lambda x: x.chunk(2, axis)[0] + x.chunk(2, axis)[1],
        f"rotate half of {axis}": lambda x: torch.cat([-x.chunk(2, axis)[1], x.chunk(2, axis)[0]], axis),
        f"permute {order}": lambda x: x.permute(order),
        f"transpose {axis}, -1": lambda x: x.transpose(axis, -1),
        "flatten": lambda x: x.flatten(1),
        "reshape": lambda x: x.reshape(x.shape[0], -1, 2),
        f"unflatten {axis} by {inner}": lambda x: x.reshape(x.shape[0], *split),
        f"unflatten {axis} by {inner}, swapped": lambda x: (
            x.reshape(x.shape[0], *split).transpose(axis, axis + 1).reshape(x.shape)
        ),
        f"index {axis} by {shuffle}": lambda x: x.index_select(axis, torch.tensor(shuffle)),
        f"pick {axis} by {picks}": lambda x: x[(slice(None),) * axis + (picks,)],
        f"repeat {axis}": lambda x: x.repeat([1] * axis + [2] + [1] * (n - 1 - axis)),
        f"repeat_interleave {axis}": lambda x: x.repeat_interleave(2, axis),
        "expand": lambda x: x.unsqueeze(1).expand(-1, 2, *x.shape[1:]),
        "unsqueeze": lambda x: x.unsqueeze(-1),
        f"pad {pad}": lambda x: F.pad(x, pad),
        f"pad {pad} with ones": lambda x: F.pad(x, pad, value=1.0),
        "reflect": lambda x: F.pad(x, [1, 1], mode="reflect"),
        f"mean {axis}": lambda x: x.mean(axis),
        f"sum {axis}": lambda x: x.sum(axis),
        f"mean {axis}, kept": lambda x: x - x.mean(axis, keepdim=True),
        f"amax {axis}": lambda x: x.amax(axis),
        f"max {axis}": lambda x: x.max(axis).values,
        f"std {axis}": lambda x: x.std(axis) if x.shape[axis] > 1 else x,
        f"mean square {axis}": lambda x: x * (x.square().mean(axis, keepdim=True) + EPS).rsqrt(),
        "unbind": lambda x: x.unbind(1)[0] - x.unbind(1)[-1],
        "diagonal": lambda x: x.diagonal(dim1=1, dim2=2),
        "unfold": lambda x: x.unfold(-1, 2, 1),
        "channel_shuffle": lambda x: F.channel_shuffle(x, 2),
        "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    }
    name = str(d.some(list(options)))
    return d.function(name, options[name], k)


def pooling(d: Draw, k: int) -> object:
    x = d.values[k]
    if x.ndim == 3:
        options: list[nn.Module] = [
            nn.AvgPool1d(2),
            nn.AvgPool1d(2, padding=1),
            nn.MaxPool1d(2),
            nn.AdaptiveAvgPool1d(2),
            nn.AdaptiveMaxPool1d(1),
            nn.Upsample(scale_factor=2),
            nn.LPPool1d(2, 2),
        ]
    elif x.ndim == 4:
        options = [
            nn.AvgPool2d(2),
            nn.AvgPool2d(2, padding=1, count_include_pad=False),
            nn.AvgPool2d(2, divisor_override=3),
            nn.AvgPool2d(2, ceil_mode=True),
            nn.MaxPool2d(2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.AdaptiveMaxPool2d(2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ZeroPad2d(1),
            nn.ReflectionPad2d(1),
        ]
    else:
        return movement(d, k)
    return d.add(d.some(options), k)  # type: ignore[arg-type]


def dropout(d: Draw, k: int) -> object:
    options: list[nn.Module] = [
        nn.Dropout(0.3),
        nn.Dropout(0.3, inplace=True),
        nn.Dropout1d(0.3),
        nn.AlphaDropout(0.3),
        ByMode("F.dropout(x, 0.3, self.training)", lambda x, training: F.dropout(x, 0.3, training)),
        ByMode("relu in train mode", lambda x, training: F.relu(x) if training else x),
        ByMode("tanh in eval mode", lambda x, training: x if training else x.tanh()),
    ]
    return d.add(d.some(options), k)  # type: ignore[arg-type]


def parameter_use(d: Draw, k: int) -> object:
    """Parameters used directly: gains, biases, constants, clamps, matrix products."""
    x = d.values[k]
    n, width = x.shape[-1], d.size()
    shape = d.some([(n,), (1, *x.shape[1:]), (x.shape[1], *[1] * (x.ndim - 2)), (1,)])
    p = d.parameter(*shape)  # type: ignore[misc]
    w = d.parameter(n, width)
    options: list[tuple[str, Callable[..., Tensor], list[nn.Parameter]]] = [
        ("x + p", lambda x, p: x + p, [p]),
        ("p − x", lambda x, p: p - x, [p]),
        ("x·p", lambda x, p: x * p, [p]),
        ("x·(1 + p)", lambda x, p: x * (1 + p), [p]),
        ("x·(1 − p)", lambda x, p: x * (1 - p), [p]),
        ("x·p + p", lambda x, p: x * p + p, [p]),
        ("x/(|p| + 1)", lambda x, p: x / (p.abs() + 1), [p]),
        ("x·exp(p)", lambda x, p: x * (0.1 * p).exp(), [p]),
        ("x·relu(p)", lambda x, p: x * F.relu(p), [p]),
        ("clamp(x, min=p)", lambda x, p: torch.clamp(x, min=p.expand(x.shape)), [p]),
        ("where(x > p, x, p)", lambda x, p: torch.where(x > p, x, p), [p]),
        ("x @ W", lambda x, w: x @ w, [w]),
        ("x @ (W + 1)", lambda x, w: x @ (w + 1), [w]),
        ("x @ relu(W)", lambda x, w: x @ F.relu(w), [w]),
        ("x @ W[:, 1:]", lambda x, w: x @ w[:, 1:], [w]),
        ("x @ flip(W)", lambda x, w: x @ w.flip(0), [w]),
        ("x @ pad(W)", lambda x, w: x @ F.pad(w, (0, 1)), [w]),
        ("x @ (W − mean)", lambda x, w: x @ (w - w.mean(1, keepdim=True)), [w]),
        ("x @ W @ Wᵀ", lambda x, w: x @ w @ w.t(), [w]),
        ("x @ cat(W, W)", lambda x, w: x @ torch.cat([w, w], 1), [w]),
        ("einsum", lambda x, w: torch.einsum("...i,ij->...j", x, w), [w]),
        ("linear(x, Wᵀ, p)", lambda x, w, p: F.linear(x, w.t(), p), [w, d.parameter(width)]),
        (
            "addmm",
            lambda x, w, p: torch.addmm(p, x.flatten(0, -2), w).reshape(*x.shape[:-1], -1),
            [w, d.parameter(width)],
        ),
        ("low rank", lambda x, a, b: x + x @ a @ b, [d.parameter(n, 2), d.parameter(2, n)]),
        ("scaled low rank", lambda x, a, b: 0.5 * (x @ a) @ b, [d.parameter(n, 3), d.parameter(3, width)]),
        (
            "linear with a sum of weights",
            lambda x, v, w: F.linear(x, v + w),
            [d.parameter(width, n), d.parameter(width, n)],
        ),
        ("prelu(x, |p|)", lambda x, p: F.prelu(x, p.abs()), [d.parameter(x.shape[1])]),
        (
            "layer_norm(x, …, p, q)",
            lambda x, p, q: F.layer_norm(x, p.shape, p + 1, q, EPS),
            [d.parameter(n), d.parameter(n)],
        ),
        ("cat(x, p)", lambda x, p: torch.cat([x, p.expand(x.shape)], -1), [d.parameter(n)]),
    ]
    text, function, parameters = d.some(options)  # type: ignore[misc]
    return d.add(Function(text, function, *parameters), k)


def sharing(d: Draw, k: int) -> object:
    """The same module again, or a tied weight."""
    x = d.values[k]
    modules = [m for m in d.program.operations if any(True for _ in m.parameters())]
    if not modules:
        return linear(d, k)
    if d.chance(0.5):
        return d.add(d.random.choice(modules), k)
    linears = [m for m in modules if isinstance(m, nn.Linear) and type(m) is nn.Linear]
    if not linears:
        return d.add(d.random.choice(modules), k)
    owner = d.random.choice(linears)
    if owner.in_features == x.shape[-1] and d.chance(0.5):
        tied = nn.Linear(owner.in_features, owner.out_features, bias=d.chance(0.5))
        tied.weight = owner.weight  # one parameter under two names
        return d.add(tied, k)
    return d.add(Borrowed("x @ tied W", lambda x, w: x @ w, owner, "weight"), k)


def in_place(d: Draw, k: int) -> object:
    """Operations in place on values and on views of values; older registers may share their memory."""
    p = d.parameter(1)
    options: list[tuple[str, Callable[..., Tensor]]] = [
        ("x.relu_()", lambda x, p: x.relu_()),
        ("x.tanh_()", lambda x, p: x.tanh_()),
        ("x.mul_(2)", lambda x, p: x.mul_(2)),
        ("x.mul_(p)", lambda x, p: x.mul_(p)),
        ("x.add_(p)", lambda x, p: x.add_(p)),
        ("view, relu_, the base", lambda x, p: (x.view(-1).relu_(), x)[1]),
        ("view, relu_, the view", lambda x, p: x.flatten(1).relu_()),
        ("part relu_, the base", lambda x, p: (x[..., :1].relu_(), x)[1]),
        ("part relu_, the rest", lambda x, p: (x[..., :1].relu_(), x[..., 1:])[1]),
        ("part = p, the base", _fill_part),
        ("part + p, the base", lambda x, p: (x[:, :1].add_(p), x)[1]),
        ("dropout off, relu_, the base", lambda x, p: (F.dropout(x, 0.5, False).relu_(), x)[1]),
        ("clone.relu_, the original", lambda x, p: x + x.clone().relu_()),
        ("zeros, filled in part", _filled),
        ("zeros, added to", lambda x, p: torch.zeros_like(x).add_(x)),
        ("transposed view, tanh_", lambda x, p: (x.transpose(1, -1).tanh_(), x * 1.0)[1]),
    ]
    text, function = d.some(options)  # type: ignore[misc]
    return d.add(Function(text, function, p), k)


def _fill_part(x: Tensor, p: Tensor) -> Tensor:
    x[..., 0] = p
    return x


def _filled(x: Tensor, p: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[..., 1:] = x[..., :-1]
    out[..., :1] += p
    return out


def feedforward(d: Draw, k: int) -> object:
    """A block that has symmetries: map, activation, map back, often with a skip connection and a norm."""
    n = d.values[k].shape[-1]
    hidden = d.size()
    j: int | None = k
    if d.chance(0.3):
        j = d.add(d.some([nn.LayerNorm(n, eps=EPS), nn.RMSNorm(n, eps=EPS)]), j)  # type: ignore[arg-type]
    for operation in (
        nn.Linear(n, hidden, bias=d.chance(0.6)),
        d.some(_ACTIVATIONS)(),  # type: ignore[operator]
        nn.Dropout(0.2) if d.chance(0.2) else nn.Identity(),
        nn.Linear(hidden, n, bias=d.chance(0.6)),
    ):
        j = None if j is None else d.add(operation, j)  # type: ignore[arg-type]
    if j is not None and d.chance(0.6) and d.values[j].shape == d.values[k].shape:
        return d.function("add", lambda a, b: a + b, k, j)
    return j


def gated(d: Draw, k: int) -> object:
    """SwiGLU and its kin."""
    n, hidden = d.values[k].shape[-1], d.size()
    a = d.add(nn.Linear(n, hidden, bias=d.chance(0.5)), k)
    b = d.add(nn.Linear(n, hidden, bias=d.chance(0.5)), k)
    if a is None or b is None:
        return None
    act = d.some([F.silu, F.relu, torch.tanh, torch.sigmoid, lambda x: x, torch.abs])
    c = d.function("gate", lambda a, b: act(a) * b, a, b)  # type: ignore[operator]
    return None if c is None else d.add(nn.Linear(hidden, d.size(), bias=d.chance(0.5)), c)


def conv_block(d: Draw, k: int) -> object:
    x = d.values[k]
    if x.ndim not in (3, 4):
        return feedforward(d, k)
    n, channels, width = x.ndim - 3, x.shape[1], d.size()
    conv = (nn.Conv1d, nn.Conv2d)[n]
    norms = [(nn.BatchNorm1d, nn.BatchNorm2d)[n](width, eps=EPS), nn.GroupNorm(1, width, eps=EPS), nn.Identity()]
    depthwise = conv(width, width, 3, padding=1, groups=width, bias=d.chance(0.5))
    j: int | None = k
    for operation in (
        conv(channels, width, d.some([1, 3]), padding=d.some([0, 1]), bias=d.chance(0.5)),  # type: ignore[arg-type]
        d.some(norms),
        d.some([nn.ReLU(inplace=True), nn.LeakyReLU(), nn.SiLU(), nn.Identity()]),
        depthwise if d.chance(0.3) else nn.Identity(),
        conv(width, channels, 1, bias=d.chance(0.5)),
    ):
        j = None if j is None else d.add(operation, j)  # type: ignore[arg-type]
    if j is not None and d.values[j].shape == x.shape and d.chance(0.6):
        return d.function("add", lambda a, b: a + b, k, j)
    return j


INSTRUCTIONS: list[tuple[int, Instruction]] = [
    (5, linear),
    (4, convolution),
    (3, normalization),
    (6, activation),
    (5, combination),
    (5, movement),
    (1, pooling),
    (1, dropout),
    (3, parameter_use),
    (2, sharing),
    (1, in_place),
    (3, feedforward),
    (2, gated),
    (3, conv_block),
]
_WEIGHTED = [instruction for weight, instruction in INSTRUCTIONS for _ in range(weight)]


def random_network(random: Random, steps: int | None = None) -> tuple[Program, tuple[Tensor, ...]]:
    """Draw a network and example inputs.

    Args:
        random: source of all choices; a seeded one gives the same network again.
        steps: number of instructions; drawn if ``None``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(random.randrange(2**31))
        while True:
            d = Draw(random)
            inputs = _inputs(d)
            d.values += inputs
            d.program.inputs = len(inputs)
            if not inputs[0].is_floating_point():
                d.add(nn.Embedding(7, d.size(), padding_idx=0 if d.chance(0.2) else None), 0)
            for _ in range(random.randint(2, 9) if steps is None else steps):
                k = d.register()
                if d.values[k].is_floating_point():
                    _WEIGHTED[random.randrange(len(_WEIGHTED))](d, k)
            _head(d)
            if runs(d.program, inputs):
                return d.program, tuple(inputs)


def runs(program: Program, inputs: list[Tensor]) -> bool:
    """Whether all instructions run one after another, and no output is 0 up to rounding.

    Views of one memory refuse some changes in place, and what cancels has no relative error to speak of.
    """
    if not any(p.requires_grad for p in program.parameters()):
        return False
    buffers = {name: b.clone() for name, b in program.named_buffers()}
    try:
        with torch.no_grad():
            for train in (False, True):
                outputs = program.train(train)(*[x.clone() for x in inputs])
                if any(not 1e-3 < float(y.norm()) < 1e6 for y in outputs):
                    return False
    except RuntimeError:
        return False
    with torch.no_grad():
        for name, buffer in program.named_buffers():
            buffer.copy_(buffers[name])
    return True


def _inputs(d: Draw) -> list[Tensor]:
    kind = d.random.randrange(8)
    if kind < 3:
        shapes: list[tuple[int, ...]] = [(d.size(2, 5),)]
    elif kind < 4:
        shapes = [(d.size(2, 4), d.size(2, 5))]
    elif kind < 6:
        shapes = [(d.size(2, 3), d.size(3, 4), 4)]
    elif kind < 7:
        shapes = [(d.size(2, 4),)] * 2
    else:
        return [torch.arange(6).reshape(3, 2)]
    return [torch.randn(3, *shape) for shape in shapes]


def _head(d: Draw) -> None:
    """Outputs, frozen parameters: the last value through a linear map, at times older values too."""
    last = len(d.values) - 1
    if d.chance(0.75):
        flat = (
            d.function("flatten", lambda x: x.flatten(1), last) if d.values[last].ndim > 2 and d.chance(0.5) else last
        )
        head = linear(d, last if flat is None else flat)
        last = len(d.values) - 1 if head is not None else last
    first = d.program.inputs
    extra = [d.random.randrange(first, last + 1)] if last > first and d.chance(0.15) else []
    d.program.outputs = tuple(dict.fromkeys([last, *extra]))
    for parameter in d.program.parameters():
        if d.chance(0.04):
            parameter.requires_grad_(False)
    d.program.train()
