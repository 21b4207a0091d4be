"""Estimators of the Hessian's diagonal, and targets drawn from a prediction, in numpy against exact expectations."""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.core import curvature, philox
from hessiod.core.likelihood import RESIDUALS, sample_categorical, softmax


def hutchinson(hessian, steps):
    """One estimate a step, for a Hessian given as a matrix."""
    like = np.zeros(len(hessian))
    probes = [philox.rademacher_probes(xp, [like], seed=1, step=step)[0] for step in range(1, steps + 1)]
    return np.array([curvature.hutchinson_kernel(xp, probe, hessian @ probe) for probe in probes])


def test_hutchinson_is_exact_for_a_diagonal_hessian_with_one_probe():
    diagonal = np.array([3.0, -0.5, 0.0, 1e6, 1e-6])
    np.testing.assert_array_equal(hutchinson(np.diag(diagonal), 1)[0], diagonal)


def test_hutchinson_is_unbiased_with_variance_the_sum_of_squares_off_the_diagonal():
    n, size = 4000, 6
    root = np.random.default_rng(0).normal(size=(size, size))
    hessian = root + root.T
    estimates = hutchinson(hessian, n)
    variance = (hessian**2).sum(axis=1) - np.diag(hessian) ** 2
    assert (np.abs(estimates.mean(axis=0) - np.diag(hessian)) < 5 * (variance / n) ** 0.5).all()
    spread = (estimates - np.diag(hessian)) ** 2
    assert (np.abs(spread.mean(axis=0) - variance) < 5 * spread.std(axis=0) / n**0.5).all()


def test_gnb_squares_the_mean_of_all_targets_not_of_each_part():
    first, second = np.array([3.0, -1.0]), np.array([1.0, 4.0])
    found = curvature.gnb_kernel(xp, first + second, **curvature.gnb_scalars(count=8.0))
    np.testing.assert_allclose(found, 8 * ((first + second) / 8) ** 2, rtol=1e-15)


def test_the_average_of_estimates_is_not_bias_corrected():
    (h,) = curvature.ema_kernel(xp, np.array([2.0]), np.array([-8.0]), **curvature.ema_scalars(beta2=0.75))
    np.testing.assert_allclose(h, [0.75 * 2 - 0.25 * 8], rtol=1e-15)


def test_softmax_neither_overflows_nor_vanishes():
    found = softmax(xp, np.array([[1e4, 1e4 - 1.0], [-1e4, -1e4]]))
    np.testing.assert_allclose(found, [[1 / (1 + np.exp(-1.0)), 1 / (1 + np.e)], [0.5, 0.5]], rtol=1e-13)


def test_a_class_without_probability_is_never_drawn():
    probabilities = np.array([[0.0, 0.5, 0.0, 0.5, 0.0]] * 4, np.float32)
    uniforms = np.array([0.0, 0.49999997, 0.5, 1 - 2.0**-24], np.float32)
    drawn = sample_categorical(xp, probabilities, uniforms).argmax(axis=1)
    assert drawn.tolist() == [1, 1, 3, 3]


def test_every_row_draws_exactly_one_class_even_where_rounding_leaves_the_sum_below_one():
    generator = np.random.default_rng(0)
    probabilities = softmax(xp, generator.normal(size=(1000, 257)).astype(np.float32) * 3)
    uniforms = np.full(1000, 1 - 2.0**-24, np.float32)
    np.testing.assert_array_equal(sample_categorical(xp, probabilities, uniforms).sum(axis=1), np.ones(1000))


def test_residuals_have_mean_zero_and_the_fisher_information_as_variance():
    n, z = 20_000, np.array([1.0, -0.5, 0.3])
    logits = np.tile(z, (n, 1))
    p = np.exp(z) / np.exp(z).sum()
    s = 1 / (1 + np.exp(-z))
    fisher = {"categorical": np.diag(p) - np.outer(p, p), "bernoulli": np.diag(s * (1 - s)), "gaussian": np.eye(3)}
    assert set(fisher) == set(RESIDUALS)
    for likelihood, residual in RESIDUALS.items():
        draws = residual(xp, logits, 1, 2, 0)
        products = draws[:, :, None] * draws[:, None, :]
        assert (np.abs(draws.mean(axis=0)) < 5 * draws.std(axis=0) / n**0.5).all(), likelihood
        error = np.abs(products.mean(axis=0) - fisher[likelihood])
        assert (error <= 5 * products.std(axis=0) / n**0.5).all(), likelihood


@pytest.mark.parametrize("likelihood", sorted(RESIDUALS))
def test_sampled_targets_depend_on_seed_step_and_sample_only(likelihood):
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    first, again = (RESIDUALS[likelihood](xp, logits, 1, 2, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (RESIDUALS[likelihood](xp, logits, *other) != first).any()
    assert first.dtype == np.float32


@pytest.mark.parametrize("likelihood", sorted(RESIDUALS))
def test_an_empty_batch_draws_nothing(likelihood):
    assert RESIDUALS[likelihood](xp, np.zeros((0, 4), np.float32), 0, 1, 0).shape == (0, 4)
