"""The shape of the network and the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class GPTConfig:
    """A pre-norm GPT over bytes: learned positions, causal self-attention, tanh-GELU, no dropout, untied head."""

    context: int = 64
    width: int = 96
    heads: int = 4
    layers: int = 2
    vocabulary: int = 256
    epsilon: float = 1e-5

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter names and shapes, in the order of the optimizer's parameters; ``[out, in]`` for linear maps."""
        shapes: dict[str, tuple[int, ...]] = {
            "tokens.weight": (self.vocabulary, self.width),
            "positions.weight": (self.context, self.width),
        }
        for layer in range(self.layers):
            block = f"blocks.{layer}."
            shapes |= {
                block + "norm1.weight": (self.width,),
                block + "norm1.bias": (self.width,),
                block + "attend.weight": (3 * self.width, self.width),
                block + "merge.weight": (self.width, self.width),
                block + "norm2.weight": (self.width,),
                block + "norm2.bias": (self.width,),
                block + "expand.weight": (4 * self.width, self.width),
                block + "contract.weight": (self.width, 4 * self.width),
            }
        return shapes | {
            "norm.weight": (self.width,),
            "norm.bias": (self.width,),
            "head.weight": (self.vocabulary, self.width),
        }


SETTINGS: Mapping[str, Mapping[str, float]] = {
    "sophia-g": {"lr": 5e-4, "rho": 0.5},
    "sophia-h": {"lr": 5e-4, "rho": 0.1},
    "adahessian": {"lr": 0.03, "eps": 1e-2, "every": 5, "spatial_averaging": 8},
    "apollo": {"lr": 0.1, "sigma": 1.0, "warmup": 0},
    "diagonal-newton": {"lr": 0.01, "damping": 0.1, "every": 5},
    "adamw": {"lr": 3e-3},
    "sgd": {"lr": 0.1},
}
"""What ``hessiod train`` gives each optimizer: a coarse search on this model, no claim about others.

Sophia's rho is ten times the paper's, because an estimate over 512 targets, not half a million, is that much noisier;
it leaves about a third of the entries unclipped after 200 steps.
"""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run."""

    optimizer: str
    seed: int = 0
    batch: int = 8
    lr: float | None = None
    warmup: int = 20
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    model: GPTConfig = GPTConfig()

    def __post_init__(self) -> None:
        if self.optimizer not in SETTINGS:
            raise InvalidArgument(f"optimizer: found {self.optimizer!r}, expected one of {', '.join(SETTINGS)}")
        if self.batch < 1:
            raise InvalidArgument(f"batch: found {self.batch}, expected at least 1 sequence")
        if self.lr is not None and not (isfinite(self.lr) and self.lr >= 0):
            raise InvalidArgument(f"lr: found {self.lr}, expected a number >= 0; leave it out for the optimizer's own")
        if not 0 <= self.seed < 2**64:
            raise InvalidArgument(f"seed: found {self.seed}, expected an integer in [0, 2^64)")

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return SETTINGS[self.optimizer]["lr"] if self.lr is None else self.lr

    @property
    def options(self) -> dict[str, float]:
        """The optimizer's arguments besides the learning rate."""
        own = {name: value for name, value in SETTINGS[self.optimizer].items() if name != "lr"}
        seeded = {} if self.optimizer in ("apollo", "adamw", "sgd") else {"seed": self.seed}
        return own | seeded | dict(self.hyperparameters)

    def factor(self, step: int) -> float:
        """The share of the peak learning rate at a step counted from 0: a linear warm-up, then constant.

        It does not depend on the run's length, so a run can be stopped, resumed and prolonged.
        """
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
