"""Speed and memory of a checkpoint of about a gigabyte, beside the disk's sequential rate in the same run.

    python benchmarks/checkpoint.py [FOLDER]

Rates are medians of seven, a checkpoint and a bare file in turn. The bare file is written in pieces of 16 MiB and put
on the disk, as the checkpoint is, and read the same way. Before each read the file is dropped from the page cache. Run
it on a machine that is idle: the SHA-256 wants cores of its own.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hessiod import checkpoint
from hessiod.torch import SophiaG

WIDTH, LAYERS, PIECE = 2896, 10, 1 << 24


def seconds(calls: Mapping[Path, Callable[[], object]]) -> list[float]:
    """The medians of seven runs of each in turn, with its file out of the page cache before."""
    times: dict[Path, list[float]] = {path: [] for path in calls}
    for _ in range(7):
        for path, call in calls.items():
            if path.exists():
                dropped(path)
            begin = time.perf_counter()
            call()
            times[path].append(time.perf_counter() - begin)
    return [statistics.median(found) for found in times.values()]


def write_bare(path: Path, size: int) -> None:
    """A file of this size, on the disk."""
    piece = os.urandom(PIECE)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // PIECE):
            file.write(piece)
        os.fsync(file.fileno())


def read_bare(path: Path) -> None:
    """Read a file in pieces."""
    buffer = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def dropped(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak() -> int:
    """The process's largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: Path) -> None:
    """Print the figures."""
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    optimizer = SophiaG(model.parameters(), lr=0.1)
    for param in model.parameters():
        state = {"exp_avg": torch.randn_like(param), "hessian": torch.rand_like(param)}
        optimizer.state[param] = {"step": 1, "refreshes": 1, **state}
    optimizer.param_groups[0]["step"] = 1
    path, largest = folder / "checkpoint.safetensors", WIDTH * WIDTH * 4
    bare = folder / "bare"
    for name, call, other in (
        ("save", lambda: checkpoint.save(path, model, optimizer), lambda: write_bare(bare, path.stat().st_size)),
        ("load", lambda: checkpoint.load(path, model, optimizer), lambda: read_bare(bare)),
    ):
        before = peak()
        call()
        memory = (peak() - before) / largest
        ours, theirs = seconds({path: call, bare: other})
        size = path.stat().st_size
        print(
            f"{name}: {size / 1e9:.2f} GB in {ours:.2f} s, {size / ours / 1e9:.2f} GB/s; bare file "
            f"{size / theirs / 1e9:.2f} GB/s; {theirs / ours:.0%}; memory {memory:.2f} times the largest array"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        main(Path(folder))
