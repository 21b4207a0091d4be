"""Steps that a CUDA graph can hold: the host asks the device nothing, and whether to move is the device's to say.

Counts are 0-d tensors, a learning rate may be one, and scalars are worked out from them on the device, in float64, by
the functions that work them out on the host elsewhere. What is found in the gradients becomes a number too: 1 moves
everything, 0 leaves parameters, state and counts as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from hessiod.backends_torch import shards
from hessiod.backends_torch.arrays import Arrays
from hessiod.backends_torch.op_by_op import eagerly
from hessiod.backends_torch.plans import Plan
from hessiod.backends_torch.triton_sweep import capturing
from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.core.rule import Kernel
from hessiod.core.trace import Program


def count(value: Any, device: torch.device) -> Tensor:
    """A count as torch's own capturable optimizers keep theirs: a whole number up to 2^24 in a 0-d float32."""
    return torch.full((), float(value), dtype=torch.float32, device=device)


def check_group(name: str, group: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidArgument` for a group that such a step cannot take; ``name`` is its first parameter's."""
    if group["nonfinite"] == "raise":
        raise InvalidArgument(
            "nonfinite: found 'raise', expected 'skip' or 'ignore' with capturable=True, whose steps cannot raise"
        )
    params = group["params"]
    devices = {param.device for param in params}
    if len(devices) > 1:
        raise InvalidArgument(
            f"capturable: found parameters on {', '.join(sorted(map(str, devices)))} in the group of {name}, expected "
            "one device; make a group of each device's"
        )
    if any(map(shards.is_split, params)):
        raise InvalidArgument(f"capturable: found sharded parameters in the group of {name}; use capturable=False")
    for key, value in group.items():
        if isinstance(value, Tensor) and params and value.device not in devices:
            raise InvalidArgument(
                f"{key}: found a tensor on {value.device} in the group of {name}, expected one on {params[0].device}, "
                "where a captured step can read it"
            )


def verdict(optimizer: Any, work: Sequence[Any], estimates: Mapping[Tensor, Tensor] | None) -> Tensor:
    """Whether a step of some groups' members is taken, 1 or 0.

    Not where a gradient or an estimate holds NaN or infinity and ``nonfinite`` is "skip", where a GradScaler has found
    infinity, or where a rule would divide by how many estimates there were and there was none.
    """
    given = [grad for members in work for grad in members.grads.tensors] + list((estimates or {}).values())
    go = torch.ones((), dtype=torch.bool, device=given[0].device)
    group = optimizer.param_groups[0]
    if group["nonfinite"] == "skip":
        if group["clip_grad"] is not None:
            go = go & torch.isfinite(optimizer.grad_norm).to(go.device)
            given = list((estimates or {}).values())
        filled = [tensor for tensor in given if tensor.numel()]
        if filled:
            go = go & torch.isfinite(get_total_norm(filled, float("inf"))).to(go.device)
    found = vars(optimizer).get("found_inf")
    if found is not None:
        go = go & (found.to(go.device) == 0).all()
    for members in work if estimates is None else ():
        if "refreshes" in optimizer.rule_of(optimizer.param_groups[members.group]).step.hyperparameters:
            counts = [optimizer.state[param]["refreshes"] for param in members.params]
            go = go & (torch.stack(counts) > 0).all().to(go.device)
    return go.float()


def move(
    plan: Plan | None,
    program: tuple[Kernel, ...],
    states: Sequence[Mapping[str, Any]],
    params: Sequence[Tensor],
    inputs: Sequence[Arrays],
    values: Mapping[str, Any],
    scale: Any,
    rising: Sequence[str],
    go: Tensor,
) -> None:
    """Take the step of some parameters of one group, all on one device; ``rising`` are counts that go up by one."""
    go = go.to(params[0].device)
    for name in rising:
        torch._foreach_add_([state[name] for state in states], [go] * len(states))
    kept = [name for name in ("step", "refreshes") if name in states[0]]
    known = {name: torch.stack([state[name] for state in states]).double() for name in kept}
    for batch in () if plan is None else plan.batches:
        batch.run_if(go, inputs, table(batch.sweep.program, {**values, **known}, scale, go.device, len(states)))
    for place in range(len(params)) if plan is None else plan.eager:
        given = {name: arrays.tensors[place] for name, arrays in zip(("grad", "estimate"), inputs)}  # noqa: B905
        own = {**values, **{name: column[place] for name, column in known.items()}}
        eagerly(program, {**states[place], "param": params[place], **given}, own, scale, go)


def table(program: Program, values: Mapping[str, Any], scale: Any, device: torch.device, rows: int) -> Tensor:
    """The program's scalars in float64, a row for each parameter, without a copy from the host."""

    def column(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.double().expand(rows)
        return torch.full((rows,), value, dtype=torch.float64, device=device)

    made = program.scalars_from(values, scale)
    return torch.stack([column(made[name]) for name in program.graph.scalars], dim=1)


def refuse(device: torch.device) -> None:
    """Raise :class:`InvalidState` where an ordinary step is captured."""
    if capturing(device):
        raise InvalidState(
            "step: found a CUDA graph that is being captured, expected a capturable optimizer; construct it with "
            "capturable=True and nonfinite='skip'"
        )


def check_warm(device: torch.device) -> None:
    """Raise :class:`InvalidState` where a step that still has to compile and lay out is captured."""
    if capturing(device):
        raise InvalidState(
            "step: the first step of these parameters cannot be captured, because kernels are compiled and state is "
            "made in it; take some before, on a side stream, as torch's notes on CUDA graphs describe"
        )
