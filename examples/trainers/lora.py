"""LoRA with peft: the base is frozen, and only the adapters' curvature is estimated.

    python examples/trainers/lora.py --out out/lora --steps 200

Frozen parameters are passed over, so the optimizer is given all of them.
"""

from __future__ import annotations

from typing import Any

import typer
from data import Text
from huggingface import SHAPE
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from hessiod.integrations.transformers import Curvature
from hessiod.torch import SophiaG


def build(out: str, steps: int, make: Any = None, **settings: Any) -> Trainer:
    """The Trainer; ``make`` is another optimizer of the model."""
    set_seed(0)
    base = GPT2LMHeadModel(GPT2Config(**SHAPE))
    lora = LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    opt = make(model) if make else SophiaG(model.parameters(), lr=3e-3, rho=0.05, weight_decay=0.0, every=10)
    given: dict[str, Any] = dict(per_device_train_batch_size=16, logging_steps=10, report_to="none", disable_tqdm=True)
    args = TrainingArguments(out, max_steps=steps, use_cpu=True, **given | settings)
    return Trainer(model, args, train_dataset=Text(), optimizers=(opt, None), callbacks=[Curvature()])


def main(out: str = "out/lora", steps: int = 200, resume: bool = False) -> None:
    """Train; with --resume from the last checkpoint in --out."""
    build(out, steps, save_steps=50).train(resume_from_checkpoint=resume)


if __name__ == "__main__":
    typer.run(main)
