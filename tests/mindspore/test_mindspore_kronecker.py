"""K-FAC, SP-NGD and THOR on MindSpore: dense solutions, torch's runs, policies, checkpoints, bad input."""

import logging
from random import Random

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

from hessiod import torch as on_torch
from hessiod.core import InvalidArgument, InvalidState, NonFinite
from hessiod.mindspore import KFAC, SPNGD, THOR, RunningMixup, TrainStep

EVERY = dict(factor_every=1, inverse_every=1)
KINDS = {
    "kfac": (KFAC, on_torch.KFAC, dict(factor_every=2, inverse_every=3, fisher="empirical", damping=1e-2)),
    "spngd": (SPNGD, on_torch.SPNGD, dict(damping=1e-2)),
    "thor": (THOR, on_torch.THOR, dict(factor_every=2, block_size=3, damping=1e-2)),
}
ONE_AND_SLOW_OTHERS = ["kfac", *[pytest.param(kind, marks=pytest.mark.slow) for kind in ("spngd", "thor")]]


def small(features=4, classes=3):
    return nn.SequentialCell(nn.Dense(features, 5, activation="tanh"), nn.Dense(5, classes))


def rows(number, features=4, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(number, features)).astype(np.float32)
    return Tensor(x), Tensor(generator.integers(classes, size=number).astype(np.int32))


def values(net):
    return [param.asnumpy().copy() for param in net.trainable_params()]


def same(ours, theirs):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))


def everything(net, opt):
    """Every number of the net and of the optimizer but the count of refusals and what a step found finite."""
    told = ("refused", "finite", "usable")
    params = {id(p): p for p in (*net.get_parameters(), *opt.get_parameters()) if not p.name.endswith(told)}
    return [param.asnumpy().copy() for param in params.values()]


# The step


@pytest.mark.parametrize("inverse", ["cholesky", "eigen", "newton-schulz"])
def test_a_step_is_the_dense_damped_natural_gradient(inverse):
    """``V = F^-1 grad`` with the true Kronecker matrix, built and solved in float64."""
    ms.set_seed(0)
    net, (x, y) = small(), rows(32)
    opt = KFAC(net, 1.0, momentum=0.0, damping=0.01, kl_clip=None, fisher="empirical", inverse=inverse, **EVERY)
    weights = [value.astype(np.float64) for value in values(net)]
    TrainStep(net, nn.CrossEntropyLoss(), opt)(x, y)
    moved = [old - new for old, new in zip(weights, values(net), strict=True)]
    x, target = x.asnumpy().astype(np.float64), np.eye(3)[y.asnumpy()]
    hidden = np.tanh(x @ weights[0].T + weights[1])
    logits = hidden @ weights[2].T + weights[3]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    upper = p - target
    lower = upper @ weights[2] * (1 - hidden**2)
    for index, (inputs, outputs) in enumerate(((x, lower), (hidden, upper))):
        inputs = np.c_[inputs, np.ones(32)]
        a, g = inputs.T @ inputs / 32, outputs.T @ outputs / 32
        pi = (np.trace(a) / len(a) / (np.trace(g) / len(g))) ** 0.5
        a, g = a + pi * 0.1 * np.eye(len(a)), g + 0.1 / pi * np.eye(len(g))
        grad = outputs.T @ inputs / 32
        expected = np.linalg.solve(np.kron(g, a), grad.reshape(-1)).reshape(grad.shape)
        found = np.c_[moved[2 * index], moved[2 * index + 1]]
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5


