"""The digits autoencoder on PyTorch: one run of one optimizer, with its settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from task import SCHEDULES, WIDTHS, batches, digits, initial_weights
from torch import Tensor, nn
from torch.nn import functional as F

from hessiod.torch import KFAC, SPNGD, THOR

TARGETS: dict[str, Any] = dict(likelihood="bernoulli", reduction="batchmean")


def model_of(seed: int) -> nn.Sequential:
    """The autoencoder with its initial weights."""
    layers: list[nn.Module] = []
    for weight, bias in initial_weights(seed):
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
        layers += [linear, nn.Tanh()]
    assert len(layers) == 2 * (len(WIDTHS) - 1)
    return nn.Sequential(*layers[:-1])


def optimizer_of(name: str, model: nn.Module, settings: Mapping[str, Any], seed: int) -> Any:
    """An optimizer by its name in the table."""
    if name == "adam":
        return torch.optim.Adam(model.parameters(), fused=True, **settings)
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), fused=True, **settings)
    methods: dict[str, Any] = {"kfac": KFAC, "spngd": SPNGD, "thor": THOR}
    return methods[name](model, seed=seed, **TARGETS, **settings)


def loss_of(logits: Tensor, pixels: Tensor) -> Tensor:
    """Cross-entropy summed over pixels, averaged over examples."""
    return F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / len(pixels)


@torch.no_grad()
def mse(model: nn.Module, pixels: Tensor) -> float:
    """The squared error summed over pixels, averaged over examples."""
    return float((torch.sigmoid(model(pixels)) - pixels).square().sum() / len(pixels))


def run(name: str, settings: Mapping[str, Any], steps: int, seed: int, every: int = 0) -> dict[str, Any]:
    """Train for ``steps`` steps; ``every`` so many steps the training error is measured, outside of the time.

    ``settings`` are the optimizer's, and "schedule". Returned: "train" and "held_out" errors at the end, "seconds" of
    CPU time, "curve" as triples (step, seconds, training error).
    """
    torch.set_num_threads(1)
    settings = dict(settings)
    schedule = SCHEDULES[settings.pop("schedule", "constant")]
    train, held_out = map(torch.from_numpy, digits())
    model, source = model_of(seed), batches(seed)
    opt = optimizer_of(name, model, settings, seed)
    rates = [group["lr"] for group in opt.param_groups]
    second_order = name in ("kfac", "spngd", "thor")
    seconds, curve = 0.0, []
    for step in range(steps):
        pixels = torch.from_numpy(next(source))
        started = time.process_time()
        for group, rate in zip(opt.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step / steps)
        logits = model(pixels)
        loss = loss_of(logits, pixels)
        if second_order and opt.curvature_due:
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        opt.step()
        opt.zero_grad()
        seconds += time.process_time() - started
        if every and (step + 1) % every == 0:
            curve.append((step + 1, seconds, mse(model, train)))
    return {"train": mse(model, train), "held_out": mse(model, held_out), "seconds": seconds, "curve": curve}
