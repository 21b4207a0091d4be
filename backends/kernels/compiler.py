"""The machine's C++ compiler: which it is, and how it is called."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

from hessiod.core.errors import HessiodError

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",  # a product and a sum round separately, as on every other route
    "-fno-math-errno",  # square roots need not report errors, so that they vectorise; their values are the same
    "-fno-trapping-math",  # likewise for comparisons and divisions
)
"""No flag lets the compiler change a result: none of -ffast-math is here but what concerns errno and traps."""

OPENMP = "-fopenmp"
FUSED = "-ffp-contract=fast"
"""Behind ``FLAGS``, for matrix products: no two libraries for those agree on roundings anyway."""
SECONDS = 120


class CompilerUnavailable(HessiodError, RuntimeError):
    """There is no C++ compiler, or it cannot compile what was generated."""


@cache
def find() -> tuple[str, ...]:
    """The compiler: the environment variable ``CXX`` with its options, or the first of c++, g++ and clang++."""
    if os.name != "posix":
        raise CompilerUnavailable(f"kernels are compiled on Linux and macOS only, found {os.name}")
    asked = os.environ.get("CXX", "").strip()
    try:
        words = shlex.split(asked)
    except ValueError as error:
        raise CompilerUnavailable(f"CXX: found {asked!r}, which a shell could not read: {error}") from error
    path = next(filter(None, map(shutil.which, words[:1] or ["c++", "g++", "clang++"])), None)
    if path:
        return path, *words[1:]
    if words:
        raise CompilerUnavailable(
            f"CXX: found {asked!r}, expected a C++ compiler and its options; there is no program {words[0]!r}: name "
            "one or unset CXX"
        )
    raise CompilerUnavailable("no C++ compiler was found; install g++ or name one in the environment variable CXX")


@cache
def identity() -> str:
    """What compiled code depends on besides its source and flags: the compiler's files, its options, the processor."""
    parts = [described(word) for word in find()]  # of "ccache g++" both
    return " ".join([*parts, processor()])


def described(word: str) -> str:
    """A word of the command; of a program, its file, which changes when another version is installed."""
    program = shutil.which(word)
    if program is None:
        return word
    path = Path(program).resolve()
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def processor() -> str:
    """The processor's name and instruction sets, which ``-march=native`` means."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [next(file, "") for _ in range(40)]
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return " ".join(line.strip() for line in lines if line.startswith(wanted))


def compile_library(source: str, target: Path, *more: str) -> None:
    """Compile a shared library with ``more`` flags; without OpenMP, hence for one thread, where there is none."""
    file = target.with_suffix(".cpp")
    file.write_text(source, encoding="utf-8")
    try:
        errors = _call([*FLAGS, *more, OPENMP], file, target)
        if errors and _call([*FLAGS, *more], file, target):
            raise CompilerUnavailable(f"{shlex.join(find())} cannot compile a kernel: {' '.join(errors.split())[:400]}")
    finally:
        file.unlink(missing_ok=True)


def _call(flags: list[str], file: Path, target: Path) -> str:
    """The compiler's complaint, or nothing."""
    command = [*find(), *flags, str(file), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr or f"exit status {done.returncode}"
