"""Certify a framework: measure, judge, let the engine meet its own table, judge again."""

from __future__ import annotations

import importlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hessiod.backends.certification import golden
from hessiod.backends.certification.measurement import FIRST_TOLERANCE, SECOND_TOLERANCE, Measurement
from hessiod.backends.certification.table import FOLDER, NOTHING, REFUSED, SCHEMA, WRONG
from hessiod.conformance.certify.pool import MODULES, Task, measure_all
from hessiod.conformance.certify.verdicts import ABSENT, VERDICTS, Row, operator_table
from hessiod.conformance.suite import own_version
from hessiod.core.errors import InvalidArgument

OnRow = Callable[[Task, Measurement], None]


def certifier(backend: str) -> Any:
    """The measurements of a backend, by its name."""
    if backend not in MODULES:
        raise InvalidArgument(
            f"backend: {backend!r} takes no derivatives, so there is nothing to certify; expected one of "
            f"{', '.join(MODULES)}"
        )
    return importlib.import_module(MODULES[backend])


def certify(
    backend: str,
    names: Iterable[str] | None = None,
    routes: Iterable[str] | None = None,
    jobs: int = 2,
    on_measurement: OnRow = lambda task, found: None,
    known: Mapping[Task, Measurement] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measure the cases of a backend by its routes; the document that a table's file holds.

    The engine is measured without its table first. What it gets wrong, the new table refuses; then every case with a
    refused operator is measured again with the engine reading that table. A case whose number is still off is *wrong*.
    ``known`` holds measurements of an earlier run, which are not repeated.
    """
    module = certifier(backend)
    chosen = list(names or module.NAMES)
    wanted = list(routes or module.ROUTES)
    engines = tuple(route for route in module.ENGINE_ROUTES if route in wanted)
    rows = {name: new_row(module, name, engines) for name in chosen}
    tasks = [Task(name, route, check=False) for route in wanted for name in chosen]
    for task, found in known.items():
        if task in tasks:
            rows[task.name].routes[task.route] = found
    new = [task for task in tasks if task not in known]
    for task, found in measure_all(backend, new, jobs, {FOLDER: NOTHING}):
        rows[task.name].routes[task.route] = found
        on_measurement(task, found)
    dead = [Task(row.name, "operators") for row in rows.values() if row.engine.died]
    for task, found in measure_all(backend, dead, jobs):
        rows[task.name].routes[engines[0]].operators = found.operators
    document = assembled(module, list(rows.values()))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file_name(document)).write_text(as_json(document))
        doubtful = [row for row in rows.values() if meets_refusal(row, document["operators"])]
        again = [Task(row.name, route) for route in engines for row in doubtful]
        for task, found in measure_all(backend, again, jobs, {FOLDER: folder}):
            found.operators = rows[task.name].routes[task.route].operators
            rows[task.name].routes[task.route] = found
            on_measurement(task, found)
    return finished(document, list(rows.values()))


def new_row(module: Any, name: str, engines: tuple[str, ...]) -> Row:
    """A case without measurements."""
    case = module.case_of(name)
    return Row(name, case.family, case.smooth, engines)


def meets_refusal(row: Row, operators: dict[str, dict[str, Any]]) -> bool:
    """Whether a case is not right yet, or contains an operator that the table refuses, for which there are kernels."""
    if row.verdict == ABSENT:
        return False
    refused = (REFUSED in (operators[name]["first"], operators[name]["second"]) for name in row.operators)
    return row.verdict in (WRONG, REFUSED) or any(refused)


def assembled(module: Any, rows: list[Row]) -> dict[str, Any]:
    """The document before the engine has met it."""
    header = dict(module.header())
    header |= {
        "hessiod": own_version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "golden": golden.file_digest(),
        "tolerance": {"first": FIRST_TOLERANCE, "second": SECOND_TOLERANCE},
    }
    return {"schema": SCHEMA, "header": header, "operators": operator_table(rows)}


def finished(document: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """With cases and counts."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in VERDICTS}
    counts["silent"] = sum(row.silent for row in rows)
    return document | {"counts": counts, "cases": [row.document() for row in rows]}


def file_name(document: dict[str, Any]) -> str:
    """``mindspore-2.10.0.json``; with the device where it is not the CPU."""
    header = document["header"]
    device = "" if header["device"] == "cpu" else f"-{header['device']}"
    return f"{header['framework']}-{header['version']}{device}.json"


def as_json(document: dict[str, Any]) -> str:
    """A table as the engines read it: one line for a case or an operator."""
    parts = [f'"{key}": {json.dumps(document[key])}' for key in ("schema", "header", "counts") if key in document]
    for key in ("operators", "cases"):
        if key in document:
            parts.append(f'"{key}": {lines_of(document[key])}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def lines_of(entries: Any) -> str:
    """A list or an object with each entry on a line of its own."""
    if isinstance(entries, dict):
        rows = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    return "[\n" + ",\n".join(f" {json.dumps(entry)}" for entry in entries) + "\n]"
