"""Steps and CPU seconds to a training error of 0.5 on the digits autoencoder, every optimizer tuned for each length.

    python benchmarks/autoencoder.py [--out DIR] [--optimizer kfac] [--length 220]

The target was fixed before the search; what is searched is in ``GRIDS``. For each optimizer and each run
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

from torch_runs import run

TARGET = 0.5
SEARCH, BEST, FRESH = (0, 1, 2), 4, range(100, 110)
Grid = dict[str, tuple[Any, ...]]
ADAM: Grid = {
    "lr": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    "betas": ((0.9, 0.999), (0.9, 0.99), (0.9, 0.95), (0.9, 0.9), (0.95, 0.95)),
    "schedule": ("linear", "cosine", "constant"),
}
LONG: Grid = {**ADAM, "lr": (2e-3, 4e-3, 8e-3), "betas": ADAM["betas"][1:]}
"""Without what was among the worst at 240 and at 960 steps."""
KFAC: Grid = {
    "lr": (0.3, 1.0, 3.0),
    "damping": (3e-3, 1e-2, 3e-2, 1e-1),
    "kl_clip": (1e-3, 3e-3, 1e-2),
    "schedule": ("linear", "constant"),
}
SHORT: Grid = {**KFAC, "lr": (1.0,), "damping": (1e-3, 3e-3, 1e-2, 3e-2), "kl_clip": (3e-4, 1e-3, 3e-3)}
"""Further out where the best of 220 to 260 steps lay at an edge; lr makes no difference where the clip decides."""
THOR: Grid = {"lr": (0.3,), "damping": (1e-3, 3e-3, 1e-2, 3e-2), "kl_clip": (1e-3, 3e-3, 1e-2), "schedule": ("linear",)}
SPNGD: Grid = {**THOR, "damping": (3e-3, 1e-2, 3e-2, 1e-1), "kl_clip": (3e-3, 1e-2, 3e-2)}
SGD: Grid = {
    "lr": (3e-3, 1e-2, 3e-2),
    "momentum": (0.9, 0.95, 0.98),
    "nesterov": (True,),
    "schedule": ("linear", "constant"),
}
GRIDS: dict[str, dict[int, Grid]] = {
    "kfac": {160: SHORT, 180: SHORT, 200: SHORT, 220: KFAC, 240: KFAC, 260: KFAC},
    "adam": {240: ADAM, 960: ADAM, 1200: LONG, 1400: LONG},
    "thor": dict.fromkeys((240, 280, 320), THOR),
    "spngd": dict.fromkeys((220, 260, 320), SPNGD),
    "sgd": {1200: SGD},
}
"""What is searched at each length. K-FAC's intervals are its defaults: factors 5, inverses 20."""

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
            edge = ", ".join(at_edge(row["settings"], GRIDS[name][steps])) or "-"
            seeds, held_out = f"{row['reached']}/{len(FRESH)}", f"{row['held_out']:.3f}"
            cells = (name, steps, train, seeds, held_out, f"{row['seconds']:.2f}", settings, edge)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(
    out: Path = Path("out/autoencoder-search"), optimizer: list[str] | None = None, length: list[int] | None = None
) -> None:
    """Search, run the winners on fresh seeds, write the table after each length; all of them, or those named."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    console, runs, results = Console(), Runs(out / "runs.jsonl"), dict[str, Any]()
    for name in optimizer or list(GRIDS):
        for steps, grid in GRIDS[name].items():
            if length and steps not in length:
                continue
            settings = search(runs, name, steps, grid)
            row = {"settings": settings, **fresh(runs, name, settings, steps)}
            results.setdefault(name, {})[steps] = row
            console.print(f"{name} {steps}: {row}", highlight=False)
            (out / "tuned.json").write_text(json.dumps(results, indent=1) + "\n")
            (out / "table.md").write_text(table(results))


if __name__ == "__main__":
    typer.run(main)
