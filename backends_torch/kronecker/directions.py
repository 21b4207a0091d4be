"""Natural gradients of all layers, and how much of them the trust region lets through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from math import isfinite
from operator import is_not, mul
from typing import Any

import torch
from torch import Tensor

from hessiod.backends_torch.arrays import Arrays, same
from hessiod.backends_torch.fast import Members, first_nonfinite, inner_products
from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Slot
from hessiod.backends_torch.kronecker.matrices import Together
from hessiod.backends_torch.precision import widened
from hessiod.core import host
from hessiod.core.kronecker import trust_region

Grads = Mapping[Tensor, Tensor]


class Directions:
    """Natural gradients by parameter, and what is known of ``sum lr^2 <V, grad>``."""

    def __init__(self) -> None:
        self.params: Sequence[Tensor] = ()
        self.together = Arrays(())
        """Those of ``params``, found at once."""
        self.others: dict[Tensor, Tensor] = {}
        self.change = 0.0
        self.unknown: set[Tensor] = set()
        """Parameters whose share is not in ``change``."""

    def put(self, slot: Slot, way: Tensor) -> None:
        """Add a slot's direction; that of a part of a parameter to what is there of it."""
        if slot.whole:
            self.others[slot.param] = way
        else:
            self.others.setdefault(slot.param, torch.zeros_like(slot.param, dtype=way.dtype))[slot.rows] = way

    @property
    def found(self) -> dict[Tensor, Tensor]:
        """By parameter."""
        return {**dict(zip(self.params, self.together.tensors, strict=True)), **self.others}

    def along(self, work: Sequence[Members], grads: Grads) -> list[Members]:
        """What moves, along its direction where it has one."""
        if not self.others and all(same(members.params, self.params) for members in work):
            return [Members(members.group, members.params, self.together) for members in work]
        ways = {**grads, **self.found}
        return [members.along(ways) for members in work]

    def change_along(self, moves: Sequence[Members], grads: Grads, rates: Sequence[float]) -> float:
        """``sum lr^2 <V, grad>`` over what moves along natural gradients; ``rates`` are the groups' learning rates.

        It is a sum over products with every entry of every direction and of every gradient: finite only if they are.
        """
        change = self.change
        for members in moves if self.unknown else ():
            pairs = [(way, grads[param]) for param, way in members.pairs() if param in self.unknown]
            if pairs:
                products = inner_products(*map(Arrays, zip(*pairs, strict=True)))
                change += rates[members.group] ** 2 * sum(products)
        return change


class Matrices:
    """Layers that are one matrix each, and their slots one behind the other."""

    def __init__(self, layers: Sequence[AnyLayer], group_of: Mapping[Tensor, int]) -> None:
        self.layers, self.group_of = layers, group_of
        self.slots = [slot for layer in layers for slot in layer.slots]
        self.params = [slot.param for slot in self.slots]
        self.groups = list(map(group_of.__getitem__, self.params))
        self.whole = all(slot.whole for slot in self.slots)

    def along(self, grads: Grads, work: Sequence[Members]) -> tuple[Matrices, Arrays]:
        """Those that have a gradient, and their slots' gradients; ``work`` holds some of them, looked at already."""
        for members in work if self.whole else ():
            if same(members.params, self.params):  # nearly always
                return self, members.grads
        found: list[Any] = list(map(grads.get, self.params))
        present = all(map(is_not, found, repeat(None)))
        if present and self.whole:
            return self, Arrays(found)
        chosen = self
        if not present:
            chosen = Matrices([layer for layer in self.layers if has_gradient(layer, grads)], self.group_of)
        return chosen, Arrays(gradients_of(chosen.slots, grads))


class NaturalGradients:
    """The directions of a model's layers: of those that are one matrix together, of the others one by one.

    ``group_of`` says in which group each parameter is.
    """

    def __init__(self, layers: Sequence[AnyLayer], group_of: Mapping[Tensor, int]) -> None:
        self.layers, self.together = layers, Together()
        self.matrices = Matrices([layer for layer in layers if layer.one_matrix], group_of)
        self.others = [layer for layer in layers if not layer.one_matrix]

    def __call__(
        self,
        grads: Grads,
        state_of: Callable[[AnyLayer], Mapping[str, Any]],
        damping: float,
        rates: Sequence[float],
        work: Sequence[Members] = (),
    ) -> Directions:
        """The directions of all layers that have a parameter in ``grads``; those in ``work`` were looked at already."""
        directions = Directions()
        together = self._together(grads, state_of, directions, [rate * rate for rate in rates], work)
        for layer in self.others if together else self.layers:
            if has_gradient(layer, grads):
                directions.unknown.update(layer.params)
                ways = blocks.natural(layer, gradients_of(layer.slots, grads), state_of(layer), damping)
                for slot, way in zip(layer.slots, ways, strict=True):
                    directions.put(slot, way)
        return directions

    def _together(
        self,
        grads: Grads,
        state_of: Callable[[AnyLayer], Any],
        directions: Directions,
        squares: Sequence[float],
        work: Sequence[Members],
    ) -> bool:
        """Add the directions of layers that are one matrix, if compiled products take all of them."""
        matrices, given = self.matrices.along(grads, work)
        states = map(state_of, matrices.layers)
        inverses = [(state["inverse_a"], state["inverse_g"]) for state in states]
        found = self.together(matrices.layers, inverses, given)
        if found is None:
            return False
        ways, products = found
        if matrices.whole:
            directions.params, directions.together = matrices.params, ways
        else:
            for slot, way in zip(matrices.slots, ways.tensors, strict=True):
                directions.put(slot, way)
        directions.change = sum(map(mul, map(squares.__getitem__, matrices.groups), products))
        return True


def has_gradient(layer: AnyLayer, grads: Grads) -> bool:
    """Whether one of a layer's parameters has one."""
    return any(slot.param in grads for slot in layer.slots)


def gradients_of(slots: Sequence[Slot], grads: Grads) -> list[Tensor]:
    """Those of some slots."""
    return [gradient_of(slot, grads.get(slot.param)) for slot in slots]


def gradient_of(slot: Slot, grad: Tensor | None) -> Tensor:
    """A slot's gradient; of a parameter that has none, zeros."""
    grad = torch.zeros_like(widened(slot.param)) if grad is None else grad
    return grad if slot.whole else grad[slot.rows]


def trust_scale(change: float, clip: float | None) -> float:
    """Nu, what the directions are multiplied by; 0 or NaN where one of them may not be finite."""
    if clip is None:
        return 1.0 if isfinite(change) else float("nan")
    return trust_region.kl_scale(host, change, clip=clip)


def first_unusable(directions: Mapping[Tensor, Tensor]) -> Tensor | None:
    """The first parameter whose direction is not finite."""
    place = first_nonfinite([Arrays(list(directions.values()))])
    return None if place is None else list(directions)[place]


def wide(grads: dict[Tensor, Tensor], work: Sequence[Members], scale: float) -> dict[Tensor, Tensor]:
    """Gradients in float32 or wider and without a GradScaler's ``scale``; the same mapping where they are so."""
    if scale == 1 and all(dtype.itemsize >= 4 for members in work for dtype in set(members.grads.layouts[2])):
        return grads
    return {param: widened(grad) if scale == 1 else widened(grad) * (1.0 / scale) for param, grad in grads.items()}
