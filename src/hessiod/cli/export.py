"""``hessiod export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.registry import require
from hessiod.cli.files import make_folder
from hessiod.core.errors import InvalidArgument
from hessiod.core.rules import RULES

OPTIMIZERS = {"sophia-g": "sophia", "sophia-h": "sophia", "apollo": "apollo-l2", "apollow": "apollo-decoupled"}
"""Optimizers whose rule has another name: Sophia's estimators share one."""


class Dtype(StrEnum):
    """Types that a model can be written for."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


def export(
    rule: Annotated[str, typer.Argument(help="a rule, such as sophia-g or adamw")],
    to: Annotated[Path, typer.Option(help="the file for the step; a second one, FILE-refresh.onnx, for the curvature")],
    test_vectors: Annotated[
        Path | None, typer.Option(help="a folder for models with inputs and outputs, as in ONNX's backend tests")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="the arrays' type")] = Dtype.FLOAT32,
) -> None:
    """Write a rule's kernels as ONNX functions, with a model that calls each: a specification that runs."""
    require("onnx", extra="onnx")
    from hessiod.backends.onnx.export import kernel_model
    from hessiod.conformance.kernels import Subject
    from hessiod.conformance.vectors import write_vectors

    name = OPTIMIZERS.get(rule, rule)
    if name not in RULES:
        raise InvalidArgument(f"rule: found {rule!r}, expected one of {', '.join((*OPTIMIZERS, *RULES))}")
    if to.suffix != ".onnx":
        raise InvalidArgument(f"to: found {str(to)!r}, expected a name that ends in .onnx")
    make_folder(to.parent)
    console = Console()
    kernels = {"step": RULES[name].step, "refresh": RULES[name].refresh}
    for part, kernel in kernels.items():
        if kernel is None:
            continue
        model = kernel_model(kernel, f"{name}_{part}".replace("-", "_"), dtype.value)
        path = to if part == "step" else to.with_name(f"{to.stem}-refresh.onnx")
        write_atomically(path, model.SerializeToString())
        console.print(str(path), highlight=False, soft_wrap=True)
        if test_vectors is not None:
            subject = Subject(f"{name}.{part}", kernel, RULES[name].defaults)
            folder = write_vectors(subject, model, dtype.value, make_folder(test_vectors))
            console.print(str(folder), highlight=False, soft_wrap=True)
