"""Optimizers for MindSpore."""

from hessiod.backends.registry import require

require("mindspore", extra="mindspore")

from hessiod.backends_mindspore.optimizers import SGD, AdamW, SophiaG, SophiaH  # noqa: E402
from hessiod.backends_mindspore.second_order import TrainStep  # noqa: E402

__all__ = ["SGD", "AdamW", "SophiaG", "SophiaH", "TrainStep"]
