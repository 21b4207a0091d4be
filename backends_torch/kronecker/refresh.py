"""What new statistics make of the layers' state: the policy's entries, running averages, inverses that are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hessiod.backends_torch.kronecker import blocks
from hessiod.backends_torch.kronecker.averages import Averages
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.sums import Statistics

New = dict[AnyLayer, dict[str, Any]]


def refreshed(
    policy: Any,
    layers: Sequence[AnyLayer],
    states: Any,
    found: Statistics,
    step: int,
    group: Mapping[str, Any],
) -> New:
    """New entries of the layers' state, from the statistics that were ``found`` and from inverses that are due."""
    if not found and not policy.inverts(step, group):
        return {}
    chosen = layers if policy.inverts(step, group) else [layer for layer in layers if layer in found]
    settings = blocks.Settings(group["damping"], group["inverse"], group["block_size"])
    fresh, factors, averages = New(), dict[AnyLayer, tuple[Tensor, Tensor]](), Averages(found.arrays)
    for layer in chosen:
        state = states[layer]
        new, invert = policy.fold(layer, state, found.get(layer, {}), step, group, averages.put_off)
        a, g = (new.get(name, state.get(name)) for name in ("factor_a", "factor_g"))
        if invert and a is not None and g is not None:
            factors[layer] = a, g
        if new:
            fresh[layer] = new
    averages.finish()
    for layer, inverses in blocks.inverted(factors, settings).items() if factors else ():
        fresh[layer] = {**fresh.get(layer, {}), **inverses}
    return fresh
