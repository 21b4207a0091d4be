"""Level 0: every function of the namespace, called as it stands, against numpy.

A function that does not round must agree bit for bit, and so must ``sqrt``, which IEEE 754 rounds correctly. Sums may
be taken in any order: half an ULP of the sum of magnitudes for each addition. ``exp``, ``log``, ``cos`` and ``sin``
turn random words into targets and probes, where an error of 2^-12 moves one target in some thousands to the next class:
that is what they are held to, in ULP of float32. Frameworks differ there by hundreds of ULP; no rule's step calls them.

Each function has a row for fixed arguments and one for those that a seed draws (:mod:`hessiod.conformance.arguments`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from hessiod.backends.contract import LINEAR_ALGEBRA, NAMESPACE, Backend
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.conformance.arguments import FLOATS, INTEGERS, MATRICES, Call, Drawn, Fixed
from hessiod.conformance.check import Check, Finding, identified, whole_kernels, wide_dtypes
from hessiod.conformance.draws import collected, composed
from hessiod.conformance.entry import entry

CALLS = 4
"""Drawn ones, of each function in each dtype."""
INTEGER = np.dtype(np.int64)
DTYPES = ("int64", "float32", "float64")


def untested() -> set[str]:
    """Names of the contract that this level does not call."""
    called = {*FLOATS, *INTEGERS, *MATRICES, *DTYPES, "spd_inverse", "eigh"}
    return {*NAMESPACE, *LINEAR_ALGEBRA} - called


def function_checks(backend: Backend, seed: int = 0) -> Iterator[Check]:
    """Level 0 of a backend; ``seed`` is that of the drawn inputs."""
    dtypes = wide_dtypes(backend)
    calls = [(name, call, np.dtype(dtype)) for name, call in FLOATS.items() for dtype in call.dtypes or dtypes]
    calls += [(name, call, np.dtype(dtype)) for name, call in MATRICES.items() for dtype in dtypes]
    calls += [(name, call, INTEGER) for name, call in INTEGERS.items()]
    for name, call, dtype in calls:
        for inputs, drawn_with in (("", None), ("/drawn", seed)):
            yield Check(
                f"L0/{name}/{backend.name}/{dtype.name}{inputs}",
                **identified(backend, level="L0", rule=name, dtype=dtype.name),
                kinds=("value",),
                run=partial(measure, name, call, backend, dtype, drawn_with),
                unsupported=reason(backend, name),
            )


def reason(backend: Backend, name: str) -> str:
    """Why a backend does not have a function; empty if it has."""
    return whole_kernels(backend) or ("" if hasattr(backend.namespace, name) else "the backend has no linear algebra")


@lru_cache(maxsize=512)
def calls_of(name: str, dtype: np.dtype, seed: int | None) -> tuple[Sequence[Any], ...]:
    """The arguments of a function's calls: the fixed ones or, given a seed, drawn ones."""
    call = (FLOATS | INTEGERS | MATRICES)[name]
    if seed is None:
        return (call.arguments(Fixed(dtype)),)
    drawn = composed(lambda draw: call.arguments(Drawn(dtype, draw)))
    return tuple(collected(drawn, CALLS, f"{seed}/{name}/{dtype.name}"))


def measure(name: str, call: Call, backend: Backend, dtype: np.dtype, seed: int | None = None) -> Iterator[Finding]:
    """The worst of a function's calls."""
    findings = []
    for number, arguments in enumerate(calls_of(name, dtype, seed)):
        finding = measure_one(name, call, backend, dtype, arguments)
        where = "" if seed is None else f"; drawn with seed {seed}, call {number}"
        findings.append(replace(finding, why=finding.why + where))
    yield max(findings, key=lambda finding: (not finding.passed, finding.worst_ulp or 0.0))


def measure_one(name: str, call: Call, backend: Backend, dtype: np.dtype, arguments: Sequence[Any]) -> Finding:
    """Call a function and compare with numpy, which works in extended precision where results are rounded."""
    got = backend.to_numpy(getattr(backend.namespace, name)(*[native(value, backend) for value in arguments]))
    expected = np.asarray(getattr(numpy_xp, name)(*[resolved(value) for value in arguments]))
    if got.dtype != expected.dtype or got.shape != expected.shape:
        found, wanted = f"{got.dtype}{got.shape}", f"{expected.dtype}{expected.shape}"
        return Finding("value", False, None, None, f"found {found}, expected {wanted}")
    if call.either_zero:
        got, expected = got + got.dtype.type(0), expected + expected.dtype.type(0)  # no negative zeros
    if call.budget or call.terms:
        return within_budget(name, call, got, arguments, dtype)
    if got.tobytes() == expected.tobytes():
        return Finding("value", True, 0.0, 0.0, "bit for bit")
    differ = (got != expected) | (np.signbit(got) != np.signbit(expected))
    index = place(differ)
    worst = shown(index, got, expected, (expected[index], expected[index]), arguments)
    return Finding("value", False, None, 0.0, f"bit for bit; entry {index} differs", worst=worst)


def within_budget(name: str, call: Call, got: np.ndarray, arguments: Sequence[Any], dtype: np.dtype) -> Finding:
    """A function that rounds: its distance from extended precision, in ULP of the result or of the terms' sum."""
    wide = [value.astype(np.longdouble) if isinstance(value, np.ndarray) else value for value in arguments]
    exact = np.asarray(getattr(numpy_xp, name)(*wide))
    size = np.abs(exact)
    budget, allowed = call.budget, f"{call.budget:g} ULP"
    if call.terms:
        size = np.abs(getattr(numpy_xp, name)(*map(np.abs, wide)))
        terms = call.terms(wide[0].shape)
        budget, allowed = terms / 2 + 1, f"a sum of {terms} in any order"
    ulp = np.spacing(np.maximum(size, np.finfo(dtype).smallest_normal).astype(dtype)).astype(np.longdouble)
    error = np.abs(got.astype(np.longdouble) - exact) / ulp
    index = place(np.where(np.isfinite(got), error, np.inf))
    within = exact[index] - budget * ulp[index], exact[index] + budget * ulp[index]
    worst = shown(index, got, exact, within, arguments)
    passed = bool(np.isfinite(got).all()) and float(error[index]) <= budget
    return Finding("value", passed, float(error[index]), budget, f"{allowed}; worst at entry {index}", worst=worst)


def place(size: np.ndarray) -> tuple[int, ...]:
    """The place of the greatest entry."""
    return tuple(int(along) for along in np.unravel_index(np.argmax(size), size.shape))


def shown(
    index: tuple[int, ...], got: np.ndarray, expected: np.ndarray, allowed: tuple[Any, Any], arguments: Sequence[Any]
) -> dict[str, Any]:
    """An entry of a result with the numbers, and the entries of arrays of its shape, that it was worked out from."""
    named = dict(zip("xyz", arguments, strict=False))
    return entry(
        "result",
        index,
        got.shape,
        found=got[index],
        expected=expected[index],
        allowed=allowed,
        operands={key: value for key, value in named.items() if np.shape(value) == got.shape != ()},
        scalars={key: value for key, value in named.items() if isinstance(value, int | float)},
        hyperparameters={},
    )


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
