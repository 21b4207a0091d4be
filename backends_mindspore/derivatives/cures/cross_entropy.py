"""Losses from elementary operators.

MindSpore has the double gradient of softmax cross-entropies wrong by 40 % and more, without a word, and none for the
divergence.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator


def log_softmax(logits):
    """``z - logsumexp(z)`` over the last axis."""
    shifted = logits - ops.stop_gradient(ops.amax(logits, -1, True))
    return shifted - ops.log(ops.exp(shifted).sum(-1, keepdims=True))


class CuredSoftmaxCrossEntropyWithLogits(CuredOperator):
    """``SoftmaxCrossEntropyWithLogits()(logits, labels)``: each row's loss, and its gradient."""

    def construct(self, logits, labels):
        """Logits and labels ``[rows, classes]``."""
        logs = log_softmax(logits)
        return -(labels * logs).sum(-1), ops.exp(logs) - labels


class CuredSparseSoftmaxCrossEntropyWithLogits(CuredOperator):
    """``SparseSoftmaxCrossEntropyWithLogits(is_grad)(logits, labels)``: the mean loss, or its gradient."""

    arguments = ("is_grad",)

    def __init__(self, is_grad=False):
        super().__init__()
        self.is_grad = is_grad

    def construct(self, logits, labels):
        """Logits ``[rows, classes]``, integer labels ``[rows]``."""
        logs = log_softmax(logits)
        chosen = ops.arange(0, logits.shape[-1], 1, dtype=ms.int64) == ops.expand_dims(ops.cast(labels, ms.int64), -1)
        chosen = ops.cast(chosen, logits.dtype)
        if self.is_grad:
            return (ops.exp(logs) - chosen) / logits.shape[0]
        return -(chosen * logs).sum() / logits.shape[0]


class CuredKLDivLoss(CuredOperator):
    """``KLDivLoss(reduction)(logits, target)``: ``target * (log(target) - logits)``."""

    arguments = ("reduction",)

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def construct(self, logits, target):
        """The divergence, each entry's or reduced; an entry whose target is not positive is zero."""
        positive = target > 0
        safe = ops.where(positive, target, ops.ones_like(target))
        loss = ops.cast(positive, logits.dtype) * safe * (ops.log(safe) - logits)
        if self.reduction == "none":
            return loss
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() / logits.shape[0] if self.reduction == "batchmean" else loss.sum()


OPERATORS = {
    "KLDivLoss": CuredKLDivLoss,
    "SoftmaxCrossEntropyWithLogits": CuredSoftmaxCrossEntropyWithLogits,
    "SparseSoftmaxCrossEntropyWithLogits": CuredSparseSoftmaxCrossEntropyWithLogits,
}
