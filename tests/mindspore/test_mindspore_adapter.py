"""Every rule through the adapter: its formula in float64, and torch bit for bit, in every mode and route."""

from __future__ import annotations

from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

import hessiod.torch as hessiod_torch
from hessiod.backends_mindspore.adapter import RuleOptimizer
from hessiod.core import RULES, InvalidArgument, Kernel, Rule
from hessiod.core.rule import LEARNING_RATE, Hyperparameter
from hessiod.mindspore import SGD, AdamW

SHAPES = ((4,), (2, 1, 3), (1,))
STEPS = 5


def arrays(seed):
    """One float32 array a shape, none of them near zero in all entries."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES]


def parameters(seed=0):
    return [Parameter(Tensor(array), name=f"p{place}") for place, array in enumerate(arrays(seed))]


def tensors(seed):
    return tuple(Tensor(array) for array in arrays(seed))


def torch_parameters(seed=0):
    return [torch.nn.Parameter(torch.tensor(array)) for array in arrays(seed)]


def torch_step(optimizer, params, seed):
    for param, array in zip(params, arrays(seed), strict=True):
        param.grad = torch.tensor(array)
    optimizer.step()


def same_bits(actual, expected):
    """The same numbers, bit for bit."""
    for ours, theirs in zip(actual, expected, strict=True):
        ours, theirs = ours.asnumpy(), theirs.detach().numpy()
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes(), np.abs(ours - theirs).max()


def close(actual, expected):
    """Within 1e-6 of a float64 working, relative to the largest entry."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert theirs.dtype == np.float64
        assert np.abs(ours.asnumpy() - theirs).max() <= 1e-6 * np.abs(theirs).max()


# The published formulas, in float64


