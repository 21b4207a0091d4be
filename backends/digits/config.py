"""The shape of the perceptron, its start, and what each optimizer is given on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MLPConfig:
    """``output(tanh(hidden(x)))``: 64 pixels to 10 classes."""

    features: int = 64
    width: int = 64
    classes: int = 10

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter names and shapes, in the order of the optimizer's parameters."""
        return {
            "hidden.weight": (self.width, self.features),
            "hidden.bias": (self.width,),
            "output.weight": (self.classes, self.width),
            "output.bias": (self.classes,),
        }

    @property
    def settings(self) -> Mapping[str, Mapping[str, float]]:
        """What ``benchmarks/digits.py --search`` found for each optimizer, and for Kronecker methods usual values."""
        return {**SETTINGS, **KRONECKER}

    def start(self, name: str) -> tuple[float, float]:
        """N(0, 1 / inputs) for matrices, 0 for biases."""
        return (0.0, 0.0) if name.endswith("bias") else (0.0, self.shapes[name][1] ** -0.5)


SETTINGS: Mapping[str, Mapping[str, float]] = {
    "sophia-g": {"lr": 0.0044, "rho": 0.51},
    "sophia-h": {"lr": 0.0018, "rho": 0.19},
    "adahessian": {"lr": 0.14, "eps": 0.02},
    "apollo": {"lr": 0.24, "sigma": 0.21, "warmup": 0},
    "apollow": {"lr": 0.039, "sigma": 0.015, "warmup": 0, "weight_decay": 0.025},
    "diagonal-newton": {"lr": 0.023, "damping": 0.0032},
    "adamw": {"lr": 0.0098, "weight_decay": 0.14},
    "sgd": {"lr": 0.57, "weight_decay": 2e-5},
    "momentum": {"lr": 0.44, "momentum": 0.72},
    "nesterov": {"lr": 0.44, "momentum": 0.72, "nesterov": True},
}
"""What ``benchmarks/digits.py --search`` finds, to the digit."""

KRONECKER: Mapping[str, Mapping[str, float]] = {
    "kfac": {"lr": 0.1, "damping": 0.03},
    "spngd": {"lr": 0.1, "damping": 0.03},
    "thor": {"lr": 0.1, "damping": 0.03},
}
"""Not searched: the autoencoder's table (docs/kronecker.md) is where these methods are measured."""
