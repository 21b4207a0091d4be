"""Theorems and identities that decide whether a rule is right, in float64 through the optimizers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hessiod.torch import AdaHessian, Apollo, ApolloW, DiagonalNewton, Sophia, SophiaG, SophiaH

FLOAT = torch.float64
STEPS = 60


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def tensors():
    return [torch.nn.Parameter(normal(*shape, seed=seed)) for seed, shape in enumerate([(4, 3), (5,), ()])]


def set_gradients(params, step):
    """Of a function that is not convex and changes with the step."""
    for place, param in enumerate(params):
        theta = param.detach()
        param.grad = theta - normal(*theta.shape, seed=1000 * place + step) + torch.sin(2 * theta) + theta**3 / 10


def flat(params):
    return torch.cat([param.detach().flatten() for param in params])


# Apollo


def apollo_path(kind=Apollo, **settings):
    params, path = tensors(), []
    opt = kind(params, **settings)
    for step in range(STEPS):
        set_gradients(params, step)
        opt.step()
        path.append(flat(params))
    return torch.stack(path)


def distance(path, other):
    """Relative to each entry's size along its path."""
    return ((path - other).abs() / other.abs().amax(dim=0)).max().item()


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**5])
def test_apollos_scale_of_rate_and_sigma_does_not_matter(scale):
    """Theorem 1, exactly: a power of two rounds nothing. eps is over sigma, so it stays."""
    settings = dict(eps=1e-4, warmup=15)
    path = apollo_path(lr=0.01, sigma=0.01, **settings)
    assert torch.equal(apollo_path(lr=0.01 * scale, sigma=0.01 * scale, **settings), path)
    assert distance(apollo_path(lr=0.01 * scale, sigma=0.01, **settings), path) > 0.01


def test_apollos_scale_of_a_hundred_stays_within_rounding():
    path = apollo_path(lr=0.002, sigma=0.01, warmup=15)
    assert distance(apollo_path(lr=0.2, sigma=1.0, warmup=15), path) < 3e-15


def test_apollos_weak_secant_equation_holds_for_each_tensor():
    """d'B d = -(m - m_before)'d, d the direction before; eps, which perturbs it, is as good as zero here."""
    params = tensors()
    opt = Apollo(params, lr=0.01, sigma=0.01, eps=1e-300, warmup=0)
    for step in range(STEPS):
        before = [{name: torch.as_tensor(v).clone() for name, v in opt.state[p].items()} for p in params]
        set_gradients(params, step)
        opt.step()
        for param, old in zip(params, before, strict=True):
            if old:
                d, new = old["exp_avg_grad"] / old["approx_hessian"].abs().clamp(min=0.01), opt.state[param]
                left = (d * new["approx_hessian"] * d).sum()
                right = -((new["exp_avg_grad"] - old["exp_avg_grad"]) * d).sum()
                size = (d * d * new["approx_hessian"].abs()).sum() + ((new["exp_avg_grad"]).abs() * d.abs()).sum()
                assert abs(left - right) / size < 1e-13
                assert new["approx_hessian"].abs().max() > 0


def test_apollos_average_of_gradients_is_bias_corrected():
    theta = torch.nn.Parameter(torch.zeros(1, dtype=FLOAT))
    opt = Apollo([theta], lr=0.0, beta=0.7, warmup=0)
    grads = [3.0, -1.0, 4.0, 1.0]
    for t, grad in enumerate(grads, start=1):
        theta.grad = torch.tensor([grad], dtype=FLOAT)
        opt.step()
        plain = sum(0.3 * 0.7 ** (t - s) * g for s, g in enumerate(grads[:t], start=1))
        assert opt.state[theta]["exp_avg_grad"].item() == pytest.approx(plain / (1 - 0.7**t), rel=1e-14)


