"""A small convnet on scikit-learn's digits: K-FAC, SP-NGD, THOR and AdamW, with the plan of what each parameter gets.

    python examples/convnet/run.py [--backend torch] [--epochs 8]

On every framework that is installed, or on those that are named, with the same weights to begin with and the same
batches. Needs scikit-learn, from ``pip install 'hessiod[examples]'``.
"""

from __future__ import annotations

import importlib
from enum import StrEnum
from importlib.util import find_spec
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from task import BATCH, OPTIMIZERS, TRAINING


class Framework(StrEnum):
    """What the example is written for."""

    TORCH = "torch"
    MINDSPORE = "mindspore"


def main(
    backend: Annotated[list[Framework] | None, typer.Option(help="those that are installed by default.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
) -> None:
    """Train with each optimizer on each backend; print training loss and held-out accuracy."""
    console, steps = Console(), epochs * (TRAINING // BATCH)
    table = Table("optimizer", "training loss", "held-out accuracy", "CPU s")
    for framework in backend or filter(find_spec, Framework):
        runs = importlib.import_module(f"{framework}_runs")
        console.print(f"{framework}\n{runs.plan()}\n", highlight=False)
        for name in OPTIMIZERS:
            found = runs.run(name, steps)
            label = name if framework == "torch" else f"{name}, {framework}"
            table.add_row(label, f"{found['loss']:.4f}", f"{found['accuracy']:.3f}", f"{found['seconds']:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
