"""Rules in float64 against the formulas as their papers write them, and against work by hand."""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.core import RULES, InvalidArgument
from hessiod.core.sgd import sgd_rule
from hessiod.core.sophia import SOPHIA

STEPS = 60


def apply(kernel, arrays, values):
    """The arrays after a kernel, from its own account of what it reads and writes."""
    results = kernel.function(xp, *[arrays[name] for name in kernel.operands], **kernel.scalars_from(values))
    return {**arrays, **dict(zip(kernel.results, results, strict=True))}


def trajectory(rule, values, grads, estimates=None):
    """Parameters after each step, from 1 on, with the state that the rule declares."""
    arrays = {"param": np.linspace(-2.0, 3.0, grads.shape[1]), **{s: np.zeros(grads.shape[1]) for s in rule.slots}}
    path = []
    for number, grad in enumerate(grads, start=1):
        arrays["grad"] = grad
        if estimates is not None and estimates[number - 1] is not None:
            arrays = apply(rule.refresh, {**arrays, "estimate": estimates[number - 1]}, values)
        arrays = apply(rule.step, arrays, {**values, "step": number})
        path.append(arrays["param"])
    return np.array(path)


@pytest.fixture
def grads():
    generator = np.random.default_rng(7)
    grads = generator.normal(size=(STEPS, 40)) * 10.0 ** generator.integers(-4, 3, 40)
    grads[10:20, 3] = 0.0
    return grads


def test_sophia_is_algorithm_3_of_the_paper(grads):
    generator = np.random.default_rng(8)
    estimates = [generator.normal(size=40) * 30 if t % 10 == 1 else None for t in range(1, STEPS + 1)]
    lr, beta1, beta2, gamma, eps, decay = 0.03, 0.96, 0.99, 0.04, 1e-12, 0.2

    theta, m, h, path = np.linspace(-2.0, 3.0, 40), np.zeros(40), np.zeros(40), []
    clipped = np.zeros(STEPS)
    for t in range(1, STEPS + 1):
        m = beta1 * m + (1 - beta1) * grads[t - 1]
        if t % 10 == 1:
            h = beta2 * h + (1 - beta2) * estimates[t - 1]
        theta = theta - lr * decay * theta
        ratio = m / np.maximum(gamma * h, eps)
        clipped[t - 1] = (np.abs(ratio) >= 1).mean()
        theta = theta - lr * np.clip(ratio, -1, 1)
        path.append(theta)
    assert 0.1 < clipped.mean() < 0.9  # both branches matter here

    values = dict(lr=lr, beta1=beta1, beta2=beta2, rho=gamma, eps=eps, weight_decay=decay)
    np.testing.assert_allclose(trajectory(SOPHIA, values, grads, estimates), path, rtol=1e-12, atol=1e-13)


def test_sophia_steps_by_newton_where_nothing_is_clipped_and_by_sign_where_curvature_is_not_positive():
    m, h = np.array([0.5, -0.02, 3.0, -3.0, 0.0]), np.array([100.0, 1.0, 0.0, -7.0, -1.0])
    values = dict(lr=0.1, beta1=0.0, beta2=0.0, rho=0.05, eps=1e-12, weight_decay=0.0)
    arrays = {"param": np.zeros(5), "grad": m, "exp_avg": np.zeros(5), "hessian": h}
    moved = apply(SOPHIA.step, arrays, values)["param"]
    newton = -0.1 * m[:2] / (0.05 * h[:2])
    np.testing.assert_allclose(moved, [*newton, -0.1, 0.1, 0.0], rtol=1e-15)


def test_sophia_decays_before_the_step_and_without_the_gradient():
    values = dict(lr=0.1, beta1=0.9, beta2=0.9, rho=0.05, eps=1e-12, weight_decay=0.5)
    arrays = {"param": np.array([2.0]), "grad": np.zeros(1), "exp_avg": np.zeros(1), "hessian": np.zeros(1)}
    np.testing.assert_allclose(apply(SOPHIA.step, arrays, values)["param"], [2.0 * (1 - 0.1 * 0.5)], rtol=1e-15)


