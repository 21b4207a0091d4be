"""Trains a network with an optimizer of this package; see :class:`hessiod.backends.training.trainer.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from hessiod.backends.digits.config import MLPConfig
from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.trainer import StepMetrics
from hessiod.backends_torch import checkpoint
from hessiod.backends_torch.gpt import GPT
from hessiod.backends_torch.kronecker.optimizer import KroneckerOptimizer
from hessiod.backends_torch.mlp import MLP
from hessiod.backends_torch.optimizers import OPTIMIZERS
from hessiod.backends_torch.second_order import CurvatureOptimizer

NETWORKS: Mapping[type, Callable[[Any], nn.Module]] = {GPTConfig: GPT, MLPConfig: MLP}
"""The module that a model's description means."""


class TorchTrainer:
    """The loop that a user writes, one step at a time."""

    def __init__(
        self,
        config: RunConfig,
        weights: Mapping[str, np.ndarray],
        dtype: str = "float32",
        device: str = "cpu",
        spread: bool = False,
    ) -> None:
        """``spread``: over all processes of torch.distributed, each of which steps on its own rows of a batch."""
        self.config = config
        self.dtype, self.device = getattr(torch, dtype), torch.device(device)
        self.model = NETWORKS[type(config.model)](config.model)
        self.model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        self.model.to(self.device, self.dtype)
        self.names = list(config.model.shapes)
        parameters = dict(self.model.named_parameters())
        self.parameters = [parameters[name] for name in self.names]
        self.network, self.optimizer = self._spread() if spread else (self.model, self._optimizer())
        self.slots = self.optimizer.rule_of(self.optimizer.param_groups[0]).slots
        self.schedule = LambdaLR(self.optimizer, config.factor)

    @property
    def _factored(self) -> bool:
        return issubclass(OPTIMIZERS[self.config.kind], KroneckerOptimizer)

    def _optimizer(self, **shared: Any) -> Any:
        kind: Any = OPTIMIZERS[self.config.kind]
        given = self.model if self._factored else self.parameters
        return kind(given, lr=self.config.peak, **self.config.options, **shared)

    def _spread(self) -> tuple[nn.Module, Any]:
        """Kronecker methods share their work out themselves; for rules the model is wrapped."""
        if self._factored:
            return self.model, self._optimizer(process_group=True)
        return nn.parallel.DistributedDataParallel(self.model), self._optimizer()

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> StepMetrics:
        """One step on one batch."""
        optimizer = self.optimizer
        logits = self.network(self._tensor(inputs))
        loss = F.cross_entropy(logits.flatten(0, -2), torch.from_numpy(targets).long().flatten().to(self.device))
        if isinstance(optimizer, CurvatureOptimizer | KroneckerOptimizer) and optimizer.curvature_due:
            optimizer.update_curvature(loss=loss, logits=logits)
        loss.backward()
        lr = float(self.schedule.get_last_lr()[0])
        optimizer.step()
        optimizer.zero_grad()
        self.schedule.step()
        clip_fraction = getattr(optimizer, "clip_fraction", None)
        return StepMetrics(loss.item(), lr, clip_fraction() if clip_fraction else None)

    def _tensor(self, inputs: np.ndarray) -> Tensor:
        """Tokens as they are, features in the dtype of the weights."""
        tensor = torch.from_numpy(inputs).to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """The network's output."""
        with torch.no_grad():
            return self.model(self._tensor(inputs)).cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """A copy of weights and optimizer slots."""
        arrays = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            arrays[f"model/{name}"] = parameter.detach().cpu().numpy().copy()
            for slot, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    arrays[f"optimizer/{name}/{slot}"] = value.cpu().numpy().copy()
        return arrays

    def save(self, path: Path, extra: Any) -> None:
        """Write a checkpoint."""
        checkpoint.save(path, self.model, self.optimizer, extra)

    def load(self, path: Path) -> int:
        """Take up a checkpoint of any framework; return its step."""
        step = checkpoint.load(path, self.model, self.optimizer).step
        self.schedule = LambdaLR(self.optimizer, self.config.factor, last_epoch=step - 1)
        return step
