"""Losses."""

import torch
from torch.nn import functional as F


def ctc(x, strings):
    """Two sequences of five frames, two symbols each, blank 0."""
    rows = strings.shape[0]
    frames, symbols = torch.full((rows,), len(x)), torch.full((rows,), strings.shape[1])
    return F.ctc_loss(x.log_softmax(-1), strings, frames, symbols, reduction="none")


CASES = {
    "cross_entropy": F.cross_entropy,
    "cross_entropy_sum": lambda x, labels: F.cross_entropy(x, labels, reduction="sum"),
    "cross_entropy_none": lambda x, labels: F.cross_entropy(x, labels, reduction="none"),
    "cross_entropy_weights": lambda x, labels, weights: F.cross_entropy(x, labels, weights),
    "cross_entropy_ignore": F.cross_entropy,
    "cross_entropy_smoothing": lambda x, labels: F.cross_entropy(x, labels, label_smoothing=0.1),
    "cross_entropy_probabilities": F.cross_entropy,
    "cross_entropy_map": F.cross_entropy,
    "nll": lambda x, labels: F.nll_loss(x.log_softmax(-1), labels),
    "nll_weights": lambda x, labels, weights: F.nll_loss(x.log_softmax(-1), labels, weights),
    "mse": F.mse_loss,
    "mse_sum": lambda x, y: F.mse_loss(x, y, reduction="sum"),
    "mae": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "smooth_l1_beta": lambda x, targets: F.smooth_l1_loss(x, targets, beta=0.5),
    "huber": F.huber_loss,
    "bce": F.binary_cross_entropy,
    "bce_logits": F.binary_cross_entropy_with_logits,
    "bce_logits_weights": lambda x, bits, weights: F.binary_cross_entropy_with_logits(x, bits, pos_weight=weights),
    "kl_div": lambda x, shares: F.kl_div(x.log_softmax(-1), shares, reduction="batchmean"),
    "kl_div_both": lambda x, y: F.kl_div(x.log_softmax(-1), y, reduction="sum"),
    "gaussian_nll": lambda x, variance, targets: F.gaussian_nll_loss(x, targets, variance),
    "poisson_nll": F.poisson_nll_loss,
    "cosine_embedding": F.cosine_embedding_loss,
    "hinge_embedding": F.hinge_embedding_loss,
    "margin_ranking": lambda x, y, signs: F.margin_ranking_loss(x, y, signs, margin=0.5),
    "soft_margin": F.soft_margin_loss,
    "multilabel_soft_margin": F.multilabel_soft_margin_loss,
    "triplet_margin": F.triplet_margin_loss,
    "ctc": ctc,
}
