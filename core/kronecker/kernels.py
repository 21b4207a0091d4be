"""The functions of this package as kernels of matrices, by name: what is exported, and run in whole by other runtimes.

Nothing is worked out here: each is a function of ``factors``, ``damping``, ``inverses``, ``precondition`` or
``unitwise`` with the names and the axes of what it takes. Arrays are matrices here; a convolution's groups are one
after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hessiod.core.kronecker import damping, factors, inverses, precondition, unitwise
from hessiod.core.rule import Kernel

Axes = Mapping[str, tuple[str | int, ...]]
"""By the name of an array the names of its axes: equal names, equal lengths. () is a number, (1, 1) a matrix of one."""


@dataclass(frozen=True)
class MatrixKernel:
    """A kernel and the axes of its operands and results, whose names are all different."""

    kernel: Kernel
    operands: Axes
    results: Axes


def named(function: Callable[..., Any], scalars: Callable[..., Any], operands: Axes, results: Axes) -> MatrixKernel:
    """A kernel of the named arrays."""
    return MatrixKernel(Kernel(function, scalars, tuple(operands), tuple(results)), operands, results)


def no_scalars():
    """For kernels without scalars."""
    return {}


def row_scalars(*, rows):
    """The scalar of :func:`hessiod.core.kronecker.factors.input_factor`: ``1 / R``."""
    return {"inverse_rows": 1.0 / rows}


def damping_scalars(*, damping):
    """Damping as it is."""
    return {"damping": damping}


def precondition_whole(xp, grad, inverse_a, inverse_g):
    """``G^-1 grad A^-1`` with whole inverses (:func:`hessiod.core.kronecker.precondition.precondition`)."""
    return precondition.precondition(xp, grad, [inverse_a], [inverse_g])


SQUARE, WEIGHT, ONE = ("d", "d"), ("out", "in"), (1, 1)
_INPUTS, _OUTPUTS, _CHANNELS = ("in", "in"), ("out", "out"), (1, "channels")
_UNITS = ("scale_grad", "shift_grad", "gg", "gb", "bb")
_TRACES = {"trace_a": ONE, "trace_g": ONE, "size_a": (), "size_g": ()}

KERNELS: Mapping[str, MatrixKernel] = {
    "kronecker.second-moment": named(factors.second_moment, no_scalars, {"rows": ("rows", "d")}, {"total": SQUARE}),
    "kronecker.input-factor": named(factors.input_factor, row_scalars, {"total": SQUARE}, {"factor": SQUARE}),
    "kronecker.gradient-factor": named(
        factors.gradient_factor, factors.gradient_scale, {"total": SQUARE}, {"factor": SQUARE}
    ),
    "kronecker.average": named(
        factors.average, factors.average_scalars, {"factor": SQUARE, "statistic": SQUARE}, {"average": SQUARE}
    ),
    "kronecker.damping": named(damping.factored, damping.root_scalars, _TRACES, {"damping_a": ONE, "damping_g": ONE}),
    **{
        f"kronecker.{method}": named(function, no_scalars, {"factor": SQUARE, "damping": ONE}, {"inverse": SQUARE})
        for method, function in inverses.INVERSES.items()
    },
    "kronecker.precondition": named(
        precondition_whole,
        no_scalars,
        {"grad": WEIGHT, "inverse_a": _INPUTS, "inverse_g": _OUTPUTS},
        {"direction": WEIGHT},
    ),
    "kronecker.precondition-embedding": named(
        precondition.precondition_embedding,
        no_scalars,
        {"grad": ("tokens", "d"), "inverse_a": ("tokens",), "inverse_g": SQUARE},
        {"direction": ("tokens", "d")},
    ),
    "kronecker.fisher-product": named(
        precondition.fisher_product,
        no_scalars,
        {"direction": WEIGHT, "factor_a": _INPUTS, "factor_g": _OUTPUTS},
        {"product": WEIGHT},
    ),
    "kronecker.unit-wise": named(
        unitwise.precondition_unit,
        damping_scalars,
        dict.fromkeys(_UNITS, _CHANNELS),
        {"scale": _CHANNELS, "shift": _CHANNELS},
    ),
}
"""Every step of a Kronecker method between the rows that a layer saw and the natural gradient."""
