"""What a program pays once: compiling kernels, importing, starting the command line. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from statistics import median
from time import perf_counter

from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.core.errors import HessiodError

READY = """
from time import perf_counter
from hessiod.core import RULES
from hessiod.backends.kernels import finite_check, sweep_for
start = perf_counter()
rule = RULES["sophia"]
finite_check()
for program in ((rule.step,), (rule.refresh, rule.step)):
    assert sweep_for(program, "float32", "float32", "float32") is not None
print(perf_counter() - start)
"""
IMPORT = """
from time import perf_counter
import torch
start = perf_counter()
import hessiod.torch
print(perf_counter() - start)
"""
COMMAND = "import sys; from hessiod.cli.app import main; sys.argv = ['hessiod', *{arguments!r}]; main()"


def rows(settings: Settings, repeats: int = 5) -> Iterator[Row]:
    """Kernels of Sophia's step and refresh, the import of the PyTorch side, the command line."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"XDG_CACHE_HOME": folder}
        yield Row("cold start", "Sophia's kernels, first time", "", seconds(READY, own), "s", 3.0)
        again = median(seconds(READY, own) for _ in range(repeats))
        yield Row("cold start", "Sophia's kernels, from the cache", "", again, "s", 0.05)
    yield Row(
        "cold start", "import hessiod.torch", "import torch", median(seconds(IMPORT) for _ in range(repeats)), "s", 0.15
    )
    for arguments in (["--help"], ["backends"]):
        times = [wall(COMMAND.format(arguments=arguments)) for _ in range(repeats)]
        yield Row("cold start", " ".join(["hessiod", *arguments]), "", median(times), "s", 0.3)


def seconds(code: str, extra: Mapping[str, str] | None = None) -> float:
    """What a fresh interpreter prints last, as a number."""
    return float(fresh(code, extra).split()[-1])


def wall(code: str) -> float:
    """How long a fresh interpreter takes, its own start included."""
    start = perf_counter()
    fresh(code)
    return perf_counter() - start


def fresh(code: str, extra: Mapping[str, str] | None = None) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **(extra or {})}, check=False
    )
    if done.returncode:
        raise HessiodError(f"a measurement failed: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout
