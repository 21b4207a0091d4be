"""The model, the groups and the settings that a user gives to K-FAC, SP-NGD or THOR."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from hessiod.backends.kronecker.settings import SHARED
from hessiod.core.errors import InvalidArgument

RUN = ("skip", "grad_scaler", "process_group", "placement", "overlap", "maximize", "nonfinite", "missing")
"""Arguments of every method that are not settings: they are not kept in the groups, or by the base class."""


def arguments(given: Mapping[str, Any], *, without: Collection[str] = ()) -> dict[str, Any]:
    """A method's own arguments by name, from ``locals()`` at the beginning of its constructor."""
    names = set(given) - {"self", "__class__", "model", "params", *without}
    return {name: given[name] for name in given if name in names}


def settings_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting with its value: those that were given, and what the method does not offer."""
    return {**SHARED, **{name: value for name, value in given.items() if name not in RUN}}


def check_model(model: Any) -> None:
    """Refuse anything but a module."""
    if not isinstance(model, nn.Module):
        raise InvalidArgument(
            f"model: found {type(model).__name__}, expected a torch.nn.Module: these methods need its layers; pass "
            "model, not model.parameters()"
        )


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


def split(groups: list[dict[str, Any]], covered: set[Tensor], fallback_lr: float) -> Iterator[dict[str, Any]]:
    """Each group in two: what the preconditioner moves, and what the fallback does at its own learning rate."""
    for group in groups:
        own_lr = group.pop("fallback_lr", fallback_lr)
        for kind, rate in ((True, group["lr"]), (False, own_lr)):
            chosen = [param for param in group["params"] if (param in covered) is kind]
            if chosen:
                yield {**group, "params": chosen, "covered": kind, "lr": rate, "first_lr": rate}
