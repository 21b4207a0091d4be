"""Natural gradients of all layers, and how much of them the trust region lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import first_nonfinite
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Slot
from hessiod.backends_torch.precision import widened
from hessiod.core.kronecker import trust_region

Grads = Mapping[Tensor, Tensor]


class Directions(NamedTuple):
    """Natural gradients by parameter, and ``sum lr^2 <V, grad>`` over them, a 0-d float64 tensor."""

    by_param: dict[Tensor, Tensor]
    change: Tensor


def natural_gradients(
    layers: Iterable[AnyLayer],
    grads: Grads,
    state_of: Callable[[AnyLayer], Mapping[str, Any]],
    rate_of: Callable[[Tensor], float],
    damping: float,
) -> Directions:
    """The directions of all layers that have a parameter in ``grads``."""
    found: dict[Tensor, Tensor] = {}
    slopes, squares = list[Tensor](), list[float]()
    for layer in layers:
        slots = layer.slots
        if not any(slot.param in grads for slot in slots):
            continue
        given = [gradient_of(slot, grads) for slot in slots]
        parts, slope = blocks.natural(layer, given, state_of(layer), damping)
        rates = [rate_of(slot.param) for slot in slots]
        if rates.count(rates[0]) == len(rates):
            slopes.append(slope)
            squares.append(rates[0] ** 2)
        else:
            slopes += map(trust_region.inner_product, [xp] * len(parts), parts, given)
            squares += [rate**2 for rate in rates]
        for slot, part in zip(slots, parts, strict=True):
            if slot.whole:
                found[slot.param] = part
            else:
                found.setdefault(slot.param, torch.zeros_like(slot.param, dtype=part.dtype))[slot.rows] = part
    return Directions(found, change_of(slopes, squares))


def change_of(slopes: list[Tensor], squares: list[float]) -> Tensor:
    """``sum lr^2 slope``."""
    if not slopes:
        return torch.zeros((), dtype=torch.float64)
    joined = torch.stack(slopes).double()
    if squares.count(squares[0]) == len(squares):
        return joined.sum() * squares[0]
    return (joined * torch.tensor(squares, dtype=torch.float64, device=joined.device)).sum()


def gradient_of(slot: Slot, grads: Grads) -> Tensor:
    """A slot's gradient; of a parameter that has none, zeros."""
    grad = grads.get(slot.param)
    grad = torch.zeros_like(widened(slot.param)) if grad is None else grad
    return grad if slot.whole else grad[slot.rows]


def trust_scale(change: Tensor, clip: float | None) -> float:
    """Nu, what the directions are multiplied by; 0 or NaN where one of them may not be finite.

    ``change`` is a sum over products with every entry of every direction: it is finite only if they are.
    """
    if clip is None:
        return 1.0 if isfinite(change) else float("nan")
    return float(trust_region.kl_scale(xp, change, clip=clip))


def first_unusable(directions: Mapping[Tensor, Tensor]) -> Tensor | None:
    """The first parameter whose direction is not finite."""
    place = first_nonfinite([Arrays(list(directions.values()))])
    return None if place is None else list(directions)[place]


def wide(grads: dict[Tensor, Tensor], scale: float) -> dict[Tensor, Tensor]:
    """Gradients in float32 or wider and without a GradScaler's ``scale``; the same mapping where they are so."""
    if scale == 1 and all(grad.dtype.itemsize >= 4 for grad in grads.values()):
        return grads
    return {param: widened(grad) if scale == 1 else widened(grad) * (1.0 / scale) for param, grad in grads.items()}
