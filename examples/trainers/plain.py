"""A plain loop around a compiled perceptron with recomputed activations and micro-batches, and SophiaH.

    python examples/trainers/plain.py --out out/plain --steps 100

Hutchinson's estimate runs the compiled model as it was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer
from data import digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hessiod.torch import SophiaH


class Perceptron(nn.Module):
    """Two hidden layers, whose activations are worked out again in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, images, use_reentrant=False))


def train(
    out: str, steps: int, *, save_at: int = 0, resume: bool = False, backend: str = "inductor", parts: int = 2
) -> Any:
    """Train for ``steps`` steps of ``parts`` micro-batches; returns the losses, the model and the optimizer."""
    torch.manual_seed(0)
    model = Perceptron()
    compiled = torch.compile(model, backend=backend)
    opt = SophiaH(model.parameters(), lr=3e-3, rho=0.05, every=5)
    images, labels = digits().tensors
    file, done, losses = Path(out, "run.pt"), 0, list[float]()
    if resume:
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        done = saved["done"]
    for step in range(done, steps):
        rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[: 128 * parts]
        for part in rows.split(128):
            x, y = images[part], labels[part]
            if opt.curvature_due:
                opt.update_curvature(closure=lambda x=x, y=y: F.cross_entropy(compiled(x), y))
            loss = F.cross_entropy(compiled(x), y)
            (loss / parts).backward()
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
        if step + 1 == save_at:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "done": save_at}, file)
    return losses, model, opt


def main(out: str = "out/plain", steps: int = 100, resume: bool = False) -> None:
    """Train, save at the end; with --resume from there."""
    losses, _, _ = train(out, steps, save_at=steps, resume=resume)
    typer.echo(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    typer.run(main)
