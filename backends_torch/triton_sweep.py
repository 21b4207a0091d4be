"""Generated Triton kernels: one launch moves all tensors of a batch, and nothing waits for the device.

CUDA and ROCm devices; on the CPU Triton's interpreter runs the same kernels, slowly, which is how they are tested.
"""

from __future__ import annotations

import linecache
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.backends.kernels import triton_code
from hessiod.backends_torch.arrays import Arrays
from hessiod.core.errors import BackendUnavailable, InvalidArgument, InvalidState
from hessiod.core.rule import Kernel
from hessiod.core.trace import Program, passes

LOG = logging.getLogger("hessiod.kernels")
WARPS = 4
ALIGNMENT = 16
"""Bytes that a thread can move at once where every array begins at a multiple of them."""


@dataclass(frozen=True)
class TritonSweep:
    """A program as Triton kernels, by their names in the generated module."""

    program: Program
    functions: Mapping[str, Any]
    working: torch.dtype


@cache
def functions_of(source: str, interpreted: bool) -> Mapping[str, Any]:
    """The kernels of a generated module, compiled by Triton when they are first launched, or interpreted."""
    import triton

    file = f"<hessiod {sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # where Triton reads them
    names: dict[str, Any] = {"__name__": "hessiod_triton"}
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = interpreted
        exec(compile(source, file, "exec"), names)
    return {name: value for name, value in names.items() if name.startswith(("pass_", "total_"))}


def sweep_for(kernel_list: tuple[Kernel, ...], param: str, grad: str, estimate: str) -> TritonSweep | None:
    """The program of some kernels, or None, and said once, where Triton is missing or cannot express it."""
    return _sweep_for(kernel_list, param, grad, estimate, kernels.choice() == "interpreted")


@cache
def _sweep_for(
    kernel_list: tuple[Kernel, ...], param: str, grad: str, estimate: str, interpreted: bool
) -> TritonSweep | None:
    program = Program(kernel_list)
    try:
        if find_spec("triton") is None:
            raise BackendUnavailable("triton is not installed; run: pip install 'hessiod[triton]'")
        text = triton_code.source(program, {"param": param, "grad": grad, "estimate": estimate})
        found = TritonSweep(program, functions_of(text, interpreted), getattr(torch, working_of(param)))
    except (BackendUnavailable, InvalidArgument) as error:
        if kernels.choice() in ("compiled", "interpreted"):
            raise
        say_once(kernel_list[-1].function.__name__, str(error))
        return None
    return found


def prepared(batch: TritonBatch) -> bool:
    """Whether a batch's kernels compile; where not, that is said once for each program."""
    try:
        batch.prepare()
    except Exception as error:  # Triton's own errors, a missing C compiler, a driver that is too old
        if kernels.choice() in ("compiled", "interpreted"):
            raise
        say_once(batch.sweep.program.kernels[-1].function.__name__, " ".join(str(error).split())[:400])
        return False
    return True


@cache
def say_once(kernel: str, reason: str) -> None:
    """Log that a kernel runs op by op."""
    LOG.warning("%s runs op by op on the GPU: %s", kernel, reason)


def working_of(param: str) -> str:
    """The dtype that a parameter's is calculated with."""
    return "float64" if param == "float64" else "float32"


