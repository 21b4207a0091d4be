"""A convnet with MindSpore's Model.train and SophiaG, on scikit-learn's digits.

    python examples/trainers/mindspore_model.py --out out/mindspore --epochs 4 [--resume]
    msrun --worker_num 2 --local_worker_num 2 --join True python examples/trainers/mindspore_model.py --processes

The train network is a TrainStep, which knows when curvature is due; the rest is MindSpore's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import typer
from mindspore import nn
from mindspore.communication import get_group_size, get_rank, init
from mindspore.train import Accuracy, Callback, LossMonitor, Model
from sklearn.datasets import load_digits

from hessiod.mindspore import Checkpoint, Diagnostics, SophiaG, TrainStep

BATCH = 64


def batches(rank: int = 0, size: int = 1) -> ms.dataset.Dataset:
    """The digits of one process, ``[rows, 1, 8, 8]`` in [0, 1], always in one order, so that a run can be resumed."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    columns = {"image": images[:1792], "label": digits.target[:1792].astype(np.int32)}
    shard = dict(num_shards=size, shard_id=rank) if size > 1 else {}
    return ms.dataset.NumpySlicesDataset(columns, shuffle=False, **shard).batch(BATCH // size)


def convnet() -> nn.Cell:
    """Two convolutions and a layer on top."""
    features = nn.Conv2d(1, 8, 3, pad_mode="pad", padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
    return nn.SequentialCell(*features, nn.Flatten(), nn.Dense(256, 10))


def build(net: nn.Cell, **settings: Any) -> TrainStep:
    """Forward, backward, curvature when it is due, and update."""
    optimizer = SophiaG(net.trainable_params(), learning_rate=3e-3, rho=0.1, weight_decay=0.1, every=10)
    return TrainStep(net, nn.CrossEntropyLoss(), optimizer, **settings)


def fit(
    folder: Path, epochs: int, resume: bool, callbacks: Sequence[Callback] = (), data: ms.dataset.Dataset | None = None
) -> tuple[TrainStep, float]:
    """Train up to ``epochs``, and save after each; the step, and the accuracy on what was trained on."""
    ms.set_seed(0)
    net = convnet()
    step, data = build(net), batches() if data is None else data
    save = Checkpoint(folder / "run.safetensors", step)
    first = save.resume().epoch if resume else 0
    evaluate = nn.WithEvalCell(net, nn.CrossEntropyLoss())
    model = Model(step, eval_network=evaluate, metrics={"accuracy": Accuracy()}, eval_indexes=[0, 1, 2])
    model.train(epochs, data, callbacks=[save, *callbacks], initial_epoch=first)
    return step, model.eval(data)["accuracy"]


def main(out: Path = Path("out/mindspore"), epochs: int = 4, resume: bool = False, processes: bool = False) -> None:
    """Train up to ``epochs``; with --resume from what was saved, with --processes as one of those of msrun."""
    rank, size = 0, 1
    if processes:
        init()
        ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
        rank, size = get_rank(), get_group_size()
    folder = out / f"process{rank}" if size > 1 else out
    folder.mkdir(parents=True, exist_ok=True)
    _, accuracy = fit(folder, epochs, resume, [LossMonitor(10), Diagnostics(print, every=50)], batches(rank, size))
    print(f"accuracy {accuracy:.3f}")


if __name__ == "__main__":
    typer.run(main)
