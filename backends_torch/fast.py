"""How a step reaches memory: generated kernels over many tensors at once, torch operations everywhere else.

A generated kernel, C++ on the CPU and Triton on GPUs, takes ordinary dense tensors whose arrays all have their entries
in the same order. Other devices, layouts and tensor subclasses (FakeTensor) run op by op; on the CPU, in pieces that
stay in the cache. Of a DTensor it takes the shard of this process, if the rule is elementwise and all its arrays are
split alike; a rule with sums (Apollo's) runs op by op there, and DTensor adds up the sums of the shards. All give the
same bits, but for sums (Apollo's) and powers (AdaHessian's), which may round differently.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from hessiod.backends import kernels
from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch import shards, triton_sweep
from hessiod.backends_torch.precision import widened
from hessiod.backends_torch.triton_sweep import TritonBatch
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Kernel, Rule
from hessiod.core.trace import Program, trace

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
PLAIN = {Tensor, torch.nn.Parameter}
PIECE = 2**16
"""Entries that an operation on the CPU takes at a time: eight float32 arrays of them are 2 MiB."""


# Compiled


def plain(tensors: Sequence[Tensor]) -> bool:
    """Whether all are ordinary tensors on the CPU whose entries lie in memory one after another."""
    return all(map(attrgetter("is_cpu"), tensors)) and ordinary(tensors)


def ordinary(tensors: Sequence[Tensor]) -> bool:
    """Whether all are ordinary tensors, on any device, whose entries lie in memory one after another."""
    return (
        set(map(type, tensors)) <= PLAIN
        and set(map(attrgetter("dtype"), tensors)) <= DTYPES.keys()
        and not any(map(Tensor.is_neg, tensors))
        and (all(map(Tensor.is_contiguous, tensors)) or all(map(dense, tensors)))
    )


def dense(tensor: Tensor) -> bool:
    """Whether the entries fill a stretch of memory, each once, in any order of the dimensions.

    >>> dense(torch.ones(2, 3).T), dense(torch.ones(2, 3)[:, ::2]), dense(torch.ones(1).expand(3))
    (True, False, False)
    """
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def alike(arrays: Sequence[Tensor]) -> bool:
    """Whether plain arrays have their entries in the same order."""
    shape, strides = arrays[0].shape, arrays[0].stride()
    contiguous = arrays[0].is_contiguous()
    return all(
        other.shape == shape and ((contiguous and other.is_contiguous()) or other.stride() == strides)
        for other in arrays
    )


class Batch:
    """Parameters of a group that one call of a compiled kernel moves, and the addresses of what it reads and writes."""

    def __init__(self, sweep: kernels.Sweep, places: list[int]) -> None:
        self.sweep, self.places = sweep, places
        self.width = len(sweep.program.operands)
        self.sizes = array("q")
        self.table = array("q")
        self.zeros = array("q")

    def add(self, arrays: Sequence[Tensor]) -> None:
        """Add a parameter's arrays, in the order of the program's operands."""
        self.sizes.append(arrays[0].numel())
        self.zeros.append(0)
        self.table.extend([tensor.data_ptr() for tensor in arrays])

    def run(self, inputs: Sequence[Sequence[Tensor]], rows: Sequence[int], scalars: Any) -> None:
        """Move them; ``inputs`` are all gradients and, perhaps, all estimates of the group."""
        first = self.width - len(inputs)
        for column, tensors in enumerate(inputs, start=first):
            chosen = tensors if len(tensors) == len(self.places) else [tensors[place] for place in self.places]
            self.table[column :: self.width] = array("q", map(Tensor.data_ptr, chosen))
        own = [rows[place] for place in self.places] if len(scalars) > 1 else self.zeros
        self.sweep.run(self.sizes, self.table, own, scalars, torch.get_num_threads())


class Plan:
    """How a group's parameters are moved: in batches, or one by one. It holds until an array is another one, or moves.

    Looking at every array's dtype, device and layout takes longer than moving a small one; hence once, not in each
    step.
    """

    def __init__(
        self,
        program: tuple[Kernel, ...],
        params: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        inputs: Sequence[Sequence[Tensor]],
    ) -> None:
        self.program, self.params, self.states = program, list(params), list(states)
        self.slots = list(Program(program).slots)
        self.owned = self._own(states)
        self.split = any(map(shards.is_split, self.owned))
        self.addresses = self._addresses()
        self.layouts = self._layouts(inputs)
        self.batches: list[Batch | TritonBatch] = []
        self.eager: list[int] = []
        found: dict[Any, Batch | TritonBatch | None] = {}
        for place, param in enumerate(params):
            arrays = [param, *[states[place][slot] for slot in self.slots], *[given[place] for given in inputs]]
            if self.split and shards.alike(arrays) and all(map(elementwise, program)):
                arrays = list(map(shards.local, arrays))
            dtypes = tuple(tensor.dtype for tensor in (param, *arrays[1 + len(self.slots) :]))
            key = (param.device, dtypes)
            if key not in found:
                found[key] = batch_for(program, dtypes, param.device)
            batch = found[key]
            if batch is None or not takes(arrays, len(self.slots)):
                self.eager.append(place)
                continue
            batch.places.append(place)
            batch.add(arrays)
        self.batches = []
        for batch in found.values():
            if isinstance(batch, TritonBatch) and batch.places and not triton_sweep.prepared(batch):
                self.eager += batch.places
            elif batch is not None and batch.places:
                self.batches.append(batch)

    def _own(self, states: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        return [*self.params, *[state[slot] for state in states for slot in self.slots]]

    def _addresses(self) -> list[int]:
        return list(map(Tensor.data_ptr, map(shards.local, self.owned) if self.split else self.owned))

    def _layouts(self, inputs: Sequence[Sequence[Tensor]]) -> list[Any]:
        if not self.split:
            return list(map(layouts, inputs))
        return [(layouts(list(map(shards.local, given))), list(map(shards.split_of, given))) for given in inputs]

    def run(
        self, batch: Batch | TritonBatch, inputs: Sequence[Sequence[Tensor]], rows: Sequence[int], scalars: Any
    ) -> None:
        """Move a batch."""
        batch.run([list(map(shards.local, given)) for given in inputs] if self.split else inputs, rows, scalars)

    def holds(
        self,
        program: tuple[Kernel, ...],
        params: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        inputs: Sequence[Sequence[Tensor]],
    ) -> bool:
        """Whether every array is where it was, and the inputs are laid out as they were."""
        return (
            self.program is program
            and same(self.params, params)
            and same(self.states, states)
            and same(self.owned, self._own(states))
            and self._addresses() == self.addresses
            and self._layouts(inputs) == self.layouts
        )


def same(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    return len(ones) == len(others) and all(map(is_, ones, others))


def layouts(tensors: Sequence[Tensor]) -> list[list[Any]]:
    """Everything about some tensors that a kernel depends on, but their addresses."""
    looks = (type, attrgetter("is_cpu"), attrgetter("dtype"), Tensor.numel, Tensor.is_contiguous, Tensor.is_neg)
    found: list[list[Any]] = [list(map(look, tensors)) for look in looks]
    if not all(found[4]):  # for the others the strides follow from the parameter's shape
        found.append(list(map(Tensor.stride, tensors)))
    return found


def takes(arrays: Sequence[Tensor], slots: int) -> bool:
    """Whether a compiled kernel can take a parameter's arrays: all plain and alike, state in the working dtype."""
    working = torch.float64 if arrays[0].dtype == torch.float64 else torch.float32
    state = arrays[1 : 1 + slots]
    placed = all(array.device == arrays[0].device for array in arrays)
    return placed and ordinary(arrays) and alike(arrays) and all(slot.dtype == working for slot in state)


