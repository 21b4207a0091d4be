"""How a group's parameters are moved: in batches by generated kernels, or one by one. Worked out once, then checked."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends_torch import shards, triton_sweep
from hessiod.backends_torch.arrays import DTYPES, Arrays, alike, same
from hessiod.backends_torch.triton_sweep import TritonBatch
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Kernel
from hessiod.core.trace import Program, trace


class Batch:
    """Parameters of a group that one call of a compiled kernel moves, and the addresses of what it reads and writes."""

    def __init__(self, sweep: kernels.Sweep) -> None:
        self.sweep = sweep
        self.places: list[int] = []
        self.width = len(sweep.program.operands)
        self.sizes = array("q")
        self.table = array("q")
        self.zeros = array("q")

    def add(self, place: int, arrays: Sequence[Tensor]) -> None:
        """Add a parameter's arrays, in the order of the program's operands."""
        self.places.append(place)
        self.sizes.append(arrays[0].numel())
        self.zeros.append(0)
        self.table.extend([tensor.data_ptr() for tensor in arrays])

    def run(self, inputs: Sequence[Arrays], rows: Sequence[int], scalars: Any) -> None:
        """Move them; ``inputs`` are all gradients and, perhaps, all estimates of the group."""
        for column, given in enumerate(inputs, start=self.width - len(inputs)):
            self.table[column :: self.width] = given.addresses_at(self.places)
        own = [rows[place] for place in self.places] if len(scalars) > 1 else self.zeros
        self.sweep.run(self.sizes, self.table, own, scalars, torch.get_num_threads())

    def run_if(self, go: Tensor, inputs: Sequence[Arrays], numbers: Tensor) -> None:
        """Move them unless ``go`` is 0, each with its row of scalars; both are on the host, where they can be read."""
        if go:
            names = self.sweep.program.graph.scalars
            scalars = [dict(zip(names, row, strict=True)) for row in numbers.tolist()]
            self.run(inputs, range(len(scalars)), scalars)


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
        inputs: Sequence[Arrays],
    ) -> None:
        self.program, self.params, self.states = program, list(params), list(states)
        self.slots = list(Program(program).slots)
        self.owned = self._own(states)
        self.split = any(map(shards.is_split, self.owned))
        self.addresses = self._addresses()
        self.layouts = self._layouts(inputs)
        self.eager: list[int] = []
        self.batches = self._batches(inputs)

    def _batches(self, inputs: Sequence[Arrays]) -> list[Batch | TritonBatch]:
        found: dict[Any, Batch | TritonBatch | None] = {}
        for place, param in enumerate(self.params):
            state = [self.states[place][slot] for slot in self.slots]
            given = [arrays.tensors[place] for arrays in inputs]
            arrays = [param, *state, *given]
            if self.split and shards.alike(arrays) and all(map(elementwise, self.program)):
                arrays = list(map(shards.local, arrays))
            key = (param.device, tuple(tensor.dtype for tensor in (param, *given)))
            if key not in found:
                found[key] = batch_for(self.program, key[1], param.device)
            batch = found[key]
            if batch is None or not takes(arrays, len(self.slots)):
                self.eager.append(place)
            else:
                batch.add(place, arrays)
        filled = [batch for batch in found.values() if batch is not None and batch.places]
        ready = [batch for batch in filled if isinstance(batch, Batch) or triton_sweep.prepared(batch)]
        self.eager += [place for batch in filled if batch not in ready for place in batch.places]
        return ready

    def _own(self, states: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        owned = list(self.params)
        for slot in self.slots:
            owned += map(itemgetter(slot), states)
        return owned

    def _addresses(self) -> list[int]:
        return list(map(Tensor.data_ptr, map(shards.local, self.owned) if self.split else self.owned))

    def _layouts(self, inputs: Sequence[Arrays]) -> list[Any]:
        if not self.split:
            return [given.layouts for given in inputs]
        return [(local(given).layouts, list(map(shards.split_of, given.tensors))) for given in inputs]

    def run(
        self, batch: Batch | TritonBatch, inputs: Sequence[Arrays], rows: Sequence[int], scalars: Sequence[Any]
    ) -> None:
        """Move a batch."""
        batch.run(list(map(local, inputs)) if self.split else inputs, rows, scalars)

    def holds(
        self,
        program: tuple[Kernel, ...],
        params: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        inputs: Sequence[Arrays],
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


def local(arrays: Arrays) -> Arrays:
    """The shards of this process."""
    return Arrays(list(map(shards.local, arrays.tensors)))


def takes(arrays: Sequence[Tensor], slots: int) -> bool:
    """Whether a compiled kernel can take a parameter's arrays: all plain and alike, state in the working dtype."""
    working = torch.float64 if arrays[0].dtype == torch.float64 else torch.float32
    state = arrays[1 : 1 + slots]
    placed = all(array.device == arrays[0].device for array in arrays)
    return placed and Arrays(arrays).ordinary and alike(arrays) and all(slot.dtype == working for slot in state)


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
    return None if sweep is None else Batch(sweep)


@cache
def elementwise(kernel: Kernel) -> bool:
    """Whether a kernel can run on a part of its arrays."""
    try:
        return trace(kernel).elementwise
    except InvalidArgument:
        return False
