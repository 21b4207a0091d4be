"""Every cure, by the name of the operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hessiod.backends_mindspore.derivatives.cures import (
    activations,
    adjoint,
    cross_entropy,
    elementwise,
    functions,
    indexing,
    losses,
    marker,
    normalization,
    pooling,
)
from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator

DERIVATIVES: dict[str, Callable[..., Any]] = (
    elementwise.DERIVATIVES | adjoint.DERIVATIVES | losses.DERIVATIVES | pooling.DERIVATIVES
)
"""Second derivatives that MindSpore lacks, by the operator that computes the first."""

OPERATORS: dict[str, type[CuredOperator]] = (
    activations.OPERATORS | cross_entropy.OPERATORS | indexing.OPERATORS | normalization.OPERATORS | pooling.OPERATORS
)
"""Operators that are replaced while a graph is traced."""

CALLED: dict[str, Callable[..., Any]] = {"RmsNorm": normalization.rms_norm, "Roll": indexing.roll}
"""Replacements of operators in the form that takes all its arguments when it is called."""

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = marker.FUNCTIONS | functions.FUNCTIONS
"""Functions that are replaced while a graph is traced."""
