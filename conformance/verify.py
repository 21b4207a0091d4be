"""Read a report back, and say whether it is whole: its form, its digest, its set of cases."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hessiod.conformance.case import Case
from hessiod.conformance.result import FORMAT, Report, case_set, sha256
from hessiod.core.errors import InvalidArgument


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json``, as published with the package."""
    return json.loads(files("hessiod.conformance").joinpath("report.schema.json").read_text(encoding="utf-8"))


def read_report(path: Path) -> Report:
    """Read ``report.json``; refuse a file that is no report, or was changed after it was written."""
    document = parsed(path)
    check_form(document, path)
    found = sha256({"header": document["header"], "cases": document["cases"]})
    if found != document["digest"]:
        raise InvalidArgument(
            f"{path}: the digest is {document['digest'][:16]}, the contents give {found[:16]}: it was changed after it "
            "was written; run hessiod conformance again"
        )
    return Report(document["header"], [Case(**row) for row in document["cases"]])


def parsed(path: Path) -> Any:
    """The file's JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read ({error.strerror}); give a report.json") from error
    except ValueError as error:
        raise InvalidArgument(f"{path}: is not JSON ({error}); give a report.json") from error


def check_form(document: Any, path: Path) -> None:
    """Refuse what is not a report, naming the first place where it is not."""
    import jsonschema  # only here: the other commands start faster without it

    check_format(document, path)
    try:
        jsonschema.validate(document, schema())
    except jsonschema.ValidationError as error:
        raise InvalidArgument(f"{path}: {error.json_path}: {error.message}; give a report.json") from error
    ids = [row["id"] for row in document["cases"]]
    doubled = (
        next((identity for identity in ids if ids.count(identity) > 1), None) if len(set(ids)) < len(ids) else None
    )
    if doubled is not None:
        raise InvalidArgument(f"{path}: the row {doubled} stands twice")


def check_format(document: Any, path: Path) -> None:
    """Refuse the report of a later release; those of all earlier ones are read."""
    header = document.get("header") if isinstance(document, dict) else None
    header = header if isinstance(header, dict) else {}
    found = header.get("format", 1)
    if isinstance(found, int) and found > FORMAT:
        raise InvalidArgument(
            f"{path}: the report has format {found} and is of hessiod {header.get('hessiod')}, this release reads up "
            f"to {FORMAT}; update hessiod"
        )


def check_case_set(report: Report, golden: str, planned: Iterable[str] | None) -> None:
    """Refuse a report that is partial, lacks rows, or compares with other golden data than this release ships.

    ``planned`` are the rows that this installation would run for the same backends and selection; None if a backend is
    not installed here, so that only the report's own list of rows can be checked.
    """
    if report.partial:
        raise InvalidArgument(
            f"the report is partial: the run was interrupted after {len(report.cases)} rows; run again"
        )
    ids = {case.id for case in report.cases}
    found = case_set(ids, golden)
    if found != report.header["case_set"]:
        raise InvalidArgument(
            f"the report's case set is {report.header['case_set'][:16]}, its rows and this release's golden data give "
            f"{found[:16]}: another release of hessiod made it; it says {report.header['hessiod']}"
        )
    missing = sorted(set(planned or ids) - ids)
    if missing:
        raise InvalidArgument(
            f"the report lacks {len(missing)} rows that its backends have here, such as {missing[0]}; run again, or "
            "verify with the release that made it"
        )
