"""What a call leaves behind (nothing), and what estimates from probes promise."""

import gc

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hessiod.torch import SophiaH, gauss_newton_diagonal, hessian_diagonal, hessian_trace, hvp

X, Y = torch.linspace(-1, 1, 24).view(8, 3).sin(), torch.arange(8) % 4
CALLS = {
    "reverse": lambda closure, params: hvp(closure, params, [torch.ones_like(p) for p in params], "reverse"),
    "forward": lambda closure, params: hvp(closure, params, [torch.ones_like(p) for p in params], "forward"),
    "differences": lambda closure, params: hvp(
        closure, params, [torch.ones_like(p) for p in params], "finite-difference"
    ),
    "diagonal": lambda closure, params: hessian_diagonal(closure, params, samples=2),
    "trace": lambda closure, params: hessian_trace(closure, params, samples=2),
    "optimizer": lambda closure, params: SophiaH(params).update_curvature(closure=closure),
}


def network(dropout=0.3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 4))


@pytest.mark.parametrize("call", CALLS)
def test_a_training_run_is_the_same_with_and_without_it(call):
    """Weights, gradients, statistics, random state, and a graph that is waiting for its backward."""

    def run(measured):
        model = network()
        params = list(model.parameters())
        opt, seen = torch.optim.SGD(params, lr=0.1), []
        for _ in range(3):
            loss = F.cross_entropy(model(X), Y)
            if measured:
                CALLS[call](lambda: F.cross_entropy(model(X), Y), params)
            loss.backward()
            if measured:
                CALLS[call](lambda: F.cross_entropy(model(X), Y), params)
            opt.step()
            opt.zero_grad()
            seen.append(loss.detach())
        return [*seen, *(value.clone() for value in model.state_dict().values()), torch.get_rng_state()]

    for found, expected in zip(run(True), run(False), strict=True):
        assert torch.equal(found, expected)


