"""How a step reaches memory: generated kernels over many tensors at once, torch operations everywhere else.

A generated kernel, C++ on the CPU and Triton on GPUs, takes ordinary dense tensors whose arrays all have their entries
in the same order. Other devices, layouts and tensor subclasses (FakeTensor) run op by op; on the CPU, in pieces that
stay in the cache. Of a DTensor it takes the shard of this process, if the rule is elementwise and all its arrays are
split alike; a rule with sums (Apollo's) runs op by op there, and DTensor adds up the sums of the shards. All give the
same bits, but for sums (Apollo's) and powers (AdaHessian's), which may round differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from hessiod.backends import kernels
from hessiod.backends_torch import capturable, shards
from hessiod.backends_torch.arrays import Arrays, joined
from hessiod.backends_torch.op_by_op import eagerly
from hessiod.backends_torch.plans import Plan
from hessiod.core.rule import Kernel, Rule

# A step


@dataclass(frozen=True)
class Members:
    """The parameters of a group that a step moves, and their gradients."""

    group: int
    params: Sequence[Tensor]
    grads: Arrays

    def pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Each parameter and its gradient."""
        return zip(self.params, self.grads.tensors, strict=True)

    def along(self, directions: Mapping[Tensor, Tensor]) -> Members:
        """Those that have a direction, and it in the place of the gradient."""
        ways = zip(self.params, map(directions.get, self.params), strict=True)
        known = [(param, way) for param, way in ways if way is not None]
        return Members(self.group, [param for param, _ in known], Arrays([way for _, way in known]))


def advance(
    optimizer: Any,
    work: Sequence[Members],
    values: Sequence[Mapping[str, float]],
    estimates: Mapping[Tensor, Tensor] | None,
    scales: Sequence[float] | None = None,
    go: Tensor | None = None,
) -> None:
    """Take the step of every parameter in ``work``.

    ``scales`` are what the groups' gradients are multiplied by. Everything that may be wrong with a step was looked at
    before; in a capturable one ``go`` holds what was found.
    """
    for members in work:
        group = optimizer.param_groups[members.group]
        rule = optimizer.rule_of(group)
        refreshed = estimates is not None and rule.refresh is not None
        inputs = [members.grads]
        if estimates is not None and refreshed:
            found = [optimizer._estimate_for(group, estimates[param]) for param in members.params]
            inputs.append(Arrays(found))
        scale = optimizer._inverse_scale if scales is None else scales[members.group]
        scale = -scale if group["maximize"] else scale
        key = (members.group, refreshed)
        advance_group(optimizer, key, rule, members.params, inputs, values[members.group], scale, go)


def advance_group(
    optimizer: Any,
    key: tuple[int, bool],
    rule: Rule,
    params: Sequence[Tensor],
    inputs: Sequence[Arrays],
    values: Mapping[str, float],
    scale: float,
    go: Tensor | None = None,
) -> None:
    """Take the step of some parameters of one group, after folding in their estimates if ``inputs`` has any."""
    program, states = program_of(rule, key[1]), list(map(optimizer.state.__getitem__, params))
    plans = vars(optimizer).setdefault("_plans", {})
    plan = plans.get(key)
    if plan is None or not all(states) or not plan.holds(program, params, states, inputs):
        if go is not None:
            capturable.check_warm(params[0].device)
        states = [optimizer._state(rule, param) for param in params]
        plan = plans[key] = Plan(program, params, states, inputs) if kernels.choice() != "eager" else None
    rising = ("step", "refreshes") if key[1] else ("step",)
    if go is not None:
        capturable.move(plan, program, states, params, inputs, values, scale, rising, go)
        return
    for name in rising:
        for state in states:
            state[name] += 1
    if plan is not None and plan.batches:
        counts, rows = counted(states, rule.refresh is not None)
        for batch in plan.batches:
            made = batch.sweep.program
            scalars = [made.scalars_from({**values, "step": s, "refreshes": r}, scale) for s, r in counts]
            plan.run(batch, inputs, rows, scalars)
    for place in range(len(params)) if plan is None else plan.eager:
        given = {name: arrays.tensors[place] for name, arrays in zip(("grad", "estimate"), inputs)}  # noqa: B905
        eagerly(program, {**states[place], "param": params[place], **given}, {**values, **states[place]}, scale)


def counted(states: Sequence[Mapping[str, Any]], refreshed: bool) -> tuple[list[tuple[int, int | None]], list[int]]:
    """The different pairs of steps taken and estimates folded in, and for each parameter the place of its own.

    >>> counted([{"step": 2}, {"step": 1}, {"step": 2}], refreshed=False)
    ([(2, None), (1, None)], [0, 1, 0])
    """
    steps = list(map(itemgetter("step"), states))
    refreshes = list(map(itemgetter("refreshes"), states)) if refreshed else [None] * len(states)
    if steps.count(steps[0]) == refreshes.count(refreshes[0]) == len(states):  # nearly always
        return [(steps[0], refreshes[0])], [0] * len(states)
    row_of: dict[Any, int] = {}
    rows = [row_of.setdefault(pair, len(row_of)) for pair in zip(steps, refreshes, strict=True)]
    return list(row_of), rows


def program_of(rule: Rule, refreshed: bool) -> tuple[Kernel, ...]:
    """The kernels of a rule's step, the same object each time."""
    return _program(rule.refresh if refreshed else None, rule.step)


@cache
def _program(refresh: Kernel | None, step: Kernel) -> tuple[Kernel, ...]:
    return (step,) if refresh is None else (refresh, step)


# Finite


def first_nonfinite(given: Sequence[Arrays]) -> int | None:
    """The place of the first tensor that holds NaN or infinity.

    >>> first_nonfinite([Arrays([torch.ones(2), torch.tensor([1.0, float("nan")])])])
    1
    """
    if not any(arrays.tensors for arrays in given):
        return None
    if kernels.available() and all(arrays.plain for arrays in given):
        return kernels.first_nonfinite(*joined(given), torch.get_num_threads())
    tensors = [tensor for arrays in given for tensor in arrays.tensors]
    if any(map(shards.is_split, tensors)):
        return shards.first_on_any_process(tensors, lambda found: first_nonfinite([Arrays(found)]))
    # The infinity norm is infinite or NaN exactly when an entry is, and cannot overflow.
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled or torch.isfinite(get_total_norm(filled, float("inf"))):
        return None
    return next(place for place, tensor in enumerate(tensors) if not torch.isfinite(tensor).all())


# Inner products


def inner_products(ones: Arrays, others: Arrays) -> list[float]:
    """``<x, y>`` of pairs of tensors of one shape and dtype, float32 or wider.

    >>> inner_products(Arrays([torch.ones(3)]), Arrays([torch.full((3,), 2.0)]))
    [6.0]
    """
    if kernels.available() and all(arrays.plain and all(arrays.contiguous) for arrays in (ones, others)):
        return kernels.inner_products(
            ones.sizes, ones.addresses, others.addresses, ones.dtypes, torch.get_num_threads()
        )
    products = [(one * other).sum(dtype=torch.float64) for one, other in zip(ones.tensors, others.tensors, strict=True)]
    return torch.stack(products).tolist() if products else []  # all at once: a device is asked once
