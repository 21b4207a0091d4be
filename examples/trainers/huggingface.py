"""A small GPT-2 with Hugging Face's Trainer and SophiaG, on the documentation that comes with Python.

    python examples/trainers/huggingface.py --out out/huggingface --steps 200 [--resume]

``Curvature`` is the one line that another optimizer would not need.
"""

from __future__ import annotations

from typing import Any

import typer
from data import Text
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from hessiod.integrations.transformers import Curvature
from hessiod.torch import SophiaG

SHAPE = dict(vocab_size=256, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)


def build(out: str, steps: int, **settings: Any) -> Trainer:
    """The Trainer; ``settings`` are TrainingArguments."""
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SHAPE))
    opt = SophiaG(model.parameters(), lr=1e-3, rho=0.05, every=10)
    given: dict[str, Any] = dict(per_device_train_batch_size=16, logging_steps=10, report_to="none", disable_tqdm=True)
    args = TrainingArguments(out, max_steps=steps, use_cpu=True, **given | settings)
    trainer = Trainer(model, args, train_dataset=Text(), optimizers=(opt, None))
    trainer.add_callback(Curvature(log=trainer.log))
    return trainer


def main(out: str = "out/huggingface", steps: int = 200, resume: bool = False) -> None:
    """Train; with --resume from the last checkpoint in --out."""
    build(out, steps, save_steps=50).train(resume_from_checkpoint=resume)


if __name__ == "__main__":
    typer.run(main)
