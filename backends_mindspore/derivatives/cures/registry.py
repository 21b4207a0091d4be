"""Every cure, by the name of the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessiod.backends_mindspore.derivatives.cures import (
    activations,
    adjoint,
    convolution,
    cross_entropy,
    einsum,
    elementwise,
    functions,
    indexing,
    losses,
    marker,
    normalization,
    pooling,
    recurrent,
    tanh,
)
from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator

DERIVATIVES: dict[str, Callable[..., Any]] = (
    elementwise.DERIVATIVES | adjoint.DERIVATIVES | losses.DERIVATIVES | pooling.DERIVATIVES
)
"""Second derivatives that MindSpore lacks, by the operator that computes the first."""

FAMILIES = (activations, convolution, cross_entropy, einsum, indexing, normalization, pooling, recurrent, tanh)
OPERATORS: dict[str, type[CuredOperator]] = {
    name: cure for family in FAMILIES for name, cure in family.OPERATORS.items()
}
"""Operators that are replaced while a graph is traced."""

FASTER: dict[str, type[CuredOperator]] = convolution.FASTER
"""Operators that are right, and replaced on a CPU because its kernels are slow."""

CALLED: dict[str, Callable[..., Any]] = {"RmsNorm": normalization.rms_norm, "Roll": indexing.roll}
"""Replacements of operators in the form that takes all its arguments when it is called."""

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = marker.FUNCTIONS | functions.FUNCTIONS
"""Functions that are replaced while a graph is traced."""
