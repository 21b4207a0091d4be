"""Sophia against optax.contrib's, in float64: three stated differences, and 50 equal steps once they are allowed for.

optax corrects the bias of the gradient's average, steps with the curvature of the *last* refresh (the new estimate is
folded in after the step), and floors the denominator at 1e-8. The paper's Algorithm 3 does none of these: it divides
the plain average by curvature that includes this step's estimate, and its eps is 1e-12.
"""

import numpy as np
import pytest
import torch

from hessiod.torch import SophiaH

optax = pytest.importorskip("optax")
jax = pytest.importorskip("jax")

STEPS, EVERY, LR, B1, B2, GAMMA, EPS, DECAY = 50, 10, 0.02, 0.9, 0.95, 0.05, 1e-8, 0.1
START = np.random.default_rng(0).normal(size=30)


def gradient(theta, step, xp):
    """Of a function that is not convex and changes with the step."""
    target = np.random.default_rng(step).normal(size=30)
    return theta - target + xp.sin(2 * theta)


def curvature(step):
    """An estimate given to both, some of it negative."""
    return 30 * np.random.default_rng(1000 + step).normal(size=30) + 20


@pytest.fixture(scope="module")
def theirs():
    """optax's parameters after each step."""
    from jax.experimental import enable_x64

    with enable_x64():
        table = jax.numpy.asarray([curvature(step) for step in range(STEPS)])
        given = optax.GradientTransformation(
            lambda params: jax.numpy.zeros((), int), lambda updates, count, params=None: (table[count], count + EVERY)
        )
        settings = dict(b1=B1, b2=B2, gamma=GAMMA, eps=EPS, weight_decay=DECAY, update_interval=EVERY)
        opt = optax.contrib.sophia(LR, hessian_diagonal_fn=given, **settings)
        theta, path = jax.numpy.asarray(START), []
        state, update = opt.init(theta), jax.jit(opt.update)
        for step in range(STEPS):
            updates, state = update(gradient(theta, step, jax.numpy), state, theta)
            theta = optax.apply_updates(theta, updates)
            path.append(np.asarray(theta))
    return np.array(path)


def ours(late, corrected):
    """Our parameters after each step; ``late`` gives each estimate one step later, ``corrected`` undoes the bias."""
    theta = torch.nn.Parameter(torch.tensor(START))
    opt = SophiaH([theta], lr=LR, betas=(B1, B2), rho=GAMMA, eps=EPS, weight_decay=DECAY)
    path, clipped = [], []
    for step in range(STEPS):
        source = step - 1 if late else step
        due = source >= 0 and source % EVERY == 0
        given = {theta: torch.tensor(curvature(source))} if due else None
        opt._estimates = lambda given=given: given
        if corrected:  # clip(m / c / max(rho h, eps)) = clip(m / max(c rho h, c eps))
            correction = 1 - B1 ** (step + 1)
            opt.param_groups[0].update(rho=GAMMA * correction, eps=EPS * correction)
        theta.grad = gradient(theta.detach(), step, torch)
        opt.step()
        path.append(theta.detach().numpy().copy())
        clipped.append(opt.clip_fraction())
    return np.array(path), np.mean(clipped)


def relative(path, reference):
    return (np.abs(path - reference) / np.abs(reference).max(axis=0)).max()


def test_with_the_estimates_a_step_late_and_the_bias_corrected_it_is_optax_for_fifty_steps(theirs):
    path, clipped = ours(late=True, corrected=True)
    assert 0.1 < clipped < 0.9
    assert relative(path, theirs) < 1e-6


@pytest.mark.parametrize(("late", "corrected"), [(False, False), (True, False), (False, True)])
def test_each_difference_from_the_paper_matters(theirs, late, corrected):
    assert relative(ours(late, corrected)[0], theirs) > 1e-3


def test_at_the_first_step_the_paper_divides_by_curvature_and_optax_takes_signs(theirs):
    """Algorithm 3 folds the first estimate in before it divides; optax's first step is lr * sign."""
    shrunk = (1 - LR * DECAY) * START
    np.testing.assert_allclose(theirs[0], shrunk - LR * np.sign(gradient(START, 0, np)), rtol=1e-12)
    m, h = (1 - B1) * gradient(START, 0, np), (1 - B2) * curvature(0)
    paper = shrunk - LR * np.clip(m / np.maximum(GAMMA * h, EPS), -1, 1)
    np.testing.assert_allclose(ours(late=False, corrected=False)[0][0], paper, rtol=1e-12)