class TritonBatch:
    """Parameters of a group on one device that one launch a pass moves, as ``plans.Batch``.

    Tables go to the device when they change: sizes once, addresses when a gradient is a new tensor, scalars each step.
    """

    def __init__(self, sweep: TritonSweep, device: torch.device) -> None:
        self.sweep, self.device = sweep, device
        self.places: list[int] = []
        self.sizes: list[int] = []
        self.table: list[int] = []
        self.width = len(sweep.program.operands)
        self.sent: dict[str, tuple[Any, Tensor]] = {}
        self.spare: Tensor | None = None
        self.held: list[tuple[Tensor, Tensor]] = []

    def add(self, place: int, arrays: Sequence[Tensor]) -> None:
        """Add a parameter's arrays, in the order of the program's operands."""
        self.places.append(place)
        self.sizes.append(arrays[0].numel())
        self.table.extend(tensor.data_ptr() for tensor in arrays)

    def run(self, inputs: Sequence[Arrays], rows: Sequence[int], scalars: Sequence[Mapping[str, Any]]) -> None:
        """Move them; ``inputs`` are all gradients and, perhaps, all estimates of the group."""
        self.take(inputs)
        names = self.sweep.program.graph.scalars
        numbers = torch.tensor([[float(row[name]) for name in names] for row in scalars], dtype=torch.float64)
        own = [rows[place] for place in self.places]
        self.launch(self.on_device("rows", own), self.moved(numbers.to(self.sweep.working)))

    def run_if(self, go: Tensor, inputs: Sequence[Arrays], numbers: Tensor) -> None:
        """Move them unless ``go`` is 0, each with its row of scalars; both are on the device and stay there."""
        self.take(inputs)
        if self.spare is None and self.device.type == "cuda" and not capturing(self.device):
            self.spare = torch.empty(len(self.table), dtype=torch.int64, pin_memory=True)
        own = numbers.index_select(0, self.on_device("places", self.places)).to(self.sweep.working)
        self.launch(self.on_device("own rows", range(len(self.places))), own, go=go.long())

    def take(self, inputs: Sequence[Arrays]) -> None:
        """Note where the gradients and, perhaps, the estimates lie."""
        for column, given in enumerate(inputs, start=self.width - len(inputs)):
            self.table[column :: self.width] = given.addresses_at(self.places)

    def prepare(self) -> None:
        """Compile every kernel, by launches of no programs, so that nothing has been changed if that fails."""
        rows = self.on_device("rows", [0] * len(self.sizes))
        self.launch(rows, torch.zeros(1, len(self.sweep.program.graph.scalars), dtype=self.sweep.working), empty=True)

    def on_device(self, name: str, values: Sequence[int]) -> Tensor:
        """A table of integers on the device; it is sent again only if it holds something else."""
        known = self.sent.get(name)
        if known is None or known[0] != list(values):
            if capturing(self.device):
                return self.captured(values)
            known = self.sent[name] = (list(values), self.moved(torch.tensor(values, dtype=torch.int64)))
        return known[1]

    def captured(self, values: Sequence[int]) -> Tensor:
        """A table that a graph sends anew at each replay, from memory of the host that nothing else writes to.

        Such memory cannot be had during a capture; every step outside of one leaves some.
        """
        if self.spare is None:
            raise InvalidState("step: found a second capture without a step between the two; take one before each")
        source, self.spare = self.spare, None
        source.copy_(torch.tensor(values, dtype=torch.int64))
        self.held.append((source, source.to(self.device, non_blocking=True)))
        return self.held[-1][1]

    @cached_property
    def always(self) -> Tensor:
        """The number that lets every launch run."""
        return torch.ones((), dtype=torch.int64, device=self.device)

    def moved(self, table: Tensor) -> Tensor:
        """A table of the host's on the device, without waiting for it."""
        return table if self.device.type == "cpu" else table.pin_memory().to(self.device, non_blocking=True)

    @cached_property
    def layout(self) -> tuple[list[int], tuple[Tensor, ...], Tensor]:
        """How many chunks each tensor has; of each chunk its tensor, its number there, and all sizes; first chunks."""
        counts = [-(-size // triton_code.CHUNK) for size in self.sizes]
        tensors = [tensor for tensor, count in enumerate(counts) for _ in range(count)]
        chunks = [chunk for count in counts for chunk in range(count)]
        tables = (tensors, chunks, self.sizes, list(accumulate(counts, initial=0)))
        *pieces, firsts = [self.moved(torch.tensor(table, dtype=torch.int64)) for table in tables]
        return counts, tuple(pieces), firsts

    def launch(self, rows: Tensor, scalars: Tensor, go: Tensor | None = None, empty: bool = False) -> None:
        """Every pass, and the sums between them; nothing is written to the tensors where ``go`` is 0."""
        go = self.always if go is None else go
        sweeps, (counts, pieces, firsts) = passes(self.sweep.program.graph), self.layout
        known = sum(len(sweep.sums) + len(sweep.singles) for sweep in sweeps)
        numbers = torch.empty(len(counts) * known, dtype=self.sweep.working, device=self.device)
        summed = sum(counts) * max(len(sweep.sums) for sweep in sweeps)
        sums = torch.empty(summed, dtype=torch.float64, device=self.device)
        own = (rows, scalars.to(self.device), scalars.shape[1], numbers, known, sums)
        aligned = ALIGNMENT if all(address % ALIGNMENT == 0 for address in self.table) else 1
        blocks = {"ALIGNED": aligned, "CHUNK": triton_code.CHUNK, "BLOCK": triton_code.BLOCK}
        table = self.on_device("table", self.table)
        with guard(self.device):
            for number, sweep in enumerate(sweeps):
                self.call(f"pass_{number}", 0 if empty else sum(counts), *pieces, go, table, *own, **blocks)
                if sweep.sums:
                    tensors = 0 if empty else len(counts)
                    self.call(f"total_{number}", tensors, firsts, pieces[-1], *own, LANES=triton_code.LANES)

    def call(self, name: str, programs: int, *arguments: Any, **sizes: int) -> None:
        """One launch. Products and sums are not contracted, so that results are those of every other route."""
        self.sweep.functions[name][(programs,)](*arguments, **sizes, num_warps=WARPS, enable_fp_fusion=False)


def capturing(device: torch.device) -> bool:
    """Whether what is launched now goes into a CUDA graph instead of being run."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def guard(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to the current device: make it the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
