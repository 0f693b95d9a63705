"""Small feedforward networks whose redundancy is counted twice: by ``discover`` and by the Jacobian.

Activations are leaky where a ReLU would do: a ReLU unit that is dead (or always on) for every input of a draw adds
redundancy that belongs to the data, not to the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

EPS = 0.05  # of norms: with a tiny one, the scale in front of a norm is all but redundant

Model = tuple[nn.Module, tuple[Any, ...]]


class Net(nn.Module):
    """Modules and parameters by name, and the function that uses them."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def rows(*sizes: int) -> tuple[Tensor, ...]:
    """One example input of shape (5, *sizes)."""
    return (torch.randn(5, *sizes),)


def chain(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def act() -> nn.Module:
    return nn.LeakyReLU(0.2)


def mlp(activation: nn.Module, bias: bool = True) -> Model:
    layers = [nn.Linear(4, 6, bias), activation, nn.Linear(6, 5, bias), activation, nn.Linear(5, 3, bias)]
    return chain(*layers), rows(4)


def residual_cnn() -> Model:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = F.leaky_relu(s.n(s.a(x)))
        h = h + s.c(F.leaky_relu(s.m(s.b(h))))
        return s.o(F.leaky_relu(h).mean(2))

    net = Net(
        forward,
        a=nn.Conv1d(2, 4, 3, padding=1),
        n=nn.BatchNorm1d(4, eps=EPS),
        b=nn.Conv1d(4, 3, 3, padding=1, bias=False),
        m=nn.BatchNorm1d(3, eps=EPS),
        c=nn.Conv1d(3, 4, 1),
        o=nn.Linear(4, 3),
    )
    return net, rows(2, 5)


def concatenating_cnn() -> Model:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = F.leaky_relu(s.n(torch.cat([s.a(x), s.b(x)], 1)))
        h = F.leaky_relu(s.d(h))
        return s.o(F.max_pool2d(F.leaky_relu(s.p(h)), 2).flatten(1))

    net = Net(
        forward,
        a=nn.Conv2d(1, 2, 3, padding=1),
        b=nn.Conv2d(1, 2, 1),
        n=nn.BatchNorm2d(4, eps=EPS),
        d=nn.Conv2d(4, 4, 3, padding=1, groups=4),
        p=nn.Conv2d(4, 3, 1, bias=False),
        o=nn.Linear(3 * 4, 3),
    )
    return net, rows(1, 4, 4)


def residual_stream() -> Model:
    """Three biases write into one stream: only their sum is seen."""

    def forward(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        h = h + s.c(F.gelu(s.b(h)))
        return s.o(h + s.e(F.gelu(s.d(h))))

    layers = {"b": (4, 3), "c": (3, 4), "d": (4, 3), "e": (3, 4), "o": (4, 4)}
    return Net(forward, a=nn.Linear(4, 4), **{k: nn.Linear(*v) for k, v in layers.items()}), rows(4)


def shared_layer() -> Model:
    def forward(s: Any, x: Tensor) -> Tensor:
        h = F.leaky_relu(s.a(x))
        return s.o(F.leaky_relu(s.b(F.leaky_relu(s.b(h)))))

    return Net(forward, a=nn.Linear(4, 5), b=nn.Linear(5, 5), o=nn.Linear(5, 3)), rows(4)


def tied_parameters() -> Model:
    """One weight under two names, with two biases."""
    model = chain(nn.Linear(5, 5), act(), nn.Linear(5, 5), act(), nn.Linear(5, 3))
    model[2].weight = model[0].weight
    return model, rows(5)


def tied_autoencoder() -> Model:
    net = Net(lambda s, x: F.linear(F.leaky_relu(s.a(x)), s.a.weight.t(), s.b), a=nn.Linear(5, 4), b=parameter(5))
    return net, rows(5)


def gate(function: Callable[[Tensor, Tensor], Tensor], bias: bool = True) -> Model:
    net = Net(
        lambda s, x: s.o(function(s.a(x), s.b(x))), a=nn.Linear(4, 6, bias), b=nn.Linear(4, 6, bias), o=nn.Linear(6, 3)
    )
    return net, rows(4)


def layer_norm_kernels() -> Model:
    """A GELU beside the linear reader breaks the rotations; what the norm hides from its writer and reader stays."""
    net = Net(
        lambda s, x: (lambda y: s.r(y) + s.o(F.gelu(y)))(s.n(s.w(x))),
        w=nn.Linear(6, 5),
        n=nn.LayerNorm(5, eps=EPS),
        r=nn.Linear(5, 3),
        o=nn.Linear(5, 3, bias=False),
    )
    return net, rows(6)


def layer_norm_chain() -> Model:
    """The middle map reads one norm and writes into another: 1⊗(1/γ) is in both kernels and counts once."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.n(s.a(x))
        return s.o(F.gelu(s.m(s.b(y)))) + s.c(F.gelu(y))

    norms = {"n": nn.LayerNorm(5, eps=EPS), "m": nn.LayerNorm(4, eps=EPS)}
    maps = {"a": nn.Linear(6, 5), "b": nn.Linear(5, 4), "c": nn.Linear(5, 3), "o": nn.Linear(4, 3)}
    return Net(forward, **norms, **maps), rows(6)


def padded_shortcut() -> Model:
    """The shortcut of a narrow block, filled up with channels of zeros."""

    def forward(s: Any, x: Tensor) -> Tensor:
        h = F.leaky_relu(s.a(x))
        return s.o(F.leaky_relu(F.pad(h, (0, 2)) + s.b(F.leaky_relu(s.c(h)))))

    return Net(forward, a=nn.Linear(4, 3), c=nn.Linear(3, 3), b=nn.Linear(3, 5), o=nn.Linear(5, 2)), rows(4)


def shared_batch_norm() -> Model:
    """One norm on two branches: one running mean, so both biases shift alike."""
    net = Net(
        lambda s, x: s.o(F.gelu(s.n(s.a(x))) + F.tanh(s.n(s.b(x)))),
        a=nn.Linear(4, 5),
        b=nn.Linear(4, 5),
        n=nn.BatchNorm1d(5, eps=EPS),
        o=nn.Linear(5, 3),
    )
    return net, rows(4)


def frozen(*names: str) -> Model:
    model, args = mlp(act())
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return model, args


def split_and_swapped() -> Model:
    def forward(s: Any, x: Tensor) -> Tensor:
        a, b = s.a(x).chunk(2, -1)
        return s.o(F.leaky_relu(torch.cat([b, F.leaky_relu(a)], -1)))

    return Net(forward, a=nn.Linear(4, 6), o=nn.Linear(6, 3)), rows(4)


def shifted_channels() -> Model:
    """Half of the channels are read in reverse: the halves cannot mix with each other."""

    def forward(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        return s.o(torch.cat([h[:, :2], h[:, 2:].flip(-1)], 1)).flatten(1)

    return Net(forward, a=nn.Conv1d(5, 4, 1, bias=False), o=nn.Conv1d(4, 3, 2)), rows(5, 4)


ARCHITECTURES: dict[str, Callable[[], Model]] = {
    # activations
    "relu": lambda: (chain(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), rows(4)),
    "leaky relu": lambda: mlp(act()),
    "leaky relu, no bias": lambda: mlp(act(), bias=False),
    "prelu, one slope": lambda: mlp(nn.PReLU(init=0.4)),
    "prelu, a slope per channel": lambda: (chain(nn.Linear(4, 6), nn.PReLU(6, 0.4), nn.Linear(6, 3)), rows(4)),
    "abs": lambda: (Net(lambda s, x: s.o(s.a(x).abs()), a=nn.Linear(4, 5), o=nn.Linear(5, 3)), rows(4)),
    "tanh": lambda: mlp(nn.Tanh()),
    "gelu": lambda: mlp(nn.GELU()),
    "silu": lambda: mlp(nn.SiLU()),
    "elu": lambda: mlp(nn.ELU()),
    "identity": lambda: (chain(nn.Linear(4, 3), nn.Identity(), nn.Linear(3, 5)), rows(4)),
    "identity, no bias": lambda: (chain(nn.Linear(4, 3, False), nn.Linear(3, 5, False)), rows(4)),
    # linear maps without an activation between them
    "expanding linear map": lambda: (chain(nn.Linear(3, 4), nn.Linear(4, 2)), rows(3)),
    "expanding linear map, no bias": lambda: (
        chain(nn.Linear(4, 6, bias=False), nn.Linear(6, 5, bias=False)),
        rows(4),
    ),
    "linear bottleneck": lambda: (
        chain(nn.Linear(4, 6), act(), nn.Linear(6, 3), nn.Linear(3, 6), act(), nn.Linear(6, 3)),
        rows(4),
    ),
    "bias through bias-free maps": lambda: (
        chain(nn.Linear(4, 4), nn.Linear(4, 4, False), nn.Linear(4, 3, False), nn.Linear(3, 4)),
        rows(4),
    ),
    "low-rank branch": lambda: (
        Net(
            lambda s, x: F.linear(x, s.w) + x @ s.a @ s.b,
            w=frozen_parameter(3, 5),
            a=parameter(5, 2),
            b=parameter(2, 3),
        ),
        rows(5),
    ),
    "einsum and matmul": lambda: (
        Net(
            lambda s, x: torch.einsum("bti,ij->btj", x, s.w) @ s.v,
            w=parameter(5, 3),
            v=parameter(3, 4),
        ),
        rows(2, 5),
    ),
    "weight with an offset": lambda: (
        Net(lambda s, x: s.o(F.linear(x, s.w + 0.5)), w=parameter(3, 5), o=nn.Linear(3, 4)),
        rows(5),
    ),
    # convolutions
    "conv1d": lambda: (chain(nn.Conv1d(2, 4, 3), act(), nn.Conv1d(4, 3, 2), nn.Flatten()), rows(2, 5)),
    "conv2d": lambda: (chain(nn.Conv2d(2, 4, 3, padding=1), act(), nn.Conv2d(4, 2, 2), nn.Flatten()), rows(2, 3, 3)),
    "conv3d": lambda: (chain(nn.Conv3d(1, 3, 2), act(), nn.Conv3d(3, 2, 2), nn.Flatten()), rows(1, 3, 3, 3)),
    "linear convolutions": lambda: (chain(nn.Conv1d(3, 2, 2), nn.Conv1d(2, 3, 2), nn.Flatten()), rows(3, 5)),
    "linear convolutions, padded": lambda: (
        chain(nn.Conv1d(3, 2, 3, padding=1), nn.Conv1d(2, 3, 3, padding=1), nn.Flatten()),
        rows(3, 4),
    ),
    "depthwise separable": lambda: (
        chain(nn.Conv1d(2, 4, 1), act(), nn.Conv1d(4, 4, 2, groups=4), nn.Conv1d(4, 3, 1), act(), nn.Conv1d(3, 2, 1)),
        rows(2, 4),
    ),
    "grouped": lambda: (
        chain(nn.Conv1d(4, 4, 2), nn.Conv1d(4, 6, 2, groups=2), act(), nn.Conv1d(6, 2, 2), nn.Flatten()),
        rows(4, 4),
    ),
    "transposed": lambda: (
        chain(nn.Conv1d(2, 4, 2), act(), nn.ConvTranspose1d(4, 3, 2), act(), nn.Conv1d(3, 2, 1)),
        rows(2, 4),
    ),
    "transposed and grouped": lambda: (
        chain(nn.Conv1d(2, 4, 2), act(), nn.ConvTranspose1d(4, 6, 2, groups=2), act(), nn.Conv1d(6, 3, 2, groups=3)),
        rows(2, 4),
    ),
    "cnn: norm, residual": residual_cnn,
    "cnn: norm, concatenation, depthwise": concatenating_cnn,
    "flatten": lambda: (chain(nn.Conv2d(1, 3, 2), act(), nn.Flatten(), nn.Linear(12, 3)), rows(1, 3, 3)),
    "average pooling": lambda: (
        chain(nn.Conv1d(2, 4, 2), nn.AvgPool1d(2), nn.Conv1d(4, 2, 1), nn.Flatten()),
        rows(2, 5),
    ),
    "max pooling": lambda: (chain(nn.Conv1d(2, 4, 2), nn.MaxPool1d(2), nn.Conv1d(4, 2, 1), nn.Flatten()), rows(2, 5)),
    "adaptive pooling": lambda: (
        chain(
            nn.Conv1d(2, 4, 2), nn.GELU(), nn.Conv1d(4, 3, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 4)
        ),
        rows(2, 5),
    ),
    "circular padding": lambda: (
        chain(nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"), nn.Conv1d(2, 3, 2), nn.Flatten()),
        rows(2, 4),
    ),
    "shortcut padded with zeros": padded_shortcut,
    "halves moved apart": shifted_channels,
    # norms
    "batch norm": lambda: (chain(nn.Linear(4, 5), nn.BatchNorm1d(5, EPS), act(), nn.Linear(5, 3)), rows(4)),
    "batch norm without affine": lambda: (
        chain(nn.Linear(4, 5), nn.BatchNorm1d(5, EPS, affine=False), nn.GELU(), nn.Linear(5, 3)),
        rows(4),
    ),
    "batch norm read by a linear map": lambda: (
        chain(nn.Linear(4, 3), nn.BatchNorm1d(3, EPS), nn.Linear(3, 4)),
        rows(4),
    ),
    "layer norm": lambda: (chain(nn.Linear(6, 6), nn.LayerNorm(6, EPS), act(), nn.Linear(6, 3)), rows(6)),
    "layer norm: writer and reader kernels": layer_norm_kernels,
    "layer norm: from norm to norm": layer_norm_chain,
    "group norm": lambda: (
        chain(nn.Conv2d(2, 6, 2), nn.GroupNorm(2, 6, EPS), act(), nn.Conv2d(6, 3, 1), nn.Flatten()),
        rows(2, 3, 3),
    ),
    "instance norm": lambda: (
        chain(nn.Conv2d(2, 4, 2), nn.InstanceNorm2d(4, EPS, affine=True), act(), nn.Conv2d(4, 3, 1), nn.Flatten()),
        rows(2, 4, 4),
    ),
    "rms norm without gain": lambda: (
        chain(nn.Linear(5, 4), nn.RMSNorm(4, EPS, elementwise_affine=False), nn.Linear(4, 3)),
        rows(5),
    ),
    "rms norm": lambda: (chain(nn.Linear(5, 4), nn.RMSNorm(4, EPS), act(), nn.Linear(4, 3)), rows(5)),
    "weight norm": lambda: (chain(weight_norm(nn.Linear(4, 5)), act(), nn.Linear(5, 3)), rows(4)),
    # sums, gates, sharing
    "residual stream of biases": residual_stream,
    "split, swapped, concatenated": split_and_swapped,
    "shared layer": shared_layer,
    "tied autoencoder": tied_autoencoder,
    "product": lambda: gate(lambda a, b: F.leaky_relu(a) * F.leaky_relu(b, 0.3)),
    "silu gate": lambda: gate(lambda a, b: F.silu(a) * b),
    "relu gate": lambda: gate(lambda a, b: F.leaky_relu(a) * b),
    "glu": lambda: (Net(lambda s, x: s.o(F.glu(s.a(x))), a=nn.Linear(4, 8), o=nn.Linear(4, 3)), rows(4)),
    "division": lambda: gate(lambda a, b: a / (b.square() + 1)),
    "division by a positive gate": lambda: gate(lambda a, b: a / b.exp(), bias=False),
    "square": lambda: gate(lambda a, b: a.square() * b),
    "gain": lambda: (
        Net(lambda s, x: s.o(F.leaky_relu(s.a(x)) * s.g), a=nn.Linear(4, 5), g=parameter(5), o=nn.Linear(5, 3)),
        rows(4),
    ),
    "gain 1 + γ": lambda: (
        Net(lambda s, x: s.o(F.gelu(s.a(x)) * (1 + s.g)), a=nn.Linear(4, 5), g=parameter(5), o=nn.Linear(5, 3)),
        rows(4),
    ),
    "bilinear": lambda: (
        Net(lambda s, x, z: s.b(s.a(x), z), a=nn.Linear(4, 3, False), b=nn.Bilinear(3, 4, 3)),
        (*rows(4), *rows(4)),
    ),
    "embedding": lambda: (
        chain(nn.Embedding(24, 3), nn.Linear(3, 4), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)),
        (torch.arange(24).reshape(12, 2),),
    ),
    "dropout": lambda: (
        chain(nn.Linear(4, 3), nn.Dropout(0.1), nn.Linear(3, 5), act(), nn.Dropout(0.5), nn.Linear(5, 2)),
        rows(4),
    ),
    "activation in place": lambda: (
        chain(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(6, 3)),
        rows(4),
    ),
    "layer norm with gain, read by a linear map": lambda: (
        chain(nn.Linear(6, 6), nn.LayerNorm(6, EPS), nn.Linear(6, 3)),
        rows(6),
    ),
    "layer norm without gain, read by a linear map": lambda: (
        chain(nn.Linear(6, 5), nn.LayerNorm(5, EPS, elementwise_affine=False), nn.Linear(5, 3)),
        rows(6),
    ),
    "rms norm with gain, read by a linear map": lambda: (
        chain(nn.Linear(4, 4), nn.RMSNorm(4, EPS), nn.Linear(4, 3)),
        rows(4),
    ),
    "frozen layer": lambda: frozen("0.weight", "0.bias"),
    "frozen bias": lambda: frozen("0.bias"),
}
"""Networks in which everything is found."""


@dataclass(frozen=True)
class Remainder:
    """A network in which the count differs from the nullity by ``missing``, and why."""

    model: Callable[[], Model]
    missing: int
    reason: str


def frozen_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape), requires_grad=False)


def with_unused() -> Model:
    net = Net(lambda s, x: s.o(F.leaky_relu(s.a(x))), a=nn.Linear(4, 5), o=nn.Linear(5, 3), spare=nn.Linear(3, 2))
    return net, rows(4)


REMAINDERS: dict[str, Remainder] = {
    "hidden layer of one unit": Remainder(
        lambda: (chain(nn.Linear(4, 1), act(), nn.Linear(1, 3)), rows(4)),
        1,
        "an axis of size 1 carries no label, so the scale of its one unit is missed",
    ),
    "scalar gain on a branch": Remainder(
        lambda: (
            Net(
                lambda s, x: x + s.alpha * s.b(F.gelu(s.a(x))), alpha=parameter(1), a=nn.Linear(4, 5), b=nn.Linear(5, 4)
            ),
            rows(4),
        ),
        1,
        "the scale between a single number and the map behind it: an axis of size 1 carries no label",
    ),
    "unused parameters": Remainder(
        with_unused, 3 * 2 + 2, "no output depends on them: reported as unused, not as symmetries"
    ),
    "two expanding linear maps": Remainder(
        lambda: (chain(nn.Linear(2, 6, bias=False), nn.Linear(6, 6, bias=False), nn.Linear(6, 2, bias=False)), rows(2)),
        -16,
        "GL(6) twice, of which 4·4 dimensions move nothing, but only together: M on the first axis kills the 2 "
        "dimensions that are written, W M W⁻¹ on the second is unseen by the 2 rows that read",
    ),
    "shared batch norm": Remainder(
        shared_batch_norm,
        5,
        "in train mode alone both biases are free; in eval mode one running mean cannot follow both",
    ),
    "weight norm in a linear bottleneck": Remainder(
        lambda: (chain(nn.Linear(4, 3), weight_norm(nn.Linear(3, 4))), rows(4)),
        9 + 3,
        "GL(3) and shifts act on the weight g·v/‖v‖, not on its factors",
    ),
    "tied weights with their own biases": Remainder(
        tied_parameters,
        1,
        "a factor c on both uses (h₁ by c, h₂ by c²): a weight whose every entry scales has no axis of its own for it",
    ),
}
"""Networks in which the count is known to differ."""
