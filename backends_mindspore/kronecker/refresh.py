"""New factors and inverses, which the host writes before a graph takes the step; a refused step leaves none of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mindspore import Parameter

from hessiod.backends_mindspore.holder import put
from hessiod.backends_mindspore.kronecker import blocks
from hessiod.backends_mindspore.kronecker.cluster import Cluster, Pair
from hessiod.backends_mindspore.kronecker.layers import Layer
from hessiod.backends_mindspore.kronecker.sums import Statistics
from hessiod.core.errors import NonFinite


@contextmanager
def refreshed(optimizer: Any, statistics: Statistics, scale: float, cluster: Cluster) -> Iterator[bool]:
    """With new factors and inverses in place; as it was if the step is refused. False if statistics are not finite.

    ``scale`` is what the loss was multiplied by.
    """
    before: list[tuple[Parameter, Any]] = []
    damping, refused = optimizer.damping, int(optimizer.refused.asnumpy())

    def put_back() -> None:
        for param, array in reversed(before):
            put(param, array)
        put(optimizer.damping_now, np.array(damping, np.float64))

    good = all_finite(optimizer, statistics, scale)
    try:
        if good:
            optimizer.prepare()
            for layer, new in fresh_entries(optimizer, statistics, cluster).items():
                before += optimizer.states[layer].write(new)
        yield good
    except BaseException:
        put_back()
        raise
    if int(optimizer.refused.asnumpy()) != refused:
        put_back()


def fresh_entries(optimizer: Any, statistics: Statistics, cluster: Cluster) -> Statistics:
    """New entries of the layers' states, from statistics and from inverses that are due."""
    group, step = {**optimizer.settings, "damping": optimizer.damping}, optimizer.steps + 1
    settings = blocks.Settings(group["damping"], group["inverse"], group["block_size"])
    fresh: Statistics = {}
    due: dict[Layer, Pair] = {}
    for layer, state in optimizer.states.items():
        held = state.read()
        new, invert = optimizer.policy.fold(layer, held, statistics.get(layer, {}), step, group)
        a, g = (new.get(name, held.get(name)) for name in ("factor_a", "factor_g"))
        if invert and a is not None and g is not None:
            due[layer] = a, g
        if new:
            fresh[layer] = new
    found = cluster.inverses(due, lambda layer, a, g: blocks.inverted(layer, a, g, settings))
    for layer, inverses in found.items():
        fresh[layer] = fresh.get(layer, {}) | inverses
    return fresh


def all_finite(optimizer: Any, statistics: Statistics, scale: float) -> bool:
    """Whether statistics are; raise if they are not and that was asked for."""
    for layer, parts in statistics.items():
        if not all(np.isfinite(part).all() for part in parts.values()):
            if optimizer.nonfinite == "raise" and scale <= 1:
                raise NonFinite(
                    f"layer {layer.name}: the curvature estimate holds NaN or infinity, from its inputs or from "
                    "the gradients of its outputs; nothing was changed. Look for NaN in the batch, lower "
                    "learning_rate, or construct the optimizer with nonfinite='skip' to pass over such steps"
                )
            return False
    return True
