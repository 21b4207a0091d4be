"""Level 3 of backends that run whole kernels: the Kronecker preconditioner, kernel by kernel, on each of their routes.

And what the kernels of matrices are given when they are exported with test vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from hessiod.backends.contract import Backend, Route
from hessiod.conformance.check import Check, Finding, identified
from hessiod.conformance.estimators import dense_finding, rows_and_gradient
from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.inverses import INVERSES
from hessiod.core.kronecker.kernels import KERNELS, MatrixKernel
from hessiod.core.trace import trace
from hessiod.core.trace.graph import MATRIX

ROWS = 40
LENGTHS: tuple[Mapping[str | int, int], ...] = (
    {"rows": ROWS, "d": 7, "in": 7, "out": 5, "channels": 6, "tokens": 11, 1: 1},
    {"rows": 1, "d": 1, "in": 1, "out": 1, "channels": 1, "tokens": 1, 1: 1},
)
SETTINGS: tuple[Mapping[str, float], ...] = (
    {"rows": 40.0, "targets": 40.0, "loss_gradient": 1.0, "damping": 0.1, "decay": 0.95, "refreshes": 1},
    {"rows": 3e6, "targets": 512.0, "loss_gradient": 1 / 512, "damping": 1e-3, "decay": 0.95, "refreshes": 30},
)
NUMBERS = {"damping": 0.1, "trace_a": 8.5, "trace_g": 0.02, "size_a": 7.0, "size_g": 5.0}
SECOND_MOMENTS = ("factor", "factor_a", "factor_g", "statistic", "total")
Call = tuple[list[np.ndarray], dict[str, float]]


def operand(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """An array as a run has it, in float64: second moments and inverses of such are symmetric and positive."""
    if name in NUMBERS:
        return np.full(shape, NUMBERS[name])
    if name in SECOND_MOMENTS or (name.startswith("inverse") and len(shape) == 2):
        rows = generator.normal(size=(ROWS, shape[-1])) * np.linspace(0.5, 2.0, shape[-1])
        moment = rows.T @ rows / ROWS
        return moment if name in SECOND_MOMENTS else np.linalg.inv(moment + 0.1 * np.eye(len(moment)))
    values = generator.normal(size=shape)
    return 1.0 + values * values if name in ("gg", "bb") else values


def calls_of(matrix: MatrixKernel, dtype: np.dtype) -> Iterator[Call]:
    """Operands and scalars of every size and setting."""
    for lengths in LENGTHS:
        generator = np.random.default_rng(7)
        arrays = [
            operand(name, tuple(lengths[axis] for axis in axes), generator).astype(dtype)
            for name, axes in matrix.operands.items()
        ]
        for setting in SETTINGS if matrix.kernel.hyperparameters else SETTINGS[:1]:
            yield arrays, dict(matrix.kernel.scalars_from(setting))


def untraceable(name: str) -> str:
    """Why a kernel is no graph, and so cannot be run in whole; empty if it is one."""
    try:
        trace(KERNELS[name].kernel, MATRIX)
    except InvalidArgument as error:
        return str(error)
    return ""


def matrix_checks(backend: Backend) -> Iterator[Check]:
    """Level 3's Kronecker rows of a backend without functions to call one by one."""
    if backend.namespace is not None:
        return
    for method in INVERSES:
        for route in backend.routes:
            yield Check(
                f"L3/kronecker.{method}/{backend.name}/{route.name}",
                **identified(backend, level="L3", rule=f"kronecker.{method}", dtype="float32"),
                kinds=("dense",),
                run=partial(preconditioned, method, backend, route),
                unsupported=untraceable(f"kronecker.{method}"),
            )


def preconditioned(method: str, backend: Backend, route: Route) -> Iterator[Finding]:
    """``G^-1 W A^-1`` by the route's kernels, in float32, from level 3's rows."""

    def run(name: str, *arrays: np.ndarray, **values: float) -> list[np.ndarray]:
        kernel = KERNELS[f"kronecker.{name}"].kernel
        native = [backend.from_numpy(np.asarray(array, np.float32)) for array in arrays]
        return [backend.to_numpy(found) for found in route.run(kernel.function, native, kernel.scalars_from(values))]

    inputs, outputs, grad = rows_and_gradient()
    (total_a,), (total_g,) = run("second-moment", inputs), run("second-moment", outputs)
    (a,) = run("input-factor", total_a, rows=len(inputs))
    (g,) = run("gradient-factor", total_g, targets=len(outputs), loss_gradient=1.0)
    traces = [np.full((1, 1), np.trace(factor)) for factor in (a, g)]
    added = run("damping", *traces, np.array(len(a)), np.array(len(g)), damping=0.1)
    inverses = [run(method, factor, amount)[0] for factor, amount in zip((a, g), added, strict=True)]
    (found,) = run("precondition", grad, *inverses)
    yield dense_finding(found)
