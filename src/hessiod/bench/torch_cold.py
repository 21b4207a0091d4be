"""What a program pays once: compiling kernels, importing, starting the command line. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter

from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.core.errors import HessiodError

READY = """
from time import perf_counter
from hessiod.core import RULES
from hessiod.backends.kernels import available, sweep_for
start = perf_counter()
rule = RULES["sophia"]
assert available()
for program in ((rule.step,), (rule.refresh, rule.step)):
    assert sweep_for(program, "float32", "float32", "float32") is not None
print(perf_counter() - start)
"""
IMPORT = """
from time import perf_counter
import gc, torch
if {collected}:
    gc.collect()
start = perf_counter()
import hessiod.torch
print(perf_counter() - start)
"""
NOTHING = "pass"
COMMAND = "import sys; from hessiod.cli.app import main; sys.argv = ['hessiod', *{arguments!r}]; main()"


def rows(settings: Settings, repeats: int = 5) -> Iterator[Row]:
    """Kernels of Sophia's step and refresh, the import of the PyTorch side, the command line.

    The first of several processes may find no bytecode; medians leave it out.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = {"XDG_CACHE_HOME": folder}
        yield Row("cold start", "Sophia's kernels, first time", "", seconds(READY, own), "s", 3.0)
        again = median(seconds(READY, own) for _ in range(repeats))
        yield Row("cold start", "Sophia's kernels, from the cache", "", again, "s", 0.05)
    importing, collected = (
        median(seconds(IMPORT.format(collected=before)) for _ in range(repeats)) for before in (False, True)
    )
    detail = f"{collected:.3f} s where Python has looked for garbage among torch's objects before"
    yield Row("cold start", "import hessiod.torch", "import torch", importing, "s", 0.15, detail=detail)
    for arguments in (["--help"], ["backends"]):
        code = COMMAND.format(arguments=arguments)
        command, python = (
            [median(times) for times in zip(*[whole(program) for _ in range(repeats)], strict=True)]
            for program in (code, NOTHING)
        )
        detail = f"{command[1]:.3f} s of processor time; an empty program: {python[0]:.3f} s, {python[1]:.3f} s"
        yield Row("cold start", " ".join(["hessiod", *arguments]), "", command[0], "s", 0.3, detail=detail)


def seconds(code: str, extra: Mapping[str, str] | None = None) -> float:
    """What a fresh interpreter prints last, as a number."""
    return float(fresh(code, extra).split()[-1])


def whole(code: str) -> tuple[float, float]:
    """How long a fresh interpreter takes, its own start included, and the processor time of that."""
    before, start = getrusage(RUSAGE_CHILDREN), perf_counter()
    fresh(code)
    elapsed, after = perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fresh(code: str, extra: Mapping[str, str] | None = None) -> str:
    """The output of a fresh interpreter, which may keep bytecode as installed packages do."""
    environment = {**os.environ, **(extra or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise HessiodError(f"a measurement failed: {' '.join(done.stderr.split())[-400:]}")
    return done.stdout