def test_one_linear_layer_with_a_squared_error_reaches_the_minimum_in_one_step():
    """Its Fisher matrix is ``A (x) I`` exactly: the natural gradient step is Newton's; likelihood "gaussian"."""
    ms.set_seed(0)
    net, x = nn.Dense(3, 2), np.random.default_rng(0).normal(size=(4096, 3)).astype(np.float32)
    y = (x @ np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]).T + 1.0).astype(np.float32)

    def loss_fn(output, target):
        return ((output - target) * (output - target)).sum() / 2.0 / 4096.0

    options = dict(likelihood="gaussian", reduction="batchmean", kl_clip=None, momentum=0.0, damping=1e-8)
    TrainStep(net, loss_fn, KFAC(net, 1.0, **options, **EVERY))(Tensor(x), Tensor(y))
    assert np.abs(net.weight.asnumpy() - [[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]).max() < 0.3  # G is sampled: near I
    opt = KFAC(net, 1.0, fisher="monte-carlo", **options, **EVERY)
    TrainStep(net, loss_fn, opt)(Tensor(x), Tensor(y))
    g = opt.states[opt.layers[0]].arrays["factor_g"].asnumpy()
    assert np.abs(g - np.eye(2)).max() < 4 * 2**0.5 / 4096**0.5


def test_a_batch_given_thrice_takes_the_same_step():
    found = []
    for copies in (1, 3):
        ms.set_seed(0)
        net, (x, y) = small(), rows(16)
        step = TrainStep(net, nn.CrossEntropyLoss(), KFAC(net, 0.1, fisher="empirical"))
        step(Tensor(np.tile(x.asnumpy(), (copies, 1))), Tensor(np.tile(y.asnumpy(), copies)))
        found.append(np.concatenate([value.ravel() for value in values(net)]))
    assert np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0]) < 1e-6


# torch


class Ours(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, pad_mode="pad", padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 2, pad_mode="valid", group=2, has_bias=True)
        self.norm = nn.LayerNorm((4,), epsilon=1e-5)
        self.head = nn.Dense(4, 3)
        self.scale = ms.Parameter(Tensor(np.ones(4, np.float32)), name="scale")

    def construct(self, x):
        x = self.grouped(ms.ops.tanh(self.bn(self.conv(x))))
        x = self.norm(x.reshape((x.shape[0], 4, -1)).swapaxes(1, 2))
        return self.head(self.scale * x.mean(1))


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.grouped = torch.nn.Conv2d(4, 4, 2, groups=2)
        self.norm = torch.nn.LayerNorm(4)
        self.head = torch.nn.Linear(4, 3)
        self.scale = torch.nn.Parameter(torch.ones(4))

    def forward(self, x):
        x = self.grouped(torch.tanh(self.bn(self.conv(x))))
        x = self.norm(x.flatten(2).mT)
        return self.head(self.scale * x.mean(1))


PAIRS = {"gamma": "weight", "beta": "bias"}


def torch_name(name):
    head, _, last = name.rpartition(".")
    return f"{head}.{PAIRS.get(last, last)}".lstrip(".")


def pair():
    """The same net on both frameworks, with torch's weights."""
    torch.manual_seed(0)
    theirs, ours = Theirs(), Ours().set_train()
    weights = dict(theirs.named_parameters())
    for name, param in ours.parameters_and_names():
        if param.requires_grad:
            param.asnumpy()[...] = weights[torch_name(name)].detach().numpy()
    return ours, theirs


@pytest.mark.parametrize("kind", ONE_AND_SLOW_OTHERS)
def test_torch_has_the_same_weights_after_fifty_steps(kind):
    """The net is smooth and the targets can be learned; with ReLU, random targets and less damping torch is 8e-3 away
    from itself after 50 steps when its first weights are moved by 1e-7.
    """
    make, make_torch, options = KINDS[kind]
    ours, theirs = pair()
    options = {**options, "damping": 0.1}
    opt, other = make(ours, 0.02, **options), make_torch(theirs, 0.02, **options)
    step, teacher = TrainStep(ours, nn.CrossEntropyLoss(), opt), np.random.default_rng(99).normal(size=(72, 3))
    for number in range(50):
        x = np.random.default_rng(number).normal(size=(32, 2, 6, 6)).astype(np.float32)
        y = (x.reshape(32, 72) @ teacher).argmax(1)
        step(Tensor(x), Tensor(y.astype(np.int32)))
        F.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        other.step()
        other.zero_grad()
    weights = {name: param.detach().numpy() for name, param in theirs.named_parameters()}
    for name, param in ours.parameters_and_names():
        if param.requires_grad:
            expected = weights[torch_name(name)]
            distance = np.linalg.norm(param.asnumpy() - expected) / np.linalg.norm(expected)
            assert distance < 1e-4, (name, distance)
    found = {torch_name(row.parameter): row[2:] for row in opt.plan() if row.parameter != "scale"}
    assert found == {row.parameter: row[2:] for row in other.plan() if row.parameter != "scale"}


