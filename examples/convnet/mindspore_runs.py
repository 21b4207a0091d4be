"""The convnet on MindSpore: one run of one optimizer."""

from __future__ import annotations

import time
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from task import OPTIMIZERS, batches, digits, initial_weights, rates

from hessiod import mindspore as hessiod_mindspore


def net_of() -> nn.SequentialCell:
    """The convnet with its initial weights."""
    layers = [
        nn.Conv2d(1, 16, 3, pad_mode="pad", padding=1, has_bias=True),
        nn.Conv2d(16, 16, 3, stride=2, pad_mode="pad", padding=1, group=16),
        nn.Conv2d(16, 32, 1, has_bias=True),
        nn.Dense(32 * 16, 10),
    ]
    for layer, arrays in zip(layers, initial_weights(), strict=True):
        for param, array in zip(layer.trainable_params(), arrays, strict=True):
            param.asnumpy()[...] = array
    first, depthwise, pointwise, last = layers
    normalised = [nn.BatchNorm2d(16), nn.ReLU()], [nn.BatchNorm2d(32), nn.ReLU()]
    return nn.SequentialCell(first, *normalised[0], depthwise, pointwise, *normalised[1], nn.Flatten(), last)


def optimizer_of(name: str, net: nn.Cell, steps: int) -> Any:
    """An optimizer by its name in the table, with the learning rates of so many steps."""
    kind, given = OPTIMIZERS[name]
    settings = dict(given)
    params = net.trainable_params() if kind == "AdamW" else net
    return getattr(hessiod_mindspore, kind)(params, rates(settings.pop("lr"), steps), **settings)


def plan() -> str:
    """What each parameter gets."""
    return str(optimizer_of("K-FAC", net_of(), 1).plan())


def judged(net: nn.Cell, images: Any, labels: Any) -> tuple[float, float]:
    """Loss and accuracy, with BatchNorm's moving statistics."""
    logits = net.set_train(False)(Tensor(images))
    accuracy = float((logits.asnumpy().argmax(1) == labels).mean())
    return float(ops.cross_entropy(logits, Tensor(labels)).asnumpy()), accuracy


def run(name: str, steps: int) -> dict[str, float]:
    """Train for ``steps`` steps, as ``torch_runs.run`` does.

    The first step of each graph, with statistics and without, compiles it and is left out of the time.
    """
    ms.set_context(mode=ms.GRAPH_MODE, runtime_num_threads=1)
    net = net_of()
    opt = optimizer_of(name, net, steps)
    step = hessiod_mindspore.TrainStep(net, nn.CrossEntropyLoss(), opt).set_train()
    compiled, seconds = set[bool](), 0.0
    for images, labels in batches(steps):
        due, started = bool(getattr(opt, "curvature_due", False)), time.process_time()
        step(Tensor(images), Tensor(labels))
        if due in compiled:
            seconds += time.process_time() - started
        compiled.add(due)
    train, held_out = digits()
    return {"loss": judged(net, *train)[0], "accuracy": judged(net, *held_out)[1], "seconds": seconds}
