"""First-order rules against torch.optim in float64, with groups, schedulers and closures."""

import pytest
import torch
from torch.optim import lr_scheduler

from hessiod.torch import SGD, AdamW

STEPS = 50


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (5,), ()]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def loss_of(params, step):
    """A non-convex function that changes with the step."""
    generator = torch.Generator().manual_seed(step)
    loss = torch.zeros((), dtype=torch.float64)
    for param in params:
        target = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        loss = loss + ((param - target) ** 2).sum() + torch.sin(3 * param).sum()
    return loss


def path(optimizer, params, scheduler=None):
    """All parameters after each step."""
    found = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(params, step)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        found.append(torch.cat([param.detach().flatten() for param in params]))
    return torch.stack(found)


def assert_same(ours, theirs):
    """Within 1e-12 of each entry's size along its path: some entries pass through zero."""
    assert (theirs[0] - theirs[-1]).abs().min() > 0  # every entry moved
    assert ((ours - theirs).abs() / theirs.abs().amax(dim=0)).max() < 1e-12


SGD_SETTINGS = [
    dict(lr=0.02),
    dict(lr=0.02, weight_decay=0.1),
    dict(lr=0.02, momentum=0.9),
    dict(lr=0.02, momentum=0.8, dampening=0.3, weight_decay=0.05),
    dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.05),
    dict(lr=0.001, momentum=0.5, maximize=True, weight_decay=0.05),
]
ADAMW_SETTINGS = [
    dict(lr=0.02),
    dict(lr=0.02, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.3),
    dict(lr=0.02, betas=(0.0, 0.0), weight_decay=0.0),
    dict(lr=0.01, maximize=True),
]
CASES = [(SGD, torch.optim.SGD, settings) for settings in SGD_SETTINGS]
CASES += [(AdamW, torch.optim.AdamW, settings) for settings in ADAMW_SETTINGS]


@pytest.mark.parametrize(("ours", "theirs", "settings"), CASES)
def test_trajectories_equal_torchs(ours, theirs, settings):
    mine, reference = parameters(), parameters()
    assert_same(path(ours(mine, **settings), mine), path(theirs(reference, **settings), reference))


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (AdamW, torch.optim.AdamW)])
def test_defaults_that_torch_has_are_torchs(ours, theirs):
    mine, reference = ours(parameters()).defaults, theirs(parameters()).defaults
    shared = set(mine) & set(reference)
    assert {"lr", "weight_decay", "maximize"} <= shared
    assert {name: mine[name] for name in shared} == {name: reference[name] for name in shared}


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (AdamW, torch.optim.AdamW)])
def test_groups_follow_their_own_hyperparameters(ours, theirs):
    def run(kind):
        a, b, c = parameters()
        groups = [{"params": [a, c], "lr": 0.03}, {"params": b, "weight_decay": 0.2}]
        if kind in (SGD, torch.optim.SGD):
            groups[0]["momentum"] = 0.9
        return path(kind(groups, lr=0.01), [a, b, c])

    assert_same(run(ours), run(theirs))


SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda step: 0.95**step),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=STEPS),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=7),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt, [lr_scheduler.LinearLR(opt, 0.1, 1.0, 5), lr_scheduler.ExponentialLR(opt, 0.9)], [5]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [(SGD, torch.optim.SGD, dict(lr=0.01, momentum=0.9)), (AdamW, torch.optim.AdamW, dict(lr=0.02))],
)
def test_schedulers_act_as_on_torchs(ours, theirs, settings, schedule):
    def run(kind):
        params = parameters()
        optimizer = kind(params, **settings)
        return path(optimizer, params, schedule(optimizer))

    assert_same(run(ours), run(theirs))


def test_a_learning_rate_may_be_a_tensor():
    mine, reference = parameters(), parameters()
    lr = torch.tensor(0.02, dtype=torch.float64)
    assert_same(path(AdamW(mine, lr=lr), mine), path(torch.optim.AdamW(reference, lr=0.02), reference))


def test_a_closure_that_calls_backward_gives_the_same_steps_and_its_loss():
    mine, reference = parameters(), parameters()
    optimizer, explicit = AdamW(mine), AdamW(reference)
    for step in range(10):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(mine, step)
            loss.backward()
            return loss

        returned = optimizer.step(closure)
        explicit.zero_grad()
        loss = loss_of(reference, step)
        loss.backward()
        assert explicit.step() is None
        assert returned == loss
        assert all(torch.equal(a, b) for a, b in zip(mine, reference, strict=True))


def test_a_group_added_later_starts_its_own_bias_correction():
    def run(kind):
        a, b, c = parameters()
        optimizer = kind([a, b], lr=0.02)
        first = path(optimizer, [a, b])
        optimizer.add_param_group({"params": [c], "lr": 0.05})
        return first, path(optimizer, [a, b, c])

    for ours, theirs in zip(run(AdamW), run(torch.optim.AdamW), strict=True):
        assert_same(ours, theirs)


def test_momentum_may_be_switched_on_in_the_middle_of_a_run():
    def run(kind):
        params = parameters()
        optimizer = kind(params, lr=0.01)
        first = path(optimizer, params)
        optimizer.param_groups[0]["momentum"] = 0.9
        return torch.cat([first, path(optimizer, params)])

    assert_same(run(SGD), run(torch.optim.SGD))
