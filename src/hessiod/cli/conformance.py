"""``hessiod conformance``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hessiod.cli.files import make_folder
from hessiod.conformance.case import FAIL, UNSUPPORTED, Case
from hessiod.conformance.report import headline, write_reports
from hessiod.conformance.suite import choose, run_suite


def conformance(
    backend: Annotated[
        list[str] | None, typer.Option(help="a backend to test; repeat for several (default: all)")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for report.json, report.md and report.html")] = Path(
        "out/conformance"
    ),
) -> None:
    """Test backends: kernels in ULP against the published formulas, training runs against golden losses.

    The exit status is 0 only if nothing failed.
    """
    chosen = choose(backend or [])
    make_folder(out)
    console = Console()
    done = 0

    def show(case: Case) -> None:
        nonlocal done
        done += 1
        if case.verdict in (FAIL, UNSUPPORTED):
            console.print(f"{case.verdict}: {case.id}: {case.why}", markup=False, highlight=False, soft_wrap=True)
        elif done % 20 == 0:
            console.print(f"{done} cases, now {case.id}", markup=False, highlight=False, soft_wrap=True)

    report = run_suite(chosen, show)
    for path in write_reports(report, out):
        console.print(str(path), highlight=False, soft_wrap=True)
    console.print(headline(report), highlight=False)
    raise typer.Exit(0 if report.passed else 1)