def batch_for(
    program: tuple[Kernel, ...], dtypes: Sequence[torch.dtype], device: torch.device
) -> Batch | TritonBatch | None:
    """An empty batch for a program and the dtypes of parameter, gradient and, perhaps, estimate: C++ or Triton."""
    if any(dtype not in DTYPES for dtype in dtypes):
        return None
    names = [DTYPES[dtype] for dtype in dtypes]
    if device.type == "cuda" or kernels.choice() == "interpreted":
        launched = triton_sweep.sweep_for(program, names[0], names[1], names[-1])
        return None if launched is None else TritonBatch(launched, device)
    if device.type != "cpu" or not kernels.available():
        return None
    sweep = kernels.sweep_for(program, names[0], names[1], names[-1])
    return None if sweep is None else Batch(sweep, [])


# A step


def advance(
    optimizer: Any,
    work: Sequence[tuple[int, Tensor, Tensor]],
    values: Sequence[Mapping[str, float]],
    estimates: Mapping[Tensor, Tensor] | None,
    scales: Sequence[float] | None = None,
) -> None:
    """Take the step of every parameter in ``work``, which lists group index, parameter and gradient.

    ``scales`` are what the groups' gradients are multiplied by. Everything that may be wrong with a step was looked at
    before.
    """
    for index, members in groupby(work, key=itemgetter(0)):
        _, params, grads = zip(*members, strict=True)
        group = optimizer.param_groups[index]
        rule = optimizer.rule_of(group)
        refreshed = estimates is not None and rule.refresh is not None
        inputs: list[Sequence[Tensor]] = [grads]
        if estimates is not None and refreshed:
            inputs.append([optimizer._estimate_for(group, estimates[param]) for param in params])
        scale = optimizer._inverse_scale if scales is None else scales[index]
        scale = -scale if group["maximize"] else scale
        advance_group(optimizer, (index, refreshed), rule, params, inputs, values[index], scale)


