"""Curvature estimates against exact Hessians and Gauss-Newton matrices, through the optimizers that users call."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox
from hessiod.core.likelihood import RESIDUALS
from hessiod.torch import SophiaG, SophiaH

FLOAT = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)


def estimate(kind, params, *calls, **settings):
    """The estimate that one step folds in after these calls of update_curvature, by parameter."""
    opt = kind(params, lr=0.0, betas=(0.0, 0.0), weight_decay=0.0, **settings)
    for call in calls:
        opt.update_curvature(**call())
    for param in params:
        param.grad = torch.zeros_like(param)
    opt.step()
    return [opt.state[param]["hessian"] for param in params]


# Hutchinson


def test_freezing_a_parameter_leaves_the_others_their_probes():
    """A parameter's probe is keyed by its position in the optimizer, counted through the groups."""
    matrix = normal(5, 5, seed=1)
    found = []
    for frozen in (False, True):
        first, second = torch.nn.Parameter(normal(3)), torch.nn.Parameter(normal(5))
        first.requires_grad_(not frozen)
        groups = [{"params": [first]}, {"params": [second]}]
        opt = SophiaH(groups, lr=0.0, betas=(0.0, 0.0), weight_decay=0.0)
        loss = second @ (matrix @ matrix.T) @ second + first.sum()
        opt.update_curvature(loss=loss)
        loss.backward()
        opt.step()
        found.append(opt.state[second]["hessian"])
    assert torch.equal(*found)
    assert (found[0] != 2 * (matrix @ matrix.T).diagonal()).all()  # one probe: not exact, so it shows the probe


def network():
    """A small network's parameters and its loss; no two layers have the same shape."""
    params = [torch.nn.Parameter(normal(*shape, seed=seed)) for seed, shape in enumerate([(3, 4), (4,), (4, 2), ()])]
    inputs, targets = normal(6, 3, seed=9), torch.tensor([0, 1, 1, 0, 1, 0])

    def loss(w1, b, w2, scale):
        return F.cross_entropy(torch.tanh(inputs @ w1 + b) @ w2 * scale, targets)

    return params, loss


def exact_hessian(params, loss):
    """The whole Hessian over all parameters, flattened, from forward-over-reverse mode."""
    sizes = [param.numel() for param in params]

    def of_flat(flat):
        parts = torch.split(flat, sizes)
        return loss(*[part.reshape(param.shape) for part, param in zip(parts, params, strict=True)])

    flat = torch.cat([param.detach().flatten() for param in params])
    return torch.func.hessian(of_flat)(flat).numpy()


def numpy_probe(params, step, sample, seed=0):
    likes = [np.zeros(tuple(param.shape)) for param in params]
    return np.concatenate([p.ravel() for p in philox.rademacher_probes(xp, likes, seed=seed, step=step, sample=sample)])


def flat(tensors):
    return np.concatenate([tensor.numpy().ravel() for tensor in tensors])


def test_hutchinson_is_exact_for_a_diagonal_hessian_with_one_probe():
    slopes = torch.tensor([3.0, -0.5, 0.0, 1e6], dtype=FLOAT)
    theta = torch.nn.Parameter(normal(4))
    found = estimate(SophiaH, [theta], lambda: dict(loss=(slopes * theta**2).sum() / 2))
    np.testing.assert_allclose(found[0], slopes, rtol=1e-15)


@pytest.mark.parametrize("closure", [False, True])
def test_hutchinson_is_the_probe_times_its_product_with_the_exact_hessian(closure):
    params, loss = network()
    call = (lambda: dict(closure=lambda: loss(*params))) if closure else (lambda: dict(loss=loss(*params)))
    hessian, probe = exact_hessian(params, loss), numpy_probe(params, step=1, sample=0, seed=5)
    found = flat(estimate(SophiaH, params, call, seed=5))
    np.testing.assert_allclose(found, probe * (hessian @ probe), rtol=1e-11, atol=1e-13)
    assert np.abs(found - np.diag(hessian)).max() > 1e-3  # the off-diagonal part is seen


