"""A small vision transformer with Lightning, automatic optimization and K-FAC, on scikit-learn's digits.

python examples/trainers/lightning_vit.py --out out/lightning --steps 200
"""

from __future__ import annotations

from typing import Any

import torch
import typer
from data import digits
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification

from hessiod.integrations.lightning import Curvature
from hessiod.torch import KFAC

SHAPE = dict(image_size=8, patch_size=2, num_channels=1, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
SPREAD = 0.2
"""Of the first weights, 1 / sqrt(32); from the configuration's own, 0.02, K-FAC stays on the plateau it starts from."""


class Classifier(LightningModule):
    """A vision transformer; nothing in it is about curvature."""

    def __init__(self, make: Any = None) -> None:
        super().__init__()
        self.vit = ViTForImageClassification(
            ViTConfig(num_attention_heads=2, initializer_range=SPREAD, num_labels=10, **SHAPE)
        )
        self.make = make or (lambda model: KFAC(model, lr=0.1, damping=0.1, inverse_every=5))

    def forward(self, images: Tensor) -> Tensor:
        return self.vit(images).logits

    def training_step(self, batch: Any, index: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.make(self)


def build(out: str, steps: int, **settings: Any) -> Trainer:
    """The Trainer; ``settings`` are its own."""
    quiet: dict[str, Any] = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    given: dict[str, Any] = dict(callbacks=[Curvature()], log_every_n_steps=10, logger=False)
    return Trainer(default_root_dir=out, max_steps=steps, **quiet | given | settings)


def fit(trainer: Trainer, make: Any = None, resume: str | None = None) -> Classifier:
    """Train a classifier from the seed, or from a checkpoint."""
    seed_everything(0, verbose=False)
    model = Classifier(make)
    loader = DataLoader(digits(), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0))
    trainer.fit(model, loader, ckpt_path=resume)
    return model


def main(out: str = "out/lightning", steps: int = 200, resume: str | None = None) -> None:
    """Train; with --resume from that checkpoint."""
    trainer = build(out, steps, logger=True, enable_progress_bar=True)
    fit(trainer, resume=resume)
    trainer.save_checkpoint(f"{out}/last.ckpt")


if __name__ == "__main__":
    typer.run(main)