def advance_group(
    optimizer: Any,
    key: tuple[int, bool],
    rule: Rule,
    params: Sequence[Tensor],
    inputs: Sequence[Sequence[Tensor]],
    values: Mapping[str, float],
    scale: float,
) -> None:
    """Take the step of some parameters of one group, after folding in their estimates if ``inputs`` has any."""
    program, states = program_of(rule, key[1]), [optimizer.state[param] for param in params]
    plans = vars(optimizer).setdefault("_plans", {})
    plan = plans.get(key)
    if plan is None or not all(states) or not plan.holds(program, params, states, inputs):
        states = [optimizer._state(rule, param) for param in params]
        plan = plans[key] = Plan(program, params, states, inputs) if kernels.choice() != "eager" else None
    for state in states:
        state["step"] += 1
        if key[1]:
            state["refreshes"] += 1
    if plan is not None and plan.batches:
        counts = [(state["step"], state.get("refreshes")) for state in states]
        row_of = {count: row for row, count in enumerate(dict.fromkeys(counts))}
        rows = [row_of[count] for count in counts] if len(row_of) > 1 else [0] * len(counts)
        for batch in plan.batches:
            made = batch.sweep.program
            scalars = [made.scalars_from({**values, "step": s, "refreshes": r}, scale) for s, r in row_of]
            plan.run(batch, inputs, rows, scalars)
    for place in range(len(params)) if plan is None else plan.eager:
        given = {name: found[place] for name, found in zip(("param", "grad", "estimate"), (params, *inputs))}  # noqa: B905
        eagerly(program, {**states[place], **given}, {**values, **states[place]}, scale)


def program_of(rule: Rule, refreshed: bool) -> tuple[Kernel, ...]:
    """The kernels of a rule's step, the same object each time."""
    return _program(rule.refresh if refreshed else None, rule.step)


@cache
def _program(refresh: Kernel | None, step: Kernel) -> tuple[Kernel, ...]:
    return (step,) if refresh is None else (refresh, step)


# Op by op


def eagerly(
    program: Sequence[Kernel], arrays: Mapping[str, Any], values: Mapping[str, Any], grad_scale: float = 1.0
) -> None:
    """Run kernels one after another and write their results into the arrays that they belong to.

    Half-precision arrays are widened first, and the parameter is rounded once, at the end.
    """
    given = {name: arrays[name] for kernel in program for name in kernel.operands}
    for piece in pieces(program, given):
        wide = {name: widened(array) for name, array in piece.items()}
        if grad_scale != 1:
            wide["grad"] = wide["grad"] * grad_scale
        for kernel in program:
            results = kernel.function(xp, *[wide[name] for name in kernel.operands], **kernel.scalars_from(values))
            for name, result in zip(kernel.results, results, strict=True):
                wide[name].copy_(result)
        for name in {name for kernel in program for name in kernel.results}:
            if wide[name] is not piece[name]:
                piece[name].copy_(wide[name])


def pieces(program: Sequence[Kernel], arrays: Mapping[str, Tensor]) -> Iterable[Mapping[str, Tensor]]:
    """The arrays in pieces that fit a cache, where that changes nothing; otherwise whole."""
    found = list(arrays.values())
    size = found[0].numel()
    cut = size > PIECE and all(map(elementwise, program)) and plain(found) and alike(found)
    if not cut:
        return [arrays]
    flat = {name: array.as_strided((size,), (1,)) for name, array in arrays.items()}
    return ({name: array[start : start + PIECE] for name, array in flat.items()} for start in range(0, size, PIECE))


@cache
def elementwise(kernel: Kernel) -> bool:
    """Whether a kernel can run on a part of its arrays."""
    try:
        return trace(kernel).elementwise
    except InvalidArgument:
        return False


# Finite


def first_nonfinite(tensors: Sequence[Tensor]) -> int | None:
    """The place of the first tensor that holds NaN or infinity.

    >>> first_nonfinite([torch.ones(2), torch.tensor([1.0, float("nan")])])
    1
    """
    if kernels.available() and plain(tensors):
        sizes, pointers = list(map(Tensor.numel, tensors)), list(map(Tensor.data_ptr, tensors))
        dtypes = list(map(DTYPES.__getitem__, map(attrgetter("dtype"), tensors)))
        return kernels.first_nonfinite(sizes, pointers, dtypes, torch.get_num_threads())
    if any(map(shards.is_split, tensors)):
        return shards.first_on_any_process(tensors, first_nonfinite)
    # The infinity norm is infinite or NaN exactly when an entry is, and cannot overflow.
    filled = [tensor for tensor in tensors if tensor.numel()]
    if not filled or torch.isfinite(get_total_norm(filled, float("inf"))):
        return None
    return next(place for place, tensor in enumerate(tensors) if not torch.isfinite(tensor).all())
