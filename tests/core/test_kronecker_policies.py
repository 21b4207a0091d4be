"""The three policies on scripted series, the recipes, and Levenberg-Marquardt's rule."""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.core import InvalidArgument
from hessiod.core.kronecker import damping, fixed, heavy_ball, recipes, stale, trace_rule


def refreshes(statistic_at, steps, alpha=0.1):
    """The steps at which SP-NGD refreshes a statistic that is a function of the step."""
    interval, found, kept = stale.Interval(), [], []
    for step in range(1, steps + 1):
        if interval.due(step):
            new = statistic_at(step)
            similar = [bool(stale.change(xp, new, old) < alpha) for old in kept[-1:-3:-1]] + [False, False]
            interval = interval.after(step, similar[0], similar[1])
            kept.append(new)
            found.append(step)
    return found


def test_a_statistic_that_stands_still_is_refreshed_at_fibonacci_intervals():
    assert refreshes(lambda step: np.eye(2), 60) == [1, 2, 3, 5, 8, 13, 21, 34, 55]


def test_a_statistic_that_always_changes_is_refreshed_at_every_step():
    assert refreshes(lambda step: np.eye(2) * 2.0**step, 6) == [1, 2, 3, 4, 5, 6]


def test_a_jump_halves_the_interval():
    """Intervals 1, 1, 2, 3, 5, 8 up to step 21; the jump at 15 is seen there: 8 // 2 = 4, then 4 again, then 4 + 4."""
    assert refreshes(lambda step: np.eye(2) * (1.0 if step < 15 else 5.0), 50) == [
        1,
        2,
        3,
        5,
        8,
        13,
        21,
        25,
        29,
        37,
        49,
    ]


def test_a_slow_drift_keeps_the_interval():
    """8 % a step: similar to the last statistic at interval 1, not to the one before."""
    assert refreshes(lambda step: np.eye(2) * 1.08**step, 6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("last", "before", "similar", "expected"),
    [
        (8, 5, (False, False), 4),
        (8, 5, (False, True), 4),
        (8, 5, (True, False), 8),
        (8, 5, (True, True), 13),
        (1, 1, (False, False), 1),
        (3, 2, (False, False), 1),
    ],
)
def test_the_interval_rule(last, before, similar, expected):
    assert stale.next_interval(last, before, *similar) == expected


def test_a_statistic_that_was_zero_is_not_similar_to_one_that_is_not():
    assert stale.change(xp, np.ones(3), np.zeros(3)) > 1e20
    assert stale.change(xp, np.zeros(3), np.zeros(3)) == 0


def test_thor_refreshes_keeps_and_freezes_on_a_scripted_series_of_traces():
    """The last refresh is what is compared with: a slow creep adds up until it is refreshed."""
    check, found = trace_rule.Check(), []
    traces = iter([1.0, 1.02, 1.025, 1.029, 1.0405, 1.0410, 9.9])
    for step in range(1, 200):
        if check.due(step):
            trace = next(traces)
            verdict = trace_rule.verdict(trace, check.trace)
            check = check.after(step, verdict, trace, every=10, growth=2.0, longest=30)
            found.append((step, verdict))
    assert found == [
        (1, "refresh"),
        (11, "refresh"),
        (21, "keep"),
        (41, "keep"),
        (71, "refresh"),
        (81, "freeze"),
    ]


def test_thor_counts_the_damping_into_the_trace():
    """A trace that doubles hardly matters beside a large damping."""
    traces = [trace_rule.damped_trace(a, 4, 2.0, 3, damping=1e3) for a in (1.0, 2.0)]
    assert trace_rule.verdict(traces[1], traces[0]) == "freeze"


@pytest.mark.parametrize("thresholds", [(0.001, 0.01), (0.01, -1.0), 0.01, (0.01,)])
def test_thresholds_that_contradict_each_other_are_refused(thresholds):
    with pytest.raises(InvalidArgument, match=r"thresholds: found .*expected .w1, w2. with w1 >= w2 >= 0"):
        trace_rule.check_thresholds(thresholds)


def test_fixed_intervals():
    assert [step for step in range(1, 50) if fixed.due(step, 20)] == [1, 21, 41]
    assert [step for step in range(1, 12) if fixed.inverse_due(step, 5, refreshes=3)] == [1, 6, 11]
    assert fixed.inverse_due(3, 20, refreshes=2)
    assert not fixed.inverse_due(1, 20, refreshes=0)
    for value in (0, 1.5, True, None):
        with pytest.raises(InvalidArgument, match=r"factor_every: found .*, expected a whole number of steps >= 1"):
            fixed.check_interval("factor_every", value)


def test_levenberg_marquardt_follows_the_quadratic_model():
    rule = damping.LevenbergMarquardt(every=5, low=1e-3, high=1e3)
    w = 0.95**5
    assert rule.next(1.0, before=2.0, after=1.0, model=-1.0) == pytest.approx(w)  # as predicted
    assert rule.next(1.0, before=2.0, after=1.5, model=-1.0) == 1.0
    assert rule.next(1.0, before=2.0, after=2.5, model=-1.0) == pytest.approx(1 / w)  # it rose
    assert rule.next(1.0, before=2.0, after=float("nan"), model=-1.0) == pytest.approx(1 / w)
    assert rule.next(1.0, before=2.0, after=1.0, model=0.0) == 1.0
    assert rule.next(1e-3, before=2.0, after=1.0, model=-1.0) == 1e-3
    assert rule.next(1e3, before=2.0, after=3.0, model=-1.0) == 1e3


def test_recipes_reproduce_the_published_tables():
    """SP-NGD at a batch of 4,096 (Table 2) and MindSpore's ResNet-50 for THOR, by hand."""
    lr = recipes.polynomial_lr(27.0, lr=8.18e-3, start=1.0, end=53.0, power=11.0)
    assert lr == pytest.approx(8.18e-3 * 0.5**11)
    assert recipes.coupled_momentum(lr, first_lr=8.18e-3, momentum=0.997) == pytest.approx(0.997 * 0.5**11)
    assert recipes.thor_damping(10.0, damping=0.03, decay=0.50036) == pytest.approx(0.03 * 0.50036)
    assert recipes.thor_lr(53.0, lr=0.05803, total=53.0, decay=4.0839) == 0.0


def test_the_heavy_ball_is_sgd_with_momentum_at_a_constant_rate_and_not_at_a_falling_one():
    grads = np.random.default_rng(0).normal(size=(6, 3))

    def run(rates):
        theta, v = np.ones(3), np.zeros(3)
        for lr, grad in zip(rates, grads, strict=True):
            scalars = heavy_ball.velocity_scalars(lr=lr, momentum=0.9, weight_decay=0.1)
            theta, v = heavy_ball.velocity_kernel(xp, theta, grad, v, **scalars)
        return theta

    def sgd(rates):
        theta, b = np.ones(3), np.zeros(3)
        for lr, grad in zip(rates, grads, strict=True):
            b = 0.9 * b + grad + 0.1 * theta
            theta = theta - lr * b
        return theta

    np.testing.assert_allclose(run([0.1] * 6), sgd([0.1] * 6), rtol=1e-12)
    falling = [0.1, 0.08, 0.05, 0.02, 0.01, 0.0]
    assert np.abs(run(falling) - sgd(falling)).max() > 1e-3


def test_running_mixup_is_an_exponential_average_of_batches():
    first, second = np.array([1.0]), np.array([3.0])
    assert heavy_ball.mixed(xp, second, first, share=0.25).tolist() == [1.5]
