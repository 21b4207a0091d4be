"""The way object detectors are trained: optimizers by name, three parameter groups, a warm-up of each group's own.

    python examples/trainers/detector.py --optimizer SophiaG --steps 100

Weights decay, the scales of normalisation layers and biases do not; biases start at a high rate and come down to the
others'; the momentum rises. The detector finds one square on a grid of cells. SophiaG's curvature is that of its
objectness, whose logits are Bernoulli's; SophiaH's and AdaHessian's is that of the whole loss, boxes included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.torch import SGD, AdaHessian, AdamW, CurvatureHook, SophiaG, SophiaH

WARM_UP = 20
CURVED = dict(every=10)
OPTIMIZERS: dict[str, tuple[type, dict[str, Any]]] = {
    "SGD": (SGD, dict(nesterov=True)),
    "AdamW": (AdamW, {}),
    "SophiaG": (SophiaG, dict(rho=0.05, likelihood="bernoulli", **CURVED)),
    "SophiaH": (SophiaH, dict(rho=0.05, **CURVED)),
    "AdaHessian": (AdaHessian, dict(every=2)),
}


class Detector(nn.Module):
    """Images ``[N, 1, 32, 32]`` to a map ``[N, 4, 8, 8]``: objectness, two offsets and a size for each cell."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        pairs = ((1, width), (width, 2 * width))
        self.body = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU()) for a, b in pairs)
        )
        self.head = nn.Conv2d(2 * width, 4, 1)

    def forward(self, images: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        found = self.head(self.body(images))
        output = {"logits": found[:, 0], "boxes": found[:, 1:]}
        if targets is not None:
            output["loss"] = loss_of(output, targets)
        return output


def loss_of(output: dict[str, Tensor], targets: Tensor) -> Tensor:
    """Objectness over all cells, and boxes over those that hold an object."""
    objects = targets[:, 0]
    boxes = F.smooth_l1_loss(output["boxes"], targets[:, 1:], reduction="none").mean(1)
    return F.binary_cross_entropy_with_logits(output["logits"], objects) + (boxes * objects).sum() / objects.sum()


def squares(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images with a square each, and the map that a detector should find."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = torch.randn(number, 1, 32, 32, generator=generator) / 4, torch.zeros(number, 4, 8, 8)
    for image, target in zip(images, targets, strict=True):
        row, column, size = (int(torch.randint(a, b, (), generator=generator)) for a, b in ((4, 28), (4, 28), (2, 5)))
        image[0, row - size : row + size, column - size : column + size] += 1.0
        target[:, row // 4, column // 4] = torch.tensor([1.0, row % 4 / 4, column % 4 / 4, size / 4])
    return images, targets


def groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights with decay, scales of normalisation layers without, biases without."""
    scales = {id(module.weight) for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    kinds: dict[str, list[Tensor]] = {"weight": [], "scale": [], "bias": []}
    for name, param in model.named_parameters():
        kind = "bias" if name.endswith("bias") else "scale" if id(param) in scales else "weight"
        kinds[kind].append(param)
    return [
        {"params": params, "kind": kind, "weight_decay": decay if kind == "weight" else 0.0}
        for kind, params in kinds.items()
    ]


def build_optimizer(model: nn.Module, name: str, lr: float, momentum: float, decay: float) -> Any:
    """The optimizer switch; ``momentum`` is the first beta of those that have two."""
    kind, settings = OPTIMIZERS[name]
    first = dict(momentum=momentum) if kind is SGD else dict(betas=(momentum, 0.99))
    return kind(groups(model, decay), lr=lr, **first, **settings)


def warm_up(opt: Any, step: int, lr: float, momentum: float) -> None:
    """Rates and momenta of one of the first steps: biases come down from ten times the rate, the others go up."""
    share = min(1.0, (step + 1) / WARM_UP)
    now = 0.8 + (momentum - 0.8) * share
    for group in opt.param_groups:
        start = 10 * lr if group["kind"] == "bias" else 0.0
        group["lr"] = start + (lr - start) * share
        if "betas" in group:
            group["betas"] = (now, group["betas"][1])
        else:
            group["momentum"] = now


def train(out: str, steps: int, *, name: str = "SophiaG", save_at: int = 0, resume: bool = False) -> Any:
    """Train for ``steps`` steps; returns the losses, the model and the optimizer."""
    torch.manual_seed(0)
    model, lr = Detector(), 1e-3
    opt = build_optimizer(model, name, lr, momentum=0.937, decay=5e-4)
    file, done, losses = Path(out, "run.pt"), 0, list[float]()
    if resume:
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        done = saved["done"]
    with CurvatureHook(model, opt):
        for step in range(done, steps):
            warm_up(opt, step, lr, momentum=0.937)
            loss = model(*squares(32, seed=step))["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
            if step + 1 == save_at:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "done": save_at}, file)
    return losses, model, opt


def main(optimizer: str = "SophiaG", out: str = "out/detector", steps: int = 100, resume: bool = False) -> None:
    """Train with one of the optimizers, save at the end; with --resume from there."""
    losses, _, _ = train(out, steps, name=optimizer, save_at=steps, resume=resume)
    typer.echo(f"{optimizer}: loss {losses[0]:.3f} -> {losses[-1]:.3f}")


if __name__ == "__main__":
    typer.run(main)
