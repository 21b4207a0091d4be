"""Natural gradients of all layers, and how much of them the trust region lets through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import Members, first_nonfinite, inner_products
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Slot
from hessiod.backends_torch.kronecker.matrices import Together
from hessiod.backends_torch.precision import widened
from hessiod.core import host
from hessiod.core.kronecker import trust_region

Grads = Mapping[Tensor, Tensor]


class Directions(NamedTuple):
    """By parameter natural gradients, and ``<V, grad>`` of those that it came with."""

    found: dict[Tensor, Tensor]
    products: dict[Tensor, float]

    def put(self, slot: Slot, way: Tensor) -> None:
        """Add a slot's direction; that of a part of a parameter to what is there of it."""
        if slot.whole:
            self.found[slot.param] = way
        else:
            self.found.setdefault(slot.param, torch.zeros_like(slot.param, dtype=way.dtype))[slot.rows] = way


class NaturalGradients:
    """The directions of a model's layers: of those that are one matrix together, of the others one by one."""

    def __init__(self, layers: Sequence[AnyLayer]) -> None:
        self.layers, self.together = layers, Together()

    def __call__(self, grads: Grads, state_of: Callable[[AnyLayer], Mapping[str, Any]], damping: float) -> Directions:
        """The directions of all layers that have a parameter in ``grads``."""
        moving = [layer for layer in self.layers if any(slot.param in grads for slot in layer.slots)]
        given = [[gradient_of(slot, grads.get(slot.param)) for slot in layer.slots] for layer in moving]
        states = list(map(state_of, moving))
        directions = Directions({}, {})
        whole = self._together(moving, given, states, directions)
        for layer, parts, state in zip(moving, given, states, strict=True):
            if not (whole and layer.one_matrix):
                for slot, way in zip(layer.slots, blocks.natural(layer, parts, state, damping), strict=True):
                    directions.put(slot, way)
        return directions

    def _together(self, layers: Any, given: Any, states: Any, directions: Directions) -> bool:
        """Add the directions of layers that are one matrix, if compiled products take all of them."""
        places = [place for place, layer in enumerate(layers) if layer.one_matrix]
        matrices = [layers[place] for place in places]
        inverses = [(states[place]["inverse_a"], states[place]["inverse_g"]) for place in places]
        found = self.together(matrices, inverses, [grad for place in places for grad in given[place]])
        if found is None:
            return False
        slots = [slot for layer in matrices for slot in layer.slots]
        for slot, way, product in zip(slots, *found, strict=True):
            directions.put(slot, way)
            directions.products[slot.param] = directions.products.get(slot.param, 0.0) + product
        return True


def gradient_of(slot: Slot, grad: Tensor | None) -> Tensor:
    """A slot's gradient; of a parameter that has none, zeros."""
    grad = torch.zeros_like(widened(slot.param)) if grad is None else grad
    return grad if slot.whole else grad[slot.rows]


def change_of(
    moves: Sequence[Members], products: Mapping[Tensor, float], grads: Grads, groups: Sequence[Mapping[str, Any]]
) -> float:
    """``sum lr^2 <V, grad>`` over what moves along natural gradients, of which ``products`` holds some.

    It is a sum over products with every entry of every direction and of every gradient: it is finite only if they are.
    """
    change = 0.0
    for members in moves:
        group = groups[members.group]
        if group["covered"]:
            rest = [(way, grads[param]) for param, way in members.pairs() if param not in products]
            total = sum(products[param] for param in members.params if param in products)
            if rest:
                total += sum(inner_products(*map(Arrays, zip(*rest, strict=True))))
            change += float(group["lr"]) ** 2 * total
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