def test_several_hutchinson_calls_average_over_different_probes():
    params, loss = network()
    hessian = exact_hessian(params, loss)
    probes = [numpy_probe(params, step=1, sample=sample) for sample in range(3)]
    expected = np.mean([probe * (hessian @ probe) for probe in probes], axis=0)
    found = flat(estimate(SophiaH, params, *[lambda: dict(loss=loss(*params))] * 3))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_hutchinson_over_many_steps_has_the_hessians_diagonal_as_mean_and_its_rows_as_variance():
    n, size = 2000, 5
    root = normal(size, size)
    hessian = root + root.T
    theta = torch.nn.Parameter(normal(size))
    opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0), every=1)
    found = []
    for _ in range(n):
        opt.update_curvature(loss=theta @ hessian @ theta / 2)
        theta.grad = torch.zeros(size, dtype=FLOAT)
        opt.step()
        found.append(opt.state[theta]["hessian"].numpy().copy())
    found, hessian = np.array(found), hessian.numpy()
    variance = (hessian**2).sum(axis=1) - np.diag(hessian) ** 2
    assert (np.abs(found.mean(axis=0) - np.diag(hessian)) < 5 * (variance / n) ** 0.5).all()
    spread = (found - np.diag(hessian)) ** 2
    assert (np.abs(spread.mean(axis=0) - variance) < 5 * spread.std(axis=0) / n**0.5).all()


def test_a_loss_linear_in_its_parameters_and_a_parameter_outside_of_it_have_no_curvature():
    inside, outside = torch.nn.Parameter(normal(3)), torch.nn.Parameter(normal(2))
    found = estimate(SophiaH, [inside, outside], lambda: dict(loss=(2 * inside).sum()))
    assert all((part == 0).all() for part in found)
    found = estimate(SophiaH, [inside, outside], lambda: dict(loss=(inside**2).sum()))
    assert found[0].tolist() == [2.0, 2.0, 2.0]
    assert found[1].tolist() == [0.0, 0.0]


# Gauss-Newton-Bartlett

COPIES = 20_000
BATCH, INPUTS, HIDDEN, CLASSES = 5, 3, 2, 3


def copies():
    """A network in 20,000 copies with equal weights, so that one call draws 20,000 independent sets of targets."""
    first, second = normal(INPUTS, HIDDEN, seed=1), normal(HIDDEN, CLASSES, seed=2)
    return [torch.nn.Parameter(weight.expand(COPIES, *weight.shape).clone()) for weight in (first, second)]


def outputs(params, inputs):
    return torch.tanh(inputs @ params[0]) @ params[1]


def gauss_newton_diagonal(params, inputs, likelihood):
    """The mean over the batch of diag(J' F J), J from reverse mode, F (the output's Fisher matrix) by formula."""
    first, second = (param[0].detach() for param in params)
    jacobians = torch.func.jacrev(lambda *weights: outputs(weights, inputs), argnums=(0, 1))(first, second)
    jacobian = torch.cat([j.reshape(len(inputs), CLASSES, -1) for j in jacobians], dim=-1)
    z = outputs([first, second], inputs)
    if likelihood == "categorical":
        p = torch.softmax(z, dim=-1)
        fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    elif likelihood == "bernoulli":
        s = torch.sigmoid(z)
        fisher = torch.diag_embed(s * (1 - s))
    else:
        fisher = torch.diag_embed(torch.ones_like(z))
    return torch.einsum("bci,bcd,bdi->i", jacobian, fisher, jacobian).numpy() / count_of(likelihood, len(inputs))


def count_of(likelihood, rows):
    """How many targets a mean loss over these rows averages."""
    return rows if likelihood == "categorical" else rows * CLASSES


def loss_of(logits, likelihood):
    if likelihood == "categorical":
        targets = torch.arange(logits[..., 0].numel()) % CLASSES
        return F.cross_entropy(logits.flatten(0, -2), targets)
    if likelihood == "bernoulli":
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.25))
    return F.mse_loss(logits, torch.zeros_like(logits)) / 2


