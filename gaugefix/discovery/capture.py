"""Capture a model as a graph of ATen calls, with the names of its parameters and buffers."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from gaugefix.discovery.capture_flow import flows_captured
from gaugefix.discovery.shape_only import cut_shape_only
from gaugefix.errors import DiscoveryError
from gaugefix.solver_hooks import import_solvers_again, solver_modules


@dataclass(frozen=True, eq=False)
class Capture:
    """One traced forward pass.

    Args:
        graph: ATen calls, cut down to what reaches an output.
        parameters: placeholder name → canonical parameter name (shared parameters have one).
        buffers: placeholder name → (buffer name, value).
        constants: placeholder or attribute name → tensor lifted from the code.
    """

    graph: fx.Graph
    parameters: Mapping[str, str]
    buffers: Mapping[str, tuple[str, Tensor]]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def nodes(self) -> Iterator[fx.Node]:
        """Nodes in execution order, dead ones left out."""
        live = self._live({node for node in self.graph.nodes if node.op == "output" or _mutates(node)})
        while True:  # in train mode a norm writes its statistics, even if nobody reads its result
            writers = {node for node in self.graph.nodes if node not in live and live & _statistics(node)}
            if not writers:
                return (node for node in self.graph.nodes if node in live)
            live = self._live(live | writers)

    def _live(self, live: set[fx.Node]) -> set[fx.Node]:
        for node in reversed(self.graph.nodes):
            if node in live:
                live.update(node.all_input_nodes)
        return live


def capture(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> tuple[Capture, ...]:
    """Trace ``model`` in eval mode, and in train mode too where its code asks for the mode.

    Args:
        model: any module; its mode, parameters and buffers are left as they are.
        args: example positional inputs.
        kwargs: example keyword inputs.

    Raises:
        DiscoveryError: if torch.export refuses the model.
    """
    captures = [_export(model, args, kwargs, train=False)]
    if asks_for_mode(model):
        captures.append(_export(model, args, kwargs, train=True))
    return tuple(captures)


def asks_for_mode(model: nn.Module) -> bool:
    """Whether the two modes may run different operations.

    They do where code outside torch.nn reads ``self.training``. Of torch.nn's own modules, rules know dropouts and
    norms in both modes; attention with dropout passes another number to the same operation.
    """
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.dropout > 0.0:
            return True
        if type(module).__module__.startswith("torch.nn."):
            continue
        for function in (member for _, member in inspect.getmembers(type(module), inspect.isfunction)):
            own = not (function.__module__ or "").startswith(("torch.nn.", "lightning.", "pytorch_lightning."))
            if own and "training" in function.__code__.co_names:
                return True
    return False


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Map every name of a parameter to the first name of the same tensor."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[name] = first.setdefault(id(parameter), name)
    return names


def _export(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, train: bool) -> Capture:
    with _mode(model, train), _quiet(), torch.no_grad():
        try:
            program = _program(model, args, kwargs)
        except DiscoveryError:
            raise
        except Exception as error:
            message = (str(error).strip() or "no message").splitlines()[0]
            raise DiscoveryError(
                f"Expected a model that torch.export can trace for {type(model).__name__}, got "
                f"{type(error).__name__}: {message}. "
                "Analyse a submodule that can be traced (module='encoder' in a callback, model.encoder here), or state "
                "symmetries by hand with gaugefix.declare."
            ) from error
    cut_shape_only(program.graph)
    signature = program.graph_signature
    canonical = canonical_names(model)
    state = {**program.state_dict, **program.constants}
    constants = {node: program.constants[name] for node, name in signature.inputs_to_lifted_tensor_constants.items()}
    for name, value in program.constants.items():
        if isinstance(value, Tensor):
            constants.setdefault(name, value)
    return Capture(
        graph=program.graph,
        parameters={node: canonical.get(name, name) for node, name in signature.inputs_to_parameters.items()},
        buffers={node: (name, state[name]) for node, name in signature.inputs_to_buffers.items()},
        constants=constants,
    )


def _program(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> torch.export.ExportedProgram:
    solvers = solver_modules()
    try:
        # torch 2.8 refuses to trace what torch.compile has wrapped, unless it is told that this is no mistake
        with flows_captured(), torch._dynamo.config.patch(error_on_nested_fx_trace=False):
            return torch.export.export(model, tuple(args), dict(kwargs or {}), strict=False)
    except Exception:
        if solvers is not None or solver_modules() is None:
            raise
    import_solvers_again()  # the forward has imported torchdiffeq, whose constants are now those of a trace
    return _program(model, args, kwargs)


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _statistics(node: fx.Node) -> set[fx.Node]:
    """The running statistics that a norm updates in train mode."""
    name = str(node.target)
    if node.op != "call_function" or not ("batch_norm" in name or "instance_norm" in name):
        return set()
    return {argument for argument in node.args[3:5] if isinstance(argument, fx.Node)}


@contextmanager
def _mode(model: nn.Module, train: bool) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.train(train)
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's remarks to itself: what it cannot do comes back as an exception.

    It prints the whole graph of a model that it gives up.
    """
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