def test_apollos_modes_of_decay_at_the_first_step():
    """D is sigma everywhere then: d = m / sigma, plus wd * theta, or wd / sigma * theta."""
    start, grad, lr, sigma, decay = 2.0, 3.0, 0.1, 0.5, 0.25

    def moved(kind, **settings):
        theta = torch.nn.Parameter(torch.tensor([start], dtype=FLOAT))
        theta.grad = torch.tensor([grad], dtype=FLOAT)
        kind([theta], lr=lr, sigma=sigma, warmup=0, weight_decay=decay, **settings).step()
        return theta.item()

    assert moved(Apollo) == pytest.approx(start - lr * (grad + decay * start) / sigma)
    assert moved(ApolloW) == pytest.approx(start - lr * (grad / sigma + decay * start))
    assert moved(Apollo, weight_decay_type="decoupled") == moved(ApolloW)
    assert moved(Apollo, weight_decay_type="stable") == pytest.approx(start - lr * (grad + decay * start) / sigma)


def test_apollos_warmup_multiplies_a_schedulers_rate():
    """The first step is SGD's with lr / sigma; a constant gradient keeps m at 1 and then B = 0."""
    theta = torch.nn.Parameter(torch.zeros(1, dtype=FLOAT))
    opt = Apollo([theta], lr=1.0, sigma=1.0, warmup=4, warmup_start=0.2)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.5**step)
    places = [0.0]
    for _ in range(7):
        theta.grad = torch.ones_like(theta)
        opt.step()
        schedule.step()
        places.append(theta.item())
    shares = [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(-np.diff(places), [s * 0.5**k for k, s in enumerate(shares)], rtol=1e-12)


# AdaHessian, DiagonalNewton


@pytest.mark.parametrize("every", [1, 3])
def test_adahessians_bias_correction_counts_refreshes(every):
    """Of a constant Hessian v / (1 - beta2^n) is its square at every step, whatever the period."""
    slopes, start = torch.tensor([2.0, -3.0, 0.5], dtype=FLOAT), normal(3)
    theta = torch.nn.Parameter(start.clone())
    opt = AdaHessian([theta], lr=0.1, betas=(0.0, 0.999), eps=0.0, every=every)
    expected, updates = start.clone(), 0
    for _ in range(10):
        loss = (slopes * theta**2).sum() / 2
        if opt.curvature_due:
            opt.update_curvature(loss=loss)
            updates += 1
        opt.zero_grad()
        loss.backward()
        opt.step()
        expected = expected - 0.1 * slopes * expected / slopes.abs()
        np.testing.assert_allclose(theta.detach(), expected, rtol=1e-12)
        assert opt.state[theta]["refreshes"] == updates
    assert updates == (10 if every == 1 else 4)


def stepped(kind, averaging, shape, **settings):
    """The slot v after one refresh with the given estimate, through the optimizer."""
    estimate = normal(*shape, seed=5)
    theta = torch.nn.Parameter(torch.zeros(shape, dtype=FLOAT))
    opt = kind([theta], betas=(0.9, 0.0), spatial_averaging=averaging, **settings)
    opt.update_curvature(loss=(estimate * theta**2).sum() / 2)  # diagonal: the estimate is exact
    theta.grad = torch.zeros_like(theta)
    opt.step()
    return estimate, opt.state[theta]["exp_hessian_diag_sq"]


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 2, 2), (2, 3, 2, 1, 3)], ids=["3-D", "4-D", "5-D"])
def test_adahessian_averages_over_the_kernel(shape):
    estimate, v = stepped(AdaHessian, "kernel", shape)
    means = estimate.abs().mean(dim=tuple(range(2, len(shape))), keepdim=True).expand(shape)
    np.testing.assert_allclose(v, means**2, rtol=1e-14)


@pytest.mark.parametrize("shape", [(), (6,), (4, 3)])
def test_adahessian_leaves_parameters_without_a_kernel_as_they_are(shape):
    estimate, v = stepped(AdaHessian, "kernel", shape)
    np.testing.assert_allclose(v, estimate**2, rtol=1e-14)


def test_adahessians_blocks_average_with_sign_before_the_square():
    estimate, v = stepped(AdaHessian, 4, (2, 5))
    parts = [part.mean().expand(part.shape) for part in torch.split(estimate.flatten(), 4)]
    np.testing.assert_allclose(v.flatten(), torch.cat(parts) ** 2, rtol=1e-13)


