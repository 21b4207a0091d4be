"""The model and the groups that a user gives to K-FAC, SP-NGD or THOR; the settings' checks are every backend's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hessiod.backends.kronecker import settings as shared
from hessiod.backends.kronecker.settings import SHARED
from hessiod.core.errors import InvalidArgument

__all__ = ["SHARED", "check_settings", "grouped"]


def check_settings(model: Any, settings: Mapping[str, Any], skip: Sequence[str]) -> None:
    """Raise :class:`InvalidArgument` for the first setting that is not what it may be."""
    if model is not None and not isinstance(model, nn.Module):
        raise InvalidArgument(
            f"model: found {type(model).__name__}, expected a torch.nn.Module: these methods need its layers; pass "
            "model, not model.parameters()"
        )
    shared.check_settings(settings, skip)


def grouped(model: nn.Module, params: Any, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups to optimize: all trained parameters of the model, or those that the user listed."""
    known = {param: name for name, param in model.named_parameters()}
    if params is None:
        params = [param for param in known if param.requires_grad]
    params = list(params)
    groups = params if params and isinstance(params[0], Mapping) else [{"params": params}]
    found, seen = [], set[Tensor]()
    for group in groups:
        given = group["params"] if isinstance(group["params"], Iterable) else [group["params"]]
        given = [given] if isinstance(given, Tensor) else list(given)
        for param in given:
            if param not in known or param in seen:
                why = "is in two groups" if param in seen else "is not one of the model's"
                raise InvalidArgument(f"params: a parameter of shape {tuple(param.shape)} {why}")
            seen.add(param)
        shared = sorted(set(group) - {"params", "lr", "momentum", "weight_decay", "nesterov", "fallback_lr"})
        if shared:
            raise InvalidArgument(f"{shared[0]}: found in a group; it is shared by all groups, so leave it out there")
        found.append({**group, "params": given, "lr": group.get("lr", settings["lr"])})
    return found
