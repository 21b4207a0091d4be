"""The settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.training.model import Model
from hessiod.core.errors import InvalidArgument

FORMS = {"momentum": "sgd", "nesterov": "sgd"}
"""Names of a run that are a form of an optimizer, and not the name of a class."""
UNSEEDED = ("apollo", "apollow", "adamw", "sgd")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run, but for its text or images."""

    optimizer: str
    seed: int = 0
    batch: int = 8
    lr: float | None = None
    warmup: int = 20
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    model: Model = field(default_factory=GPTConfig)

    def __post_init__(self) -> None:
        if self.optimizer not in self.model.settings:
            known = ", ".join(self.model.settings)
            raise InvalidArgument(f"optimizer: found {self.optimizer!r}, expected one of {known}")
        if self.batch < 1:
            raise InvalidArgument(f"batch: found {self.batch}, expected at least 1 example")
        if self.lr is not None and not (isfinite(self.lr) and self.lr >= 0):
            raise InvalidArgument(f"lr: found {self.lr}, expected a number >= 0; leave it out for the optimizer's own")
        if not 0 <= self.seed < 2**64:
            raise InvalidArgument(f"seed: found {self.seed}, expected an integer in [0, 2^64)")

    @property
    def kind(self) -> str:
        """The optimizer's name in ``Backend.optimizers``.

        >>> RunConfig("nesterov").kind
        'sgd'
        """
        return FORMS.get(self.optimizer, self.optimizer)

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return self.model.settings[self.optimizer]["lr"] if self.lr is None else self.lr

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's arguments besides the learning rate."""
        own = {name: value for name, value in self.model.settings[self.optimizer].items() if name != "lr"}
        seeded = {} if self.kind in UNSEEDED else {"seed": self.seed}
        return own | seeded | dict(self.hyperparameters)

    def factor(self, step: int) -> float:
        """The share of the peak learning rate at a step counted from 0: a linear warm-up, then constant.

        It does not depend on the run's length, so a run can be stopped, resumed and prolonged.
        """
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
