"""The shape of the network, its start, and what each optimizer is given on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """What ``hessiod train`` gives each optimizer."""
        return {**SETTINGS, **KRONECKER}

    def start(self, name: str) -> tuple[float, float]:
        """N(0, 0.02^2) for matrices, 1 and 0 for the norms' weights and biases.

        The two projections that write into the residual stream are divided by ``sqrt(2 * layers)``, as in GPT-2.
        """
        if "norm" in name:
            return (1.0, 0.0) if name.endswith("weight") else (0.0, 0.0)
        into_stream = name.endswith(("merge.weight", "contract.weight"))
        return 0.0, 0.02 / ((2 * self.layers) ** 0.5 if into_stream else 1.0)


SETTINGS: Mapping[str, Mapping[str, float]] = {
    "sophia-g": {"lr": 5e-4, "rho": 0.5},
    "sophia-h": {"lr": 5e-4, "rho": 0.1},
    "adahessian": {"lr": 0.03, "eps": 1e-2, "every": 5, "spatial_averaging": 8},
    "apollo": {"lr": 0.1, "sigma": 1.0, "warmup": 0},
    "apollow": {"lr": 0.1, "sigma": 1.0, "warmup": 0, "weight_decay": 0.01},
    "diagonal-newton": {"lr": 0.01, "damping": 0.1, "every": 5},
    "adamw": {"lr": 3e-3},
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.02, "momentum": 0.9},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
}
"""What ``hessiod train`` gives each optimizer: a coarse search on this model, no claim about others.

Sophia's rho is ten times the paper's, because an estimate over 512 targets, not half a million, is that much noisier;
it leaves about a third of the entries unclipped after 200 steps.
"""

LINEAR_MAPS_ONLY = {"skip": ["*norm*", "tokens", "positions"], "fallback_lr": 0.01}
"""The layers that are covered on every framework: norms and tables of the MindSpore network are Cells of its own."""

KRONECKER: Mapping[str, Mapping[str, Any]] = {
    "kfac": {"lr": 0.1, "damping": 1.0, **LINEAR_MAPS_ONLY},
    "spngd": {"lr": 0.1, "damping": 0.3, **LINEAR_MAPS_ONLY},
    "thor": {"lr": 0.1, "damping": 1.0, **LINEAR_MAPS_ONLY},
}
"""The same for Kronecker methods."""
