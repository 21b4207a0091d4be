"""The net, the groups and the settings that a user gives to K-FAC, SP-NGD or THOR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindspore import nn

from hessiod.backends.kronecker.settings import check_settings
from hessiod.backends_mindspore.groups import groups_of
from hessiod.backends_mindspore.kronecker.layers import Layer
from hessiod.backends_mindspore.schedule import check_rate
from hessiod.core.errors import InvalidArgument
from hessiod.core.rules import RULES

Groups = list[dict[str, Any]]


def check(settings: Mapping[str, Any], skip: Sequence[str]) -> None:
    """Raise :class:`InvalidArgument` for the first setting that is not what it may be."""
    check_settings({name: value for name, value in settings.items() if name != "fallback_lr"}, skip)
    check_rate(RULES["adamw"], settings["fallback_lr"], "fallback_lr")


def check_net(net: Any) -> None:
    """Refuse anything but a Cell."""
    if not isinstance(net, nn.Cell):
        raise InvalidArgument(
            f"net: found {type(net).__name__}, expected a mindspore.nn.Cell: these methods need its layers; pass "
            "net, not net.trainable_params()"
        )


def grouped(net: nn.Cell, params: Any, learning_rate: Any, weight_decay: Any) -> Groups:
    """The groups to optimize: all trained parameters of the net, or those that the user listed."""
    params = list(net.trainable_params() if params is None else params)
    groups = groups_of(params, learning_rate, weight_decay) if params else []
    known = {id(param) for param in net.get_parameters()}
    for group in groups:
        for param in group["params"]:
            if id(param) not in known:
                raise InvalidArgument(f"params: parameter {param.name!r} is not one of the net's")
    return groups


def split(groups: Groups, layers: Sequence[Layer]) -> tuple[Groups, Groups]:
    """The groups' parameters in ``layers``, and the others, whose learning rate is the fallback's."""
    covered = {id(param) for layer in layers for param in layer.params}
    own, others = [], []
    for group in groups:
        inside = [param for param in group["params"] if id(param) in covered]
        outside = [param for param in group["params"] if id(param) not in covered]
        if inside:
            own.append({"params": inside, "lr": group["lr"], "weight_decay": group["weight_decay"]})
        if outside:
            others.append({"params": outside, "weight_decay": group["weight_decay"]})
    return own, others
