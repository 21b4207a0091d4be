"""Trains a network with an optimizer of this package; see :class:`hessiod.backends.training.trainer.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from hessiod.backends.digits.config import MLPConfig
from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.kronecker.settings import SHARED
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.trainer import StepMetrics
from hessiod.backends_mindspore import checkpoint
from hessiod.backends_mindspore.gpt import GPT, CrossEntropy
from hessiod.backends_mindspore.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_mindspore.mlp import MLP
from hessiod.backends_mindspore.optimizers import OPTIMIZERS
from hessiod.backends_mindspore.train_step import TrainStep

NETWORKS: Mapping[type, Callable[[Any], nn.Cell]] = {GPTConfig: GPT, MLPConfig: MLP}
"""The Cell that a model's description means."""


class WarmUp(LearningRateSchedule):
    """RunConfig's schedule: linear up to the peak, then constant; in float64, as on the other frameworks."""

    def __init__(self, config: RunConfig, peak: float) -> None:
        super().__init__()
        self.peak, self.length = Tensor(peak, ms.float64), Tensor(max(config.warmup, 1), ms.float64)

    def construct(self, global_step):
        """The learning rate of a step counted from 0."""
        share = (ops.cast(global_step, ms.float64) + 1.0) / self.length
        return self.peak * ops.minimum(share, ops.ones_like(share))


class MindSporeTrainer:
    """The loop that a user writes, one step at a time."""

    def __init__(self, config: RunConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.net = NETWORKS[type(config.model)](config.model)
        parameters = {parameter.name: parameter for parameter in self.net.trainable_params()}
        self.parameters = {name: parameters[name] for name in config.model.shapes}
        kind: Any = OPTIMIZERS[config.kind]
        given: Any = list(self.parameters.values())
        options: dict[str, Any] = dict(config.options)
        if issubclass(kind, KroneckerOptimizer):
            given, fallback_lr = self.net, options.get("fallback_lr", SHARED["fallback_lr"])
            options["fallback_lr"] = WarmUp(config, fallback_lr)
        self.optimizer = kind(given, learning_rate=WarmUp(config, config.peak), **options)
        self.slots = self.optimizer.slot_names
        self._write({f"model/{name}": array for name, array in weights.items()})
        self.train = TrainStep(self.net, CrossEntropy(), self.optimizer)

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> StepMetrics:
        """One step on one batch."""
        lr = self.config.peak * self.config.factor(self.optimizer.steps)
        loss = float(self.train(Tensor(inputs), Tensor(targets)).asnumpy())
        clip_fraction = getattr(self.optimizer, "clip_fraction", None)
        return StepMetrics(loss, lr, clip_fraction() if clip_fraction else None)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """The network's output."""
        return self.net(Tensor(inputs)).asnumpy()

    def _arrays(self) -> dict[str, ms.Parameter]:
        arrays = {f"model/{name}": parameter for name, parameter in self.parameters.items()}
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for member in self.optimizer.members:
            for slot in member.slot_names:
                for parameter, state in zip(member.parameters, getattr(member, slot), strict=True):
                    arrays[f"optimizer/{names[id(parameter)]}/{slot}"] = state
        return arrays

    def state(self) -> dict[str, np.ndarray]:
        """A copy of weights and optimizer slots."""
        return {name: parameter.asnumpy().copy() for name, parameter in self._arrays().items()}

    def _write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write through zero-copy views: a compiled graph does not see ``set_data``."""
        parameters = self._arrays()
        for name, array in arrays.items():
            parameters[name].asnumpy()[...] = array

    def save(self, path: Path, extra: Any) -> None:
        """Write a checkpoint."""
        checkpoint.save(path, self.net, self.optimizer, extra)

    def load(self, path: Path) -> int:
        """Take up a checkpoint of any framework; return its step."""
        return checkpoint.load(path, self.net, self.optimizer).step
