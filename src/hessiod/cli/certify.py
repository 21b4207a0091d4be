"""``hessiod certify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hessiod.backends import load
from hessiod.backends.certification.measurement import Measurement
from hessiod.cli.files import make_folder
from hessiod.conformance.certify import run
from hessiod.conformance.certify.journal import Journal
from hessiod.conformance.certify.pool import MODULES, Task
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
    resume: Annotated[bool, typer.Option("--resume", help="go on with what a stopped run left in the folder")] = False,
    eager: Annotated[bool, typer.Option("--eager", help="for the record, MindSpore's eager derivatives too")] = False,
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
    console = Console()
    wrong = sum(certify_one(name, out, jobs or os.cpu_count() or 1, resume, eager, console) for name in chosen)
    raise typer.Exit(1 if wrong else 0)


def certify_one(name: str, out: Path, jobs: int, resume: bool, eager: bool, console: Console) -> int:
    """Certify a backend and write its tables; how many cases are wrong."""
    module = run.certifier(name)
    routes = (*module.ROUTES, *(module.EXTRA if eager else ()))
    journal = Journal(out, module.header())
    known = journal.known() if resume else {}
    with journal.start(known) as file:
        done = len(known)

        def note(task: Task, found: Measurement) -> None:
            nonlocal done
            journal.note(file, task, found)
            done += 1
            if done % 100 == 0:
                say(console, f"{name}: {done} measurements, now {task.route} {task.name}")

        document = run.certify(name, routes=routes, jobs=jobs, on_measurement=note, known=known)
    for path in write_table(document, out):
        say(console, str(path))
    journal.path.unlink()
    counts = document["counts"]
    say(console, f"{name}: {len(document['cases'])} cases: {', '.join(f'{counts[v]} {v}' for v in VERDICTS)}")
    return counts["wrong"]


def say(console: Console, text: Any) -> None:
    """A plain line."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