@pytest.mark.parametrize("parts", [[BATCH], [2, 3]], ids=["one call", "two micro-batches"])
@pytest.mark.parametrize("likelihood", sorted(RESIDUALS))
def test_gnb_estimates_the_diagonal_of_the_generalized_gauss_newton_matrix(likelihood, parts):
    params, inputs = copies(), normal(BATCH, INPUTS, seed=3)

    def call(part):
        logits = outputs(params, part)
        return dict(loss=loss_of(logits, likelihood), logits=logits)

    calls = [lambda part=part: call(part) for part in torch.split(inputs, parts)]
    found = estimate(SophiaG, params, *calls, likelihood=likelihood)
    # All copies are one loss with COPIES * B targets, of which each copy's gradient is a share 1 / COPIES.
    samples = np.concatenate([COPIES * part.reshape(COPIES, -1).numpy() for part in found], axis=1)
    expected = gauss_newton_diagonal(params, inputs, likelihood)
    assert (np.abs(samples.mean(axis=0) - expected) < 5 * samples.std(axis=0) / COPIES**0.5).all()
    assert abs(samples.mean(axis=0).sum() / expected.sum() - 1) < 0.015


def linear(rows, classes=5, seed=0):
    weight = torch.nn.Parameter(normal(3, classes, seed=seed))
    inputs = normal(rows, 3, seed=seed + 1)
    targets = torch.arange(rows) % classes
    return weight, inputs, targets


def sampled_gradient(weight, inputs, sample, likelihood="categorical", used=None):
    """The gradient of the sampled losses' sum for a linear map, with numpy's residuals."""
    residual = RESIDUALS[likelihood](xp, (inputs @ weight).detach().numpy(), 0, 1, sample)
    if used is not None:
        residual = residual * used
    return inputs.numpy().T @ residual


def test_gnb_adds_totals_and_counts_over_calls_and_squares_last():
    weight, inputs, targets = linear(12)
    parts = [slice(0, 7), slice(7, 12)]

    def call(part):
        logits = inputs[part] @ weight
        return dict(loss=F.cross_entropy(logits, targets[part]), logits=logits)

    (found,) = estimate(SophiaG, [weight], *[lambda part=part: call(part) for part in parts])
    total = sum(sampled_gradient(weight, inputs[part], sample) for sample, part in enumerate(parts))
    np.testing.assert_allclose(found, 12 * (total / 12) ** 2, rtol=1e-12)


@pytest.mark.parametrize("closure", [False, True])
def test_gnb_leaves_ignored_targets_out_of_gradient_and_count(closure):
    weight, inputs, targets = linear(10)
    used = np.arange(10) % 3 != 0
    targets[~torch.tensor(used)] = -100

    def forward():
        logits = inputs @ weight
        return F.cross_entropy(logits, targets, ignore_index=-100), logits

    call = (
        (lambda: dict(closure=forward)) if closure else (lambda: dict(zip(("loss", "logits"), forward(), strict=True)))
    )
    (found,) = estimate(SophiaG, [weight], call)
    total = sampled_gradient(weight, inputs, 0, used=used[:, None])
    assert used.sum() == 6
    np.testing.assert_allclose(found, 6 * (total / 6) ** 2, rtol=1e-12)


def test_gnb_leaves_entries_that_a_mask_removes_from_a_bernoulli_loss_out():
    weight, inputs, _ = linear(4)
    mask = torch.arange(20).reshape(4, 5) % 4 != 1

    def call():
        logits = inputs @ weight
        losses = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.3), reduction="none")
        return dict(loss=(losses * mask).sum() / mask.sum(), logits=logits)

    (found,) = estimate(SophiaG, [weight], call, likelihood="bernoulli")
    total = sampled_gradient(weight, inputs, 0, "bernoulli", used=mask.numpy())
    np.testing.assert_allclose(found, 15 * (total / 15) ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        dict(weight=torch.tensor([1.0, 5.0, 0.1, 2.0, 3.0], dtype=FLOAT)),
        dict(label_smoothing=0.2),
        dict(reduction="sum"),
    ],
    ids=lambda options: next(iter(options)),
)
def test_class_weights_smoothing_and_scale_of_the_users_loss_do_not_change_the_estimate(options):
    weight, inputs, targets = linear(8)

    def call(**options):
        logits = inputs @ weight
        return dict(loss=1024 * F.cross_entropy(logits, targets, **options), logits=logits)

    plain, changed = (estimate(SophiaG, [weight], lambda chosen=chosen: call(**chosen)) for chosen in ({}, options))
    assert torch.equal(plain[0], changed[0])
    assert (plain[0] > 0).all()


