"""A report as JSON, Markdown and HTML."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.result import Report


def figure(value: float | None) -> str:
    """An ULP figure in three digits."""
    return "" if value is None else "0" if value == 0 else f"{value:.3g}"


SECTIONS = {
    "formula": "Level 1: kernels against the published formulas",
    "agreement": "Level 1: kernels against the numpy backend",
    "L4": "Level 4: training runs of the character GPT and of the digits perceptron",
}
Matrix = dict[str, dict[str, Case]]


def matrices(cases: list[Case]) -> dict[str, Matrix]:
    """By section, kernel or run, and column (backend, route, dtype): the row that comes nearest to failing."""
    found: dict[str, Matrix] = {title: {} for title in SECTIONS.values()}
    for case in cases:
        parts = case.id.split("/")
        if case.level == "L1" and len(parts) == 6:
            title, column = SECTIONS[parts[5]], " ".join(parts[2:5])
        else:
            title, column = SECTIONS["L4"], f"{case.backend} against {parts[3]}" if len(parts) > 3 else case.backend
        cells = found[title].setdefault(parts[1], {})
        if column not in cells or strain(case) > strain(cells[column]):
            cells[column] = case
    return {title: matrix for title, matrix in found.items() if matrix}


def columns(matrix: Matrix) -> list[str]:
    """The columns of a matrix, in the order of their first appearance."""
    return list(dict.fromkeys(column for cells in matrix.values() for column in cells))


def strain(case: Case) -> float:
    """How much of its budget a row used; a failure is beyond any."""
    if case.verdict == FAIL:
        return float("inf")
    if not case.worst_ulp:
        return 0.0
    return case.worst_ulp / case.budget_ulp if case.budget_ulp else 1.0


def headline(report: Report) -> str:
    """The result in one line."""
    line = f"{report.count(PASS)} passed, {report.count(FAIL)} failed, {report.count(UNSUPPORTED)} unsupported"
    if report.count(XFAIL):
        line += f", {report.count(XFAIL)} known to fail"
    return f"PARTIAL, interrupted: {line}" if report.partial else line


def as_json(report: Report) -> str:
    """The report for machines."""
    return json.dumps(report.document, indent=1, sort_keys=True) + "\n"


def as_markdown(report: Report) -> str:
    """The report for a pull request: what failed in full, what passed by rule and backend."""
    lines = ["# Conformance report", "", f"**{headline(report)}**", ""]
    for name in ("hessiod", "python", "platform"):
        lines.append(f"- {name} {report.header[name]}")
    for name, versions in report.header["backends"].items():
        known = ", ".join(f"{key} {value}" for key, value in versions.items())
        lines.append(f"- {name}: {known}; {', '.join(report.header['devices'][name])}")
    lines += [f"- case set `{report.header['case_set'][:16]}`, digest `{report.digest[:16]}`", ""]
    failed = [case for case in report.cases if case.verdict != PASS]
    for title, rows in (("Not passed", failed), ("Passed", [case for case in report.cases if case.verdict == PASS])):
        if rows:
            lines += [f"## {title}", "", "| case | worst, ULP | budget, ULP | verdict | why |", "|---|---|---|---|---|"]
            lines += [
                f"| {row.id} | {figure(row.worst_ulp)} | {figure(row.budget_ulp)} | {row.verdict} | {row.why} |"
                for row in rows
            ]
            lines.append("")
    return "\n".join(lines)


def as_html(report: Report) -> str:
    """The report as one page that needs no network."""
    environment = Environment(
        loader=PackageLoader("hessiod.conformance", "."),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment.get_template("report.html").render(
        report=report, headline=headline(report), matrices=matrices(report.cases), columns=columns, strain=strain
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
