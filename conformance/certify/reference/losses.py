"""Losses, from their definitions."""

from itertools import groupby, product

import jax.numpy as jnp
import numpy as np

from hessiod.conformance.certify.reference.elementwise import log_softmax, sigmoid, softplus


def picked(x, labels):
    """The entries of rows that labels name."""
    return (x * jnp.eye(x.shape[-1])[labels]).sum(-1)


def each(x, labels):
    """Cross-entropies of rows."""
    return -picked(log_softmax(x), labels)


def weighted(x, labels, weights):
    """The mean of cross-entropies, weighted by class."""
    return (each(x, labels) * weights[labels]).sum() / weights[labels].sum()


def bits_entropy(x, bits, weights=1.0):
    """Cross-entropies of bits with logits, positives weighted."""
    return (weights * bits * softplus(-x) + (1 - bits) * softplus(x)).mean()


def huber(x, targets, delta=1.0):
    """Quadratic within delta, linear beyond."""
    d = jnp.where(x > targets, x - targets, targets - x)
    return jnp.where(d < delta, d * d / 2, delta * (d - delta / 2)).mean()


def cosine_embedding(x, y, signs):
    """One minus the cosine, or its positive part."""
    cosine = (x * y).sum(1) / jnp.sqrt((x * x).sum(1) * (y * y).sum(1))
    return jnp.where(signs > 0, 1 - cosine, jnp.where(cosine > 0, cosine, 0.0)).mean()


def margin_ranking(x, y, signs):
    """With a margin of a half."""
    slack = -signs * (x - y) + 0.5
    return jnp.where(slack > 0, slack, 0.0).mean()


def triplet(x, y, z):
    """With a margin of one, and the 1e-6 that PyTorch adds to differences."""
    near, far = (jnp.sqrt(((x - other + 1e-6) ** 2).sum(1)) for other in (y, z))
    return jnp.where(near - far + 1 > 0, near - far + 1, 0.0).mean()


def ctc(x, strings):
    """Graves et al. 2006, by adding up all 1024 paths of five frames over four symbols, blank 0."""
    logs = log_softmax(x)
    losses = []
    for row, string in enumerate(np.asarray(strings).tolist()):
        paths = [p for p in product(range(4), repeat=5) if [s for s, _ in groupby(p) if s] == string]
        totals = jnp.stack([sum(logs[t, row, s] for t, s in enumerate(path)) for path in paths])
        losses.append(-jnp.log(jnp.exp(totals).sum()))
    return jnp.stack(losses)


CASES = {
    "cross_entropy": lambda x, labels: each(x, labels).mean(),
    "cross_entropy_sum": lambda x, labels: each(x, labels).sum(),
    "cross_entropy_none": each,
    "cross_entropy_weights": weighted,
    "cross_entropy_ignore": lambda x, labels: (each(x, labels % 5 % 4) * (labels >= 0)).sum() / (labels >= 0).sum(),
    "cross_entropy_smoothing": lambda x, labels: (0.9 * each(x, labels) - 0.1 * log_softmax(x).mean(1)).mean(),
    "cross_entropy_probabilities": lambda x, shares: -(shares * log_softmax(x)).sum(1).mean(),
    "cross_entropy_map": lambda x, labels: each(x.transpose(0, 2, 1), labels).mean(),
    "nll": lambda x, labels: each(x, labels).mean(),
    "nll_weights": weighted,
    "mse": lambda x, targets: ((x - targets) ** 2).sum() / 12,
    "mse_sum": lambda x, y: ((x - y) ** 2).sum(),
    "mae": lambda x, targets: jnp.where(x > targets, x - targets, targets - x).mean(),
    "smooth_l1": huber,
    "smooth_l1_beta": lambda x, targets: huber(x, targets, 0.5) / 0.5,
    "huber": huber,
    "bce": lambda x, bits: -(bits * jnp.log(x) + (1 - bits) * jnp.log(1 - x)).mean(),
    "bce_logits": bits_entropy,
    "bce_logits_weights": bits_entropy,
    "kl_div": lambda x, shares: (shares * (jnp.log(shares) - log_softmax(x))).sum() / 4,
    "kl_div_both": lambda x, y: (y * (jnp.log(y) - log_softmax(x))).sum(),
    "gaussian_nll": lambda x, variance, targets: (jnp.log(variance) + (x - targets) ** 2 / variance).mean() / 2,
    "poisson_nll": lambda x, targets: (jnp.exp(x) - targets * x).mean(),
    "cosine_embedding": cosine_embedding,
    "hinge_embedding": lambda x, signs: jnp.where(signs > 0, x, jnp.where(x < 1, 1 - x, 0.0)).mean(),
    "margin_ranking": margin_ranking,
    "soft_margin": lambda x, signs: jnp.log(1 + jnp.exp(-signs * x)).mean(),
    "multilabel_soft_margin": lambda x, bits: -(bits * jnp.log(sigmoid(x)) + (1 - bits) * jnp.log(sigmoid(-x))).mean(),
    "triplet_margin": triplet,
    "ctc": ctc,
}