@pytest.mark.parametrize("averaging", ["none", "kernel", 3])
def test_adahessian_trains_a_network_of_3_4_and_5_dimensional_kernels(averaging):
    torch.manual_seed(0)
    layers = [torch.nn.Conv1d(2, 4, 3), torch.nn.Conv2d(4, 4, 2), torch.nn.Conv3d(4, 4, 2)]
    model = torch.nn.ModuleList([*layers, torch.nn.ConvTranspose1d(4, 3, 2)])
    opt = AdaHessian(model.parameters(), lr=0.05, spatial_averaging=averaging, every=2)
    x, y = torch.randn(8, 2, 20), torch.arange(8) % 3
    losses = []
    for _ in range(40):
        z = torch.tanh(model[0](x)).reshape(8, 4, 3, 6)
        z = torch.tanh(model[1](z)).reshape(8, 4, 1, 2, 5)
        z = torch.tanh(model[2](F.pad(z, (0, 0, 0, 0, 0, 1)))).flatten(2)
        loss = F.cross_entropy(model[3](z).flatten(1)[:, :3], y)
        if opt.curvature_due:
            opt.update_curvature(loss=loss)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("power", [1, 0.5])
def test_diagonal_newton_is_its_formula_with_the_bias_corrected_by_refreshes(power):
    slopes, start = torch.tensor([4.0, -9.0, 0.0], dtype=FLOAT), normal(3)
    theta, expected = torch.nn.Parameter(start.clone()), start.clone()
    opt = DiagonalNewton([theta], lr=0.1, damping=0.5, weight_decay=0.2, power=power, every=3)
    for _ in range(8):
        loss = (slopes * theta**2).sum() / 2
        if opt.curvature_due:
            opt.update_curvature(loss=loss)
        opt.zero_grad()
        loss.backward()
        opt.step()
        expected = (1 - 0.1 * 0.2) * expected - 0.1 * slopes * expected / (slopes.abs() ** power + 0.5)
        np.testing.assert_allclose(theta.detach(), expected, rtol=1e-12)


# Probes


def estimates(kind, loss, params, steps, **settings):
    """What each of so many steps folds in, by step and entry."""
    opt, found = kind(params, every=1, **settings), []
    for _ in range(steps):
        opt.update_curvature(loss=loss())
        found.append(torch.cat([estimate.flatten() for estimate in opt._estimates().values()]).numpy())
        for param in params:
            param.grad = torch.zeros_like(param)
        opt.step()
    return np.array(found)


@pytest.mark.parametrize(
    ("kind", "probe", "samples"),
    [(SophiaH, "rademacher", 1), (SophiaH, "normal", 1), (AdaHessian, "normal", 2), (DiagonalNewton, "rademacher", 3)],
)
def test_estimates_have_the_hessians_diagonal_as_mean_and_the_probes_variance(kind, probe, samples):
    """Variance of entry i: the sum of H_ij^2 over j != i, for normal probes plus 2 H_ii^2, over the probes' number."""
    n, size = 1500, 5
    root = normal(size, size)
    hessian = root + root.T
    theta = torch.nn.Parameter(normal(size))
    settings = dict(num_vectors=samples) if kind is DiagonalNewton else dict(samples=samples)
    found = estimates(kind, lambda: theta @ hessian @ theta / 2, [theta], n, lr=0.0, probe=probe, **settings)
    hessian, diagonal = hessian.numpy(), np.diag(hessian.numpy())
    variance = (hessian**2).sum(axis=1) - diagonal**2 + (2 * diagonal**2 if probe == "normal" else 0)
    variance = variance / samples
    assert (np.abs(found.mean(axis=0) - diagonal) < 5 * (variance / n) ** 0.5).all()
    spread = (found - diagonal) ** 2
    assert (np.abs(spread.mean(axis=0) - variance) < 5 * spread.std(axis=0) / n**0.5).all()


