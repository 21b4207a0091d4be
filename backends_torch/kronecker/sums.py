"""Sums behind A and G, over micro-batches and over all uses of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays, room_for
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Seen
from hessiod.backends_torch.kronecker.sweeps import of_one_kind, swept
from hessiod.core.kronecker import factors
from hessiod.core.rule import Kernel


def scaled(xp: Any, total: Any, room: Any, *, scale: float) -> tuple[Any]:
    """A factor, in the room for it."""
    return (factors.scaled(xp, total, scale=scale),)


def as_it_is(*, scale: float) -> dict[str, float]:
    """The scalar of :func:`~hessiod.core.kronecker.factors.scaled`."""
    return {"scale": scale}


KERNEL = Kernel(scaled, as_it_is, ("total", "room"), ("room",))


class Statistics(dict[AnyLayer, dict[str, Tensor]]):
    """A, G or the unit-wise sums of a step, by layer and name."""

    @cached_property
    def arrays(self) -> Arrays:
        """All of them; nothing is added any more."""
        return Arrays([part for parts in self.values() for part in parts.values()])


class Sums:
    """What was gathered for one step, over micro-batches and over all uses of a layer."""

    def __init__(self) -> None:
        self.inputs: dict[AnyLayer, tuple[Tensor, int]] = {}
        self.outputs: dict[AnyLayer, Tensor] = {}
        self.targets, self.counted, self.calls = 0.0, 0.0, 0
        self.spent = 0.0
        """Of the targets that were ``counted``, those whose backward has come."""

    def without_backwards(self) -> Sums:
        """Nothing but the targets that were counted for a backward that is yet to come."""
        kept = Sums()
        kept.counted = self.counted - self.spent
        return kept

    def add(self, layer: AnyLayer, seen: Seen, output: Tensor) -> None:
        """Add one use of a layer."""
        self.spent = self.counted
        if layer not in self.outputs:
            self.inputs[layer], self.outputs[layer] = (seen.total, seen.rows), output
            return
        total, rows = self.inputs[layer]
        self.inputs[layer] = total + seen.total, rows + seen.rows
        self.outputs[layer] = self.outputs[layer] + output

    def statistics(self, wanted: Mapping[AnyLayer, tuple[str, ...]], loss_gradient: float) -> Statistics:
        """Those of layers that were seen. Sums stay as they are: a graph that is kept may bring its own once more."""
        of_outputs = factors.gradient_scale(targets=self.number, loss_gradient=loss_gradient)
        totals, scales = list[Tensor](), list[dict[str, float]]()
        for layer, names in wanted.items():
            for name in names:
                if name == "a":
                    total, rows = self.inputs[layer]
                    totals.append(total)
                    scales.append({"scale": 1.0 / max(rows, 1)})
                else:
                    totals.append(self.outputs[layer])
                    scales.append(of_outputs)
        found = Statistics()
        found.arrays = all_scaled(Arrays(totals), scales)
        parts = iter(found.arrays.tensors)
        for layer, names in wanted.items():
            found[layer] = {name: next(parts) for name in names}
        return found

    @property
    def number(self) -> float:
        """How many targets the loss averages: counted from logits where they were given, else from the output."""
        return self.counted or self.targets


def all_scaled(totals: Arrays, scales: Sequence[Mapping[str, float]]) -> Arrays:
    """Factors from sums."""
    if of_one_kind([totals]):
        room = room_for(totals)
        if swept(KERNEL, [totals, room], scales):
            return room
    pairs = zip(totals.tensors, scales, strict=True)
    return Arrays([factors.scaled(xp, total, **scale) for total, scale in pairs])