def adamw(theta, state, g, t, *, lr, beta1, beta2, eps, weight_decay):
    """Loshchilov and Hutter, Algorithm 2."""
    m = state["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * g
    v = state["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return theta - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * theta)


def sgd(theta, state, g, t, *, lr, weight_decay, momentum=0.0, dampening=0.0, nesterov=False):
    """As torch.optim.SGD documents it."""
    g = g + weight_decay * theta
    if momentum:
        b = g if t == 1 else momentum * state["momentum_buffer"] + (1 - dampening) * g
        state["momentum_buffer"] = b
        g = g + momentum * b if nesterov else b
    return theta - lr * g


def sophia(theta, state, g, estimate, *, lr, beta1, beta2, rho, eps, weight_decay):
    """Liu et al., Algorithm 3."""
    if estimate is not None:
        state["hessian"] = beta2 * state["hessian"] + (1 - beta2) * estimate
    m = state["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * g
    theta = theta - lr * weight_decay * theta
    return theta - lr * np.clip(m / np.maximum(rho * state["hessian"], eps), -1, 1)


ADAMW = dict(beta1=0.8, beta2=0.97, eps=1e-6, weight_decay=0.3)
RULE_CASES = {
    "adamw": (AdamW, hessiod_torch.AdamW, adamw, ADAMW, ("exp_avg", "exp_avg_sq")),
    "sgd": (SGD, hessiod_torch.SGD, sgd, dict(weight_decay=0.1), ()),
    "sgd-momentum": (
        SGD,
        hessiod_torch.SGD,
        sgd,
        dict(momentum=0.9, dampening=0.3, weight_decay=0.1),
        ("momentum_buffer",),
    ),
    "sgd-nesterov": (
        SGD,
        hessiod_torch.SGD,
        sgd,
        dict(momentum=0.7, nesterov=True, weight_decay=0.1),
        ("momentum_buffer",),
    ),
}


def for_torch(options):
    """The same options under torch's names."""
    options = dict(options)
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    return options


class Weighted(nn.Cell):
    """A sum of products, whose gradients are exactly the inputs."""

    def __init__(self, weights):
        super().__init__()
        self.weights = ms.ParameterTuple(weights)

    def construct(self, *factors):
        total = 0.0
        for weight, factor in zip(self.weights, factors):  # noqa: B905 - strict= cannot be traced
            total = total + (weight * factor).sum()
        return total


def stepper(route, optimizer, weights):
    """A function of a tuple of gradients that takes one step."""
    if route == "call":
        return optimizer
    if route == "jit":

        @ms.jit
        def step(gradients):
            return optimizer(gradients)

        return step
    cell = nn.TrainOneStepCell(Weighted(weights), optimizer)
    return lambda gradients: cell(*gradients)


@pytest.mark.parametrize(
    ("name", "route"),
    [(name, "call") for name in RULE_CASES] + [("sgd-nesterov", "jit"), ("adamw", "TrainOneStepCell")],
)
def test_rule_follows_its_formula_and_torch(mode, name, route):
    ours, theirs, formula, options, slots = RULE_CASES[name]
    weights, mirrors = parameters(), torch_parameters()
    optimizer = ours(weights, learning_rate=0.05, **options)
    mirror = theirs(mirrors, lr=0.05, **for_torch(options))
    step = stepper(route, optimizer, weights)
    truth = [array.astype(np.float64) for array in arrays(0)]
    states = [{slot: np.zeros(shape) for slot in slots} for shape in SHAPES]
    assert optimizer.slot_names == slots
    for t in range(1, STEPS + 1):
        before = [weight.asnumpy().copy() for weight in weights]
        step(tensors(t))
        torch_step(mirror, mirrors, t)
        gradients = [array.astype(np.float64) for array in arrays(t)]
        truth = [
            formula(theta, state, g, t, lr=0.05, **options)
            for theta, state, g in zip(truth, states, gradients, strict=True)
        ]
        assert all((weight.asnumpy() != old).any() for weight, old in zip(weights, before, strict=True))
        same_bits(weights, mirrors)
        close(weights, truth)
        for slot in slots:
            same_bits(getattr(optimizer, slot), [mirror.state[param][slot] for param in mirrors])
            close(getattr(optimizer, slot), [state[slot] for state in states])
    assert optimizer.steps == STEPS
    assert int(optimizer.refused.asnumpy()) == 0


class Driver(nn.Cell):
    """Steps of a second-order rule with prescribed estimates, as one graph."""

    def __init__(self, optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    @ms.jit
    def construct(self, gradients, estimates):
        return self.optimizer.guarded_step(gradients, estimates)


def test_sophia_follows_its_formula_and_torch(mode, monkeypatch):
    """With estimates of both signs: clipped, unclipped and sign steps all occur."""
    options = dict(beta1=0.9, beta2=0.8, rho=0.7, eps=1e-8)
    weights, mirrors = parameters(), torch_parameters()
    optimizer = RuleOptimizer(RULES["sophia"], weights, 0.05, options, weight_decay=0.2)
    mirror = hessiod_torch.SophiaG(mirrors, lr=0.05, betas=(0.9, 0.8), rho=0.7, eps=1e-8, weight_decay=0.2, every=10**9)
    driver = Driver(optimizer)
    truth = [array.astype(np.float64) for array in arrays(0)]
    states = [{"exp_avg": np.zeros(shape), "hessian": np.zeros(shape)} for shape in SHAPES]
    signs, unclipped = set(), 0
    for t in range(1, STEPS + 1):
        refresh = t % 2 == 1
        if refresh:
            driver(tensors(t), tensors(100 + t))
        else:
            optimizer(tensors(t))
        curvature = arrays(100 + t) if refresh else [None] * len(SHAPES)
        found = dict(zip(mirrors, map(torch.tensor, curvature), strict=True)) if refresh else None
        monkeypatch.setattr(mirror, "_estimates", lambda found=found: found)
        torch_step(mirror, mirrors, t)
        for place, (state, g, h) in enumerate(zip(states, arrays(t), curvature, strict=True)):
            h = None if h is None else h.astype(np.float64)
            truth[place] = sophia(truth[place], state, g.astype(np.float64), h, lr=0.05, weight_decay=0.2, **options)
            signs |= set(np.sign(state["hessian"]).flat)
            unclipped += np.sum(np.abs(state["exp_avg"]) < 0.7 * state["hessian"])
        same_bits(weights, mirrors)
        close(weights, truth)
        for slot in ("exp_avg", "hessian"):
            same_bits(getattr(optimizer, slot), [mirror.state[param][slot] for param in mirrors])
            close(getattr(optimizer, slot), [state[slot] for state in states])
    entries = STEPS * sum(array.size for array in arrays(0))
    assert signs == {-1.0, 1.0}
    assert entries / 10 < unclipped < entries / 2


# Any number of slots. MindSpore drops ops.assign in some loop shapes without a word, so every slot is followed.


def one_slot(xp, theta, grad, a, *, lr):
    a = a + grad
    return theta - lr * a, a


def two_slots(xp, theta, grad, a, b, *, lr):
    a = a + grad
    b = b + 2.0 * a
    return b, theta - lr * (a + b), a


def three_slots(xp, theta, grad, a, b, c, *, lr):
    a = a + grad
    b = b + 2.0 * a
    c = c + 3.0 * b
    return a, c, theta - lr * (a + b + c), b


def four_slots(xp, theta, grad, a, b, c, d, *, lr):
    a = a + grad
    b = b + 2.0 * a
    c = c + 3.0 * b
    d = d + 4.0 * c
    return d, c, theta - lr * (a + b + c + d), b, a


def fold(xp, estimate, last, *, gain):
    return (last + gain * estimate,)


def lr_only(*, lr):
    return {"lr": lr}


def gain_only(*, gain):
    return {"gain": gain}


LADDER = {
    1: (one_slot, ("param", "a")),
    2: (two_slots, ("b", "param", "a")),
    3: (three_slots, ("a", "c", "param", "b")),
    4: (four_slots, ("d", "c", "param", "b", "a")),
}


def ladder(count):
    """A rule whose slots are written in a scrambled order, and whose refresh writes the last one."""
    slots = ("a", "b", "c", "d")[:count]
    function, results = LADDER[count]
    hyperparameters = {"lr": LEARNING_RATE, "weight_decay": Hyperparameter(0.0, 0.0), "gain": Hyperparameter(0.5, 0.0)}
    return Rule(
        f"ladder-{count}",
        slots,
        hyperparameters,
        step=Kernel(function, lr_only, ("param", "grad", *slots), results),
        refresh=Kernel(fold, gain_only, ("estimate", slots[-1]), (slots[-1],)),
    )


@pytest.mark.parametrize(
    ("mode", "count", "route"),
    [("pynative", count, "call") for count in LADDER]
    + [pytest.param("graph", count, "refresh", marks=[pytest.mark.slow][: count in (2, 3)]) for count in LADDER]
    + [(mode, 4, route) for mode in ("pynative", "graph") for route in ("jit", "TrainOneStepCell")]
    + [("graph", 4, "call"), ("pynative", 4, "refresh")],
    indirect=["mode"],
)
def test_every_slot_is_written(mode, count, route):
    rule = ladder(count)
    weights = parameters()
    optimizer = RuleOptimizer(rule, weights, 0.125, {})
    step = Driver(optimizer) if route == "refresh" else stepper(route, optimizer, weights)
    truth = arrays(0)
    states = [dict.fromkeys(rule.slots, np.float32(0)) for _ in SHAPES]
    for t in range(1, 4):
        step(tensors(t), tensors(50 + t)) if route == "refresh" else step(tensors(t))
        for place, (g, estimate) in enumerate(zip(arrays(t), arrays(50 + t), strict=True)):
            state = states[place]
            if route == "refresh":
                state[rule.slots[-1]] = state[rule.slots[-1]] + np.float32(0.5) * estimate
            previous = g
            for factor, slot in enumerate(rule.slots, start=1):
                state[slot] = state[slot] + np.float32(factor) * previous
                previous = state[slot]
            truth[place] = truth[place] - np.float32(0.125) * sum(state.values())
        for place, weight in enumerate(weights):
            np.testing.assert_allclose(weight.asnumpy(), truth[place], rtol=1e-6, atol=1e-6)
            for slot in rule.slots:
                value = getattr(optimizer, slot)[place].asnumpy()
                assert value.any()
                np.testing.assert_allclose(value, states[place][slot], rtol=1e-6, atol=1e-6, err_msg=slot)


class Pair(NamedTuple):
    theta: Any
    a: Any


@pytest.mark.parametrize("name", ["adamw", "sgd", "sgd-momentum", "sgd-nesterov", "sophia"])
def test_no_python_runs_inside_the_graph(name, python_in_graphs):
    optimizer = RuleOptimizer(RULES[name], parameters(), 0.1, {})
    optimizer(tensors(1))
    assert python_in_graphs() == 0


def test_a_named_tuple_would_run_in_python(python_in_graphs):
    """What the test above can see: MindSpore builds a NamedTuple in Python."""

    @ms.jit
    def build(x):
        return Pair(x, x + 1.0)[0]

    build(tensors(1)[0])
    assert python_in_graphs() > 0


def test_a_fifth_slot_is_refused():
    rule = ladder(4)
    rule = Rule("ladder-5", (*rule.slots, "e"), rule.hyperparameters, rule.step)
    with pytest.raises(InvalidArgument, match="ladder-5 has 5 slots, expected at most 4"):
        RuleOptimizer(rule, parameters(), 0.1, {})


# Learning rates, weight decay, groups


class Halving(LearningRateSchedule):
    """0.1, 0.05, 0.025, ... in float32."""

    def construct(self, global_step):
        return 0.1 * ops.pow(Tensor(0.5, ms.float32), ops.cast(global_step, ms.float32))


class Falling(nn.Cell):
    """A weight decay of 0.5, 0.25, 0.125, ..."""

    def construct(self, global_step):
        return 0.5 * ops.pow(Tensor(0.5, ms.float32), ops.cast(global_step, ms.float32))


TABLE = [0.1, 0.03, 0.007, 0.2, 0.05]
RATES = {
    "number": (0.1, [0.1] * STEPS),
    "integer": (1, [1.0] * STEPS),
    "list": (TABLE, TABLE),
    "float64 tensor": (Tensor(TABLE, ms.float64), TABLE),
    "float32 tensor": (Tensor(TABLE, ms.float32), [float(np.float32(lr)) for lr in TABLE]),
    "0-d tensor": (Tensor(0.1, ms.float32), [float(np.float32(0.1))] * STEPS),
    "schedule": (Halving(), [float(np.float32(0.1) * np.float32(0.5) ** k) for k in range(STEPS)]),
}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("pynative", kind) for kind in RATES] + [("graph", "list"), ("graph", "schedule")],
    indirect=["mode"],
)
def test_learning_rate(mode, kind):
    rate, expected = RATES[kind]
    weights, mirrors = parameters(), torch_parameters()
    optimizer = SGD(weights, learning_rate=rate, weight_decay=0.3)
    mirror = hessiod_torch.SGD(mirrors, weight_decay=0.3)
    for t, lr in enumerate(expected, start=1):
        optimizer(tensors(t))
        mirror.param_groups[0]["lr"] = lr
        torch_step(mirror, mirrors, t)
        same_bits(weights, mirrors)


def test_a_list_of_learning_rates_that_ends_is_an_error_and_changes_nothing():
    weights = parameters()
    optimizer = SGD(weights, learning_rate=[0.1, 0.2])
    optimizer(tensors(1))
    optimizer(tensors(2))
    before = [weight.asnumpy().copy() for weight in weights]
    with pytest.raises(RuntimeError, match="Gather"):
        optimizer(tensors(3))
    assert optimizer.steps == 2
    assert all((weight.asnumpy() == old).all() for weight, old in zip(weights, before, strict=True))


def test_assigned_learning_rate_takes_effect(mode):
    """In the step after the assignment, and bit for bit: as the float32 that was assigned."""
    weights, mirrors = parameters(), torch_parameters()
    optimizer = SGD(weights, learning_rate=0.1, weight_decay=0.3)
    mirror = hessiod_torch.SGD(mirrors, lr=0.1, weight_decay=0.3)
    for t, lr in enumerate((0.1, 0.3, 0.02), start=1):
        if t > 1:
            ops.assign(optimizer.learning_rate, Tensor(lr, ms.float32))
            mirror.param_groups[0]["lr"] = float(np.float32(lr))
        optimizer(tensors(t))
        torch_step(mirror, mirrors, t)
        same_bits(weights, mirrors)


def test_weight_decay_as_cell():
    options = dict(beta1=0.8, beta2=0.97, eps=1e-6)
    weights, mirrors = parameters(), torch_parameters()
    optimizer = AdamW(weights, learning_rate=0.1, weight_decay=Falling(), **options)
    mirror = hessiod_torch.AdamW(mirrors, lr=0.1, **for_torch(options))
    for t in range(1, STEPS + 1):
        optimizer(tensors(t))
        mirror.param_groups[0]["weight_decay"] = 0.5**t
        torch_step(mirror, mirrors, t)
        same_bits(weights, mirrors)


GROUPS = {
    "numbers": (0.1, [{"lr": 0.03, "weight_decay": 0.3}, {"lr": 0.2}, {}], {}),
    "only decay": (0.1, [{"weight_decay": 0.3}, {"weight_decay": 0.0}, {}], {}),
    "lists": (TABLE, [{"lr": TABLE[::-1]}, {"weight_decay": 0.3}, {"lr": 0.03}], {0: TABLE[::-1], 1: TABLE}),
    "schedule": (0.1, [{"lr": Halving()}, {"weight_decay": 0.3}, {"lr": 0.03}], {0: [0.1, 0.05, 0.025]}),
    # 1 - 0.9 * 0.6 rounds differently when 0.6 was a float32 before.
    "decay cell": (0.1, [{"weight_decay": Falling()}, {"lr": 0.9, "weight_decay": 0.6}, {}], {}),
}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("pynative", kind) for kind in GROUPS] + [("graph", "schedule"), ("graph", "decay cell")],
    indirect=["mode"],
)
def test_groups(mode, kind):
    """Learning rate and weight decay of each group, and order_params, bit for bit as torch's groups."""
    rate, settings, tables = GROUPS[kind]
    weights, mirrors = parameters(), torch_parameters()
    places, order = [[0], [1], [2]], [2, 0, 1]
    ours, theirs, options = (
        (SGD, hessiod_torch.SGD, {}) if kind in ("numbers", "lists") else (AdamW, hessiod_torch.AdamW, ADAMW)
    )
    groups = [
        {"params": [weights[place] for place in members], **setting}
        for members, setting in zip(places, settings, strict=True)
    ]
    order_params = {"order_params": [weights[place] for place in order]}
    optimizer = ours([*groups, order_params], learning_rate=rate, **options)
    assert [param.name for param in optimizer.parameters] == [f"p{place}" for place in order]
    mirror = theirs(
        [
            {"params": [mirrors[place] for place in members]}
            | {name: value for name, value in setting.items() if isinstance(value, float)}
            for members, setting in zip(places, settings, strict=True)
        ],
        lr=rate if isinstance(rate, float) else 1.0,
        **for_torch(options),
    )
    for t in range(1, 4):
        for group, table in tables.items():
            value = table[t - 1]
            mirror.param_groups[group]["lr"] = float(np.float32(value)) if kind == "schedule" else value
        if kind == "decay cell":
            mirror.param_groups[0]["weight_decay"] = 0.5**t
        gradients = tensors(t)
        optimizer(tuple(gradients[place] for place in order))
        torch_step(mirror, mirrors, t)
        same_bits(weights, mirrors)


