"""The statistics of a step, from what was gathered for it; an error that says why where they are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.sums import Statistics
from hessiod.core.errors import InvalidState


def statistics_of(optimizer: Any, wanted: Mapping[AnyLayer, tuple[str, ...]], scale: float) -> Statistics:
    """The statistics that this step wants: of this process's layers, if there are several.

    ``scale`` is that of a GradScaler which leaves it to the optimizer.
    """
    if not wanted:
        return Statistics()
    sums = optimizer._capture.sums
    for layer in wanted:
        if layer not in sums.outputs:
            explain_missing(optimizer, layer)
    return optimizer._ranks.statistics(sums, wanted, loss_gradient(optimizer, scale))


def explain_missing(optimizer: Any, layer: AnyLayer) -> NoReturn:
    """Say why nothing of a layer was gathered."""
    if optimizer.param_groups[0]["fisher"] != "empirical" and not optimizer._capture.sums.calls:
        raise InvalidState(f"curvature is due at step {optimizer.steps + 1}: {optimizer._due_hint}")
    raise InvalidState(
        f"layer {layer.name} has a gradient, but its forward was not seen: it was compiled, or its weight is used "
        f"outside of its own forward, or update_curvature came too late; leave it out with skip=[{layer.name!r}]"
    )


def loss_gradient(optimizer: Any, scale: float) -> float:
    """What the captured gradients are gradients of, as a multiple of the summed losses."""
    if optimizer.param_groups[0]["fisher"] != "empirical":
        return 1.0
    if optimizer._grad_scaler is not None:
        scale = optimizer._grad_scaler.get_scale()
    elif vars(optimizer).get("found_inf") is not None and vars(optimizer).get("grad_scale") is None:
        raise InvalidState(
            "step: the gradients were unscaled with scaler.unscale_, and the scale of those in the statistics is "
            f"not known; construct {type(optimizer).__name__} with grad_scaler=scaler, or use fisher='monte-carlo'"
        )
    number = optimizer._capture.sums.number
    return scale / ((optimizer._ranks.mean(number) if optimizer._targets_of_all else number) or 1.0)
