"""The two-layer perceptron as a ``torch.nn`` module; parameter names and shapes are MLPConfig's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hessiod.backends.digits.config import MLPConfig


class MLP(nn.Module):
    """Logits ``[rows, classes]`` from features ``[rows, features]``."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.features, config.width)
        self.output = nn.Linear(config.width, config.classes)

    def forward(self, features: Tensor) -> Tensor:
        """The logits of each image's class."""
        return self.output(torch.tanh(self.hidden(features)))
