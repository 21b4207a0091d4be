"""Every diagonal optimizer and its baselines on scikit-learn's digits, each tuned over as many trials.

    python benchmarks/digits.py                  measure the settings of backends/digits/config.py
    python benchmarks/digits.py --search         search them anew and print them; 8 minutes on one core
    python benchmarks/digits.py --docs           write the table into docs/optimizers.md

360 images are held out for the test, the same for everything here. The search trains on four fifths of the others and
takes the settings with the highest mean accuracy on the last fifth over its seeds, among equals the lower loss. The
measurement trains on all of the others with seeds that the search has not seen; a seed decides initial weights,
batches, probes and sampled targets. Steps and seconds are those to a loss over all training images. Seconds come from
runs whose steps take turns and are printed as ratios to AdamW's: nothing else can be compared between machines.
"""

from __future__ import annotations

import json
import os
import platform
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated

os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from rich.console import Console
from search import Box, Score, Settings, tune
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hessiod.backends import load
from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.contract import Backend
from hessiod.backends.digits.config import SETTINGS, MLPConfig
from hessiod.backends.digits.data import Digits, from_levels
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.trainer import Trainer
from hessiod.backends.training.weights import initial_weights

STEPS, BATCH, EVERY, GOAL = 300, 128, 5, 0.1
TRIALS, SEARCH_SEEDS, UNSEEN_SEEDS = 32, range(4), range(100, 110)
DOCS = Path(__file__).parents[1] / "docs" / "optimizers.md"
BEGIN, END = "<!-- benchmarks/digits.py writes from here -->", "<!-- to here -->"

SECANT = {"warmup": 0}  # the run has a warm-up of its own, the same for every optimizer
BOXES = {
    "sophia-g": Box({"lr": (1e-4, 1e-1), "rho": (1e-2, 1.0)}),
    "sophia-h": Box({"lr": (1e-4, 1e-1), "rho": (1e-2, 1.0)}),
    "adahessian": Box({"lr": (1e-2, 1e1), "eps": (1e-3, 1.0)}),
    "apollo": Box({"lr": (1e-3, 1.0), "sigma": (1e-2, 1.0)}, SECANT),
    "apollow": Box({"lr": (1e-3, 1.0), "sigma": (1e-2, 1.0)}, SECANT | {"weight_decay": 2.5e-2}),
    "diagonal-newton": Box({"lr": (1e-3, 1.0), "damping": (1e-3, 1.0)}),
    "adamw": Box({"lr": (1e-4, 1e-1), "weight_decay": (1e-3, 1.0)}),
    "sgd": Box({"lr": (1e-2, 1e1), "weight_decay": (1e-6, 1e-2)}),
    "momentum": Box({"lr": (1e-2, 1e1), "1 - momentum": (1e-2, 0.5)}),
    "nesterov": Box({"lr": (1e-2, 1e1), "1 - momentum": (1e-2, 0.5)}, {"nesterov": True}),
}


def split(digits: Digits, count: int, seed: int) -> tuple[Digits, Digits]:
    """The digits without ``count`` of them, and those, in equal shares of the classes."""
    rows = np.arange(len(digits.labels))
    rest, taken = train_test_split(rows, test_size=count, stratify=digits.labels, random_state=seed)
    return digits.some(rest), digits.some(taken)


def start(backend: Backend, optimizer: str, seed: int, settings: Settings | None = None) -> Trainer:
    """A trainer before its first step; without settings, with those of the repository."""
    given = dict(settings or SETTINGS[optimizer])
    lr = given.pop("lr")
    config = RunConfig(optimizer, seed, BATCH, lr, hyperparameters=given, model=MLPConfig())
    return backend.trainer(config=config, weights=initial_weights(config.model, seed))