def test_gnb_draws_new_targets_at_every_step_and_for_every_seed():
    weight, inputs, targets = linear(8)

    def run(seed):
        opt = SophiaG([weight], lr=0.0, betas=(0.0, 0.0), every=1, seed=seed)
        for _ in range(2):
            logits = inputs @ weight
            loss = F.cross_entropy(logits, targets)
            opt.update_curvature(loss=loss, logits=logits)
            loss.backward()
            opt.step()
            opt.zero_grad()
            yield opt.state[weight]["hessian"].clone()

    first, second = run(0)
    other, _ = run(1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [SophiaG, SophiaH])
def test_update_curvature_leaves_gradients_and_graph_for_the_backward(kind):
    weight, inputs, targets = linear(6)
    logits = inputs @ weight
    loss = F.cross_entropy(logits, targets)
    opt = kind([weight])
    opt.update_curvature(loss=loss, logits=logits)
    assert weight.grad is None
    loss.backward()
    p = torch.softmax(inputs @ weight.detach(), dim=-1) - F.one_hot(targets, 5)
    np.testing.assert_allclose(weight.grad, inputs.T @ p / 6, rtol=1e-12, atol=1e-15)


def test_an_estimate_enters_the_average_with_its_weight_and_serves_one_step():
    theta = torch.nn.Parameter(torch.ones(2, dtype=FLOAT))
    opt = SophiaH([theta], lr=0.0, betas=(0.9, 0.75), every=3)
    due, h = [], np.zeros(2)
    for step in range(1, 8):
        slopes = torch.tensor([2.0, -3.0], dtype=FLOAT) * step  # the Hessian at this step, diagonal: known exactly
        loss = (slopes * theta**2).sum() / 2
        due.append(opt.curvature_due)
        if opt.curvature_due:
            opt.update_curvature(loss=loss)
            h = 0.75 * h + 0.25 * slopes.numpy()
        loss.backward()
        opt.step()
        opt.zero_grad()
        np.testing.assert_allclose(opt.state[theta]["hessian"], h, rtol=1e-14)
    assert due == [True, False, False, True, False, False, True]


def test_an_estimate_given_before_it_is_due_is_used_at_once():
    theta = torch.nn.Parameter(torch.ones(1, dtype=FLOAT))
    opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0), every=10)
    for slope in (2.0, 7.0):
        loss = slope * (theta**2).sum() / 2
        opt.update_curvature(loss=loss)
        loss.backward()
        opt.step()
    assert opt.state[theta]["hessian"].item() == 7.0


def test_tied_parameters_have_one_state_and_the_curvature_of_both_uses():
    tied = torch.nn.Parameter(normal(4, 3))
    tokens = torch.tensor([0, 2, 3, 1, 2])

    def loss(weight):
        return F.cross_entropy(torch.tanh(weight[tokens]) @ weight.T, tokens.roll(1))

    model = torch.nn.Module()
    model.embed, model.head = torch.nn.Embedding(4, 3), torch.nn.Linear(3, 4, bias=False)
    model.embed.weight = model.head.weight = tied
    hessian, probe = exact_hessian([tied], loss), numpy_probe([tied], step=1, sample=0)
    params = list(model.parameters())
    found = estimate(SophiaH, params, lambda: dict(loss=loss(model.embed.weight)))
    assert len(found) == 1
    np.testing.assert_allclose(flat(found), probe * (hessian @ probe), rtol=1e-11, atol=1e-13)