def test_torch_draws_the_same_targets():
    """Monte-Carlo Fisher: the same seed and step give the same sampled targets, and so the same factors."""
    ms.set_seed(0)
    net, (x, y) = nn.Dense(4, 3), rows(64)
    model = torch.nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(net.weight.asnumpy()))
        model.bias.copy_(torch.from_numpy(net.bias.asnumpy()))
    opt, other = KFAC(net, 0.1, seed=3), on_torch.KFAC(model, 0.1, seed=3)
    TrainStep(net, nn.CrossEntropyLoss(), opt)(x, y)
    logits = model(torch.from_numpy(x.asnumpy()))
    loss = F.cross_entropy(logits, torch.from_numpy(y.asnumpy()).long())
    other.update_curvature(loss=loss, logits=logits)
    loss.backward()
    other.step()
    for name in "ag":
        found = opt.states[opt.layers[0]].arrays[f"factor_{name}"].asnumpy()
        expected = other.state[model.weight][f"factor_{name}"].numpy()
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-6


# Policies


def test_spngd_refreshes_each_statistic_at_its_own_intervals():
    """Weights that hardly move: the statistics of a fixed batch stand still, and intervals are Fibonacci's."""
    net, (x, y) = small(), rows(8)
    opt = SPNGD(net, 1e-9, momentum=0.0)
    step, seen = TrainStep(net, nn.CrossEntropyLoss(), opt), []
    for number in range(1, 30):
        if opt.curvature_due:
            seen.append(number)
        step(x, y)
    assert seen == [1, 2, 3, 5, 8, 13, 21]


def test_thor_freezes_layers_that_stand_still():
    net, (x, y) = small(), rows(8)
    opt = THOR(net, 0.0, factor_every=3)
    step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    for _ in range(5):
        step(x, y)
    assert set(opt.checks().values()) == {("frozen", None)}
    assert not opt.curvature_due
    step(x, y)


def test_the_trust_region_uses_the_present_rate_and_schedules_work():
    """Without momentum ``lr^2 <V, grad>`` of each step is kappa at every rate where it binds."""
    ms.set_seed(0)
    net, (x, y) = nn.Dense(4, 3), rows(32)
    opt = KFAC(net, [2.0, 0.5, 1e-6], momentum=0.0, kl_clip=1e-4, fisher="empirical", **EVERY)
    step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    for rate in (2.0, 0.5, 1e-6):
        before = np.c_[net.weight.asnumpy(), net.bias.asnumpy()].astype(np.float64)
        step(x, y)
        inputs = np.c_[x.asnumpy(), np.ones(32)]
        logits = inputs @ before.T
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        grad = (p - np.eye(3)[y.asnumpy()]).T @ inputs / 32
        state = opt.states[opt.layers[0]].inverses
        v = state["inverse_g"][0].asnumpy() @ grad @ state["inverse_a"][0].asnumpy()
        moved = before - np.c_[net.weight.asnumpy(), net.bias.asnumpy()]
        nu = min(1.0, (1e-4 / (rate**2 * (v * grad).sum())) ** 0.5)
        expected = rate * nu * v
        scale = np.linalg.norm(expected) + 1e-7 * np.linalg.norm(before) / 1e-3  # weights are rounded to float32
        assert np.linalg.norm(moved - expected) / scale < 1e-3


def test_recipes_of_damping_momentum_and_norms():
    net, (x, y) = small(), rows(8)
    net[0].weight.asnumpy()[...] *= 100
    options = dict(damping_start=1e-2, damping_steps=2, couple_momentum=True, momentum=0.8, rescale=["0"])
    opt = SPNGD(net, [0.1, 0.05, 0.025], damping=1e-4, **options)
    step, seen = TrainStep(net, nn.CrossEntropyLoss(), opt), []
    for _ in range(3):
        step(x, y)
        seen.append(opt.damping)
    assert seen == pytest.approx([1e-2, 1e-3, 1e-4])
    assert np.linalg.norm(net[0].weight.asnumpy()) == pytest.approx(10**0.5, rel=1e-5)  # sqrt(2 * 5)
    warming = SPNGD(small(), [0.0, 0.1], momentum=0.8, couple_momentum=True)
    assert float(warming.group_values(0)["momentum"]) == 0.8  # nothing to be coupled to


