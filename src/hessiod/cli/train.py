"""``hessiod train``."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hessiod.backends import load
from hessiod.backends.checkpoint import Container, write_atomically
from hessiod.backends.checkpoint.legacy import modern
from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.gpt.corpus import Corpus, from_file, python_documentation
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.trainer import Trainer
from hessiod.backends.training.weights import initial_weights
from hessiod.cli.files import make_folder
from hessiod.cli.plot import draw_losses, read_metrics
from hessiod.core.errors import InvalidArgument

SAVE_EVERY = 100


@dataclass
class Run:
    """A training run: where it stands, and the files it writes."""

    config: RunConfig
    backend: str
    corpus: Corpus
    trainer: Trainer
    out: Path
    done: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the run, as a checkpoint keeps it."""
        text = hashlib.sha256(self.corpus.data.tobytes()).hexdigest()
        settings = {"optimizer": self.config.optimizer, "seed": self.config.seed, "batch": self.config.batch}
        return settings | {"lr": self.config.peak, "options": self.config.options, "text": text}

    def save(self) -> None:
        """Write the checkpoint."""
        self.trainer.save(self.out / "checkpoint.safetensors", {"run": self.settings})

    def resume(self, path: Path) -> None:
        """Take up a checkpoint of any framework, or raise and change nothing."""
        with Container(path) as file:
            extra = modern(file).get("extra")
        theirs = extra.get("run") if isinstance(extra, dict) else None
        if not isinstance(theirs, dict):
            raise InvalidArgument(
                f"resume: {str(path)!r} is not of a run of hessiod train; give one of its checkpoints"
            )
        for name, value in json.loads(json.dumps(self.settings)).items():
            if theirs.get(name) != value:
                raise InvalidArgument(
                    f"resume: the run in {str(path)!r} has {name} {theirs.get(name)!r}, this one {value!r}; "
                    "give the same arguments as at its start"
                )
        self.done = self.trainer.load(path)

    def step(self) -> dict[str, Any]:
        """Train on the next batch; return the line for ``metrics.jsonl``."""
        start = time.perf_counter()
        batch = self.corpus.batch(self.done, seed=self.config.seed, rows=self.config.batch)
        metrics = self.trainer.step(*batch)
        self.done += 1
        seconds = time.perf_counter() - start
        return {
            "step": self.done,
            "loss": metrics.loss,
            "lr": metrics.lr,
            "clip_fraction": metrics.clip_fraction,
            "seconds": round(seconds, 6),
        }


def run_steps(run: Run, steps: int, report: Callable[[dict[str, Any]], None]) -> None:
    """Train up to a step; write metrics as they come and the checkpoint now and then, also when interrupted."""
    make_folder(run.out)
    path = run.out / "metrics.jsonl"
    kept = [row for row in read_metrics(path) if row["step"] <= run.done] if run.done and path.exists() else []
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
    saved = -1
    with path.open("a") as file:
        try:
            while run.done < steps:
                row = run.step()
                file.write(json.dumps(row) + "\n")
                file.flush()
                report(row)
                if run.done % SAVE_EVERY == 0:
                    run.save()
                    saved = run.done
        finally:
            if saved != run.done:
                run.save()


@contextmanager
def reporting(run: Run, steps: int, console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar on a terminal, a plain line every tenth step elsewhere."""
    if not console.is_terminal:

        def plain(row: dict[str, Any]) -> None:
            if row["step"] % 10 == 0 or row["step"] in (1, steps):
                clipped = "" if row["clip_fraction"] is None else f"  clipped {row['clip_fraction']:.2f}"
                console.print(f"step {row['step']:>5}/{steps}  loss {row['loss']:.4f}{clipped}", highlight=False)

        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{run.backend} {run.config.optimizer}", total=steps, completed=run.done)

        def bar(row: dict[str, Any]) -> None:
            description = f"{run.backend} {run.config.optimizer}  loss {row['loss']:.4f}"
            progress.update(task, completed=row["step"], description=description)

        yield bar


def prepare(config: RunConfig, backend: str, text: Path | None, out: Path, resume: Path | None) -> Run:
    """A run ready to go; every mistake in the arguments is found here, before a file is written."""
    context = cast(GPTConfig, config.model).context
    corpus = python_documentation(context) if text is None else from_file(text, context)
    loaded = load(backend)
    if config.kind not in loaded.optimizers:
        known = ", ".join(loaded.optimizers) or "none"
        raise InvalidArgument(f"optimizer: backend {backend!r} has {known}, not {config.optimizer!r}; choose another")
    trainer = loaded.trainer(config=config, weights=initial_weights(config.model, config.seed))
    run = Run(config, backend, corpus, trainer, out)
    if resume is not None:
        run.resume(resume)
    return run


def train(
    backend: Annotated[str, typer.Option(help="torch or mindspore")] = "torch",
    optimizer: Annotated[str, typer.Option(help=", ".join(GPTConfig().settings))] = "sophia-g",
    text: Annotated[
        Path | None, typer.Option(help="train on this file's bytes (default: Python's language reference)")
    ] = None,
    steps: Annotated[int, typer.Option(help="train up to this step")] = 200,
    seed: Annotated[int, typer.Option(help="decides weights, batches, probes and sampled targets")] = 0,
    out: Annotated[Path, typer.Option(help="folder for metrics.jsonl, loss.png and checkpoint.safetensors")] = Path(
        "out/train"
    ),
    resume: Annotated[
        Path | None, typer.Option(help="go on from this checkpoint, whichever framework wrote it")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate (default: the optimizer's)")] = None,
    batch: Annotated[int, typer.Option(help="sequences a step")] = 8,
) -> None:
    """Train a small GPT on the bytes of a text; the same numbers on every framework."""
    if steps < 1:
        raise InvalidArgument(f"steps: found {steps}, expected at least 1")
    run = prepare(RunConfig(optimizer=optimizer, seed=seed, batch=batch, lr=lr), backend, text, out, resume)
    if run.done >= steps:
        raise InvalidArgument(f"steps: found {steps}, but the checkpoint is at step {run.done}; ask for more steps")
    console = Console()
    console.print(f"{backend}, {optimizer}, {run.corpus.source}: {len(run.corpus.data):,} bytes", highlight=False)
    with reporting(run, steps, console) as report:
        run_steps(run, steps, report)
    metrics = read_metrics(out / "metrics.jsonl")
    picture = draw_losses({f"{backend} {optimizer}": metrics}, "character GPT", out / "loss.png")
    for line in (out / "metrics.jsonl", out / "checkpoint.safetensors", picture):
        console.print(str(line), highlight=False, soft_wrap=True)
