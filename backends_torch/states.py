"""What a rule keeps for each parameter, and the check of a ``state_dict`` before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Rule


def counts_of(rule: Rule) -> tuple[str, ...]:
    """The whole numbers that are kept for each parameter: its steps and, with curvature, the estimates folded in."""
    return ("step",) if rule.refresh is None else ("step", "refreshes")


def check_state(optimizer: Any, state_dict: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidArgument` unless the ``state_dict`` is whole and of an optimizer like this one."""
    writer = type(optimizer).__name__
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise InvalidArgument(
            f"state_dict: found a {type(state_dict).__name__} without 'state' and 'param_groups', expected what "
            f"state_dict() of a {writer} returned"
        )
    saved, state = state_dict["param_groups"], state_dict["state"]
    found, expected = ([len(group.get("params", ())) for group in groups] for groups in (saved, optimizer.param_groups))
    if found != expected:
        raise InvalidArgument(
            f"state_dict: found groups of {found} parameters, expected {expected}; construct the optimizer with "
            "the same groups"
        )
    for theirs, ours in zip(saved, optimizer.param_groups, strict=True):
        # torch adds the first at a first load; files from before the other two are read
        missing = sorted(set(optimizer.defaults) - set(theirs) - {"differentiable", "capturable", "clip_grad"})
        if missing:
            raise InvalidArgument(f"state_dict: its groups lack {', '.join(missing)}; it was not written by {writer}")
        optimizer.checked_values(theirs)
        for number, param in zip(theirs["params"], ours["params"], strict=True):
            check_slots(optimizer.rule_of(theirs), number, state.get(number), param, writer)
    if saved[0]["step"] and not state:
        raise InvalidArgument(f"state_dict: found no state after {saved[0]['step']} steps; the checkpoint is torn")


def check_slots(rule: Rule, number: int, state: Mapping[str, Any] | None, param: Tensor, writer: str) -> None:
    """Raise :class:`InvalidArgument` unless a parameter's state is empty, or whole and of its shape."""
    if not state:
        return  # a parameter that has not moved yet
    for slot in (*counts_of(rule), *rule.slots):
        if slot not in state:
            raise InvalidArgument(f"state_dict: parameter {number} has no {slot!r}; it was not written by {writer}")
        shape = tuple(getattr(state[slot], "shape", ()))
        if slot in rule.slots and shape != tuple(param.shape):
            raise InvalidArgument(
                f"state_dict: {slot!r} of parameter {number} has the shape {shape}, expected {tuple(param.shape)}; it "
                "belongs to another model"
            )