def test_an_error_leaves_everything_as_it_was():
    model, runs = network(), []
    params = list(model.parameters())
    before = [value.clone() for value in (*model.state_dict().values(), torch.get_rng_state())]

    def closure():
        runs.append(1)
        if len(runs) == 3:
            raise KeyError("a user's own")
        return F.cross_entropy(model(X), Y)

    with pytest.raises(KeyError):
        hvp(closure, params, [torch.ones_like(p) for p in params], "finite-difference")
    after = (*model.state_dict().values(), torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(param.grad is None for param in params)


def test_all_runs_of_a_call_see_one_dropout_mask():
    """Differences across two masks would be off by far more than a thousandth."""
    model = network(dropout=0.5)
    params = list(model.parameters())

    def closure():
        return F.cross_entropy(model(X), Y)

    v = [torch.sin(torch.arange(float(p.numel()))).view(p.shape) for p in params]
    exact, near = (torch.cat([h.flatten() for h in hvp(closure, params, v, m)]) for m in ("auto", "finite-difference"))
    assert (exact - near).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize("call", CALLS)
def test_five_hundred_refreshes_leave_no_tensor_and_no_cycle(call):
    model = network()
    params = list(model.parameters())

    def refresh():
        CALLS[call](lambda: F.cross_entropy(model(X), Y), params)

    def live():
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    for _ in range(3):
        refresh()
    gc.collect()
    gc.disable()  # a cycle that holds tensors shows as growth
    try:
        before = live()
        for _ in range(500 if call == "optimizer" else 30):
            refresh()
        assert live() == before
    finally:
        gc.enable()


def test_what_is_remembered_goes_with_the_parameters():
    from hessiod.backends_torch.derivatives.engine import _KNOWN

    gc.collect()
    before = len(_KNOWN)

    def go():
        model = network()
        params = list(model.parameters())
        hvp(lambda: F.cross_entropy(model(X), Y), params, [torch.ones_like(p) for p in params])
        assert len(_KNOWN) == before + 1

    go()
    gc.collect()
    assert len(_KNOWN) == before


# Estimates


def quadratic(hessian):
    hessian = torch.as_tensor(hessian)
    theta = torch.ones(len(hessian), dtype=torch.float64, requires_grad=True)
    return (lambda: theta @ hessian @ theta / 2), [theta]


def symmetric(size=6):
    root = np.random.default_rng(0).normal(size=(size, size))
    return root + root.T


@pytest.mark.parametrize("method", ["auto", "forward"])
def test_one_probe_is_exact_for_a_diagonal_hessian(method):
    diagonal = torch.tensor([3.0, -0.5, 0.0, 1e6, 1e-6], dtype=torch.float64)
    closure, params = quadratic(torch.diag(diagonal))
    assert torch.equal(hessian_diagonal(closure, params, method=method)[0], diagonal)
    assert hessian_trace(closure, params, samples=3, method=method).value == pytest.approx(
        float(diagonal.sum()), rel=1e-15
    )


@pytest.mark.parametrize("probe", ["rademacher", "normal"])
def test_the_variance_is_the_formulas(probe):
    hessian, n = symmetric(), 1000
    closure, params = quadratic(hessian)
    diagonal = np.diag(hessian)
    found = np.array([hessian_diagonal(closure, params, seed=seed, probe=probe)[0].numpy() for seed in range(n)])
    variance = (hessian**2).sum(axis=1) - diagonal**2 + (2 * diagonal**2 if probe == "normal" else 0)
    assert (np.abs(found.mean(axis=0) - diagonal) < 5 * (variance / n) ** 0.5).all()
    spread = (found - diagonal) ** 2
    assert (np.abs(spread.mean(axis=0) - variance) < 5 * spread.std(axis=0) / n**0.5).all()


def test_the_standard_error_covers_the_trace_in_95_of_100_trials():
    """364 to 394 of 400 hold 99.9 % of a binomial with p = 0.95; 2.365 is Student's quantile for 8 probes."""
    hessian = symmetric(12)
    closure, params = quadratic(hessian)
    trials = [hessian_trace(closure, params, samples=8, seed=seed) for seed in range(400)]
    covered = sum(abs(t.value - np.trace(hessian)) <= 2.365 * t.standard_error for t in trials)
    assert 364 <= covered <= 394
    formula = (2 * ((hessian**2).sum() - (np.diag(hessian) ** 2).sum()) / 8) ** 0.5
    assert np.mean([t.standard_error**2 for t in trials]) == pytest.approx(formula**2, rel=0.1)


DRAWS = 400
SPREAD = 3.5 * (2.0 / DRAWS) ** 0.5
"""An estimate is the square of a nearly normal number, whose standard deviation is its mean times the root of 2: 3.5 of
those of the mean over the draws, at the largest entry."""


def gauss_newton_of_softmax(inputs, weight, keep):
    """diag of the mean over kept rows of J' (diag p - p p') J for logits = inputs @ weight."""
    p = torch.softmax(inputs @ weight, -1)[keep]
    return torch.einsum("ni,nc->ic", inputs[keep] ** 2, p * (1 - p)) / keep.sum()


def test_the_gauss_newton_diagonal_has_the_exact_mean_with_and_without_a_mask():
    x = X.double()
    weight = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4).requires_grad_()
    for keep in (torch.ones(8, dtype=torch.bool), torch.arange(8) % 3 != 0):
        (found,) = gauss_newton_diagonal(lambda: x @ weight, [weight], samples=DRAWS, mask=keep)
        expected = gauss_newton_of_softmax(x, weight.detach(), keep)
        assert ((found - expected).abs() < SPREAD * expected.max()).all()
        halves = [lambda half=half: x[half] @ weight for half in (slice(0, 3), slice(3, 8))]
        masks = [keep[:3], keep[3:]]
        (parts,) = gauss_newton_diagonal(halves, [weight], samples=DRAWS, mask=masks)
        assert ((parts - expected).abs() < SPREAD * expected.max()).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_gauss_newton_diagonal_of_entries(likelihood):
    x = X.double()
    weight = torch.linspace(-1, 1, 6, dtype=torch.float64).view(3, 2).requires_grad_()
    keep = torch.arange(16).view(8, 2) % 3 != 0
    (found,) = gauss_newton_diagonal(lambda: x @ weight, [weight], samples=DRAWS, likelihood=likelihood, mask=keep)
    s = torch.sigmoid(x @ weight.detach())
    curved = (s * (1 - s) if likelihood == "bernoulli" else torch.ones_like(s)) * keep
    expected = torch.einsum("ni,nc->ic", x**2, curved) / keep.sum()
    assert ((found - expected).abs() < SPREAD * expected.max()).all()


def test_a_perfect_fit_counts_its_targets_with_a_mask():
    """Without one, a zero gradient means ignored; here every target is met exactly."""
    from hessiod.core.errors import InvalidArgument, InvalidState
    from hessiod.torch import SophiaG

    weight = torch.zeros(3, 2, requires_grad=True)
    mean = X @ weight
    opt = SophiaG([weight], likelihood="gaussian", betas=(0.0, 0.0), lr=0.0)
    opt.update_curvature(loss=0.5 * (mean - 0.0).square().mean(), logits=mean)
    with pytest.raises(InvalidState, match="every target is ignored"):
        opt._estimates()
    opt = SophiaG([weight], likelihood="gaussian", betas=(0.0, 0.0), lr=0.0)
    opt.update_curvature(logits=mean, mask=torch.ones(8, 2))
    assert (opt._estimates()[weight] > 0).all()
    with pytest.raises(InvalidArgument, match=r"mask: found the shape \(8,\), expected \(8, 2\)"):
        opt.update_curvature(logits=X @ weight, mask=torch.ones(8))
    with pytest.raises(InvalidArgument, match="mask: found one with a Hutchinson"):
        SophiaH([weight]).update_curvature(loss=(X @ weight).square().mean(), mask=torch.ones(8, 2))
