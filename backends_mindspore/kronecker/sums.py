"""What the micro-batches of a step add up to, on the host: the sums behind A and G, and the targets of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.backends_mindspore.kronecker.layers import Layer
from hessiod.core.errors import InvalidState
from hessiod.core.kronecker import factors

Statistics = dict[Layer, dict[str, Any]]


class Sums:
    """Sums over rows, by layer and name, and under "rows" their number; of ``wanted`` layers and names only.

    Sums of ``g g'`` are of gradients of *summed* losses: micro-batches and processes may average over different numbers
    of targets, and what they found can be added up all the same.
    """

    def __init__(self, wanted: Mapping[Layer, tuple[str, ...]], empirical: bool) -> None:
        self.wanted, self.empirical, self.targets = wanted, empirical, 0.0
        self.found: Statistics = {}

    def add(self, sums: Mapping[Layer, Mapping[str, Any]], targets: float, scale: float) -> None:
        """Add a micro-batch of so many targets, whose loss was multiplied by ``scale``."""
        factor = (targets / scale) ** 2 if self.empirical else 1.0
        for layer, names in self.wanted.items():
            known = self.found.setdefault(layer, {})
            for name in (*names, "rows"):
                part = sums[layer][name]
                if name not in ("a", "rows") and factor != 1.0:
                    part = part * np.asarray(factor, part.dtype)
                known[name] = known[name] + part if name in known else part
        self.targets += targets

    def statistics(self) -> Statistics:
        """A and G, or the unit-wise sums, of the wanted layers."""
        if not self.targets:
            raise InvalidState("every target is ignored; skip batches that hold only padding")
        scale = factors.gradient_scale(targets=self.targets, loss_gradient=1.0)
        for layer in self.wanted:
            if not self.found[layer]["rows"]:
                raise InvalidState(
                    f"layer {layer.name}: its forward was not seen on the way from the inputs to the loss; leave it "
                    f"out with skip=[{layer.name!r}]"
                )
        return {
            layer: {name: factor_of(name, self.found[layer], scale) for name in names}
            for layer, names in self.wanted.items()
        }


def factor_of(name: str, parts: Mapping[str, Any], scale: Mapping[str, float]) -> Any:
    """A factor from its sum."""
    if name == "a":
        return factors.input_factor(xp, parts["a"], inverse_rows=1.0 / float(parts["rows"]))
    return factors.gradient_factor(xp, parts[name], **scale)
