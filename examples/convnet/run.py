"""A small convnet on scikit-learn's digits: K-FAC, SP-NGD, THOR and AdamW, with the plan of what each parameter gets.

    python examples/convnet/run.py [--epochs 8]

Convolutions, BatchNorm, a depthwise layer and a classifier; 1,500 digits for training and 297 to judge by.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from hessiod.torch import KFAC, SPNGD, THOR, AdamW

OPTIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "K-FAC": lambda model: KFAC(model, lr=0.1, damping=0.03, kl_clip=1e-2),
    "SP-NGD": lambda model: SPNGD(model, lr=0.1, damping=0.03, kl_clip=1e-2),
    "THOR": lambda model: THOR(model, lr=0.1, damping=0.03, kl_clip=1e-2),
    "AdamW": lambda model: AdamW(model.parameters(), lr=3e-3),
}
"""Settings by hand, the same for the three methods; nothing was searched."""


def convnet() -> nn.Sequential:
    """Convolution, depthwise and pointwise convolution, classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False),
        nn.Conv2d(16, 32, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def train(model: nn.Module, opt: Any, x: torch.Tensor, y: torch.Tensor, epochs: int) -> float:
    """Train with batches of 128 and a rate that falls to zero; return CPU seconds."""
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(x) // 128)
    schedule = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.01, steps)
    started = time.process_time()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator)[: len(x) // 128 * 128].split(128):
            logits = model(x[rows])
            loss = F.cross_entropy(logits, y[rows])
            if getattr(opt, "curvature_due", False):
                opt.update_curvature(loss=loss, logits=logits)
            loss.backward()
            opt.step()
            opt.zero_grad()
            schedule.step()
    return time.process_time() - started


def main(epochs: int = 8) -> None:
    """Train with each, and print training loss and held-out accuracy."""
    torch.set_num_threads(1)
    digits, console = load_digits(), Console()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
    y = torch.tensor(digits.target)[order]
    console.print(str(KFAC(convnet()).plan()), highlight=False)
    table = Table("optimizer", "training loss", "held-out accuracy", "CPU s")
    for name, make in OPTIMIZERS.items():
        model = convnet()
        seconds = train(model, make(model), x[:1500], y[:1500], epochs)
        model.eval()
        with torch.no_grad():
            loss = F.cross_entropy(model(x[:1500]), y[:1500]).item()
            accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean().item()
        table.add_row(name, f"{loss:.4f}", f"{accuracy:.3f}", f"{seconds:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
