"""Derivatives of a net with operators that nobody has measured, against finite differences, on the spot.

Along one direction v: the slope ``<g, v>`` against differences of the loss, and the product ``H v`` against differences
of the gradient. The step follows the size of the weights; a few are tried, because float32 leaves only a narrow range
between rounding and curvature. So this finds a derivative that is wrong by a percent or more, in a smooth net. Across
kinks (ReLU, maximum pools) differences of gradients mean nothing: there it says that it cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import ParameterTuple, Tensor, ops

from hessiod.backends_mindspore.derivatives.cells import Gradient, Product, Whole
from hessiod.backends_mindspore.derivatives.operators import Operator
from hessiod.backends_mindspore.derivatives.tracing import cured
from hessiod.core.errors import InvalidArgument

STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Of the norm of the weights."""
TOLERANCE = 1e-2


def agree(
    forward: Callable[..., Any], weights: ParameterTuple, inputs: tuple[Any, ...], order: int, unknown: list[Operator]
) -> bool:
    """Raise unless derivatives up to an order agree with differences, for some step; False if they are not finite."""
    generator = np.random.default_rng(0)
    direction = [generator.normal(size=weight.shape) for weight in weights]
    with cured():
        gradient = Gradient(forward, weights)
        slopes = differences(Whole(forward), weights, direction, inputs)
        exact = inner(arrays(gradient(*inputs)), direction)
        if not np.isfinite(exact):
            return False
        if not close(slopes, np.array([exact])):
            raise unknown_and("differences of the loss do not agree with the gradient", unknown)
        if order == 2:
            tensors = tuple(Tensor(v, weight.dtype) for v, weight in zip(direction, weights, strict=True))
            product = np.concatenate([part.ravel() for part in arrays(Product(forward, weights)(*tensors, *inputs))])
            if not np.isfinite(product).all():
                return False
            if not close(differences(gradient, weights, direction, inputs), product):
                raise unknown_and("differences of the gradient do not agree with the second derivative", unknown)
    return True


def arrays(tensors: Any) -> list[np.ndarray]:
    """Tensors, or one, as float64 arrays."""
    tensors = tensors if isinstance(tensors, tuple | list) else (tensors,)
    return [tensor.asnumpy().astype(np.float64) for tensor in tensors]


def inner(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> float:
    """The inner product of two lists of arrays."""
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))


def close(estimates: Sequence[np.ndarray], exact: np.ndarray) -> bool:
    """Whether one of the estimates is as near as differences in float32 come."""
    return any(np.linalg.norm(estimate - exact) <= TOLERANCE * np.linalg.norm(exact) + 1e-7 for estimate in estimates)


def differences(
    graph: Callable[..., Any], weights: ParameterTuple, direction: list[np.ndarray], inputs: tuple[Any, ...]
) -> list[np.ndarray]:
    """Central differences of a graph's results along a direction, one for each step; the weights are put back."""
    start = [weight.asnumpy().copy() for weight in weights]
    length = np.sqrt(inner(direction, direction))
    size = np.sqrt(inner(start, start)) or 1.0

    def at(distance: float) -> np.ndarray:
        for weight, base, v in zip(weights, start, direction, strict=True):
            ops.assign(weight, Tensor(base + distance * v, weight.dtype))
        return np.concatenate([part.ravel() for part in arrays(graph(*inputs))])

    try:
        return [(at(step * size / length) - at(-step * size / length)) / (2 * step * size / length) for step in STEPS]
    finally:
        for weight, base in zip(weights, start, strict=True):
            ops.assign(weight, Tensor(base))


def unknown(operators: list[Operator]) -> InvalidArgument:
    """An error that names operators whose derivatives nobody has measured."""
    return unknown_and("and uncertified='refuse'", operators)


def unknown_and(what: str, operators: list[Operator]) -> InvalidArgument:
    """The same, with what was found."""
    first = operators[0]
    names = ", ".join(sorted({operator.name for operator in operators}))
    return InvalidArgument(
        f"forward: {first.place or 'the function'!r} uses {first.name}, which is not in the certification table "
        f"(uncertified in all: {names}); {what}. Differences mean nothing across kinks; if you know the operators "
        "to be right, pass uncertified='allow'"
    )
