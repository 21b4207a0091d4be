"""What a framework supplies to train the character GPT: a network, an optimizer, and their state by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class StepMetrics:
    """What one step reports; ``clip_fraction`` is None for rules that do not clip."""

    loss: float
    lr: float
    clip_fraction: float | None


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    slots: tuple[str, ...],
    step: int,
    source: str = "arrays",
) -> None:
    """Raise :class:`InvalidArgument` unless the arrays are exactly those of a model and an optimizer after ``step``.

    Before the first step there may be no slots. ``source`` says in the message where the arrays are from.
    """
    expected = {f"model/{name}": shape for name, shape in shapes.items()}
    state = {f"optimizer/{name}/{slot}": shape for name, shape in shapes.items() for slot in slots}
    found = {name: array.shape for name, array in arrays.items()}
    if step or any(name in found for name in state):
        expected |= state
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise InvalidArgument(
                f"{source} has {name} of shape {found.get(name)}, expected {expected.get(name)}; it belongs to another "
                "model or optimizer"
            )


class Trainer(Protocol):
    """A network with an optimizer, constructed from a RunConfig and its initial weights by ``Backend.trainer``.

    Arrays are named ``model/<parameter>`` and ``optimizer/<parameter>/<slot>`` on every framework, with the names and
    shapes of :class:`~hessiod.backends.gpt.config.GPTConfig`; settings hold the step count.
    """

    slots: tuple[str, ...]
    """The optimizer's state slots; each parameter has one array in each."""

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> StepMetrics:
        """Train on one batch of int32 ``[rows, context]`` tokens; the loss is the mean over all targets, in nats."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of every array that the next step depends on."""

    def load(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Take up where :meth:`state` was called after ``step`` steps; other arrays are refused, nothing is changed."""
