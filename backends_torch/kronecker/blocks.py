"""A layer's block of the preconditioner: its inverses, raised damping where that is needed, its natural gradient."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import first_nonfinite
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.norms import Norm
from hessiod.core.errors import NonFinite
from hessiod.core.kronecker import damping as damp
from hessiod.core.kronecker.inverses import INVERSES, block_inverses
from hessiod.core.kronecker.trust_region import inner_product

LOG = logging.getLogger("hessiod")


class Settings(NamedTuple):
    """How a block is inverted."""

    damping: float
    inverse: str
    block_size: int | None


def damped_inverses(layer: Any, a: Tensor, g: Tensor, settings: Settings) -> tuple[list[Tensor], list[Tensor]]:
    """The inverses of A and G in blocks, with pi-corrected factored damping."""
    scalars = damp.root_scalars(damping=settings.damping)
    out, size = layer.shape
    added = damp.factored(xp, layer.trace_a(a), xp.trace(g), size, out, **scalars)
    inverse = INVERSES[settings.inverse]
    inverse_a = layer.inverse_a(a, added[0], inverse, settings.block_size)
    return inverse_a, block_inverses(xp, g, added[1], inverse=inverse, block=settings.block_size)


def inverted(layer: Any, a: Tensor, g: Tensor, settings: Settings) -> tuple[dict[str, Any], float]:
    """The inverses for a layer's state, and the damping that was used.

    Where a damped factor is not positive definite its damping is raised, ten times each time, and that is reported.
    """
    damping = settings.damping
    for _ in range(damp.ATTEMPTS):
        inverse_a, inverse_g = damped_inverses(layer, a, g, settings._replace(damping=damping))
        if first_nonfinite([Arrays([*inverse_a, *inverse_g])]) is None:
            if damping != settings.damping:
                LOG.warning(
                    "layer %s: a factor with damping %.3g is not positive definite; damping raised to %.3g for it",
                    layer.name,
                    settings.damping,
                    damping,
                )
            return {"inverse_a": inverse_a, "inverse_g": inverse_g}, damping
        damping *= damp.RAISE
    raise NonFinite(
        f"layer {layer.name}: its factors have no inverse even with damping {damping:.3g}; nothing was changed. Lower "
        "lr, raise damping, or leave the layer out with skip=[...]"
    )


def natural(
    layer: AnyLayer, grads: list[Tensor], state: Mapping[str, Any], damping: float
) -> tuple[list[Tensor], Tensor]:
    """The natural gradient of a layer's parameters, in the shapes of its slots, and ``<V, grad>`` over all of them."""
    if isinstance(layer, Norm):
        parts = layer.direction(grads, state["factor_f"], damping)
        return parts, inner_product(xp, torch.stack(parts), torch.stack(grads))
    grad = layer.matrix(grads)
    found = layer.direction(grad, list(state["inverse_a"]), list(state["inverse_g"]))
    return layer.parts(found), inner_product(xp, found, grad)


def curvature(layer: AnyLayer, moves: list[Tensor], state: Mapping[str, Any]) -> Tensor:
    """``<delta, F delta>`` of a move of a layer's parameters."""
    if isinstance(layer, Norm):
        return layer.curvature(moves, state["factor_f"])
    move = layer.matrix(moves)
    return (move * layer.fisher_product(move, state["factor_a"], state["factor_g"])).sum()
