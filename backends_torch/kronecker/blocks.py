"""A layer's block of the preconditioner: its inverses, raised damping where that is needed, its natural gradient."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import first_nonfinite
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.matrices import INVERSES
from hessiod.backends_torch.kronecker.norms import Norm
from hessiod.core.errors import InvalidState, NonFinite
from hessiod.core.kronecker import damping as damp
from hessiod.core.kronecker.inverses import block_inverses

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


def inverted(factors: Mapping[Any, tuple[Tensor, Tensor]], settings: Settings) -> dict[Any, dict[str, Any]]:
    """For each layer with its A and G what its state then holds: the inverses, and the damping that was used.

    Where a damped factor is not positive definite its damping is raised, ten times each time, and that is reported.
    """
    found = dict[Any, dict[str, Any]]()
    for layer, (a, g) in factors.items():
        inverse_a, inverse_g = damped_inverses(layer, a, g, settings)
        found[layer] = {"inverse_a": inverse_a, "inverse_g": inverse_g, "damping": settings.damping}
    if not finite(found.values()):  # one look at all of them; nearly always that is enough
        for layer in [layer for layer, entries in found.items() if not finite([entries])]:
            found[layer] = raised(layer, *factors[layer], settings)
    return found


def finite(found: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all of these inverses are finite."""
    return first_nonfinite([Arrays([part for new in found for part in (*new["inverse_a"], *new["inverse_g"])])]) is None


def raised(layer: Any, a: Tensor, g: Tensor, settings: Settings) -> dict[str, Any]:
    """The inverses with the least damping of ``10^k`` times the setting, k >= 1, with which they exist."""
    damping = settings.damping
    for _ in range(1, damp.ATTEMPTS):
        damping *= damp.RAISE
        inverse_a, inverse_g = damped_inverses(layer, a, g, settings._replace(damping=damping))
        new = {"inverse_a": inverse_a, "inverse_g": inverse_g, "damping": damping}
        if finite([new]):
            LOG.warning(
                "layer %s: a factor with damping %.3g is not positive definite; damping raised to %.3g for it",
                layer.name,
                settings.damping,
                damping,
            )
            return new
    raise NonFinite(
        f"layer {layer.name}: its factors have no inverse even with damping {damping:.3g}; nothing was changed. Lower "
        "lr, raise damping, or leave the layer out with skip=[...]"
    )


def natural(layer: AnyLayer, grads: list[Tensor], state: Mapping[str, Any], damping: float) -> list[Tensor]:
    """The natural gradient of a layer's parameters, in the shapes of its slots."""
    if isinstance(layer, Norm):
        check_alike(layer, grads[0], state["factor_f"])
        return layer.direction(grads, state["factor_f"], damping)
    check_alike(layer, grads[0], state["inverse_g"][0])
    return layer.direction(grads, state["inverse_a"], state["inverse_g"])


def check_alike(layer: AnyLayer, grad: Tensor, kept: Tensor) -> None:
    """Raise :class:`InvalidState` where the model was cast or moved away from what is kept of a layer."""
    if (grad.dtype, grad.device) != (kept.dtype, kept.device):
        raise InvalidState(
            f"layer {layer.name}: found a gradient in {grad.dtype} on {grad.device} beside factors in {kept.dtype} on "
            f"{kept.device}; the model was cast or moved after steps were taken, so build a new optimizer from it"
        )


def curvature(layer: AnyLayer, moves: list[Tensor], state: Mapping[str, Any]) -> Tensor:
    """``<delta, F delta>`` of a move of a layer's parameters."""
    if isinstance(layer, Norm):
        return layer.curvature(moves, state["factor_f"])
    move = layer.matrix(moves)
    return (move * layer.fisher_product(move, state["factor_a"], state["factor_g"])).sum()
