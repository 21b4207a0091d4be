"""Errors that name the operator, its place in the model, and what is left; and what the certification table knows."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessiod.backends.certification import REFUSED, RIGHT, UNCERTIFIED, WRONG, shipped, table
from hessiod.backends_torch.derivatives.places import Places, half_precision, is_custom, makes, operator_in
from hessiod.core.errors import InvalidArgument, InvalidState

WAYS_OUT = 'method="finite-difference" (an approximation), or gauss_newton_diagonal, which needs no second derivative'


class Verdicts:
    """What the table says about the operators of a graph, of which torch's own and the user's are told apart."""

    def __init__(self, graph: Sequence[Any], device: str) -> None:
        known = torch_table(device)
        found = {node.name(): known.verdict(node.name()) if known else UNCERTIFIED for node in graph}
        self.custom = [node for node in graph if is_custom(node)]
        self.refused = [node for node in graph if found[node.name()] in (REFUSED, WRONG)]
        self.why = {node.name(): known.why(node.name()) if known else "" for node in self.refused}
        self.doubtful = bool(self.custom) or any(verdict != RIGHT for verdict in found.values())
        self.uncertified = sorted({name for name, verdict in found.items() if verdict == UNCERTIFIED})

    def refuse(self, places: Places) -> None:
        """Raise for an operator that the table refuses, by its name and its place."""
        if self.refused:
            node = self.refused[0]
            why = f": {self.why[node.name()]}" if self.why[node.name()] else ""
            raise InvalidState(
                f"curvature: {node.name()} {places.of(node)} has no right second derivative{why}; use {WAYS_OUT}"
            )

    def custom_places(self, places: Places) -> str:
        """The user's own functions with their places."""
        return ", ".join(sorted({f"{node.name()} {places.of(node)}" for node in self.custom}))


@functools.cache
def torch_table(device: str) -> table.Table | None:
    """The table about the installed version; None for a package that ships none."""
    if not any(path.name.startswith("torch-") for path in shipped()):
        return None
    return table.load("torch", torch.__version__, device)


def refuse_sharded(module: nn.Module | None) -> None:
    """Raise where ``fully_shard`` took a module over."""
    if module is not None:
        raise InvalidState(
            f"curvature: found fully_shard (FSDP2) on {type(module).__bases__[-1].__name__}; autograd does not connect "
            f"sharded parameters to the loss, so there is no graph to differentiate twice; use {WAYS_OUT}"
        )


def refuse_split(module: nn.Module | None) -> None:
    """Raise where tensor parallelism split a module's weights."""
    if module is not None:
        raise InvalidState(
            f"curvature: found tensor parallelism (DTensor weights) on {type(module).__name__}; torch differentiates "
            f"its collectives twice wrongly, without a word; use {WAYS_OUT}"
        )


def reentrant_checkpoint(graph: Sequence[Any]) -> Any:
    """A node of reentrant checkpointing, if there is one."""
    return next((node for node in graph if node.name() == "CheckpointFunctionBackward"), None)


def refuse_reentrant(graph: Sequence[Any], places: Places) -> None:
    """Raise where a part is recomputed in a backward of its own."""
    node = reentrant_checkpoint(graph)
    if node is not None:
        raise InvalidState(
            f"curvature: found reentrant checkpointing {places.of(node)}, which cannot be differentiated twice; use "
            'checkpoint(..., use_reentrant=False), or method="finite-difference" (an approximation)'
        )


def refuse_half_precision(
    params: list[Tensor], graph: Sequence[Any], places: Places, sharded: nn.Module | None
) -> None:
    """Raise where differences would drown in rounding."""
    way_out = 'run this closure without autocast, or use method="reverse"'
    if sharded is not None:
        way_out = "leave MixedPrecisionPolicy(param_dtype=) out, or use gauss_newton_diagonal (SophiaG)"
    for place, param in enumerate(params):
        if param.dtype.itemsize < 4:
            raise InvalidArgument(
                f"method: found 'finite-difference' with {places.name_of(params, place)} in {param.dtype}, expected "
                'float32 or float64; differences drown in its rounding. Use method="reverse"'
            )
    halved = [node for node in graph if half_precision(node)]
    if halved:
        first = min(halved, key=lambda node: node._sequence_nr())
        raise InvalidArgument(
            f"method: found 'finite-difference' with {half_precision(first)} arithmetic {places.of(first)}, expected "
            f"float32 or float64 all through; {way_out}"
        )


def lost(params: list[Tensor], found: Sequence[int], places: Places) -> InvalidState:
    """The error about parameters that the loss depends on without a path."""
    names = ", ".join(places.name_of(params, place) for place in found)
    return InvalidState(
        f"curvature: the loss changes with {names}, and its graph has no path there (a detach, a .data, a copy of the "
        "weights?); mend the path, or leave these parameters out of params"
    )


def wrong(params: list[Tensor], found: Sequence[int], places: Places, verdicts: Verdicts) -> InvalidState:
    """The error about a product that differences of gradients contradict."""
    names = ", ".join(places.name_of(params, place) for place in found)
    custom = verdicts.custom_places(places)
    return InvalidState(
        f"curvature: the product for {names} is not the derivative of the gradient: something in this model is "
        f"detached, or differentiable once only, and does not say so{', perhaps ' + custom if custom else ''}; write "
        f"its backward in differentiable operations, or use {WAYS_OUT}"
    )


def without_method(graph: Sequence[Any], places: Places, failures: Mapping[str, Exception]) -> InvalidState:
    """The error about a model for which every exact method failed."""
    first = next(iter(failures.values()))
    if isinstance(first, InvalidState):
        return first
    parts = []
    for name, failure in failures.items():
        message = " ".join(str(failure).split("\n")[0].split())
        operator = operator_in(message)
        where = sorted({places.of(node) for node in graph if makes(node, operator)})
        why = f"{operator} has no derivative{' ' if where else ''}{' and '.join(where)}" if operator else message[:160]
        parts.append(f"{name}: {why}")
    error = InvalidState(f"curvature: this model has no exact product ({'; '.join(parts)}); use {WAYS_OUT}")
    error.__cause__ = first
    return error
