"""A layer's block of the preconditioner: its inverses, raised damping where that is needed, its natural gradient."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import first_nonfinite
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.matrices import INVERSES, cholesky_inverses
from hessiod.backends_torch.kronecker.norms import Norm
from hessiod.core.errors import InvalidState, NonFinite
from hessiod.core.kronecker import damping as damp
from hessiod.core.kronecker.inverses import block_inverses

LOG = logging.getLogger("hessiod")

Factors = Mapping[Any, tuple[Tensor, Tensor]]


class Settings(NamedTuple):
    """How a block is inverted."""

    damping: float
    inverse: str
    block_size: int | None


def damped_inverses(factors: Factors, settings: Settings) -> dict[Any, dict[str, Any]]:
    """For each layer with its A and G the inverses in blocks, with pi-corrected factored damping."""
    inverse, block, found = INVERSES[settings.inverse], settings.block_size, dict[Any, dict[str, Any]]()
    added = factored(factors, settings.damping)
    together = at_once(factors, added, block) if settings.inverse == "cholesky" else {}
    for layer, (a, g) in factors.items():
        if layer in together:
            inverse_a, inverse_g = together[layer]
        else:
            added_a, added_g = added[layer]
            inverse_a = layer.inverse_a(a, added_a, inverse, block)
            inverse_g = block_inverses(xp, g, added_g, inverse=inverse, block=block)
        found[layer] = {"inverse_a": inverse_a, "inverse_g": inverse_g, "damping": settings.damping}
    return found


def at_once(factors: Factors, added: Factors, block: int | None) -> dict[Any, tuple[list[Tensor], list[Tensor]]]:
    """The inverses of layers that are one matrix, if compiled code takes all of these."""
    layers = [layer for layer in factors if layer.one_matrix]
    matrices, dampings = ([part for layer in layers for part in of[layer]] for of in (factors, added))
    found = cholesky_inverses(matrices, dampings, block)
    return {} if found is None else dict(zip(layers, zip(found[::2], found[1::2], strict=True), strict=True))


def factored(factors: Factors, damping: float) -> dict[Any, tuple[Tensor, Tensor]]:
    """What each layer's A and G get of the identity; of traces that are alike all at once, as they are small."""
    traces = {layer: (layer.trace_a(a), xp.trace(g)) for layer, (a, g) in factors.items()}
    alike = defaultdict[Any, list[Any]](list)
    for layer, (of_a, _) in traces.items():
        alike[of_a.shape, of_a.dtype, of_a.device].append(layer)
    found = dict[Any, tuple[Tensor, Tensor]]()
    for layers in alike.values():
        of_a, of_g = (torch.stack(parts) for parts in zip(*map(traces.__getitem__, layers), strict=True))
        sizes = of_a.new_tensor([layer.shape for layer in layers]).T.reshape(2, -1, *[1] * (of_a.dim() - 1))
        added = damp.factored(xp, of_a, of_g, sizes[1], sizes[0], **damp.root_scalars(damping=damping))
        found.update(zip(layers, zip(*added, strict=True), strict=True))
    return found


def inverted(factors: Factors, settings: Settings) -> dict[Any, dict[str, Any]]:
    """For each layer with its A and G what its state then holds: the inverses, and the damping that was used.

    Where a damped factor is not positive definite its damping is raised, ten times each time, and that is reported.
    """
    found = damped_inverses(factors, settings)
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
        new = damped_inverses({layer: (a, g)}, settings._replace(damping=damping))[layer]
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
