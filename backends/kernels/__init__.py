"""Fast kernels, generated from the rules: C++ for the CPU, Triton for GPUs.

``HESSIOD_KERNELS`` in the environment chooses: ``auto`` (the default) uses them where they can be used and says once
where not, ``eager`` never does, ``compiled`` makes it an error if they cannot be compiled. ``interpreted`` runs on the
CPU what is generated for GPUs, in Triton's interpreter: slowly, for tests.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from hessiod.backends.kernels.compiler import CompilerUnavailable, find
from hessiod.backends.kernels.library import (
    Sweep,
    common,
    compiled,
    first_nonfinite,
    inner_products,
    philox,
    squares,
    uniforms,
)
from hessiod.backends.kernels.matrices import (
    damped_inverse,
    damped_inverses,
    natural_gradients,
    products,
    second_moment,
    second_moments,
    wide,
)
from hessiod.core.errors import InvalidArgument
from hessiod.core.rule import Kernel

__all__ = [
    "CompilerUnavailable",
    "Sweep",
    "available",
    "choice",
    "damped_inverse",
    "damped_inverses",
    "first_nonfinite",
    "inner_products",
    "matrices_available",
    "natural_gradients",
    "offered",
    "philox",
    "second_moment",
    "second_moments",
    "squares",
    "sweep_for",
    "uniforms",
]

CHOICES = ("auto", "eager", "compiled", "interpreted")
LOG = logging.getLogger("hessiod.kernels")


def choice() -> str:
    """What ``HESSIOD_KERNELS`` says."""
    found = os.environ.get("HESSIOD_KERNELS") or "auto"
    if found not in CHOICES:
        raise InvalidArgument(f"HESSIOD_KERNELS: found {found!r}, expected one of {', '.join(CHOICES)}")
    return found


def available() -> bool:
    """Whether kernels are to be compiled and can be; where not, the reason is logged once."""
    if choice() == "eager":
        return False
    return _compiles(common, "optimizer steps")


def offered() -> bool:
    """Whether there is a compiler, which is not called yet."""
    if choice() == "eager":
        return False
    try:
        return bool(find())
    except CompilerUnavailable:
        return False


def matrices_available() -> bool:
    """Whether matrix products are to be compiled, can be, and are faster than a library's."""
    return available() and _compiles(products, "matrix products") and wide()


def _compiles(library: Callable[[], Any], what: str) -> bool:
    reason = _obstacle(library, what)
    if reason and choice() == "compiled":
        raise CompilerUnavailable(f"HESSIOD_KERNELS=compiled: {reason}")
    return not reason


@cache
def _obstacle(library: Callable[[], Any], what: str) -> str:
    try:
        library()
    except (CompilerUnavailable, OSError) as error:
        if choice() != "compiled":
            LOG.warning("%s are slower than they could be: %s", what, error)
        return str(error)
    return ""


@cache
def sweep_for(kernels: tuple[Kernel, ...], param: str, grad: str, estimate: str) -> Sweep | None:
    """The compiled program of some kernels, or None, and said once, where it cannot be had.

    ``param``, ``grad`` and ``estimate`` are dtypes in memory.
    """
    try:
        return compiled(kernels, param, grad, estimate)
    except (CompilerUnavailable, OSError, InvalidArgument) as error:
        if choice() == "compiled":
            raise
        LOG.warning("%s runs without a compiled kernel: %s", kernels[-1].function.__name__, error)
        return None
