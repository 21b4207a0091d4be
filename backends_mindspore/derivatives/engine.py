"""A Hessian's products and a gradient with the engine's parts switched on or off, for those who measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mindspore import ParameterTuple, Tensor

from hessiod.backends_mindspore.derivatives.cells import Gradient, Product, Whole
from hessiod.backends_mindspore.derivatives.graph import graph_of
from hessiod.backends_mindspore.derivatives.operators import Operator, operators
from hessiod.backends_mindspore.derivatives.tracing import cured


def product(
    forward: Callable[..., Any],
    params: Sequence[Any],
    vectors: Sequence[Tensor],
    inputs: Sequence[Any],
    *,
    cures: bool = True,
    check: bool = True,
    uncertified: str = "check",
) -> tuple[Tensor, ...]:
    """The product of the Hessian of ``forward(*inputs)`` with vectors; ``check=False`` asks no table."""
    if cures and check:
        return graph_of(Product, forward, params, 2, uncertified)(tuple(vectors), tuple(inputs))
    with cured(cures):
        return Product(forward, ParameterTuple(params))(*vectors, *inputs)


def gradient(
    forward: Callable[..., Any],
    params: Sequence[Any],
    inputs: Sequence[Any],
    *,
    cures: bool = True,
    check: bool = True,
    uncertified: str = "check",
) -> tuple[Tensor, ...]:
    """The gradient of ``forward(*inputs)``; ``check=False`` asks no table."""
    if cures and check:
        return graph_of(Gradient, forward, params, 1, uncertified)((), tuple(inputs))
    with cured(cures):
        return Gradient(forward, ParameterTuple(params))(*inputs)


def listed(forward: Callable[..., Any], inputs: Sequence[Any], *, cures: bool = True) -> tuple[Operator, ...]:
    """The operators of a forward, as they are traced with or without cures."""
    with cured(cures):
        return operators(Whole(forward), *inputs)