def test_sophia_equals_the_first_version_of_its_paper():
    """Version 1 wrote clip(m / max(h, eps), rho): the same update with lr * rho in the place of lr."""
    generator = np.random.default_rng(2)
    m, h, theta = generator.normal(size=(3, 50))
    lr_v1, rho_v1 = 0.06, 0.01
    v1 = theta - lr_v1 * np.clip(m / np.maximum(h, 1e-12), -rho_v1, rho_v1)
    values = dict(lr=lr_v1 * rho_v1, beta1=0.0, beta2=0.0, rho=rho_v1, eps=1e-14, weight_decay=0.0)
    found = apply(SOPHIA.step, {"param": theta, "grad": m, "exp_avg": 0 * m, "hessian": h}, values)["param"]
    np.testing.assert_allclose(found, v1, rtol=1e-13)


def test_clip_fraction_counts_the_entries_that_the_clip_holds_back():
    m = np.array([0.0, 1.0, -1.0, 0.04, -0.06, 0.05, 1e-13, 1e-3])
    h = np.array([0.0, 1.0, 2.0, 1.0, 1.0, 1.0, 0.0, -5.0])
    # |m| >= max(0.05 h, 1e-12):  no    yes   yes   no    yes    yes   no     yes
    measure = SOPHIA.measures["clip_fraction"]
    count = measure.function(xp, m, h, **measure.scalars_from(dict(rho=0.05, eps=1e-12)))
    assert float(count) == 5.0


def test_adamw_is_algorithm_2_of_the_paper(grads):
    lr, beta1, beta2, eps, decay = 0.01, 0.9, 0.995, 1e-8, 0.1
    theta, m, v, path = np.linspace(-2.0, 3.0, 40), np.zeros(40), np.zeros(40), []
    for t in range(1, STEPS + 1):
        g = grads[t - 1]
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - (lr * m_hat / (np.sqrt(v_hat) + eps) + lr * decay * theta)
        path.append(theta)
    values = dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
    np.testing.assert_allclose(trajectory(RULES["adamw"], values, grads), path, rtol=1e-12, atol=1e-13)


def test_sgd_is_gradient_descent_with_l2(grads):
    theta, path = np.linspace(-2.0, 3.0, 40), []
    for g in grads:
        theta = theta - 0.01 * (g + 0.1 * theta)
        path.append(theta)
    found = trajectory(RULES["sgd"], dict(lr=0.01, weight_decay=0.1), grads)
    np.testing.assert_allclose(found, path, rtol=1e-12, atol=1e-12)


def test_momentum_is_the_sum_of_decayed_past_gradients(grads):
    mu, dampening, lr = 0.8, 0.3, 0.01
    theta, path = np.linspace(-2.0, 3.0, 40), []
    for t in range(STEPS):
        weights = [mu**t] + [(1 - dampening) * mu ** (t - s) for s in range(1, t + 1)]  # b_1 = g_1 is not dampened
        theta = theta - lr * sum(w * g for w, g in zip(weights, grads, strict=False))
        path.append(theta)
    values = dict(lr=lr, momentum=mu, dampening=dampening, weight_decay=0.0)
    np.testing.assert_allclose(trajectory(RULES["sgd-momentum"], values, grads), path, rtol=1e-11, atol=1e-11)


