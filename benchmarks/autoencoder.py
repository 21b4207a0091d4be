"""Steps and CPU seconds to a training error of 0.5 on the digits autoencoder, every optimizer tuned for each length.

    python benchmarks/autoencoder.py [--out DIR] [--optimizer kfac]

The target was fixed before the search, and so were lengths and grids (``GRIDS``). For each optimizer and each run
length every combination of its grid is run on seed 0, and the best few also on seeds 1 and 2; the one with the smallest
median training error at the end is that length's. It is then run on ten seeds that the search did not see. An
optimizer's result is the shortest length whose median over those ten reaches the target.

Every run is a line of ``DIR/runs.jsonl`` as soon as it is over, and is never run again: a search that was stopped goes
on where it was. ``DIR/table.md`` and ``DIR/tuned.json`` are made of the lengths that are complete; the example draws
from a copy of the latter, ``examples/autoencoder/tuned.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import product
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "autoencoder"))

from torch_runs import run  # noqa: E402

TARGET = 0.5
SEARCH, BEST, FRESH = (0, 1, 2), 4, range(100, 110)
Grid = dict[str, tuple[Any, ...]]
GRIDS: dict[str, tuple[tuple[int, ...], Grid]] = {
    "kfac": (
        (220, 240, 260),
        {
            "lr": (0.3, 1.0, 3.0),
            "damping": (3e-3, 1e-2, 3e-2, 1e-1),
            "kl_clip": (1e-3, 3e-3, 1e-2),
            "schedule": ("linear", "constant"),
        },
    ),
    "adam": (
        (240, 960, 1040, 1200, 1400, 1600),
        {
            "lr": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
            "betas": ((0.9, 0.999), (0.9, 0.99), (0.9, 0.95), (0.9, 0.9), (0.95, 0.95)),
            "schedule": ("linear", "cosine", "constant"),
        },
    ),
    "thor": (
        (240, 280, 320),
        {
            "lr": (0.1, 0.3, 1.0),
            "damping": (3e-3, 1e-2, 3e-2, 1e-1),
            "kl_clip": (1e-3, 3e-3, 1e-2),
            "schedule": ("linear",),
        },
    ),
    "spngd": (
        (220, 260, 320),
        {
            "lr": (0.1, 0.3, 1.0),
            "damping": (3e-3, 1e-2, 3e-2, 1e-1),
            "kl_clip": (3e-3, 1e-2, 3e-2),
            "schedule": ("linear",),
        },
    ),
    "sgd": (
        (1200,),
        {
            "lr": (3e-3, 1e-2, 3e-2, 1e-1),
            "momentum": (0.9, 0.95, 0.98),
            "nesterov": (True,),
            "schedule": ("linear", "constant"),
        },
    ),
}
"""Lengths, and what is searched at each of them. K-FAC's intervals are its defaults: factors 5, inverses 20."""

Run = dict[str, Any]


class Runs:
    """All runs there ever were in a folder, by what they were runs of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {self.key(**line["of"]): line["found"] for line in map(json.loads, lines)}

    @staticmethod
    def key(**of: Any) -> str:
        """What a run is known by."""
        return json.dumps(of, sort_keys=True)

    def __call__(self, name: str, settings: dict[str, Any], steps: int, seed: int) -> Run:
        """A run's errors and CPU seconds; a run that was refused or is not finite has infinite errors."""
        of = dict(name=name, settings=settings, steps=steps, seed=seed)
        key = self.key(**of)
        if key not in self.known:
            self.known[key] = result(name, settings, steps, seed)
            with self.path.open("a") as file:
                file.write(json.dumps({"of": of, "found": self.known[key]}) + "\n")
        return self.known[key]


def result(name: str, settings: dict[str, Any], steps: int, seed: int) -> Run:
    """One run without its curve."""
    try:
        found = run(name, settings, steps, seed)
    except ArithmeticError:
        return {"train": inf, "held_out": inf, "seconds": inf}
    errors = {kind: found[kind] if isfinite(found[kind]) else inf for kind in ("train", "held_out")}
    return {**errors, "seconds": found["seconds"]}


def search(runs: Runs, name: str, steps: int, grid: Grid) -> dict[str, Any]:
    """The settings with the smallest median error for a length."""
    tried = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    tried.sort(key=lambda settings: runs(name, settings, steps, SEARCH[0])["train"])

    def over_seeds(settings: dict[str, Any]) -> float:
        return median(runs(name, settings, steps, seed)["train"] for seed in SEARCH)

    return min(tried[:BEST], key=over_seeds)


def fresh(runs: Runs, name: str, settings: dict[str, Any], steps: int) -> dict[str, float]:
    """Medians over the fresh seeds, and how many of them reach the target."""
    found = [runs(name, settings, steps, seed) for seed in FRESH]
    medians = {key: median(one[key] for one in found) for key in ("train", "held_out", "seconds")}
    return {**medians, "reached": sum(one["train"] <= TARGET for one in found)}


def at_edge(settings: dict[str, Any], grid: Grid) -> Iterator[str]:
    """The numbers that lie at an end of their grid: there may be better ones beyond it."""
    for name, value in settings.items():
        numbers = grid[name]
        if isinstance(value, float) and len(numbers) > 1 and value in (numbers[0], numbers[-1]):
            yield name


def table(results: dict[str, Any]) -> str:
    """Every optimizer at every length, in Markdown; the first length that reaches the target in bold."""
    head = ("optimizer", "steps", "train mse", "seeds at target", "held-out mse", "CPU s", "settings", "at grid's edge")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, lengths in results.items():
        reached = False
        for steps, row in lengths.items():
            train = f"{row['train']:.3f}"
            if row["train"] <= TARGET and not reached:
                train, reached = f"**{train}**", True
            settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
            edge = ", ".join(at_edge(row["settings"], GRIDS[name][1])) or "-"
            seeds, held_out = f"{row['reached']}/{len(FRESH)}", f"{row['held_out']:.3f}"
            cells = (name, steps, train, seeds, held_out, f"{row['seconds']:.2f}", settings, edge)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(out: Path = Path("out/autoencoder-search"), optimizer: list[str] | None = None) -> None:
    """Search, run the winners on fresh seeds, write the table after each length."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    console, runs, results = Console(), Runs(out / "runs.jsonl"), dict[str, Any]()
    for name in optimizer or list(GRIDS):
        lengths, grid = GRIDS[name]
        for steps in lengths:
            settings = search(runs, name, steps, grid)
            row = {"settings": settings, **fresh(runs, name, settings, steps)}
            results.setdefault(name, {})[steps] = row
            console.print(f"{name} {steps}: {row}", highlight=False)
            (out / "tuned.json").write_text(json.dumps(results, indent=1) + "\n")
            (out / "table.md").write_text(table(results))


if __name__ == "__main__":
    typer.run(main)
