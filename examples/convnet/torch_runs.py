"""The convnet on PyTorch: one run of one optimizer."""

from __future__ import annotations

import time
from typing import Any

import torch
from task import OPTIMIZERS, batches, digits, initial_weights, rates
from torch import nn
from torch.nn import functional as F

from hessiod import torch as hessiod_torch


def model_of() -> nn.Sequential:
    """The convnet with its initial weights."""
    layers = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False),
        nn.Conv2d(16, 32, 1),
        nn.Linear(32 * 16, 10),
    ]
    for layer, arrays in zip(layers, initial_weights(), strict=True):
        for param, array in zip(layer.parameters(), arrays, strict=True):
            param.data = torch.from_numpy(array)
    first, depthwise, pointwise, last = layers
    normalised = [nn.BatchNorm2d(16), nn.ReLU(inplace=True)], [nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    return nn.Sequential(first, *normalised[0], depthwise, pointwise, *normalised[1], nn.Flatten(), last)


def optimizer_of(name: str, model: nn.Module) -> Any:
    """An optimizer by its name in the table."""
    kind, settings = OPTIMIZERS[name]
    return getattr(hessiod_torch, kind)(model.parameters() if kind == "AdamW" else model, **settings)


def plan() -> str:
    """What each parameter gets."""
    return str(optimizer_of("K-FAC", model_of()).plan())


@torch.no_grad()
def judged(model: nn.Module, images: Any, labels: Any) -> tuple[float, float]:
    """Loss and accuracy, with BatchNorm's running statistics."""
    logits, targets = model.eval()(torch.from_numpy(images)), torch.from_numpy(labels).long()
    return F.cross_entropy(logits, targets).item(), (logits.argmax(1) == targets).float().mean().item()


def run(name: str, steps: int) -> dict[str, float]:
    """Train for ``steps`` steps; "loss" is the training set's, "accuracy" that of held-out digits."""
    torch.set_num_threads(1)
    model = model_of()
    opt = optimizer_of(name, model)
    started = time.process_time()
    for (images, labels), rate in zip(batches(steps), rates(OPTIMIZERS[name][1]["lr"], steps), strict=True):
        for group in opt.param_groups:
            group["lr"] = rate
        logits = model(torch.from_numpy(images))
        loss = F.cross_entropy(logits, torch.from_numpy(labels).long())
        if getattr(opt, "curvature_due", False):
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()
    seconds = time.process_time() - started
    train, held_out = digits()
    return {"loss": judged(model, *train)[0], "accuracy": judged(model, *held_out)[1], "seconds": seconds}
