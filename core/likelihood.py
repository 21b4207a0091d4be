"""Targets drawn from a model's own prediction, and the loss's gradient with respect to that prediction.

For the estimators that need sampled targets (Gauss-Newton-Bartlett, Monte-Carlo Fisher). Each likelihood is one
function of the model's output and of random words; it returns ``d(-log p(y | output)) / d(output)`` at a sampled
``y``. The words come from :mod:`hessiod.core.philox`, so every backend draws the same targets, and a part of a batch
that begins at target ``first`` draws what the whole batch draws there. ``draw`` is the function of that module that
brings the numbers, or a backend's faster form of it.

================  ==========================================  ===============  =======================
likelihood        loss it belongs to                          residual         one target is
================  ==========================================  ===============  =======================
``categorical``   softmax cross-entropy                       softmax - y      a row of the last axis
``bernoulli``     sigmoid binary cross-entropy                sigmoid - y      an entry
``gaussian``      half the squared error (unit variance)      output - y       an entry
================  ==========================================  ===============  =======================
"""

from __future__ import annotations

from hessiod.core import philox


def softmax(xp, logits):
    """``exp(z) / sum(exp(z))`` over the last axis, shifted by the row's maximum so that nothing overflows."""
    weights = xp.exp(logits - xp.amax(logits))
    return weights / xp.sum_last(weights)


def sample_categorical(xp, probabilities, uniforms):
    """The class whose slice of the cumulative distribution holds each uniform number, as a one-hot array.

    probabilities: ``[..., classes]``; uniforms: ``[...]`` in [0, 1).

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> sample_categorical(xp, np.array([[0.25, 0.25, 0.5]] * 3), np.array([0.0, 0.3, 0.9]))
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """
    cumulative = xp.cumsum(probabilities)
    total = cumulative[..., -1:]
    passed = xp.astype(cumulative <= uniforms[..., None] * total, probabilities.dtype)
    classes = probabilities.shape[-1]
    chosen = xp.minimum(xp.sum_last(passed), classes - 1.0)
    index = xp.astype(xp.arange(classes, probabilities), probabilities.dtype)
    return xp.astype(index == chosen, probabilities.dtype)


def categorical_residual(xp, logits, seed, step, sample, first=0, draw=philox.uniforms):
    """``softmax(logits) - y`` with y one-hot and drawn from ``softmax(logits)``; shape ``[..., classes]``."""
    probabilities = softmax(xp, logits)
    uniforms = draw(xp, logits[..., 0], seed=seed, step=step, sample=sample, first=first)
    return probabilities - sample_categorical(xp, probabilities, uniforms)


def bernoulli_residual(xp, logits, seed, step, sample, first=0, draw=philox.uniforms):
    """``sigmoid(logits) - y`` with each y drawn from its own sigmoid."""
    probabilities = 1.0 / (1.0 + xp.exp(-logits))
    uniforms = draw(xp, logits, seed=seed, step=step, sample=sample, first=first)
    return probabilities - xp.astype(uniforms < probabilities, logits.dtype)


def gaussian_residual(xp, mean, seed, step, sample, first=0, draw=philox.normals):
    """``mean - y`` with ``y ~ N(mean, 1)``: the negative of a standard normal draw."""
    return -draw(xp, mean, seed=seed, step=step, sample=sample, first=first)


RESIDUALS = {
    "categorical": categorical_residual,
    "bernoulli": bernoulli_residual,
    "gaussian": gaussian_residual,
}
