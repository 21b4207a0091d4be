"""CPU seconds of K-FAC, THOR and SP-NGD to the target on the digits autoencoder, beside tuned Adam's.

    python benchmarks/autoencoder_seconds.py [--seeds 10]

Whole runs by the settings that ``benchmarks/autoencoder.py`` found, on seeds that no search saw. The optimizers take
turns within a seed, so that a busy machine slows all of them: shares are medians of ratios within a seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "autoencoder"))

import torch_runs

TUNED = Path(torch_runs.__file__).with_name("tuned.json")

FIRST_SEED = 100
RUNS = [("kfac", 200), ("thor", 240), ("spngd", 220), ("adam", 1200), ("adam", 1400)]
"""The shortest runs that reach an error of 0.5; Adam's is between these two."""


def main(seeds: int = 10) -> None:
    """Run all on every seed and print a table."""
    tuned = json.loads(TUNED.read_text())
    found = [
        [torch_runs.run(name, tuned[name][str(steps)]["settings"], steps, seed) for name, steps in RUNS]
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
    ]
    table = Table(
        "optimizer", "steps", "train mse", "CPU s", *[f"share of Adam's {steps} steps" for steps in (1200, 1400)]
    )
    for place, (name, steps) in enumerate(RUNS):
        mine = [row[place] for row in found]
        shares = [median(row[place]["seconds"] / row[base]["seconds"] for row in found) for base in (-2, -1)]
        numbers = [median(one[measure] for one in mine) for measure in ("train", "seconds")]
        table.add_row(name, str(steps), *(f"{number:.2f}" for number in (*numbers, *shares)))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