def test_dtypes_of_parameters_are_kept():
    """float64 and float32 side by side: each with scalars of its own dtype."""
    wide, narrow = np.linspace(-1, 1, 5), np.linspace(-1, 1, 5).astype(np.float32)
    weights = [Parameter(Tensor(wide), name="wide"), Parameter(Tensor(narrow), name="narrow")]
    mirrors = [torch.nn.Parameter(torch.tensor(wide)), torch.nn.Parameter(torch.tensor(narrow))]
    optimizer = AdamW(weights, learning_rate=0.1, **ADAMW)
    mirror = hessiod_torch.AdamW(mirrors, lr=0.1, **for_torch(ADAMW))
    for t in range(1, 4):
        optimizer((Tensor(wide + t), Tensor(narrow * t)))
        for param, grad in zip(mirrors, (wide + t, narrow * t), strict=True):
            param.grad = torch.tensor(grad)
        mirror.step()
        same_bits(weights[1:], mirrors[1:])
        # In float64 a scalar such as beta^t may come from another pow, whose last bit may differ.
        np.testing.assert_allclose(weights[0].asnumpy(), mirrors[0].detach().numpy(), rtol=1e-15)


def test_loss_scale_divides_gradients():
    weights, plain = parameters(), parameters()
    scaled = SGD(weights, learning_rate=0.1, loss_scale=1024.0)
    optimizer = SGD(plain, learning_rate=0.1)
    for t in range(1, 4):
        scaled(tuple(Tensor(array * 1024) for array in arrays(t)))
        optimizer(tensors(t))
    for ours, theirs in zip(weights, plain, strict=True):
        assert ours.asnumpy().tobytes() == theirs.asnumpy().tobytes()
