"""The digits autoencoder with K-FAC, SP-NGD, THOR, tuned Adam and tuned SGD: loss against steps and against seconds.

    python examples/autoencoder/run.py [--backend torch] [--out out/autoencoder]

On every framework that is installed, or on those that are named, with the same weights to begin with and the same
batches; dashed lines are MindSpore's. Each optimizer runs with the settings and for the length that
``benchmarks/autoencoder.py`` found for it on PyTorch: the shortest that reaches a training error of 0.5, or the longest
that was searched. Needs scikit-learn, from ``pip install 'hessiod[examples]'``.
"""

from __future__ import annotations

import importlib
import json
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import typer
from rich.console import Console
from rich.table import Table

TARGET = 0.5
LABELS = {"kfac": "K-FAC", "spngd": "SP-NGD", "thor": "THOR", "adam": "Adam, tuned", "sgd": "SGD, tuned"}
COLOURS = {label: f"C{place}" for place, label in enumerate(LABELS.values())}


def chosen(lengths: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The shortest tuned run that reaches the target, or the longest."""
    reaching = [steps for steps, row in lengths.items() if row["train"] <= TARGET]
    steps = reaching[0] if reaching else list(lengths)[-1]
    return int(steps), lengths[steps]["settings"]


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Training error against steps and against CPU seconds, both axes logarithmic."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for column, (axis, label) in enumerate(zip(axes, ("steps", "CPU seconds"), strict=True)):
        for name, found in curves.items():
            points = found["curve"]
            style = "--" if name.endswith(", mindspore") else "-"
            colour = COLOURS[name.removesuffix(", mindspore")]
            values = [point[column] for point in points], [point[2] for point in points]
            axis.plot(*values, style, color=colour, label=name, linewidth=1.2)
        axis.axhline(TARGET, color="grey", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, xscale="log", yscale="log")
    axes[0].set_ylabel("training error (squared, summed over pixels)")
    axes[1].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


class Framework(StrEnum):
    """What the example is written for."""

    TORCH = "torch"
    MINDSPORE = "mindspore"


def main(
    backend: Annotated[
        list[Framework] | None, typer.Option(help="those that are installed by default, in one picture.")
    ] = None,
    out: Path = Path("out/autoencoder"),
    seed: Annotated[int, typer.Option(min=0)] = 102,
) -> None:
    """Train with each optimizer on each backend, print a table, draw the picture."""
    out.mkdir(parents=True, exist_ok=True)
    console, curves = Console(), dict[str, dict[str, Any]]()
    tuned = json.loads((Path(__file__).parent / "tuned.json").read_text())
    result = Table("optimizer", "steps", "train mse", "held-out mse", "CPU s")
    for framework in backend or filter(find_spec, Framework):
        runs = importlib.import_module(f"{framework}_runs")
        for name, lengths in tuned.items():
            steps, settings = chosen(lengths)
            found = runs.run(name, settings, steps, seed, every=max(1, steps // 60))
            label = LABELS[name] if framework == "torch" else f"{LABELS[name]}, {framework}"
            curves[label] = found
            numbers = (found["train"], found["held_out"], found["seconds"])
            result.add_row(label, str(steps), *(f"{number:.3f}" for number in numbers))
    draw(curves, out / "autoencoder.png")
    (out / "autoencoder.json").write_text(json.dumps(curves, indent=1))
    console.print(result)
    console.print(f"  {out / 'autoencoder.png'}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
