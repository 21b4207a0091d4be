"""Steps and CPU seconds to a training error of 0.5 on the digits autoencoder, every optimizer tuned for each length.

    python benchmarks/autoencoder.py [--out DIR]

The target was fixed before the search. For each optimizer and each run length every combination of its grid is run on
seed 0, and the best few also on seeds 1 and 2; the one with the smallest median training error at the end is that
length's. It is then run on ten seeds that the search did not see. An optimizer's result is the shortest length whose
median over those ten reaches the target. DIR gets ``search.json`` (everything) and ``table.md``; the chosen settings go
to ``examples/autoencoder/tuned.json``, from which the example draws its picture.
"""

from __future__ import annotations

import json
import sys
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from rich.console import Console

EXAMPLE = Path(__file__).parents[1] / "examples" / "autoencoder"
sys.path.insert(0, str(EXAMPLE))

from torch_runs import run  # noqa: E402

TARGET = 0.5
SEARCH, BEST, FRESH = (0, 1, 2), 4, range(100, 110)
GRIDS: dict[str, tuple[tuple[int, ...], dict[str, tuple[Any, ...]]]] = {
    "adam": (
        (280, 400, 560, 800, 1120),
        {
            "lr": (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
            "betas": ((0.9, 0.999), (0.9, 0.95)),
            "schedule": ("linear", "cosine", "constant"),
        },
    ),
    "kfac": (
        (140, 200, 280),
        {"lr": (1.0,), "damping": (0.03, 0.1, 0.3), "kl_clip": (3e-3, 1e-2), "schedule": ("linear",)},
    ),
    "thor": (
        (200, 280, 370),
        {"lr": (0.3,), "damping": (0.01, 0.03, 0.1), "kl_clip": (3e-3, 1e-2), "schedule": ("linear",)},
    ),
    "spngd": (
        (140, 200, 280),
        {"lr": (0.3,), "damping": (0.03, 0.1), "kl_clip": (3e-3, 1e-2), "schedule": ("linear",)},
    ),
    "sgd": (
        (1120,),
        {"lr": (3e-3, 1e-2, 3e-2), "momentum": (0.9, 0.98), "nesterov": (True,), "schedule": ("linear",)},
    ),
}
"""Lengths, and what is searched at each of them. K-FAC's intervals are its defaults: factors 5, inverses 20."""


def error(name: str, settings: dict[str, Any], steps: int, seed: int) -> float:
    """The training error at the end of a run; infinite if it is not finite or the step was refused."""
    try:
        found = run(name, settings, steps, seed)["train"]
    except ArithmeticError:
        return float("inf")
    return found if found == found else float("inf")


def search(name: str, steps: int, grid: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """The settings with the smallest median error for a length, and what was tried."""
    tried = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    rows = [{"settings": settings, "errors": [error(name, settings, steps, SEARCH[0])]} for settings in tried]
    rows.sort(key=lambda row: row["errors"][0])
    for row in rows[:BEST]:
        row["errors"] += [error(name, row["settings"], steps, seed) for seed in SEARCH[1:]]
    best = min(rows[:BEST], key=lambda row: median(row["errors"]))
    return {"settings": best["settings"], "rows": rows}


def fresh(name: str, settings: dict[str, Any], steps: int) -> dict[str, float]:
    """Medians over the fresh seeds."""
    runs = [run(name, settings, steps, seed) for seed in FRESH]
    return {key: median(one[key] for one in runs) for key in ("train", "held_out", "seconds")}


def table(results: dict[str, Any]) -> str:
    """Every optimizer at every length, in Markdown; the first length that reaches the target in bold."""
    lines = ["| optimizer | steps | train mse | held-out mse | CPU s | settings |", "|---|---|---|---|---|---|"]
    for name, lengths in results.items():
        reached = False
        for steps, row in lengths.items():
            train = f"{row['train']:.3f}"
            if row["train"] <= TARGET and not reached:
                train, reached = f"**{train}**", True
            settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
            cells = (name, steps, train, f"{row['held_out']:.3f}", f"{row['seconds']:.2f}", settings)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(out: Path = Path("out/autoencoder-search"), optimizer: list[str] | None = None) -> None:
    """Search, run the winners on fresh seeds, write what was found after each length; others' results are kept."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    earlier = out / "search.json"
    found = json.loads(earlier.read_text()) if earlier.exists() else {"results": {}, "tried": {}}
    console, results, everything = Console(), found["results"], found["tried"]
    for name in optimizer or list(GRIDS):
        lengths, grid = GRIDS[name]
        results[name], everything[name] = {}, {}
        for steps in lengths:
            found = search(name, steps, grid)
            everything[name][steps] = found["rows"]
            row = results[name][steps] = {"settings": found["settings"], **fresh(name, found["settings"], steps)}
            console.print(f"{name} {steps}: {row}", highlight=False)
            (out / "search.json").write_text(json.dumps({"results": results, "tried": everything}, indent=1))
            (out / "table.md").write_text(table(results))
            (EXAMPLE / "tuned.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
