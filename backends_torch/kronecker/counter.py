"""How many targets a loss averages."""

from __future__ import annotations

from math import prod

from torch import Tensor


class Counter:
    """How many terms the user's loss averages, from the output it was computed from.

    ``reduction`` is the loss's: "mean" over all targets (rows of classes, or entries), "batchmean" is the sum divided
    by the length of the first axis, "sum" is the sum.
    """

    def __init__(self, likelihood: str, reduction: str) -> None:
        self.likelihood, self.reduction = likelihood, reduction

    def __call__(self, logits: Tensor, used: Tensor | None = None) -> float:
        """The number; ``used`` marks targets that are not ignored."""
        if self.reduction == "sum":
            return 1.0
        if self.reduction == "batchmean":
            return float(logits.shape[0])
        if used is not None:
            return float(used.sum())
        return float(prod(logits.shape[:-1]) if self.likelihood == "categorical" else logits.numel())
