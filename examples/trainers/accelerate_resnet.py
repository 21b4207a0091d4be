"""A small residual net with Accelerate, two micro-batches a step and SophiaG, on scikit-learn's digits.

    python examples/trainers/accelerate_resnet.py --out out/accelerate --steps 100

The loop is Accelerate's; ``Curvature`` is the one line more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from data import digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hessiod.integrations.accelerate import Curvature
from hessiod.torch import SophiaG


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = (nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def resnet(width: int = 16) -> nn.Sequential:
    """A stem, two blocks and a classifier."""
    stem = (nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(*stem, Block(width), Block(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def train(out: str, steps: int, *, save_at: int = 0, resume: bool = False, make: Any = None, parts: int = 2) -> Any:
    """Train for ``steps`` steps of ``parts`` micro-batches; returns the losses, the model and the optimizer."""
    set_seed(0)
    accelerator, model = Accelerator(gradient_accumulation_steps=parts, cpu=True), resnet()
    opt = make(model) if make else SophiaG(model.parameters(), lr=3e-3, rho=0.05, every=10)
    model, opt, loader = accelerator.prepare(model, opt, DataLoader(digits(), batch_size=64, drop_last=True))
    Curvature(accelerator, model, opt)
    done, losses = 0, list[float]()
    if resume:
        accelerator.load_state(out)
        done = int(Path(out, "step").read_text())
    while done < steps:
        for images, labels in accelerator.skip_first_batches(loader, done * parts % len(loader)):
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                opt.step()
                opt.zero_grad()
            losses.append(loss.item())
            done += accelerator.sync_gradients
            if accelerator.sync_gradients and done == save_at:
                accelerator.save_state(out)
                Path(out, "step").write_text(str(done))
            if done == steps:
                break
    return losses, model, opt


def main(out: str = "out/accelerate", steps: int = 100, resume: bool = False) -> None:
    """Train, save at the end; with --resume from there."""
    torch.set_num_threads(1)
    losses, _, _ = train(out, steps, save_at=steps, resume=resume)
    typer.echo(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    typer.run(main)
