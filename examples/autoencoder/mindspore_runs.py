"""The digits autoencoder on MindSpore: one run of one optimizer, with its settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from task import SCHEDULES, batches, digits, initial_weights

from hessiod.mindspore import KFAC, SGD, SPNGD, THOR, TrainStep

TARGETS: dict[str, Any] = dict(likelihood="bernoulli", reduction="batchmean")


def net_of(seed: int) -> nn.SequentialCell:
    """The autoencoder with its initial weights."""
    cells: list[nn.Cell] = []
    for weight, bias in initial_weights(seed):
        dense = nn.Dense(weight.shape[1], weight.shape[0])
        dense.weight.asnumpy()[...], dense.bias.asnumpy()[...] = weight, bias
        cells += [dense, nn.Tanh()]
    return nn.SequentialCell(*cells[:-1])


def loss_of(logits: Tensor, pixels: Tensor) -> Tensor:
    """Cross-entropy summed over pixels, averaged over examples."""
    return ops.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / pixels.shape[0]


def step_of(name: str, net: nn.Cell, settings: Mapping[str, Any], rates: list[float], seed: int) -> nn.Cell:
    """A training step with an optimizer, by its name in the table."""
    params = net.trainable_params()
    if name == "adam":
        beta1, beta2 = settings["betas"]
        adam = nn.Adam(params, learning_rate=rates, beta1=beta1, beta2=beta2)
        return nn.TrainOneStepCell(nn.WithLossCell(net, loss_of), adam)
    if name == "sgd":  # nn.Momentum ignores use_nesterov on the CPU
        return TrainStep(net, loss_of, SGD(params, rates, **settings))
    methods: dict[str, Any] = {"kfac": KFAC, "spngd": SPNGD, "thor": THOR}
    return TrainStep(net, loss_of, methods[name](net, rates, seed=seed, **TARGETS, **settings))


def mse(net: nn.Cell, pixels: np.ndarray) -> float:
    """The squared error summed over pixels, averaged over examples."""
    rebuilt = ops.sigmoid(net(Tensor(pixels))).asnumpy()
    return float(np.square(rebuilt - pixels).sum() / len(pixels))


def run(name: str, settings: Mapping[str, Any], steps: int, seed: int, every: int = 0) -> dict[str, Any]:
    """Train for ``steps`` steps, as ``torch_runs.run`` does.

    The first step of each graph, with statistics and without, compiles it and is left out of the time.
    """
    ms.set_context(mode=ms.GRAPH_MODE, runtime_num_threads=1)
    settings = dict(settings)
    schedule, rate = SCHEDULES[settings.pop("schedule", "constant")], settings.pop("lr")
    rates = [float(rate * schedule(step / steps)) for step in range(steps)]
    train, held_out = digits()
    net, source = net_of(seed), batches(seed)
    step_cell = step_of(name, net, settings, rates, seed)
    optimizer, compiled = step_cell.optimizer, set[bool]()
    seconds, curve = 0.0, []
    for step in range(steps):
        pixels = Tensor(next(source))
        due = bool(getattr(optimizer, "curvature_due", False))
        started = time.process_time()
        step_cell(pixels, pixels)
        if due in compiled:
            seconds += time.process_time() - started
        compiled.add(due)
        if every and (step + 1) % every == 0:
            curve.append((step + 1, seconds, mse(net, train)))
    return {"train": mse(net, train), "held_out": mse(net, held_out), "seconds": seconds, "curve": curve}
