"""All cases in MindSpore: by the case's name, the ways to write it."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from mindspore import nn

from hessiod.backends.certification.case import Case
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.backends_mindspore.certification import (
    activations,
    elementwise,
    layers,
    linear_algebra,
    losses,
    nets,
    reductions,
    shapes,
)

FAMILIES = (elementwise, activations, reductions, shapes, linear_algebra, layers, losses, nets)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: thing
    for family in FAMILIES
    for name, thing in vars(family).items()
    if isinstance(thing, FunctionType) and thing.__module__ == family.__name__ and thing.__doc__ is None
}
"""Functions of tensors; those with a docstring are their helpers."""

CELLS: dict[str, Callable[[], nn.Cell]] = {
    name: make for family in FAMILIES for name, make in getattr(family, "CELLS", {}).items()
}
"""How Cells are made, whose parameters are the case's inputs of the same names (or of ``layers.PARAMETERS``)."""

NAMES = sorted([*FUNCTIONS, *CELLS], key=lambda name: list(CATALOGUE).index(name.partition("__")[0]))
"""Cases and ways, in the order of the catalogue."""


def case_of(name: str) -> Case:
    """The case that ``case`` or ``case__way`` is a way to write."""
    return CATALOGUE[name.partition("__")[0]]


def parameter_names(case: Case) -> dict[str, str]:
    """From the case's inputs to what a Cell calls those that are its parameters."""
    fitting = [prefix for prefix in layers.PARAMETERS if case.name.startswith(prefix)]
    return layers.PARAMETERS[max(fitting, key=len)] if fitting else {}
