"""``hessiod export``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.registry import require
from hessiod.cli.files import make_folder
from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.kernels import KERNELS
from hessiod.core.rule import Kernel
from hessiod.core.rules import RULES

OPTIMIZERS = {"sophia-g": "sophia", "sophia-h": "sophia", "apollo": "apollo-l2", "apollow": "apollo-decoupled"}
"""Optimizers whose rule has another name: Sophia's estimators share one."""


class Dtype(StrEnum):
    """Types that a model can be written for."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


def export(
    rule: Annotated[
        str, typer.Argument(help="a rule, such as sophia-g or adamw, or a kernel, such as kronecker.newton-schulz")
    ],
    to: Annotated[Path, typer.Option(help="the file for the step; a second one, FILE-refresh.onnx, for the curvature")],
    test_vectors: Annotated[
        Path | None, typer.Option(help="a folder for models with inputs and outputs, as in ONNX's backend tests")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="the arrays' type")] = Dtype.FLOAT32,
) -> None:
    """Write a rule's kernels as ONNX functions, with a model that calls each: a specification that runs."""
    require("onnx", extra="onnx")
    name = OPTIMIZERS.get(rule, rule)
    if name not in RULES and name not in KERNELS:
        raise InvalidArgument(f"rule: found {rule!r}, expected one of {', '.join((*OPTIMIZERS, *RULES, *KERNELS))}")
    if to.suffix != ".onnx":
        raise InvalidArgument(f"to: found {str(to)!r}, expected a name that ends in .onnx")
    written = matrix_files(name, to, dtype.value) if name in KERNELS else rule_files(name, to, dtype.value)
    console = Console()
    for path, kernel, model, calls in written:
        make_folder(to.parent, "to")
        write_atomically(path, model.SerializeToString())
        console.print(str(path), highlight=False, soft_wrap=True)
        if test_vectors is not None:
            from hessiod.conformance.vectors import write_vectors

            folder = write_vectors(kernel, calls, model, dtype.value, make_folder(test_vectors, "test-vectors"))
            console.print(str(folder), highlight=False, soft_wrap=True)


File = tuple[Path, Kernel, Any, Iterable[Any]]
"""Where a model goes, its kernel, the model, and the calls of its test vectors."""


def rule_files(name: str, to: Path, dtype: str) -> Iterator[File]:
    """The step's, and the curvature's where the rule has one."""
    from hessiod.backends.onnx.export import kernel_model
    from hessiod.conformance.kernels import Subject
    from hessiod.conformance.vectors import calls_of

    for part, kernel in (("step", RULES[name].step), ("refresh", RULES[name].refresh)):
        if kernel is not None:
            model = kernel_model(kernel, f"{name}_{part}".replace("-", "_"), dtype)
            path = to if part == "step" else to.with_name(f"{to.stem}-refresh.onnx")
            yield (
                path,
                kernel,
                model,
                calls_of(Subject(f"{name}.{part}", kernel, RULES[name].defaults), np.dtype(dtype)),
            )


def matrix_files(name: str, to: Path, dtype: str) -> Iterator[File]:
    """A Kronecker method's kernel; those that ONNX has no operators for are refused."""
    from hessiod.backends.onnx.export import matrix_model
    from hessiod.conformance.matrices import calls_of

    try:
        model = matrix_model(KERNELS[name], name.replace(".", "_").replace("-", "_"), dtype)
    except InvalidArgument as error:
        raise InvalidArgument(f"rule: {name} cannot be exported: {error}") from error
    yield to, KERNELS[name].kernel, model, calls_of(KERNELS[name], np.dtype(dtype))
