"""opt.diagnostics() against counts by hand."""

import numpy as np
import pytest
import torch

from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, DiagonalNewton, SophiaH

CURVATURE, SLOPE = torch.tensor([1.0, 1.0, 4.0, -1.0, -3.0]), torch.tensor([0.1, 0.6, 1.0, 0.1, 0.0])


def stepped(kind, **settings):
    theta = torch.nn.Parameter(torch.zeros(5))
    opt = kind([theta], **settings)
    loss = (CURVATURE * theta**2 / 2 + SLOPE * theta).sum()
    if hasattr(opt, "update_curvature"):
        opt.update_curvature(loss=loss)
    loss.backward()
    opt.step()
    return opt


def test_sophia():
    (found,) = stepped(SophiaH, lr=0.1, betas=(0.0, 0.0), rho=0.5).diagnostics()
    assert list(found) == ["clip_fraction", "curvature", "negative_curvature"]
    assert found["clip_fraction"] == pytest.approx(2 / 5)  # |m| >= 0.5 h: no, yes, no, yes, no (0 is below eps)
    assert found["negative_curvature"] == 2 / 5
    assert list(found["curvature"]) == ["min", "5%", "50%", "95%", "max"]
    np.testing.assert_allclose(list(found["curvature"].values()), [-3.0, -2.6, 1.0, 3.4, 4.0], rtol=1e-6)


def test_adahessian_holds_squares_and_reports_no_sign():
    (found,) = stepped(AdaHessian, betas=(0.9, 0.0)).diagnostics()
    assert list(found) == ["curvature"]
    np.testing.assert_allclose(list(found["curvature"].values()), [1.0, 1.0, 1.0, 14.6, 16.0], rtol=1e-6)


def test_diagonal_newton():
    (found,) = stepped(DiagonalNewton, beta=0.5).diagnostics()
    assert list(found) == ["curvature", "negative_curvature"]
    assert found["curvature"]["max"] == 2.0  # without bias correction
    assert found["negative_curvature"] == 2 / 5


def test_apollo_reports_its_last_direction_too():
    opt = stepped(Apollo, lr=0.1, sigma=0.5, warmup=0)
    (found,) = opt.diagnostics()
    assert list(found) == ["curvature", "negative_curvature", "direction_norm"]
    assert set(found["curvature"].values()) == {0.0}
    moved = opt.param_groups[0]["params"][0].detach().norm().item()
    assert found["direction_norm"] == pytest.approx(moved / 0.1)


def test_a_group_has_its_own_and_a_quantile_is_over_all_of_its_entries():
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in [(3, 1), (2,), (4,)]]
    opt = SophiaH([{"params": params[:2]}, {"params": params[2:], "rho": 1e9}], betas=(0.0, 0.0))
    slopes = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([-4.0, 50.0]), torch.tensor([7.0] * 4)]
    loss = sum((slope * param**2).sum() / 2 + param.sum() for slope, param in zip(slopes, params, strict=True))
    opt.update_curvature(loss=loss)
    loss.backward()
    opt.step()
    first, second = opt.diagnostics()
    assert first["curvature"]["50%"] == 2.0
    assert first["negative_curvature"] == 1 / 5
    assert first["clip_fraction"] > second["clip_fraction"] == 0.0
    assert set(second["curvature"].values()) == {7.0}


@pytest.mark.parametrize("kind", [SophiaH, Apollo, AdamW, SGD])
def test_before_the_first_step_there_is_nothing(kind):
    assert kind([torch.nn.Parameter(torch.zeros(2))]).diagnostics() == [{}]


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_a_first_order_rule_without_curvature_has_nothing(kind):
    assert stepped(kind).diagnostics() == [{}]


def test_asking_changes_nothing_and_empty_or_half_precision_parameters_are_no_obstacle():
    params = [torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]
    opt = SophiaH(params, betas=(0.0, 0.0))
    loss = params[1].square().sum() + params[0].sum()
    opt.update_curvature(loss=loss)
    loss.backward()
    opt.step()
    before = {name: torch.as_tensor(v).clone() for p in params for name, v in opt.state[p].items()}
    (found,) = opt.diagnostics()
    assert found["curvature"]["min"] == found["curvature"]["max"] == 2.0
    after = {name: torch.as_tensor(v) for p in params for name, v in opt.state[p].items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_norm_of_an_update_when_it_was_asked_for():
    """By group, the decay included; without being asked nothing is copied."""
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4))
    opt = AdamW([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1, weight_decay=0.2)

    def step():
        for param in (a, b):
            param.grad = torch.ones_like(param)
        opt.step()

    step()
    assert all("update_norm" not in group for group in opt.diagnostics())
    opt.watch_updates()
    before = [param.detach().double().clone() for param in (a, b)]
    step()
    expected = [(param.detach().double() - old).norm().item() for param, old in zip((a, b), before, strict=True)]
    assert [group["update_norm"] for group in opt.diagnostics()] == pytest.approx(expected, rel=1e-12)
    opt.watch_updates(False)
    step()
    assert all("update_norm" not in group for group in opt.diagnostics())
