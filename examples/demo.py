"""The main job: Sophia trains a character GPT on PyTorch and on MindSpore, and the curves agree.

    make demo

writes ``out/demo/``: metrics, checkpoint and picture of each run, both curves in one picture, the conformance report.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")  # MindSpore's warnings, before its import

from rich.console import Console

from hessiod.backends.training.run import RunConfig
from hessiod.cli.plot import draw_losses, read_metrics
from hessiod.cli.train import prepare, reporting, run_steps
from hessiod.conformance.report import headline, write_reports
from hessiod.conformance.selection import Selection
from hessiod.conformance.suite import choose, run_suite

STEPS = 300
BACKENDS = ("torch", "mindspore")
OUT = Path("out/demo")


def train(backend: str, console: Console) -> list[dict]:
    """Train on a backend; return the metrics."""
    run = prepare(RunConfig(optimizer="sophia-g"), backend, None, OUT / backend, None)
    console.print(f"{backend}: SophiaG, {run.corpus.source}, {len(run.corpus.data):,} bytes", highlight=False)
    with reporting(run, STEPS, console) as report:
        run_steps(run, STEPS, report)
    return read_metrics(run.out / "metrics.jsonl")


def main() -> int:
    """Train on both, draw, test, and say where everything is."""
    console = Console()
    runs = {backend: train(backend, console) for backend in BACKENDS}
    first, second = ([row["loss"] for row in metrics] for metrics in runs.values())
    apart = [abs(a - b) / abs(a) for a, b in zip(first, second, strict=True)]
    picture = draw_losses(runs, "SophiaG on the character GPT: one core, two frameworks", OUT / "curves.png")
    console.print("conformance, levels 0 to 3: about a minute (hessiod conformance runs all of it)")
    report = run_suite(choose([]), selection=Selection(levels=("L0", "L1", "L2", "L3")))
    paths = write_reports(report, OUT)
    console.rule("results")
    for backend, losses in (("torch", first), ("mindspore", second)):
        console.print(f"{backend:>10}: loss {losses[0]:.4f} at step 1, {sum(losses[-20:]) / 20:.4f} over the last 20")
    console.print(f"relative difference: {max(apart[:50]):.1e} over 50 steps, {max(apart):.1e} over {STEPS}")
    console.print(f"conformance: {headline(report)}")
    for line in (picture, *paths):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
