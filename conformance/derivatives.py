"""Level 2: gradients and Hessian-vector products of whole functions, against golden values in float64.

The error is the norm of the difference over the norm of the golden value, in ULP of the dtype at 1. In float32 it may
be 1e-5, a hundred times what one rounding leaves; in float64 1e-13, the same in its terms. A framework that loses a
term of a second derivative is off by a fifth or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from hessiod.backends.contract import Autodiff, Backend
from hessiod.conformance.check import Check, Finding, identified, wide_dtypes
from hessiod.conformance.objectives import OBJECTIVES, Golden, Objective, golden

KINDS = ("loss", "gradient", "product")
LARGER = ("attention", "gated_network")
"""They take a framework that compiles longest."""
BUDGET = {"float32": 1e-5, "float64": 1e-13}


def derivative_checks(backend: Backend) -> Iterator[Check]:
    """Level 2 of a backend."""
    for objective in OBJECTIVES.values():
        for dtype in wide_dtypes(backend):
            yield Check(
                f"L2/{objective.name}/{backend.name}/{dtype}",
                **identified(backend, level="L2", rule=objective.name, dtype=dtype),
                kinds=KINDS,
                run=partial(measure, backend, objective, np.dtype(dtype)),
                unsupported=reason(backend),
                slow=slow(backend, objective, dtype),
            )


def slow(backend: Backend, objective: Objective, dtype: str) -> str:
    """What a quick run leaves out; empty if it takes this one."""
    if dtype != backend.dtypes[0]:
        return "L2: all dtypes but a backend's first"
    return "L2: the larger networks" if objective.name in LARGER else ""


def reason(backend: Backend) -> str:
    """Why a backend has no level 2; empty if it has."""
    if getattr(backend, "autodiff", None) is None:
        return "the backend has no autodiff"
    return "" if find_spec("onnx") else "golden objectives are ONNX tensors; run: pip install 'hessiod[onnx]'"


def measure(backend: Backend, objective: Objective, dtype: np.dtype) -> Iterator[Finding]:
    """The loss, the gradients, the products."""
    known = golden(objective.name)
    weights, data, vectors = (native(backend, part, dtype) for part in (known.weights, known.data, known.vectors))
    autodiff: Autodiff = getattr(backend, "autodiff")  # noqa: B009 - not every backend has one
    loss, gradients = autodiff.value_and_gradients(objective.function, weights, data)
    products = autodiff.product(objective.function, weights, data, vectors)
    for kind, found, expected in zip(KINDS, ([loss], gradients, products), expected_of(known), strict=True):
        yield compared(kind, [backend.to_numpy(array) for array in found], expected, dtype)


def native(backend: Backend, arrays: Sequence[np.ndarray], dtype: np.dtype) -> list[Any]:
    """Arrays as the backend takes them."""
    return [backend.from_numpy(array.astype(dtype)) for array in arrays]


def expected_of(known: Golden) -> tuple[Sequence[np.ndarray], ...]:
    """What each kind of row must be."""
    return [known.loss], known.gradients, known.products


def compared(kind: str, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], dtype: np.dtype) -> Finding:
    """The worst of some arrays."""
    if [array.shape for array in found] != [array.shape for array in expected]:
        shapes = f"found {[array.shape for array in found]}, expected {[array.shape for array in expected]}"
        return Finding(kind, False, None, None, shapes)
    pairs = zip(found, expected, strict=True)
    errors = [float(np.linalg.norm(one.astype(np.float64) - other) / np.linalg.norm(other)) for one, other in pairs]
    worst = int(np.argmax(errors))
    budget, ulp = BUDGET[dtype.name], float(np.finfo(dtype).eps)
    why = f"{budget:g} of the norm; worst array {worst}: {errors[worst]:.1e}"
    return Finding(kind, errors[worst] <= budget, errors[worst] / ulp, budget / ulp, why)
