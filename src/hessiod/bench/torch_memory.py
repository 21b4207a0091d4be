"""Memory that a step takes for a moment, and state that it keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.torch_step import OURS, after_a_step

ENTRIES = 8_000_000
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def rows(settings: Settings) -> Iterator[Row]:
    """For each rule: growth of the peak resident memory during a step, and arrays of state a parameter."""
    params = [torch.nn.Parameter(torch.full((ENTRIES // 4,), 0.01)) for _ in range(4)]
    for label in OURS:
        optimizer = after_a_step(label, params)
        optimizer.step()
        slots = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        held = sum(slot.nbytes for slot in slots) / sum(param.nbytes for param in params)
        yield Row("memory", f"{label}, state", "the parameters' bytes", held, "x", 2.0 if label == "Sophia" else None)
        if CLEAR.exists():
            limit = 0.01 * 4 * ENTRIES / 2**20
            yield Row(
                "memory",
                f"{label}, peak in a step",
                "",
                peak_growth(optimizer.step),
                "MiB",
                limit,
                detail=f"parameters are {4 * ENTRIES / 2**20:.0f} MiB",
            )


def peak_growth(step: Callable[[], object]) -> float:
    """How far the peak of resident memory rises above what was resident before, in MiB."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would hide a new temporary
    CLEAR.write_text("5")  # the peak becomes what is resident now
    before = status("VmHWM")
    step()
    return (status("VmHWM") - before) / 1024


def allocated_peak(call: Callable[[], object]) -> float:
    """The largest sum of what torch's allocator handed out and did not get back since the call began, in MiB.

    Resident memory says more: it has what the allocator keeps for later, which is another amount at each run.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events)) / 2**20


def status(name: str) -> int:
    """A figure of this process in KiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
