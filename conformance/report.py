"""A report as JSON, Markdown and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance import matrix
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.entry import in_words, shown
from hessiod.conformance.result import Report


def figure(value: float | None) -> str:
    """An ULP figure in three digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if 999.5 <= value < 1e7 else f"{value:.3g}"


def headline(report: Report) -> str:
    """The result in one line."""
    line = f"{report.count(PASS)} passed, {report.count(FAIL)} failed, {report.count(UNSUPPORTED)} unsupported"
    if report.count(XFAIL):
        line += f", {report.count(XFAIL)} known to fail"
    if report.header["selection"].get("quick"):
        line = f"quick run: {line}"
    return f"PARTIAL, interrupted: {line}" if report.partial else line


def as_json(report: Report) -> str:
    """The report for machines."""
    return json.dumps(report.document, indent=1, sort_keys=True) + "\n"


def as_markdown(report: Report) -> str:
    """The report for a pull request: counts, what failed in full, the rest folded."""
    lines = ["# Conformance report", "", f"**{headline(report)}**", "", *counts_table(report.cases), ""]
    for title, verdict in (("Failed", FAIL), ("Known to fail", XFAIL)):
        rows = [case for case in report.cases if case.verdict == verdict]
        if rows:
            lines += [f"## {title}", "", *case_table(rows), ""]
    reasons = matrix.by_reason(report.cases)
    if reasons:
        listed = ["| rows | backends | reason |", "|---|---|---|"]
        for reason, rows in reasons.items():
            backends = ", ".join(dict.fromkeys(row.backend for row in rows))
            listed.append(f"| {len(rows)} | {backends} | {escaped(reason)} |")
        lines += folded(f"{report.count(UNSUPPORTED)} unsupported, by reason", listed)
    nearest = [f"- `{case.id}`: {escaped(in_words(case.worst))}" for case in matrix.nearest(report.cases) if case.worst]
    if nearest:
        lines += folded("Nearest to their budget, with their inputs", nearest)
    passed = [case for case in report.cases if case.verdict == PASS]
    if passed:
        lines += folded(f"{len(passed)} passed, each subject's error nearest to its budget", matrix_tables(passed))
    return "\n".join([*lines, *folded("Versions, devices, digests", versions(report)), *left_out(report)])


def counts_table(cases: list[Case]) -> list[str]:
    """Passed of all rows that ran, by level and backend."""
    tally = matrix.tally(cases)
    backends = sorted({backend for counts in tally.values() for backend in counts})
    lines = [f"| level | {' | '.join(backends)} |", "|---|" + "---|" * len(backends)]
    for level, counts in tally.items():
        cells = (matrix.counted(counts[backend]) if backend in counts else "" for backend in backends)
        lines.append(f"| {level} | {' | '.join(cells)} |")
    return lines


def matrix_tables(cases: list[Case]) -> list[str]:
    """The sections' matrices, a cell being "error / budget": all rows would be more than a comment may hold."""
    lines = []
    for section in matrix.sections(cases):
        lines += [f"**{section.title}**", "", f"| | {' | '.join(section.backends)} |"]
        lines.append("|---|" + "---|" * len(section.backends))
        for subject, cells in section.rows.items():
            shown = (cell_text(cells[name].worst) if name in cells else "" for name in section.backends)
            lines.append(f"| {subject} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def cell_text(case: Case) -> str:
    """The figures of a row that passed."""
    return "same bits" if case.worst_ulp is None else f"{figure(case.worst_ulp)} / {figure(case.budget_ulp)}"


def case_table(rows: list[Case]) -> list[str]:
    """Rows with their figures."""
    return [
        "| case | worst, ULP | budget, ULP | why |",
        "|---|---|---|---|",
        *(
            f"| {row.id} | {figure(row.worst_ulp)} | {figure(row.budget_ulp)} | {escaped(reason(row))} |"
            for row in rows
        ),
    ]


def reason(case: Case) -> str:
    """Why a row has its verdict, with the worst entry's inputs where they are known."""
    return f"{case.why}: {in_words(case.worst)}" if case.worst else case.why


def escaped(text: str) -> str:
    """Text that stays in its cell of a Markdown table and is no markup."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def folded(title: str, lines: list[str]) -> list[str]:
    """Lines that a page shows on demand."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""]


def versions(report: Report) -> list[str]:
    """What the results depend on, a line each."""
    lines = [f"- {name} {report.header[name]}" for name in ("hessiod", "python", "platform")]
    for name, known in report.header["backends"].items():
        said = ", ".join(f"{key} {value}" for key, value in known.items())
        lines.append(f"- {name}: {said}; {', '.join(report.header['devices'][name])}")
    if "seed" in report.header:
        lines.append(f"- drawn inputs: `--seed {report.header['seed']}`, hypothesis {report.header['hypothesis']}")
    return [*lines, f"- case set `{report.header['case_set'][:16]}`, digest `{report.digest[:16]}`"]


def left_out(report: Report) -> list[str]:
    """What a quick run left out, a line each."""
    return [f"- left out of this quick run: {line}" for line in report.header["selection"].get("left_out", ())]


def as_html(report: Report) -> str:
    """The report as one page that needs no network."""
    environment = Environment(
        loader=PackageLoader("hessiod.conformance", "."),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["in_words"] = in_words
    environment.filters["shown"] = shown
    return environment.get_template("report.html").render(
        report=report,
        headline=headline(report),
        sections=matrix.sections(report.cases),
        tally=matrix.tally(report.cases),
        counted=matrix.counted,
        detail=matrix.detail,
        strain=matrix.strain,
        nearest=matrix.nearest(report.cases),
        reasons=matrix.by_reason(report.cases),
        failed=[case for case in report.cases if case.verdict == FAIL],
        known=[case for case in report.cases if case.verdict == XFAIL],
    )


def write_reports(report: Report, folder: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html``."""
    writers: dict[str, Callable[[Report], str]] = {
        "report.json": as_json,
        "report.md": as_markdown,
        "report.html": as_html,
    }
    for name, writer in writers.items():
        write_atomically(folder / name, writer(report).encode())
    return [folder / name for name in writers]
