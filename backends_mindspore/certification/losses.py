"""Losses: functions, functions of mint, Cells."""

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.mint.nn import functional as F


def cross_entropy(x, labels):
    return ops.cross_entropy(x, labels)


def cross_entropy__mint(x, labels):
    return F.cross_entropy(x, labels)


def cross_entropy_sum(x, labels):
    return ops.cross_entropy(x, labels, reduction="sum")


def cross_entropy_none(x, labels):
    return ops.cross_entropy(x, labels, reduction="none")


def cross_entropy__primitive(x, labels):
    return ops.SparseSoftmaxCrossEntropyWithLogits()(x, labels)


def cross_entropy_weights(x, labels, weights):
    return ops.cross_entropy(x, labels, weights)


def cross_entropy_ignore(x, labels):
    return ops.cross_entropy(x, labels, ignore_index=-100)


def cross_entropy_smoothing(x, labels):
    return ops.cross_entropy(x, labels, label_smoothing=0.1)


def cross_entropy_probabilities(x, shares):
    return ops.cross_entropy(x, shares)


def cross_entropy_probabilities__primitive(x, shares):
    return ops.SoftmaxCrossEntropyWithLogits()(x, shares)[0].mean()


def cross_entropy_map(x, labels):
    return ops.cross_entropy(x, labels)


def nll(x, labels):
    return ops.nll_loss(ops.log_softmax(x, -1), labels)


def nll__mint(x, labels):
    return F.nll_loss(F.log_softmax(x, -1), labels)


def nll_weights(x, labels, weights):
    return ops.nll_loss(ops.log_softmax(x, -1), labels, weights)


def mse(x, targets):
    return ops.mse_loss(x, targets)


def mse__mint(x, targets):
    return F.mse_loss(x, targets)


def mse_sum(x, y):
    return ops.mse_loss(x, y, reduction="sum")


def mae(x, targets):
    return ops.l1_loss(x, targets)


def mae__mint(x, targets):
    return F.l1_loss(x, targets)


def smooth_l1(x, targets):
    return ops.smooth_l1_loss(x, targets, reduction="mean")


def smooth_l1__mint(x, targets):
    return F.smooth_l1_loss(x, targets)


def smooth_l1_beta(x, targets):
    return ops.smooth_l1_loss(x, targets, beta=0.5, reduction="mean")


def huber(x, targets):
    return ops.huber_loss(x, targets)


def bce(x, bits):
    return ops.binary_cross_entropy(x, bits)


def bce__mint(x, bits):
    return F.binary_cross_entropy(x, bits)


def bce_logits(x, bits):
    return ops.binary_cross_entropy_with_logits(x, bits)


def bce_logits__mint(x, bits):
    return F.binary_cross_entropy_with_logits(x, bits)


def bce_logits_weights(x, bits, weights):
    return ops.binary_cross_entropy_with_logits(x, bits, ops.ones_like(x), weights)


def kl_div(x, shares):
    return ops.kl_div(ops.log_softmax(x, -1), shares, reduction="batchmean")


def kl_div__mint(x, shares):
    return F.kl_div(F.log_softmax(x, -1), shares, reduction="batchmean")


def kl_div_both(x, y):
    return ops.kl_div(ops.log_softmax(x, -1), y, reduction="sum")


def gaussian_nll(x, variance, targets):
    return ops.gaussian_nll_loss(x, targets, variance)


def cosine_embedding(x, y, signs):
    return ops.cosine_embedding_loss(x, y, signs)


def hinge_embedding(x, signs):
    return ops.hinge_embedding_loss(x, signs)


def margin_ranking(x, y, signs):
    return ops.margin_ranking_loss(x, y, signs, margin=0.5)


def soft_margin(x, signs):
    return ops.soft_margin_loss(x, signs)


def multilabel_soft_margin(x, bits):
    return ops.multilabel_soft_margin_loss(x, bits)


def triplet_margin(x, y, z):
    return ops.triplet_margin_loss(x, y, z)


def ctc(x, strings):
    frames, symbols = Tensor([5, 5], ms.int32), Tensor([2, 2], ms.int32)
    return ops.ctc_loss(ops.log_softmax(x, -1), strings, frames, symbols, reduction="none")[0]


CELLS = {
    "cross_entropy__nn": nn.CrossEntropyLoss,
    "cross_entropy__sparse": lambda: nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"),
    "cross_entropy_none__softmax": lambda: nn.SoftmaxCrossEntropyWithLogits(sparse=True),
    "cross_entropy_probabilities__softmax": lambda: nn.SoftmaxCrossEntropyWithLogits(sparse=False, reduction="mean"),
    "cross_entropy_ignore__nn": lambda: nn.CrossEntropyLoss(ignore_index=-100),
    "cross_entropy_smoothing__nn": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "mse__nn": nn.MSELoss,
    "mae__nn": nn.L1Loss,
    "smooth_l1__nn": lambda: nn.SmoothL1Loss(reduction="mean"),
    "huber__nn": nn.HuberLoss,
    "bce__nn": lambda: nn.BCELoss(reduction="mean"),
    "bce_logits__nn": nn.BCEWithLogitsLoss,
    "poisson_nll__nn": nn.PoissonNLLLoss,
    "soft_margin__nn": nn.SoftMarginLoss,
    "hinge_embedding__nn": nn.HingeEmbeddingLoss,
    "cosine_embedding__nn": nn.CosineEmbeddingLoss,
}
