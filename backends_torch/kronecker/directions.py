"""Natural gradients of all layers, and how much of them the trust region lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import Members, first_nonfinite, inner_products
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Slot
from hessiod.backends_torch.precision import widened
from hessiod.core import host
from hessiod.core.kronecker import trust_region

Grads = Mapping[Tensor, Tensor]


def natural_gradients(
    layers: Iterable[AnyLayer], grads: Grads, state_of: Callable[[AnyLayer], Mapping[str, Any]], damping: float
) -> dict[Tensor, Tensor]:
    """The directions of all layers that have a parameter in ``grads``, by parameter."""
    found: dict[Tensor, Tensor] = {}
    for layer in layers:
        given = [grads.get(slot.param) for slot in layer.slots]
        if all(grad is None for grad in given):
            continue
        whole = [gradient_of(slot, grad) for slot, grad in zip(layer.slots, given, strict=True)]
        parts = blocks.natural(layer, whole, state_of(layer), damping)
        for slot, part in zip(layer.slots, parts, strict=True):
            if slot.whole:
                found[slot.param] = part
            else:
                found.setdefault(slot.param, torch.zeros_like(slot.param, dtype=part.dtype))[slot.rows] = part
    return found


def gradient_of(slot: Slot, grad: Tensor | None) -> Tensor:
    """A slot's gradient; of a parameter that has none, zeros."""
    grad = torch.zeros_like(widened(slot.param)) if grad is None else grad
    return grad if slot.whole else grad[slot.rows]


def change_of(moves: Sequence[Members], grads: Grads, groups: Sequence[Mapping[str, Any]]) -> float:
    """``sum lr^2 <V, grad>`` over what moves along natural gradients.

    It is a sum over products with every entry of every direction and of every gradient: it is finite only if they are.
    """
    change = 0.0
    for members in moves:
        group = groups[members.group]
        if group["covered"]:
            given = Arrays([grads[param] for param in members.params])
            change += float(group["lr"]) ** 2 * sum(inner_products(members.grads, given))
    return change


def trust_scale(change: float, clip: float | None) -> float:
    """Nu, what the directions are multiplied by; 0 or NaN where one of them may not be finite."""
    if clip is None:
        return 1.0 if isfinite(change) else float("nan")
    return trust_region.kl_scale(host, change, clip=clip)


def first_unusable(directions: Mapping[Tensor, Tensor]) -> Tensor | None:
    """The first parameter whose direction is not finite."""
    place = first_nonfinite([Arrays(list(directions.values()))])
    return None if place is None else list(directions)[place]


def wide(grads: dict[Tensor, Tensor], scale: float) -> dict[Tensor, Tensor]:
    """Gradients in float32 or wider and without a GradScaler's ``scale``; the same mapping where they are so."""
    if scale == 1 and all(grad.dtype.itemsize >= 4 for grad in grads.values()):
        return grads
    return {param: widened(grad) if scale == 1 else widened(grad) * (1.0 / scale) for param, grad in grads.items()}
