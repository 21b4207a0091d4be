"""A step around the Kronecker preconditioner: statistics, inverses, trust region, then momentum.

Nothing is written before everything is known to be finite: new statistics and inverses are worked out beside the old
ones, directions from them, and only then state and parameters change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hessiod.backends.kronecker.settings import CHECKED, check_settings
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.fast import Members, advance
from hessiod.backends_torch.kronecker.directions import Directions, first_unusable, trust_scale, wide
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.refresh import refreshed
from hessiod.backends_torch.kronecker.statistics import statistics_of
from hessiod.core.errors import InvalidState, NonFinite


def take_step(optimizer: Any) -> None:
    """Take a step of a :class:`~hessiod.backends_torch.kronecker.optimizer.KroneckerOptimizer`, or pass over it."""
    work, ranks, groups = optimizer._work(), optimizer._ranks, optimizer.param_groups
    if not work:
        raise InvalidState("step: no parameter has a gradient; call loss.backward() first")
    values = values_looked_at(optimizer)
    scale = vars(optimizer).get("grad_scale")
    scale, raw = 1.0 if scale is None else float(scale), dict(pair for members in work for pair in members.pairs())
    wanted = optimizer._due.among(raw)
    found = statistics_of(optimizer, wanted, scale)
    grads = ranks.average_gradients(wide(raw, work, scale))
    seen = grads if ranks.spread else raw
    first = [members for members in work if wanted or not groups[members.group]["covered"]]
    entering = [members.along(seen).grads if ranks.spread else members.grads for members in first]
    if not ranks.agreed(lambda: optimizer._finite(entering, found.arrays if found else None) or None):
        return
    now = optimizer.steps + 1
    fresh = ranks.agreed(lambda: refreshed(optimizer.policy, ranks.own, optimizer._states, found, now, groups[0])) or {}
    rates = [float(group["lr"]) for group in groups]
    directions = directions_with(optimizer, grads, fresh, rates, work if grads is raw else [])
    moves = directions.along(work, grads)
    change = ranks.total(directions.change_along(moves, grads, rates))
    nu = trust_scale(change, groups[0]["kl_clip"])
    usable = ranks.agreed(lambda: usable_scale(optimizer, seen, directions, nu))
    if usable is None:
        return
    for layer, new in fresh.items():
        optimizer._states.store(layer, new)
    if wanted:
        ranks.share_numbers(fresh, groups)
    advance(optimizer, moves, values, None, [usable if group["covered"] else 1.0 for group in groups])
    optimizer._moved_by(grads)
    ranks.share_weights(list(raw))
    for group in groups:
        group["step"] += 1


def values_looked_at(optimizer: Any) -> list[dict[str, Any]]:
    """What each group's kernels see; all settings are checked if they are not those of the last step.

    Schedulers and users change them in place.
    """
    values = [optimizer.values_of(group) for group in optimizer.param_groups]
    now = [settings_now(optimizer), values]
    if now != optimizer._checked:
        values = list(map(optimizer.checked_values, optimizer.param_groups))
        check_settings(optimizer.param_groups[0], ())
        optimizer._checked = now
    return values


def settings_now(optimizer: Any) -> list[Any]:
    """Those that every group has, as they are now."""
    return list(map(optimizer.param_groups[0].get, CHECKED))


def directions_with(
    optimizer: Any,
    grads: Mapping[Tensor, Tensor],
    fresh: Mapping[AnyLayer, Mapping[str, Any]],
    rates: list[float],
    work: list[Members],
) -> Directions:
    """The directions, with new entries of the layers' state in the place of those that there are."""
    states = optimizer._states

    def state_of(layer: AnyLayer) -> Mapping[str, Any]:
        return {**states[layer], **fresh[layer]} if layer in fresh else states[layer]

    return optimizer._natural(grads, state_of, optimizer.param_groups[0]["damping"], rates, work)


def usable_scale(optimizer: Any, grads: Mapping[Tensor, Tensor], directions: Directions, nu: float) -> float | None:
    """What directions are multiplied by; an error if one is not finite, or None if passing over was chosen."""
    choice = optimizer.param_groups[0]["nonfinite"]
    if nu > 0 or choice == "ignore":
        return nu
    if not optimizer._finite([Arrays(list(grads.values()))], None):
        return None
    param = first_unusable(directions.found)
    if param is None:
        return 0.0  # finite directions so long that their inner product is not
    if choice == "skip":
        return None
    raise NonFinite(
        f"the natural gradient of {optimizer._names[param]!r} is not finite; nothing was changed. Raise damping, "
        "or construct the optimizer with nonfinite='skip' to pass over such steps"
    )
