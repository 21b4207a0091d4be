"""See :class:`hessiod.backends.training.trainer.Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hessiod.backends.generic.networks import NETWORKS
from hessiod.backends.generic.optimizer import OPTIMIZERS, GenericOptimizer
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.trainer import StepMetrics
from hessiod.core.errors import BackendUnavailable


class GenericTrainer:
    """A network of the suite, trained with a backend's namespace, first route and autodiff."""

    def __init__(self, backend: Any, config: RunConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.backend, self.config = backend, config
        build, self.prepare = NETWORKS[type(config.model)]
        self.forward = build(config.model)
        self.names = list(config.model.shapes)
        params = [backend.from_numpy(weights[name]) for name in self.names]
        self.optimizer = GenericOptimizer(backend, OPTIMIZERS[config.kind], params, config.options)
        self.slots = self.optimizer.rule.slots

    def loss(self, xp: Any, weights: Any, data: Any) -> Any:
        """The mean cross-entropy; the data's last array are the targets, one-hot."""
        logits = self.forward(xp, weights, data[:-1])
        shifted = logits - xp.amax(logits)
        return xp.mean(xp.log(xp.sum_last(xp.exp(shifted))) - xp.sum_last(data[-1] * shifted))

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> StepMetrics:
        """One step on one batch."""
        optimizer = self.optimizer
        labels = np.eye(self.classes, dtype=np.float32)[targets]
        data = [self.backend.from_numpy(array) for array in (*self.prepare(inputs), labels)]
        value, grads = self.backend.autodiff.value_and_gradients(self.loss, optimizer.params, data)
        estimates = self.estimates(data) if optimizer.curvature_due else None
        lr = self.config.peak * self.config.factor(optimizer.steps)
        optimizer.step(grads, estimates, lr)
        return StepMetrics(float(self.backend.to_numpy(value)), lr, None)

    def estimates(self, data: list[Any]) -> list[Any]:
        """The curvature estimate at the present parameters."""
        if self.optimizer.recipe.estimator == "gnb":
            return self.optimizer.sampled(self.forward, self.pulled, data[:-1])
        return self.optimizer.probed(self.loss, data)

    def pulled(self, xp: Any, weights: Any, data: Any) -> Any:
        """The logits' product with the data's last array."""
        return xp.sum(self.forward(xp, weights, data[:-1]) * data[-1])

    @property
    def classes(self) -> int:
        """How many there are: the rows of the last matrix."""
        return [shape[0] for shape in self.config.model.shapes.values() if len(shape) == 2][-1]

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """The network's output."""
        given = [self.backend.from_numpy(array) for array in self.prepare(inputs)]
        return self.backend.to_numpy(self.forward(self.backend.namespace, self.optimizer.params, given))

    def state(self) -> dict[str, np.ndarray]:
        """A copy of weights and optimizer slots."""
        arrays = {}
        for name, param, slots in zip(self.names, self.optimizer.params, self.optimizer.state, strict=True):
            arrays[f"model/{name}"] = self.backend.to_numpy(param).copy()
            arrays |= {f"optimizer/{name}/{slot}": self.backend.to_numpy(array).copy() for slot, array in slots.items()}
        return arrays

    def save(self, path: Any, extra: Any) -> None:
        """Refused: a checkpoint needs the framework's own names and layouts."""
        raise BackendUnavailable(f"backend {self.backend.name!r} trains generically and writes no checkpoints")

    load = save
