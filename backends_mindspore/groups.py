"""Parameters and groups of them, as MindSpore's optimizers take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter

from hessiod.core.errors import InvalidArgument


def check_parameters(params: Any) -> list[Any]:
    """Parameters or groups as a list, or an error that names the first one that cannot be taken."""
    params = list(params)
    if not params:
        raise InvalidArgument("params: found an empty list, expected parameters; pass net.trainable_params()")
    if isinstance(params[0], Mapping):
        params = [check_group(group) for group in params]
    seen: set[str] = set()
    for group in groups_of(params, None, None):
        for param in group["params"]:
            if not isinstance(param, Parameter):
                raise InvalidArgument(
                    f"params: found {type(param).__name__}, expected Parameter or groups of Parameters"
                )
            if param.dtype not in (ms.float16, ms.bfloat16, ms.float32, ms.float64):
                raise InvalidArgument(
                    f"parameter {param.name!r}: found {param.dtype}, expected a real floating-point parameter; leave "
                    "it to another optimizer"
                )
            if param.dtype == ms.bfloat16 and ms.get_context("device_target") == "CPU":
                raise InvalidArgument(
                    f"parameter {param.name!r}: found bfloat16, expected float16, float32 or float64 on the CPU, where "
                    "MindSpore cannot assign bfloat16; cast the net"
                )
            if not param.requires_grad:
                raise InvalidArgument(
                    f"parameter {param.name!r}: found requires_grad=False, expected a parameter to be trained; a graph "
                    "would move it all the same. Pass net.trainable_params()"
                )
            if param.name in seen:
                raise InvalidArgument(
                    f"parameter {param.name!r}: found twice; give each parameter once, by its own name"
                )
            seen.add(param.name)
    return params


def check_group(group: Any) -> dict[str, Any]:
    """A group of parameters, or of their order, with lists in the place of iterators."""
    keys = set(group) if isinstance(group, Mapping) else set()
    if not (keys == {"order_params"} or "params" in keys) or keys - {"params", "lr", "weight_decay", "order_params"}:
        raise InvalidArgument(
            f"params: found a group with {', '.join(map(repr, group)) or 'no key'}, expected 'params' with 'lr' and "
            "'weight_decay' where they differ, or 'order_params' alone"
        )
    group = {**group, **{name: list(group[name]) for name in ("params", "order_params") if name in group}}
    if not group.get("params", [True]):
        raise InvalidArgument("params: found a group without a parameter; leave it out")
    return group


def groups_of(params: Sequence[Any], lr: Any, weight_decay: Any) -> list[dict[str, Any]]:
    """Parameters as groups, each with its own or the given learning rate and weight decay."""
    if not isinstance(params[0], Mapping):
        return [{"params": params, "lr": lr, "weight_decay": weight_decay}]
    groups = [group for group in params if "params" in group]
    return [{"lr": lr, "weight_decay": weight_decay, **group, "params": list(group["params"])} for group in groups]
