"""``hessiod conformance``: run, ``compare`` two reports, ``verify`` one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from secrets import randbelow
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hessiod.backends.registry import names
from hessiod.cli.files import make_folder
from hessiod.cli.signals import terminable
from hessiod.conformance.case import FAIL, Case
from hessiod.conformance.compare import Comparison
from hessiod.conformance.compare import compare as compare_reports
from hessiod.conformance.golden import digest
from hessiod.conformance.isolation import Isolation
from hessiod.conformance.matrix import by_reason, counted, tally
from hessiod.conformance.report import figure, headline, write_reports
from hessiod.conformance.result import Report
from hessiod.conformance.selection import NONE_KNOWN, KnownFailures, Selection
from hessiod.conformance.suite import choose, plan, run_suite
from hessiod.conformance.verify import check_case_set, read_report
from hessiod.core.errors import BackendUnavailable, InvalidArgument

conformance = typer.Typer(
    help="Test backends: kernels in ULP against the published formulas, training runs against golden losses.",
    invoke_without_command=True,
    add_completion=False,
)
CASE_LIMIT = 300.0


@conformance.callback()
def run(
    context: typer.Context,
    backend: Annotated[
        list[str] | None, typer.Option(help="a backend to test; repeat for several (default: all)")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for report.json, report.md and report.html")] = Path(
        "out/conformance"
    ),
    device: Annotated[str | None, typer.Option(help="one of the backend's devices (default: its first)")] = None,
    level: Annotated[list[str] | None, typer.Option(help="a level, L0 to L6 or 0 to 6; repeat for several")] = None,
    include: Annotated[list[str] | None, typer.Option(help="only rows whose id matches, such as 'L1/sophia*'")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="no rows whose id matches")] = None,
    quick: Annotated[
        bool, typer.Option(help="leave out what is slow: routes that compile, most training runs; the report says so")
    ] = False,
    xfails: Annotated[Path | None, typer.Option(help="a file of known failures: 'PATTERN  # reason' a line")] = None,
    seed: Annotated[
        int | None, typer.Option(help="of the inputs that hypothesis draws (default: another one each time)", min=0)
    ] = None,
    isolate: Annotated[bool, typer.Option(help="run backends in processes of their own, which may crash")] = True,
    jobs: Annotated[int, typer.Option(help="processes that test at the same time, each one backend", min=1)] = 2,
    case_limit: Annotated[
        float, typer.Option(help="seconds that one check may take, in its own process", min=1.0)
    ] = CASE_LIMIT,
) -> None:
    """Run the suite. The exit status is 0 only if nothing failed.

    Ctrl-C and SIGTERM write the rows so far as a report that says it is partial; the exit status is 130 or 143.
    """
    if context.invoked_subcommand:
        return
    if device and len(backend or []) != 1:
        raise InvalidArgument("device: names a device of one backend; give --backend once")
    selection = Selection(tuple(level or ()), tuple(include or ()), tuple(exclude or ()), quick)
    known = KnownFailures.read(xfails) if xfails else NONE_KNOWN
    console = Console()
    seed = randbelow(2**32) if seed is None else seed
    with terminable() as interruption:
        with Isolation(case_limit, device, seed, jobs) as isolation, progress(console) as bar:
            if isolate:
                isolation.begin(backend or names())
            chosen = choose(backend or [], device)
            total = sum(len(check.kinds) for check in selection.choose(plan(chosen)))
            make_folder(out)
            console.print(f"seed {seed}: give --seed {seed} to draw the same inputs again", highlight=False)
            task = bar.add_task("", total=total)

            def show(case: Case) -> None:
                bar.update(task, advance=1, description=f"{case.level} {case.backend} {case.rule}")
                if case.verdict == FAIL:
                    bar.console.print(
                        f"{case.verdict}: {case.id}: {case.why}", markup=False, highlight=False, soft_wrap=True
                    )

            report = run_suite(chosen, show, selection, known, seed=seed, run=isolation.run if isolate else None)
        for path in write_reports(report, out):
            console.print(str(path), highlight=False, soft_wrap=True)
        for line in counts(report):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(interruption.status if report.partial else 0 if report.passed else 1)


def counts(report: Report) -> list[str]:
    """Why rows are unsupported, the counts of each level, then the whole result."""
    lines = [f"unsupported: {reason}: {found(rows)}" for reason, rows in by_reason(report.cases).items()]
    lines += [
        f"{level}: {counted(sum(by_backend.values(), Counter()))}" for level, by_backend in tally(report.cases).items()
    ]
    return [*lines, headline(report)]


def found(rows: Sequence[Case]) -> str:
    """How many rows of which levels and backends."""
    levels, backends = (sorted({getattr(row, name) for row in rows}) for name in ("level", "backend"))
    return f"{len(rows)} of {', '.join(levels)} on {', '.join(backends)}"


def progress(console: Console) -> Progress:
    """A bar on a terminal, nothing in a file."""
    shown = (TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*shown, console=console, transient=True, disable=not console.is_terminal)


@conformance.command()
def compare(
    before: Annotated[Path, typer.Argument(help="report.json of the first run")],
    after: Annotated[Path, typer.Argument(help="report.json of the second run")],
) -> None:
    """Say what changed between two reports. The exit status is 1 if a row fails that did not fail before."""
    found = compare_reports(read_report(before), read_report(after))
    console = Console()
    for line in described(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1 if found.worse else 0)


def described(found: Comparison) -> list[str]:
    """A comparison, a line for each difference and a summary."""
    lines = [f"{name}: {one} -> {other}" for name, (one, other) in found.versions.items()]
    lines += [f"{a.id}: {a.verdict} -> {b.verdict}: {b.why}" for a, b in found.verdicts]
    lines += [f"{a.id}: {figure(a.worst_ulp)} -> {figure(b.worst_ulp)} ULP" for a, b in found.figures]
    lines += [f"{case.id}: only in the first" for case in found.only_before]
    lines += [f"{case.id}: only in the second" for case in found.only_after]
    counts = {
        "verdicts changed": len(found.verdicts),
        "errors changed": len(found.figures),
        "rows only in the first": len(found.only_before),
        "rows only in the second": len(found.only_after),
    }
    summary = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return [*lines, summary or "the same rows, verdicts and errors"]


@conformance.command()
def verify(report: Annotated[Path, typer.Argument(help="a report.json")]) -> None:
    """Check a report's form, its digest and its set of cases."""
    found = read_report(report)
    try:
        selection = Selection.read(found.header["selection"])
        planned = {
            identity
            for check in selection.choose(plan(choose(list(found.header["backends"]))))
            for identity in check.case_ids
        }
        where = "the rows are those that its backends have here"
    except (BackendUnavailable, InvalidArgument):
        planned, where = None, "one of its backends is not installed here, so that its rows cannot be counted again"
    check_case_set(found, digest(), planned)
    console = Console()
    console.print(f"{report}: form, digest and golden data are right; {where}", highlight=False, soft_wrap=True)
    console.print(headline(found), highlight=False)
