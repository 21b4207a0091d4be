"""Losses with the settings people use."""

import numpy as np

from hessiod.backends.certification.case import away, case, family, inside, normal, positive, probabilities

LABELS = np.array([1, 0, 3, 1])
IGNORED = np.array([1, -100, 3, -100])
MAP = np.array([[1, 0, 3], [2, 2, 1]])
WEIGHTS = np.array([0.5, 1.5, 1.0, 2.0])
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
BITS = np.array([[1.0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1]])
SHARES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.05, 0.05, 0.1, 0.8]])
TARGETS = np.array([[0.5, -1.0, 0.25, 2.0], [-0.75, 0.0, 1.5, -0.5], [1.0, 0.125, -2.0, 0.5]])
STRINGS = np.array([[1, 2], [3, 3]])
CASES = family(
    "losses",
    cross_entropy=case(x=normal(4, 4), labels=LABELS),
    cross_entropy_sum=case(x=normal(4, 4), labels=LABELS),
    cross_entropy_none=case(x=normal(4, 4), labels=LABELS),
    cross_entropy_weights=case(x=normal(4, 4), labels=LABELS, weights=WEIGHTS),
    cross_entropy_ignore=case(x=normal(4, 4), labels=IGNORED),
    cross_entropy_smoothing=case(x=normal(4, 4), labels=LABELS),
    cross_entropy_probabilities=case(x=normal(4, 4), shares=SHARES),
    cross_entropy_map=case(x=normal(2, 4, 3), labels=MAP),
    nll=case(x=normal(4, 4), labels=LABELS),
    nll_weights=case(x=normal(4, 4), labels=LABELS, weights=WEIGHTS),
    mse=case(x=normal(3, 4), targets=TARGETS),
    mse_sum=case(x=normal(3, 4), y=normal(3, 4)),
    mae=case(x=away(3, 4), targets=0 * TARGETS, kinks=True),
    smooth_l1=case(x=away(3, 4, kinks=(-1.0, 0.0, 1.0)), targets=0 * TARGETS, kinks=True),
    smooth_l1_beta=case(x=away(3, 4, kinks=(-0.5, 0.0, 0.5)), targets=0 * TARGETS, kinks=True),
    huber=case(x=away(3, 4, kinks=(-1.0, 0.0, 1.0)), targets=0 * TARGETS, kinks=True),
    bce=case(x=inside(3, 4, low=0.1, high=0.9), bits=BITS),
    bce_logits=case(x=normal(3, 4), bits=BITS),
    bce_logits_weights=case(x=normal(3, 4), bits=BITS, weights=WEIGHTS),
    kl_div=case(x=normal(4, 4), shares=SHARES),
    kl_div_both=case(x=normal(4, 4), y=probabilities(4, 4)),
    gaussian_nll=case(x=normal(3, 4), variance=positive(3, 4), targets=TARGETS),
    poisson_nll=case(x=normal(3, 4), targets=np.abs(TARGETS)),
    cosine_embedding=case(x=normal(4, 3), y=normal(4, 3), signs=SIGNS, kinks=True),
    hinge_embedding=case(x=away(4, kinks=(0.0, 1.0)), signs=SIGNS, kinks=True),
    margin_ranking=case(x=normal(4), y=normal(4), signs=SIGNS, kinks=True),
    soft_margin=case(x=normal(4), signs=SIGNS),
    multilabel_soft_margin=case(x=normal(3, 4), bits=BITS),
    triplet_margin=case(x=normal(3, 4), y=normal(3, 4), z=normal(3, 4), kinks=True),
    ctc=case(x=normal(5, 2, 4), strings=STRINGS),
)