def loss_and_accuracy(trainer: Trainer, digits: Digits) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of images whose class is the likeliest."""
    logits = trainer.logits(digits.images).astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    likelihood = shifted[np.arange(len(digits.labels)), digits.labels] - np.log(np.exp(shifted).sum(1))
    return float(-likelihood.mean()), float((logits.argmax(1) == digits.labels).mean())


def search(backend: Backend, digits: Digits, optimizers: list[str], console: Console) -> None:
    """Tune each optimizer and print its settings."""
    for optimizer in optimizers:

        def score(settings: Settings, optimizer: str = optimizer) -> Score:
            found = []
            for seed in SEARCH_SEEDS:
                training, validation = split(digits, len(digits.labels) // 5, seed)
                trainer = start(backend, optimizer, seed, settings)
                for step in range(STEPS):
                    trainer.step(*training.batch(step, seed=seed, rows=BATCH))
                found.append(loss_and_accuracy(trainer, validation))
            return -fmean(accuracy for _, accuracy in found), fmean(loss for loss, _ in found)

        settings, (errors, loss) = tune(BOXES[optimizer], TRIALS, score)
        edge = BOXES[optimizer].on_the_edge(settings)
        note = f", near the edge of the box in {', '.join(edge)}" if edge else ""
        console.print(
            f'    "{optimizer}": {json.dumps(settings)},  # validation {-errors:.2%}, {loss:.4f}{note}', highlight=False
        )


@dataclass(frozen=True)
class Run:
    """What one seed of an optimizer gave; None where the loss was not reached."""

    accuracy: float
    steps: int | None
    seconds: float | None
    seconds_a_step: float


def measure(backend: Backend, training: Digits, test: Digits, optimizers: list[str], seed: int) -> dict[str, Run]:
    """Train every optimizer with a seed, taking turns step by step."""
    trainers = {optimizer: start(backend, optimizer, seed) for optimizer in optimizers}
    spent = dict.fromkeys(optimizers, 0.0)
    reached: dict[str, tuple[int, float]] = {}
    for step in range(STEPS):
        batch = training.batch(step, seed=seed, rows=BATCH)
        first = step % len(optimizers)
        for optimizer in optimizers[first:] + optimizers[:first]:
            begin = time.perf_counter()
            trainers[optimizer].step(*batch)
            spent[optimizer] += time.perf_counter() - begin if step else 0.0  # the first step compiles
        if (step + 1) % EVERY == 0:
            for optimizer in optimizers:
                if optimizer not in reached and loss_and_accuracy(trainers[optimizer], training)[0] <= GOAL:
                    reached[optimizer] = step + 1, spent[optimizer]
    runs = {}
    for optimizer in optimizers:
        accuracy = loss_and_accuracy(trainers[optimizer], test)[1]
        runs[optimizer] = Run(accuracy, *reached.get(optimizer, (None, None)), spent[optimizer] / (STEPS - 1))
    return runs


def row(optimizer: str, runs: list[Run], baseline: list[Run]) -> str:
    """A line of the table."""
    settings = ", ".join(f"{name} {value:g}" for name, value in SETTINGS[optimizer].items() if value is not True)
    accuracies = [run.accuracy for run in runs]
    each = median(run.seconds_a_step / base.seconds_a_step for run, base in zip(runs, baseline, strict=True))
    if all(run.steps for run in runs):
        steps = [run.steps or 0 for run in runs]
        many = f"{median(steps):g} ({min(steps)}-{max(steps)})"
        pairs = [(run.seconds, base.seconds) for run, base in zip(runs, baseline, strict=True)]
        whole = f"{median(a / b for a, b in pairs if a and b):.2f}" if all(b for _, b in pairs) else "-"
    else:
        many, whole = f"reached by {sum(run.steps is not None for run in runs)} of {len(runs)}", "-"
    accuracy = f"{fmean(accuracies):.1%} ({min(accuracies):.1%})"
    return f"| {optimizer} | {settings} | {accuracy} | {many} | {each:.2f} | {whole} |"


def table(backend: Backend, runs: dict[str, list[Run]]) -> str:
    """The table as Markdown, with what it was measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in backend.versions().items())
    count = len(next(iter(runs.values())))
    head = (
        f"Test accuracy after {STEPS} steps of {BATCH} images: the mean over {count} seeds (the worst). Steps to a "
        f"training loss of {GOAL} nats: the median (the range), looked at every {EVERY} steps. Times: medians of the "
        f"ratio to AdamW in the same process, taking turns; {versions}, one thread of {processor()}."
    )
    columns = "| run | settings | test accuracy | steps | time a step | time to the loss |\n|---|---|---|---|---|---|"
    lines = [row(optimizer, found, runs["adamw"]) for optimizer, found in runs.items()]
    return "\n".join([*textwrap.wrap(head, 120), "", columns, *lines])


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_into_docs(text: str) -> None:
    """Replace what stands between the two marks."""
    page = DOCS.read_text()
    before, rest = page.split(BEGIN)
    write_atomically(DOCS, f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}".encode())


def main(
    backend: Annotated[str, typer.Option(help="torch or mindspore")] = "torch",
    only: Annotated[list[str] | None, typer.Option(help="an optimizer; repeat for several (default: all)")] = None,
    seeds: Annotated[int, typer.Option(help="how many unseen seeds")] = len(UNSEEN_SEEDS),
    searching: Annotated[bool, typer.Option("--search", help="search settings instead of measuring them")] = False,
    docs: Annotated[bool, typer.Option(help="write the table into docs/optimizers.md")] = False,
    to: Annotated[Path | None, typer.Option("--json", help="write every run here")] = None,
) -> None:
    """Tune or measure the optimizers on the digits."""
    console, loaded = Console(soft_wrap=True), load(backend)
    rest, test = split(from_levels(*load_digits(return_X_y=True)), 360, seed=0)
    optimizers = [name for name in BOXES if not only or name in (*only, "adamw")]
    if searching:
        search(loaded, rest, [name for name in optimizers if not only or name in only], console)
        return
    found: dict[str, list[Run]] = {optimizer: [] for optimizer in optimizers}
    for seed in UNSEEN_SEEDS[:seeds]:
        for optimizer, run in measure(loaded, rest, test, optimizers, seed).items():
            found[optimizer].append(run)
    text = table(loaded, found)
    console.print(text, markup=False, highlight=False)
    if docs:
        write_into_docs(text)
    if to is not None:
        rows = {optimizer: [asdict(run) for run in runs] for optimizer, runs in found.items()}
        write_atomically(to, (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
