"""Pictures of training runs; needs matplotlib, which the extra ``plots`` installs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hessiod.backends.checkpoint import write_atomically


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw_losses(runs: Mapping[str, list[dict[str, Any]]], title: str, path: Path) -> str:
    """Draw the losses of some runs into a PNG; return a line that says so, or why not."""
    if find_spec("matplotlib") is None:
        return f"{path.name} was not drawn: matplotlib is not installed; run: pip install 'hessiod[plots]'"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, metrics) in enumerate(runs.items()):
        style: dict[str, Any] = dict(lw=3.5, alpha=0.45) if place == 0 and len(runs) > 1 else dict(lw=1.2)
        axes.plot([row["step"] for row in metrics], [row["loss"] for row in metrics], label=name, **style)
    axes.set(xlabel="step", ylabel="loss, nats per byte", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
    return f"{path}"