@pytest.mark.parametrize("closure", [False, True])
def test_samples_are_the_probes_of_as_many_calls(closure):
    def folded(samples, calls):
        params = [torch.nn.Parameter(normal(3, 4)), torch.nn.Parameter(normal(4, seed=1))]

        def loss():
            return torch.tanh(params[0] @ params[1]).square().sum()

        opt = SophiaH(params, samples=samples)
        for _ in range(calls):
            opt.update_curvature(**(dict(closure=loss) if closure else dict(loss=loss())))
        return torch.cat([estimate.flatten() for estimate in opt._estimates().values()])

    np.testing.assert_allclose(folded(4, 1), folded(1, 4), rtol=1e-13)
    np.testing.assert_allclose(folded(2, 2), folded(1, 4), rtol=1e-13)
    assert (folded(1, 1) - folded(1, 4)).abs().max() > 1e-3


# Sophia's estimator, fraction, warm start and timing


def classify(weight, rows=slice(None)):
    inputs, targets = normal(10, 3, seed=7)[rows], (torch.arange(10) % 4)[rows]
    logits = inputs @ weight
    return F.cross_entropy(logits, targets), logits


@pytest.mark.parametrize(
    ("fraction", "rows"), [(0.5, 5), (0.3, 3), (0.1 + 0.2, 3), (0.7, 7), (0.25, 3), (0.01, 1), (0.99, 10), (1.0, 10)]
)
def test_a_fraction_is_the_leading_examples_alone(fraction, rows):
    def folded(part, **settings):
        weight = torch.nn.Parameter(normal(3, 4))
        opt = SophiaG([weight], **settings)
        loss, logits = classify(weight, part)
        opt.update_curvature(loss=loss, logits=logits)
        return opt._estimates()[weight]

    found = folded(slice(None), fraction=fraction)
    np.testing.assert_allclose(found, folded(slice(rows)), rtol=1e-12)
    assert (found > 0).any()


@pytest.mark.parametrize(("kind", "estimator"), [(SophiaG, "gauss-newton-bartlett"), (SophiaH, "hutchinson")])
def test_sophia_with_an_estimators_name_is_its_class(kind, estimator):
    def run(make):
        weight = torch.nn.Parameter(normal(3, 4))
        opt = make([weight])
        for _ in range(12):
            loss, logits = classify(weight)
            if opt.curvature_due:
                opt.update_curvature(loss=loss, logits=logits)
            opt.zero_grad()
            loss.backward()
            opt.step()
        return weight.detach(), opt.defaults

    (ours, defaults), (theirs, others) = run(kind), run(lambda params: Sophia(params, estimator=estimator))
    assert torch.equal(ours, theirs)
    assert defaults == others


def test_a_warm_start_takes_the_first_estimate_whole():
    theta = torch.nn.Parameter(torch.ones(2, dtype=FLOAT))
    opt = SophiaH([theta], lr=0.0, betas=(0.9, 0.75), every=2, warm_start=True)
    h = None
    for step in range(1, 6):
        slopes = torch.tensor([2.0, -3.0], dtype=FLOAT) * step
        if opt.curvature_due:
            opt.update_curvature(loss=(slopes * theta**2).sum() / 2)
            h = slopes if h is None else 0.75 * h + 0.25 * slopes
        theta.grad = torch.zeros(2, dtype=FLOAT)
        opt.step()
        np.testing.assert_allclose(opt.state[theta]["hessian"], h, rtol=1e-14)


def test_the_official_timing_takes_sign_steps_until_step_every_plus_1():
    theta = torch.nn.Parameter(torch.zeros(2, dtype=FLOAT))
    opt = SophiaH([theta], lr=0.5, betas=(0.0, 0.0), rho=1.0, weight_decay=0.0, every=3, timing="official")
    due, moved = [], []
    for _ in range(8):
        before = theta.detach().clone()
        loss = (4 * (theta + 1) ** 2).sum() / 2 + (100 * theta).sum() * 0
        due.append(opt.curvature_due)
        if opt.curvature_due:
            opt.update_curvature(loss=loss * 100)  # h = 400: no clip
        opt.zero_grad()
        loss.backward()
        opt.step()
        moved.append((theta.detach() - before)[0].item())
    assert due == [False, False, False, True, False, False, True, False]
    assert moved[0] == -0.5
    assert [abs(move) for move in moved[:3]] == [0.5, 0.5, 0.0]  # at the minimum then
    assert opt.state[theta]["hessian"].tolist() == [400.0, 400.0]
    assert opt.state[theta]["refreshes"] == 2 == opt.refreshes_by(8)
