"""Files of older formats, in the terms of the present one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hessiod.backends.checkpoint.container import Container
from hessiod.backends.checkpoint.record import Record


def modern(file: Container) -> Mapping[str, Any]:
    """A file's document; one of format 1, which only ``hessiod train`` wrote, is translated.

    Format 1 had the arrays' names, the step and the arguments of the run, but no hyperparameters, no refreshes and no
    SHA-256.
    """
    if file.version > 1:
        return file.document
    step = file.document.get("step", 0)
    record = Record(None, step, None, None, {}, None)
    return {
        "written": {"hessiod": "0.1.0", "framework": file.document.get("backend"), "versions": {}},
        "model": {
            "arrays": [n.partition("/")[2] for n in file.entries if n.startswith("model/")],
            "layers": {},
            "tied": {},
        },
        "optimizer": record.document(),
        "schedule": {"step": step},
        "extra": {"run": file.document.get("run", {})},
    }