def test_running_mixup_is_the_formula_with_the_draws_of_python_and_resumes():
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(4, 2)), np.eye(3)[generator.integers(3, size=4)]) for _ in range(5)]
    batches = [(Tensor(x.astype(np.float32)), Tensor(y.astype(np.float32))) for x, y in batches]
    mix, random, last = RunningMixup(0.4, seed=1), Random(1), None
    for place, (x, y) in enumerate(batches):
        if place == 3:
            resumed = RunningMixup(0.4, seed=9)
            resumed.load_state_dict(mix.state_dict())
            mix = resumed
        found = [part.asnumpy() for part in mix(x, y)]
        given = [part.asnumpy().astype(np.float64) for part in (x, y)]
        if last is not None:
            share = random.betavariate(0.4, 0.4)
            given = [share * new + (1.0 - share) * old for new, old in zip(given, last, strict=True)]
        for one, other in zip(found, given, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        last = given
    assert (mix(x[:3], y[:3])[0].asnumpy() == x[:3].asnumpy()).all()  # the last batch of an epoch
    with pytest.raises(
        InvalidArgument, match=r"targets: found Int32, expected probabilities .* mindspore\.ops\.one_hot"
    ):
        mix(x, Tensor([1, 2, 0, 1], ms.int32))


# MindSpore's habits


def test_it_trains_through_model_and_leaves_the_net_as_it_was(mode):
    ms.set_seed(0)
    net, (x, y) = small(), rows(32)
    classes = [type(cell) for _, cell in net.cells_and_names()]
    opt = KFAC(net, 0.1, **EVERY)
    step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    before = float(nn.CrossEntropyLoss()(net(x), y).asnumpy())
    data = ms.dataset.NumpySlicesDataset({"x": x.asnumpy(), "y": y.asnumpy()}, shuffle=False).batch(32)
    ms.train.Model(step).train(15, data, dataset_sink_mode=False)
    assert opt.steps == 15
    assert float(nn.CrossEntropyLoss()(net(x), y).asnumpy()) < 0.8 * before
    assert classes == [type(cell) for _, cell in net.cells_and_names()]
    assert [cell.activation_flag for cell in net.cell_list] == [True, False]
    assert not any({"tap", "tapped_activation"} & set(vars(cell)) for cell in net.cell_list)


def test_a_dynamic_loss_scale_cancels_and_skips_what_overflows():
    found = []
    for scale in (None, 1024.0):
        ms.set_seed(0)
        net, (x, y) = small(), rows(16)
        step = TrainStep(net, nn.CrossEntropyLoss(), SPNGD(net, 0.1), loss_scale=scale)
        for _ in range(3):
            step(x, y)
        found.append(np.concatenate([value.ravel() for value in values(net)]))
    assert np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0]) < 1e-6
    net = nn.Dense(4, 3)
    opt = KFAC(net, 0.1)
    manager = nn.DynamicLossScaleUpdateCell(2.0**126, 2.0, 100)
    step, before = TrainStep(net, nn.CrossEntropyLoss(), opt, loss_scale=manager), values(net)
    step(Tensor(x.asnumpy() * 1e5), y)
    assert opt.steps == 0
    assert same(before, values(net))