def test_nesterov_is_the_look_ahead_form_of_sutskever():
    """v' = mu v - lr grad f(theta + mu v), theta' = theta + v', watched at the look-ahead point phi = theta + mu v."""
    mu, lr, slope = 0.9, 0.02, np.linspace(0.1, 3.0, 40)
    theta, v = np.linspace(-2.0, 3.0, 40), np.zeros(40)
    arrays = {"param": theta, "momentum_buffer": np.zeros(40)}
    values = dict(lr=lr, momentum=mu, dampening=0.0, weight_decay=0.0)
    for t in range(1, STEPS + 1):
        v = mu * v - lr * slope * (theta + mu * v)
        theta = theta + v
        arrays["grad"] = slope * arrays["param"]
        arrays = apply(RULES["sgd-nesterov"].step, arrays, {**values, "step": t})
        np.testing.assert_allclose(arrays["param"], theta + mu * v, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", sorted(RULES))
def test_kernels_leave_their_arguments_alone(name):
    rule = RULES[name]
    values = {**rule.defaults, "step": 1, "refreshes": 1}
    for kernel in filter(None, (rule.step, rule.refresh)):
        arrays = {operand: np.full(3, 0.5) for operand in kernel.operands}
        apply(kernel, arrays, values)
        assert all((array == 0.5).all() for array in arrays.values())


@pytest.mark.parametrize("name", sorted(RULES))
def test_kernels_read_and_write_only_what_the_rule_declares(name):
    rule = RULES[name]
    known = {"param", "grad", *rule.slots}
    assert set(rule.step.operands) | set(rule.step.results) <= known
    assert "param" in rule.step.results
    if rule.refresh is not None:
        assert set(rule.refresh.operands) | set(rule.refresh.results) <= known | {"estimate"}
    assert set(rule.step.hyperparameters) <= {"step", "refreshes", *rule.hyperparameters}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (dict(momentum=0.0, dampening=0.0, nesterov=False), "sgd"),
        (dict(momentum=0.9, dampening=0.5, nesterov=False), "sgd-momentum"),
        (dict(momentum=0.9, dampening=0.0, nesterov=True), "sgd-nesterov"),
    ],
)
def test_the_sgd_rule_follows_from_the_hyperparameters(settings, name):
    assert sgd_rule(settings) is RULES[name]


@pytest.mark.parametrize("settings", [dict(momentum=0.0, dampening=0.0), dict(momentum=0.9, dampening=0.1)])
def test_nesterov_needs_momentum_and_no_dampening(settings):
    with pytest.raises(InvalidArgument, match="nesterov: found True"):
        sgd_rule(settings | dict(nesterov=True))


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [
        ("sophia", "lr", -1e-9),
        ("sophia", "lr", float("nan")),
        ("sophia", "lr", float("inf")),
        ("sophia", "lr", "0.1"),
        ("sophia", "lr", True),
        ("sophia", "lr", None),
        ("sophia", "beta1", 1.0),
        ("sophia", "beta1", -0.1),
        ("sophia", "beta2", 1.5),
        ("sophia", "rho", 0.0),
        ("sophia", "rho", -0.05),
        ("sophia", "eps", 0.0),
        ("sophia", "weight_decay", -0.1),
        ("adamw", "beta2", 1.0),
        ("adamw", "eps", -1e-8),
        ("sgd", "lr", -1),
        ("sgd-momentum", "momentum", 1.0),
        ("sgd-momentum", "dampening", 1.0),
    ],
)
def test_a_hyperparameter_out_of_bounds_is_refused_by_name_with_a_way_out(rule, name, value):
    with pytest.raises(InvalidArgument) as caught:
        RULES[rule].check({name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: found {value!r}, expected a number ")
    assert message.split("; ", 1)[1]
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), [("lr", 0), ("beta1", 0.0), ("rho", 1e-300), ("eps", 1e-300), ("lr", 5)])
def test_bounds_that_belong_to_the_range_are_taken(name, value):
    SOPHIA.check({name: value})


def test_a_hyperparameter_that_the_rule_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(InvalidArgument, match="momentum: sophia has no such hyperparameter; it has lr, beta1, beta2"):
        SOPHIA.check({"momentum": 0.9})


@pytest.mark.parametrize("name", sorted(RULES))
def test_defaults_are_legal(name):
    RULES[name].check(RULES[name].defaults)
