"""A Hessian's products and a gradient, from a user's forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mindspore import ParameterTuple, Tensor

from hessiod.backends_mindspore.derivatives.cells import Gradient, Product, Whole
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
) -> tuple[Tensor, ...]:
    """The product of the Hessian of ``forward(*inputs)`` with vectors, with or without cures."""
    with cured(cures):
        return Product(forward, ParameterTuple(params))(tuple(vectors), *inputs)


def gradient(
    forward: Callable[..., Any], params: Sequence[Any], inputs: Sequence[Any], *, cures: bool = True, check: bool = True
) -> tuple[Tensor, ...]:
    """The gradient of ``forward(*inputs)``, with or without cures."""
    with cured(cures):
        return Gradient(forward, ParameterTuple(params))(*inputs)


def listed(forward: Callable[..., Any], inputs: Sequence[Any], *, cures: bool = True) -> tuple[Operator, ...]:
    """The operators of a forward, as they are traced with or without cures."""
    with cured(cures):
        return operators(Whole(forward), *inputs)
