"""The two-layer perceptron as a MindSpore Cell; parameter names and shapes are MLPConfig's."""

from __future__ import annotations

from mindspore import nn, ops

from hessiod.backends.digits.config import MLPConfig


class MLP(nn.Cell):
    """Logits ``[rows, classes]`` from features ``[rows, features]``."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.hidden = nn.Dense(config.features, config.width)
        self.output = nn.Dense(config.width, config.classes)

    def construct(self, features):
        """The logits of each image's class."""
        return self.output(ops.tanh(self.hidden(features)))
