"""What a framework supplies to train a network: the network, an optimizer, and their state by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class StepMetrics:
    """What one step reports; ``clip_fraction`` is None for rules that do not clip."""

    loss: float
    lr: float
    clip_fraction: float | None


class Trainer(Protocol):
    """A network with an optimizer, constructed from a RunConfig and its initial weights by ``Backend.trainer``.

    Arrays are named ``model/<parameter>`` and ``optimizer/<parameter>/<slot>`` on every framework, with the names and
    shapes of the run's :class:`~hessiod.backends.training.model.Model`; settings hold the step count.
    """

    slots: tuple[str, ...]
    """The optimizer's state slots; each parameter has one array in each."""

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> StepMetrics:
        """Train on one batch; the loss is the mean over all targets, in nats.

        Inputs are int32 ``[rows, context]`` tokens or float32 ``[rows, features]``, targets int32 with the shape of the
        logits but for their last axis.
        """

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """The network's output ``[..., classes]`` with its present weights; nothing is changed."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of every array that the next step depends on."""

    def save(self, path: Path, extra: Any) -> None:
        """Write a checkpoint (:mod:`hessiod.backends.checkpoint`) with something for the caller in it."""

    def load(self, path: Path) -> int:
        """Take up a checkpoint that any framework wrote, or raise and change nothing; return its step.

        What was trained or loaded before is replaced whole.
        """
