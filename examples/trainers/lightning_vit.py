"""A small vision transformer with Lightning, automatic optimization and K-FAC, on scikit-learn's digits.

    python examples/trainers/lightning_vit.py --out out/lightning --epochs 8 [--resume]

Nothing in the module is about curvature; the callback is.
"""

from __future__ import annotations

from typing import Any

import typer
from data import digits
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler
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


def build(out: str, epochs: int, **settings: Any) -> Trainer:
    """The Trainer; ``settings`` are its own."""
    quiet: dict[str, Any] = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    given: dict[str, Any] = dict(callbacks=[Curvature()], log_every_n_steps=10, logger=False)
    return Trainer(default_root_dir=out, max_epochs=epochs, **quiet | given | settings)


def fit(trainer: Trainer, make: Any = None, resume: str | None = None) -> Classifier:
    """Train a classifier from the seed, or from a checkpoint that was saved when ``fit`` was over."""
    seed_everything(0, verbose=False)
    model, data = Classifier(make), digits()
    order = DistributedSampler(data, num_replicas=1, rank=0)  # another order each epoch, and the same after a resume
    trainer.fit(model, DataLoader(data, batch_size=64, sampler=order), ckpt_path=resume)
    return model


def main(out: str = "out/lightning", epochs: int = 8, resume: bool = False) -> None:
    """Train up to ``epochs`` and save; with --resume from what was saved."""
    trainer = build(out, epochs, logger=True, enable_progress_bar=True)
    fit(trainer, resume=f"{out}/last.ckpt" if resume else None)
    trainer.save_checkpoint(f"{out}/last.ckpt")


if __name__ == "__main__":
    typer.run(main)
