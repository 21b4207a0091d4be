"""Measurements as they come, a line each, so that a run that was stopped can go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from hessiod.backends.certification import golden
from hessiod.backends.certification.measurement import Measurement
from hessiod.conformance.certify.pool import Task


class Journal:
    """``measurements-<framework>.jsonl`` in a folder: first what the measurements depend on, then one a line."""

    def __init__(self, folder: Path, header: dict[str, str]) -> None:
        self.path = folder / f"measurements-{header['framework']}.jsonl"
        self.header = dict(header) | {"golden": golden.file_digest()}

    def known(self) -> dict[Task, Measurement]:
        """What an earlier run found, if it was about the same framework and golden values; a torn last line is left."""
        if not self.path.exists():
            return {}
        lines = self.path.read_text().splitlines(keepends=True)
        if not lines or json.loads(lines[0]) != self.header:
            return {}
        rows = [json.loads(line) for line in lines[1:] if line.endswith("\n")]
        return {Task(*row["task"]): measurement_of(row["found"]) for row in rows}

    def start(self, known: dict[Task, Measurement]) -> TextIO:
        """The file, begun anew with what is known."""
        file = self.path.open("w")
        file.write(json.dumps(self.header) + "\n")
        for task, found in known.items():
            self.note(file, task, found)
        return file

    @staticmethod
    def note(file: TextIO, task: Task, found: Measurement) -> None:
        """Another measurement."""
        file.write(json.dumps({"task": list(task), "found": found.document()}) + "\n")
        file.flush()


def measurement_of(document: dict[str, Any]) -> Measurement:
    """A measurement as :meth:`Measurement.document` wrote it."""
    return Measurement(**(document | {"operators": tuple(document["operators"])}))
