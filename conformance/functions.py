"""Level 0: every function of the namespace, called as it stands, against numpy.

A function that does not round must agree bit for bit, and so must ``sqrt``, which IEEE 754 rounds correctly. Sums may
be taken in any order: half an ULP of the sum of magnitudes for each addition. ``exp``, ``log``, ``cos`` and ``sin``
turn random words into targets and probes, where an error of 2^-12 moves one target in some thousands to the next class:
that is what they are held to, in ULP of float32. Frameworks differ there by hundreds of ULP; no rule's step calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hessiod.backends.contract import LINEAR_ALGEBRA, NAMESPACE, Backend
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.conformance.check import Check, Finding, identified, whole_kernels, wide_dtypes
from hessiod.conformance.inputs import hard_array

SAMPLING = 2.0**11
"""ULP that a function of the sampling may be off: 2^-12 relative in float32."""
SHAPE = (64, 8)
INTEGER = np.dtype(np.int64)
DOUBLE = ("float64",)
Arguments = Callable[[np.dtype], Sequence[Any]]


@dataclass(frozen=True)
class Call:
    """Arguments for a function in a dtype, and the ULP that its results may be off.

    ``terms`` says how many numbers a result adds up, ``dtypes`` in which dtypes core/ calls it (empty: in all that the
    backend has). An argument that is a string names an entry of the namespace.
    """

    arguments: Arguments
    budget: float = 0.0
    terms: int = 0
    dtypes: tuple[str, ...] = ()


def words(place: int = 0) -> np.ndarray:
    """32-bit words in int64, the extremes among them."""
    found = np.random.default_rng(2023 + place).integers(2**32, size=SHAPE)
    found[0, :4] = 0, 1, 2**31, 2**32 - 1
    return found


def hard(dtype: np.dtype, place: int = 0) -> np.ndarray:
    """Zeros, denormals, huge and ordinary numbers."""
    return hard_array("", place, SHAPE, dtype)


def normal(dtype: np.dtype, place: int = 0) -> np.ndarray:
    """The same without denormals, which some frameworks flush."""
    values = hard(dtype, place)
    return np.where(np.abs(values) < np.finfo(dtype).smallest_normal, dtype.type(0), values)


def positive(dtype: np.dtype) -> np.ndarray:
    """Positive numbers of all magnitudes, and the neighbourhood of 1."""
    values = (10.0 ** np.random.default_rng(14342).uniform(-30, 30, SHAPE)).astype(dtype)
    values[:4] = (1 + np.arange(-16, 16).reshape(4, 8) * float(np.finfo(dtype).eps)).astype(dtype)
    return values


def within(bound: float, dtype: np.dtype) -> np.ndarray:
    """Numbers in (-bound, bound)."""
    return np.random.default_rng(305).uniform(-bound, bound, SHAPE).astype(dtype)


def matrices(dtype: np.dtype) -> np.ndarray:
    """Eight matrices of 8 by 8."""
    return within(1.0, dtype).reshape(8, 8, 8)


FLOATS: dict[str, Call] = {
    "abs": Call(lambda dtype: (normal(dtype),)),
    "sqrt": Call(lambda dtype: (np.abs(normal(dtype)),)),
    "pow": Call(lambda dtype: (positive(dtype) ** dtype.type(0.5), 0.75), budget=2.0),
    "exp": Call(lambda dtype: (within(80.0, dtype),), budget=SAMPLING),
    "log": Call(lambda dtype: (positive(dtype),), budget=SAMPLING, dtypes=DOUBLE),
    "cos": Call(lambda dtype: (within(6.3, dtype),), budget=SAMPLING, dtypes=DOUBLE),
    "sin": Call(lambda dtype: (within(6.3, dtype),), budget=SAMPLING, dtypes=DOUBLE),
    "clip": Call(lambda dtype: (normal(dtype), -1.0, 0.25)),
    "minimum": Call(lambda dtype: (normal(dtype), normal(dtype, 1))),
    "maximum": Call(lambda dtype: (normal(dtype), normal(dtype, 1))),
    "sum": Call(lambda dtype: (within(1.0, dtype),), terms=512),
    "mean": Call(lambda dtype: (within(1.0, dtype),), terms=512),
    "sum_last": Call(lambda dtype: (within(1.0, dtype),), terms=8),
    "amax": Call(lambda dtype: (normal(dtype),)),
    "cumsum": Call(lambda dtype: (within(1.0, dtype),), terms=8),
    "arange": Call(lambda dtype: (7, normal(dtype))),
    "stack": Call(lambda dtype: ([normal(dtype), normal(dtype, 1)],)),
    "concat": Call(lambda dtype: ([normal(dtype)[0], normal(dtype)[1], normal(dtype)[0]],)),
    "reshape": Call(lambda dtype: (normal(dtype), (8, 64))),
    "astype": Call(lambda dtype: (normal(dtype) > 0, dtype.name)),
}
MATRICES: dict[str, Call] = {
    "matmul": Call(lambda dtype: (matrices(dtype), matrices(dtype)[:, ::-1].copy()), terms=8),
    "transpose": Call(lambda dtype: (normal(dtype),)),
    "concat_last": Call(lambda dtype: ([normal(dtype), normal(dtype, 1)],)),
    "eye": Call(lambda dtype: (5, normal(dtype))),
    "trace": Call(lambda dtype: (matrices(dtype),), terms=8),
    "frobenius": Call(lambda dtype: (matrices(dtype),), terms=64),
    "sum_rows": Call(lambda dtype: (within(1.0, dtype),), terms=64),
}
"""``spd_inverse`` and ``eigh`` have no budget of this form; the Kronecker checks of level 3 call them."""
INTEGERS: dict[str, Call] = {
    "bitwise_and": Call(lambda dtype: (words(), 0xFFFF0F0F)),
    "bitwise_xor": Call(lambda dtype: (words(), words(1))),
    "shift_left": Call(lambda dtype: (words(), 16)),
    "shift_right": Call(lambda dtype: (words()[..., None], np.arange(32))),
}
DTYPES = ("int64", "float32", "float64")


def untested() -> set[str]:
    """Names of the contract that this level does not call."""
    called = {*FLOATS, *INTEGERS, *MATRICES, *DTYPES, "spd_inverse", "eigh"}
    return {*NAMESPACE, *LINEAR_ALGEBRA} - called


def function_checks(backend: Backend) -> Iterator[Check]:
    """Level 0 of a backend."""
    dtypes = wide_dtypes(backend)
    calls = [(name, call, np.dtype(dtype)) for name, call in FLOATS.items() for dtype in call.dtypes or dtypes]
    calls += [(name, call, np.dtype(dtype)) for name, call in MATRICES.items() for dtype in dtypes]
    calls += [(name, call, INTEGER) for name, call in INTEGERS.items()]
    for name, call, dtype in calls:
        yield Check(
            f"L0/{name}/{backend.name}/{dtype.name}",
            **identified(backend, level="L0", rule=name, dtype=dtype.name),
            kinds=("value",),
            run=partial(measure, name, call, backend, dtype),
            unsupported=reason(backend, name),
        )


def reason(backend: Backend, name: str) -> str:
    """Why a backend does not have a function; empty if it has."""
    return whole_kernels(backend) or ("" if hasattr(backend.namespace, name) else "the backend has no linear algebra")


def measure(name: str, call: Call, backend: Backend, dtype: np.dtype) -> Iterator[Finding]:
    """Call a function and compare with numpy, which works in extended precision where results are rounded."""
    arguments = call.arguments(dtype)
    got = backend.to_numpy(getattr(backend.namespace, name)(*[native(value, backend) for value in arguments]))
    expected = np.asarray(getattr(numpy_xp, name)(*[resolved(value) for value in arguments]))
    if got.dtype != expected.dtype or got.shape != expected.shape:
        found, wanted = f"{got.dtype}{got.shape}", f"{expected.dtype}{expected.shape}"
        yield Finding("value", False, None, None, f"found {found}, expected {wanted}")
        return
    if not (call.budget or call.terms):
        same = got.tobytes() == expected.tobytes()
        yield Finding(
            "value", same, 0.0 if same else None, 0.0, "bit for bit" + ("" if same else difference(got, expected))
        )
        return
    yield within_budget(name, call, got, arguments, dtype)


def within_budget(name: str, call: Call, got: np.ndarray, arguments: Sequence[Any], dtype: np.dtype) -> Finding:
    """A function that rounds: its distance from extended precision, in ULP of the result or of the terms' sum."""
    wide = [value.astype(np.longdouble) if isinstance(value, np.ndarray) else value for value in arguments]
    exact = getattr(numpy_xp, name)(*wide)
    size = np.abs(exact)
    if call.terms:
        size = np.abs(getattr(numpy_xp, name)(*map(np.abs, wide)))
    budget = call.budget or call.terms / 2 + 1
    ulp = np.spacing(np.maximum(size, np.finfo(dtype).smallest_normal).astype(dtype)).astype(np.longdouble)
    error = np.abs(got.astype(np.longdouble) - exact) / ulp
    worst = np.unravel_index(np.argmax(error), error.shape)
    place = f"worst at entry {tuple(int(i) for i in worst)}"
    allowed = f"a sum of {call.terms} in any order" if call.terms else f"{budget:g} ULP"
    finite = bool(np.isfinite(got).all())
    return Finding(
        "value", finite and float(error[worst]) <= budget, float(error[worst]), budget, f"{allowed}; {place}"
    )


def difference(got: np.ndarray, expected: np.ndarray) -> str:
    """The first entry that differs, with what was found and expected."""
    index = np.unravel_index(np.argmax(np.asarray(got != expected)), got.shape)
    return f"; entry {tuple(int(i) for i in index)}: found {got[index]!r}, expected {expected[index]!r}"


def native(value: Any, backend: Backend) -> Any:
    """An argument as the backend takes it; a dtype's name becomes the dtype."""
    if isinstance(value, np.ndarray):
        return backend.from_numpy(value.copy())
    if isinstance(value, list):
        return [backend.from_numpy(array.copy()) for array in value]
    return getattr(backend.namespace, value) if isinstance(value, str) else value


def resolved(value: Any) -> Any:
    """An argument as numpy takes it."""
    return getattr(numpy_xp, value) if isinstance(value, str) else value
