"""What the integrations cost: the time in their own code, as a share of a trainer's step.

    python benchmarks/trainers.py [--steps 100]

Every method of a callback and of the hook is timed on this thread's clock, without the work that a loop written by hand
would have to do as well: ``update_curvature`` itself. Diagnostics are not
logged here; they read the whole state, and how often is the user's choice.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import typer
from clock import Clock
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

from hessiod.backends_torch.hook import CurvatureHook
from hessiod.backends_torch.second_order import CurvatureOptimizer
from hessiod.torch import SophiaG, SophiaH

SHAPE = dict(vocab_size=256, n_positions=128, n_embd=128, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0)
MAKE = {
    "SophiaG": lambda model: SophiaG(model.parameters(), every=10),
    "SophiaH": lambda model: SophiaH(model.parameters(), every=10),
}


class Language(nn.Module):
    """A small GPT-2 that is called with rows of tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gpt = GPT2LMHeadModel(GPT2Config(**SHAPE))

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        """As GPT-2's own."""
        return self.gpt(input_ids=input_ids, labels=labels)


def batches(steps: int) -> TensorDataset:
    """Eight rows of 128 tokens for each step."""
    return TensorDataset(torch.randint(256, (8 * steps, 128), generator=torch.Generator().manual_seed(0)))


def plain(make: Callable[[nn.Module], Any], steps: int) -> None:
    """A loop by hand, with the hook."""
    model = Language()
    opt = make(model)
    with CurvatureHook(model, opt):
        for (rows,) in DataLoader(batches(steps), batch_size=8):
            model(rows, rows).loss.backward()
            opt.step()
            opt.zero_grad()


def huggingface(make: Callable[[nn.Module], Any], steps: int) -> None:
    """Hugging Face's Trainer."""
    from transformers import Trainer, TrainingArguments

    from hessiod.integrations.transformers import Curvature

    model, rows = Language(), [{"input_ids": row, "labels": row} for (row,) in batches(steps)]
    given: dict[str, Any] = dict(report_to="none", disable_tqdm=True, save_strategy="no", logging_strategy="no")
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, max_steps=steps, per_device_train_batch_size=8, use_cpu=True, **given)
        Trainer(model, args, train_dataset=rows, optimizers=(make(model), None), callbacks=[Curvature()]).train()


def accelerate(make: Callable[[nn.Module], Any], steps: int) -> None:
    """Accelerate."""
    from accelerate import Accelerator

    from hessiod.integrations.accelerate import Curvature

    accelerator, model = Accelerator(cpu=True), Language()
    model, opt, loader = accelerator.prepare(model, make(model), DataLoader(batches(steps), batch_size=8))
    with Curvature(accelerator, model, opt):
        for (rows,) in loader:
            accelerator.backward(model(rows, rows).loss)
            opt.step()
            opt.zero_grad()


def lightning(make: Callable[[nn.Module], Any], steps: int) -> None:
    """Lightning."""
    from lightning.pytorch import LightningModule, Trainer

    from hessiod.integrations.lightning import Curvature

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Language()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.net(batch[0], batch[0]).loss

        def configure_optimizers(self) -> Any:
            return make(self.net)

    def loss(module: LightningModule, batch: Any) -> Tensor:
        return module.net(batch[0], batch[0]).loss

    quiet: dict[str, Any] = dict(enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    callbacks = [Curvature("net", closure=loss)]
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=callbacks, logger=False, **quiet)
    trainer.fit(Module(), DataLoader(batches(steps), batch_size=8))


RUNS = {"plain loop": plain, "Hugging Face": huggingface, "Accelerate": accelerate, "Lightning": lightning}


def watched() -> Clock:
    """A clock on every integration, and on what is not their own work."""
    from hessiod.integrations import lightning as of_lightning
    from hessiod.integrations import transformers as of_transformers

    clock = Clock()
    for kind in (of_lightning.Curvature, of_transformers.Curvature):
        for name in (name for name in vars(kind) if name.startswith("on_")):
            clock.wrap(kind, name, 1)
    for name in ("_forward_starts", "_forward_ended", "_backward_came", "skip"):
        clock.wrap(CurvatureHook, name, 1)
    clock.wrap(CurvatureOptimizer, "update_curvature", -1)
    return clock


def main(steps: int = 100) -> None:
    """Print the share for each trainer and estimator."""
    torch.set_num_threads(1)
    table = Table("trainer", "optimizer", "ms a step", "ms of it the integration's", "share")
    for title, run in RUNS.items():
        for name, make in MAKE.items():
            clock, started = watched(), time.thread_time()
            run(make, steps)
            spent = time.thread_time() - started
            for undo in reversed(clock.undo):
                undo()
            own = f"{1e3 * clock.total / steps:.3f}"
            table.add_row(title, name, f"{1e3 * spent / steps:.1f}", own, f"{clock.total / spent:.2%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