@pytest.mark.parametrize("kind", ONE_AND_SLOW_OTHERS)
def test_a_resumed_run_is_the_same_bit_for_bit(kind):
    make, _, options = KINDS[kind]

    def run(step, start, stop):
        for number in range(start, stop):
            step(*rows(8, seed=number))

    ms.set_seed(0)
    whole = small()
    first = values(whole)
    opt = make(whole, 0.1, **options)
    step = TrainStep(whole, nn.CrossEntropyLoss(), opt)
    run(step, 0, 5)
    ms.save_checkpoint([{"name": p.name, "data": p} for p in {id(p): p for p in opt.get_parameters()}.values()], "opt")
    ms.save_checkpoint(whole, "net")
    run(step, 5, 9)
    net = small()
    again = make(net, 0.1, **options)
    for cell, file in ((net, "net.ckpt"), (again, "opt.ckpt")):
        missing, _ = ms.load_param_into_net(cell, ms.load_checkpoint(file))
        assert not missing
    run(TrainStep(net, nn.CrossEntropyLoss(), again), 5, 9)
    assert not same(first, values(net))
    assert same(everything(whole, opt), everything(net, again))


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KFAC(nn.SequentialCell(nn.PReLU(3))), "net: found SequentialCell with no layer that KFAC covers"),
        (lambda: KFAC(small(), damping=0.0), "damping: found 0.0, expected a number > 0"),
        (lambda: THOR(small(), damping=-1.0), "damping: found -1.0"),
        (lambda: THOR(small(), fallback_lr=-1.0), "fallback_lr: found -1.0"),
        (lambda: SPNGD(small(), fallback_lr=[0.1, -2.0]), "fallback_lr: found -2.0"),
        (lambda: KFAC(small(), fallback_lr="low"), "fallback_lr: found 'low', expected a number, a list"),
        (lambda: SPNGD(small(), alpha=0.0), "alpha: found 0.0"),
        (lambda: KFAC(small().trainable_params()), "net: found list, expected a mindspore.nn.Cell"),
        (lambda: KFAC(small(), params=small().trainable_params()), "is not one of the net's"),
        (lambda: KFAC(small(), skip="0"), r"write skip=\['0'\]"),
        (lambda: KFAC(small(), fisher="exact"), "fisher: found 'exact', expected one of monte-carlo, empirical"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()


def test_skipped_layers_and_uncovered_parameters_fall_back_and_are_listed():
    ours, _ = pair()
    plan = {row.parameter: row for row in KFAC(ours, skip=["Conv2d"]).plan()}
    assert plan["conv.weight"].treatment == "adamw"
    assert plan["conv.weight"].detail == "skip='Conv2d'"
    assert plan["scale"].detail == "Ours has no Kronecker-factored form here"
    assert plan["head.weight"].detail == "linear, A 5 x 5, G 3 x 3"


@pytest.mark.parametrize("kind", ["kfac", "spngd"])
def test_nan_in_activations_is_refused_by_name_and_changes_nothing(kind):
    make, _, options = KINDS[kind]
    net, (x, y) = small(), rows(8)
    opt = make(net, 0.1, **options)
    step = TrainStep(net, nn.CrossEntropyLoss(), opt)
    step(x, y)
    before = everything(net, opt)
    x.asnumpy()[0, 0] = np.nan
    for _ in range(2):
        with pytest.raises(NonFinite, match="holds NaN or infinity"):
            step(Tensor(x.asnumpy()), y)
    assert same(before, everything(net, opt))


def test_a_factor_that_is_not_positive_definite_has_its_damping_raised_and_reported(caplog):
    net = nn.Dense(40, 3)
    opt = KFAC(net, damping=1e-20, fisher="empirical")
    x = np.random.default_rng(0).normal(size=(2, 40)) * np.logspace(-3, 3, 40)
    with caplog.at_level(logging.WARNING, "hessiod"):
        TrainStep(net, nn.CrossEntropyLoss(), opt)(Tensor(x.astype(np.float32)), Tensor(np.zeros(2, np.int32)))
    used = opt.states[opt.layers[0]].numbers()["damping"]
    assert used > opt.damping
    assert f"damping raised to {used:.3g}" in caplog.text
    assert np.isfinite(net.weight.asnumpy()).all()


class Twice(nn.Cell):
    def __init__(self, used=True):
        super().__init__()
        self.layer, self.other, self.used = nn.Dense(3, 3), nn.Dense(3, 3), used

    def construct(self, x):
        x = self.layer(ms.ops.tanh(self.layer(x)))
        return self.other(x) if self.used else x


def test_a_layer_used_twice_has_the_rows_of_both_uses():
    net, (x, y) = Twice(), rows(8, features=3)
    opt = KFAC(net, 0.0, fisher="empirical")
    TrainStep(net, nn.CrossEntropyLoss(), opt)(x, y)
    first = np.c_[x.asnumpy(), np.ones(8)]
    hidden = np.tanh(first @ np.c_[net.layer.weight.asnumpy(), net.layer.bias.asnumpy()].T)
    both = np.r_[first, np.c_[hidden, np.ones(8)]]
    found = opt.states[opt.layers[0]].arrays["factor_a"].asnumpy()
    np.testing.assert_allclose(found, both.T @ both / 16, rtol=2e-4, atol=1e-6)


def test_a_layer_that_the_loss_does_not_see_is_refused_by_name():
    net, (x, y) = Twice(used=False), rows(8, features=3)
    with pytest.raises(InvalidState, match=r"layer other: its forward was not seen .* skip=\['other'\]"):
        TrainStep(net, nn.CrossEntropyLoss(), KFAC(net))(x, y)


def test_without_a_train_step_it_is_refused():
    net = small()
    with pytest.raises(
        InvalidState, match=r"KFAC needs statistics of the layers: train with hessiod\.mindspore\.TrainStep"
    ):
        KFAC(net)(tuple(net.trainable_params()))
