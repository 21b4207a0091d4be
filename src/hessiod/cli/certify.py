"""``hessiod certify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hessiod.backends import load
from hessiod.cli.files import make_folder
from hessiod.conformance.certify import run
from hessiod.conformance.certify.pool import MODULES
from hessiod.conformance.certify.report import write_table
from hessiod.conformance.certify.verdicts import VERDICTS
from hessiod.core.errors import InvalidArgument


def certify(
    backend: Annotated[
        list[str] | None, typer.Option(help="torch or mindspore; repeat for both (default: both)")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for the tables, as JSON and as Markdown")] = Path(
        "out/certification"
    ),
    jobs: Annotated[int, typer.Option(help="worker processes (default: one per CPU)")] = 0,
) -> None:
    """Certify second derivatives: which operators are right, cured, or refused on this installation.

    Every operator is compared with golden float64 values. The exit status is 0 only if no wrong number came out.
    """
    chosen = list(dict.fromkeys(backend or MODULES))
    if jobs < 0:
        raise InvalidArgument(f"jobs: found {jobs}, expected a number of processes >= 1, or 0 for one per CPU")
    for name in chosen:
        load(name)
        run.certifier(name)
    make_folder(out)
    console, wrong = Console(), 0
    for name in chosen:
        document = run.certify(name, jobs=jobs or os.cpu_count() or 1, on_measurement=progress(console, name))
        for path in write_table(document, out):
            console.print(str(path), highlight=False, soft_wrap=True)
        counts = document["counts"]
        shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
        console.print(f"{name}: {len(document['cases'])} cases: {shown}", highlight=False, soft_wrap=True)
        wrong += counts["wrong"]
    raise typer.Exit(1 if wrong else 0)


def progress(console: Console, backend: str) -> Any:
    """A line every hundred measurements."""
    done = 0

    def show(task: Any, found: Any) -> None:
        nonlocal done
        done += 1
        if done % 100 == 0:
            console.print(f"{backend}: {done} measurements, now {task.route} {task.name}", highlight=False)

    return show
