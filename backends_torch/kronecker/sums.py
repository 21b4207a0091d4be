"""Sums behind A and G, over micro-batches and over all uses of a layer."""

from __future__ import annotations

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.layers import Seen
from hessiod.core.kronecker import factors


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

    def statistics(self, layer: AnyLayer, names: tuple[str, ...], loss_gradient: float) -> dict[str, Tensor]:
        """A, G or the unit-wise sums of a layer that was seen."""
        found = dict[str, Tensor]()
        for name in names:
            if name == "a":
                total, rows = self.inputs[layer]
                found[name] = factors.input_factor(xp, total, inverse_rows=1.0 / max(rows, 1))
            else:
                scalars = factors.gradient_scale(targets=self.number, loss_gradient=loss_gradient)
                found[name] = factors.gradient_factor(xp, self.outputs[layer], **scalars)
        return found

    @property
    def number(self) -> float:
        """How many targets the loss averages: counted from logits where they were given, else from the output."""
        return self.counted or self.targets
