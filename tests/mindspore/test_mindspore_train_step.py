"""TrainStep: curvature exactly when due and from the right numbers, trajectories against torch, Model.train."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from torch.nn import functional as F

import hessiod.torch as hessiod_torch
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.backends_mindspore.gpt import CrossEntropy
from hessiod.core import NonFinite, philox
from hessiod.mindspore import KFAC, AdamW, SophiaG, SophiaH, TrainStep

ROWS, WIDTH, HIDDEN, CLASSES = 12, 5, 7, 4


def batch(step, kind="classes"):
    """Inputs and targets of a step."""
    generator = np.random.default_rng(1000 + step)
    x = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
    if kind == "classes":
        return x, generator.integers(CLASSES, size=ROWS).astype(np.int32)
    if kind == "ignored":
        y = generator.integers(CLASSES, size=ROWS).astype(np.int32)
        return x, np.where(generator.random(ROWS) < 0.4, np.int32(-100), y)
    if kind == "bits":
        return x, (generator.random((ROWS, CLASSES)) < 0.5).astype(np.float32)
    return x, generator.normal(size=(ROWS, CLASSES)).astype(np.float32)


def initial(shapes, seed=0):
    generator = np.random.default_rng(seed)
    return [(0.5 * generator.normal(size=shape)).astype(np.float32) for shape in shapes]


def filled(net):
    """The net with weights that torch's net of the same layers gets too."""
    params = net.trainable_params()
    for param, array in zip(params, initial([param.shape for param in params]), strict=True):
        param.asnumpy()[...] = array
    return net


def perceptron():
    return filled(nn.SequentialCell(nn.Dense(WIDTH, HIDDEN), nn.Tanh(), nn.Dense(HIDDEN, CLASSES)))


def torch_perceptron():
    layers = torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES)
    net = torch.nn.Sequential(*layers)
    params = list(net.parameters())
    for param, array in zip(params, initial([param.shape for param in params]), strict=True):
        param.data = torch.tensor(array)
    return net


def run(step, count, kind="classes"):
    return [float(step(*map(Tensor, batch(t, kind))).asnumpy()) for t in range(1, count + 1)]


def torch_run(net, loss_fn, optimizer, count, kind="classes"):
    losses = []
    for t in range(1, count + 1):
        x, y = batch(t, kind)
        target = torch.tensor(y).long() if y.dtype == np.int32 else torch.tensor(y)
        logits = net(torch.tensor(x))
        loss = loss_fn(logits, target)
        losses.append(loss.item())
        if optimizer.curvature_due:
            optimizer.update_curvature(loss=loss, logits=logits)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def error(ours, theirs):
    """The largest difference, relative to the largest entry."""
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def agree(optimizer, mirror, bound=1e-5):
    for place, param in enumerate(mirror.param_groups[0]["params"]):
        assert error(optimizer.parameters[place].asnumpy(), param.detach().numpy()) < bound
        for slot in ("exp_avg", "hessian"):
            theirs = mirror.state[param][slot].numpy()
            assert theirs.any()
            assert error(getattr(optimizer, slot)[place].asnumpy(), theirs) < bound, slot


def state(net, optimizer):
    """The bits of every weight, buffer and slot, and the step count."""
    params = [*net.get_parameters(), *(p for slot in optimizer.slot_names for p in getattr(optimizer, slot))]
    return {param.name: param.asnumpy().tobytes() for param in params} | {"step": optimizer.steps}


# Curvature by hand


def softmax_regression(weight, bias, x, y):
    """Loss, and the gradient of weight and bias from labels, in float64."""
    logits = x @ weight.T + bias
    shifted = logits - logits.max(-1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)
    residual = (probabilities - np.eye(CLASSES)[y]) / len(x)
    loss = -np.log(probabilities[np.arange(len(x)), y]).mean()
    return loss, residual.T @ x, residual.sum(0), probabilities


def drawn_labels(probabilities, seed, step):
    """The class whose slice of the cumulative distribution holds the row's uniform number."""
    uniforms = philox.uniforms(numpy_xp, np.zeros(ROWS, np.float32), seed=seed, step=step)
    return [int(np.searchsorted(np.cumsum(p), u, side="right")) for p, u in zip(probabilities, uniforms, strict=True)]


def test_curvature_at_steps_1_11_21_and_the_loss_before_the_step(mode):
    """The Gauss-Newton-Bartlett estimate of a softmax regression, worked by hand in float64."""
    net = filled(nn.SequentialCell(nn.Dense(WIDTH, CLASSES)))
    weight, bias = net.trainable_params()
    optimizer = SophiaG([weight, bias], learning_rate=0.01, beta2=0.9, every=10, seed=7)
    step = TrainStep(net, nn.CrossEntropyLoss(), optimizer)
    expected = [np.zeros((CLASSES, WIDTH)), np.zeros(CLASSES)]
    refreshed = []
    for t in range(1, 23):
        x, y = batch(t)
        before = [slot.asnumpy().copy() for slot in optimizer.hessian]
        exact = [param.asnumpy().astype(np.float64) for param in (weight, bias)]
        loss, *_, probabilities = softmax_regression(*exact, x.astype(np.float64), y)
        assert optimizer.curvature_due == (t in (1, 11, 21))
        if t in (1, 11, 21):
            labels = drawn_labels(probabilities, seed=7, step=t)
            _, *gradients, _ = softmax_regression(*exact, x.astype(np.float64), labels)
            expected = [0.9 * h + 0.1 * ROWS * g**2 for h, g in zip(expected, gradients, strict=True)]
        assert error(step(Tensor(x), Tensor(y)).asnumpy(), np.float64(loss)) < 1e-6
        if any((slot.asnumpy() != old).any() for slot, old in zip(optimizer.hessian, before, strict=True)):
            refreshed.append(t)
        for slot, truth in zip(optimizer.hessian, expected, strict=True):
            assert error(slot.asnumpy(), truth) < 1e-5
    assert refreshed == [1, 11, 21]
    assert optimizer.steps == 22


# Against torch

GNB = {
    "categorical": (nn.CrossEntropyLoss, F.cross_entropy, "classes"),
    "ignored targets": (nn.CrossEntropyLoss, F.cross_entropy, "ignored"),
    "bernoulli": (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits, "bits"),
    "gaussian": (nn.MSELoss, F.mse_loss, "reals"),
}
OPTIONS = dict(beta1=0.9, beta2=0.95, rho=0.3, weight_decay=0.1, every=5, seed=3)
MIRRORED = dict(lr=0.02, betas=(0.9, 0.95), rho=0.3, weight_decay=0.1, every=5, seed=3)


def follow_torch(ours, theirs, losses, kind, count=25):
    net, twin = perceptron(), torch_perceptron()
    optimizer = ours(net.trainable_params(), learning_rate=0.02, **OPTIONS)
    mirror = theirs(twin.parameters(), **MIRRORED)
    step = TrainStep(net, losses[0](), optimizer)
    found = run(step, 1, kind)
    expected = torch_run(twin, losses[1], mirror, 1, kind)
    agree(optimizer, mirror)
    found += run(step, count - 1, kind)
    expected += torch_run(twin, losses[1], mirror, count - 1, kind)
    agree(optimizer, mirror)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert 0.0 < optimizer.clip_fraction() < 1.0
    assert optimizer.clip_fraction() == pytest.approx(mirror.clip_fraction(), abs=1e-9)


@pytest.mark.parametrize("case", GNB)
def test_sophia_g_follows_torch(case):
    """One step and 25 from the same weights and batches, with stock losses."""
    *losses, kind = GNB[case]
    likelihood = case if case in ("bernoulli", "gaussian") else "categorical"
    follow_torch(
        lambda params, **options: SophiaG(params, likelihood=likelihood, **options),
        lambda params, **options: hessiod_torch.SophiaG(params, likelihood=likelihood, **options),
        losses,
        kind,
    )


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_sophia_h_follows_torch(mode):
    follow_torch(SophiaH, hessiod_torch.SophiaH, (CrossEntropy, F.cross_entropy), "classes")


@pytest.mark.parametrize("seed", [3, 2**64 - 1])
def test_hessian_vector_product_against_float64(seed):
    """With beta2 = 0 the slot is the estimate itself: u * (H u), worked in float64 by torch."""
    net, twin = perceptron(), torch_perceptron().double()
    optimizer = SophiaH(net.trainable_params(), learning_rate=0.0, beta2=0.0, seed=seed)
    x, y = batch(1)
    TrainStep(net, CrossEntropy(), optimizer)(Tensor(x), Tensor(y))
    params = list(twin.parameters())
    loss = F.cross_entropy(twin(torch.tensor(x).double()), torch.tensor(y).long())
    probes = philox.rademacher_probes(numpy_xp, [np.zeros(tuple(p.shape)) for p in params], seed=seed, step=1)
    gradients = torch.autograd.grad(loss, params, create_graph=True)
    slope = sum((g * torch.tensor(u)).sum() for g, u in zip(gradients, probes, strict=True))
    products = torch.autograd.grad(slope, params)
    for slot, u, product in zip(optimizer.hessian, probes, products, strict=True):
        assert error(slot.asnumpy(), u * product.numpy()) < 1e-5


# The rest of a trainer's life


def test_model_train_is_the_same_as_a_loop(mode):
    class Rows:
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return batch(index + 1)

    losses = []

    class Record(ms.train.Callback):
        def on_train_step_end(self, run_context):
            losses.append(float(run_context.original_args().net_outputs.asnumpy()))

    net, other = perceptron(), perceptron()
    optimizers = [SophiaG(n.trainable_params(), learning_rate=0.02, **OPTIONS) for n in (net, other)]
    dataset = ms.dataset.GeneratorDataset(Rows(), ["x", "y"], shuffle=False, num_parallel_workers=1)
    model = ms.train.Model(TrainStep(net, nn.CrossEntropyLoss(), optimizers[0]))
    model.train(1, dataset, callbacks=[Record()], dataset_sink_mode=False)
    expected = run(TrainStep(other, nn.CrossEntropyLoss(), optimizers[1]), 7)
    assert losses == expected
    assert state(net, optimizers[0]) == state(other, optimizers[1])
    assert optimizers[0].steps == 7


def test_first_order_rules_train_through_it_too():
    """The same bits as in nn.TrainOneStepCell."""
    net, other = perceptron(), perceptron()
    optimizers = [AdamW(n.trainable_params(), learning_rate=0.02) for n in (net, other)]
    step = TrainStep(net, nn.CrossEntropyLoss(), optimizers[0])
    stock = nn.TrainOneStepCell(nn.WithLossCell(other, nn.CrossEntropyLoss()), optimizers[1])
    assert run(step, 3) == run(stock, 3)
    assert state(net, optimizers[0]) == state(other, optimizers[1])


@pytest.mark.parametrize("optimizer_class", [SophiaG, SophiaH])
def test_loss_scale_changes_nothing(optimizer_class):
    """Neither gradient nor curvature: a power of two is exact, so the bits are the same."""
    results = []
    for scale in (1.0, 1024.0):
        net = perceptron()
        optimizer = optimizer_class(net.trainable_params(), learning_rate=0.02, loss_scale=scale, **OPTIONS)
        losses = run(TrainStep(net, CrossEntropy(), optimizer), 6)
        results.append((losses, state(net, optimizer)))
    assert results[0] == results[1]


@pytest.mark.parametrize(("optimizer_class", "places"), [(SophiaG, (2, 3)), (SophiaG, (0,)), (SophiaH, (2,))])
def test_some_of_the_parameters(optimizer_class, places):
    """The others stay as they were, bit for bit, and those given follow torch."""
    net, twin = perceptron(), torch_perceptron()
    params = net.trainable_params()
    before = [param.asnumpy().tobytes() for param in params]
    optimizer = optimizer_class([params[place] for place in places], learning_rate=0.02, **OPTIONS)
    theirs = getattr(hessiod_torch, optimizer_class.__name__)
    mirror = theirs([list(twin.parameters())[place] for place in places], **MIRRORED)
    run(TrainStep(net, CrossEntropy(), optimizer), 6)
    torch_run(twin, F.cross_entropy, mirror, 6)
    agree(optimizer, mirror)
    for place, (param, old) in enumerate(zip(params, before, strict=True)):
        assert (param.asnumpy().tobytes() == old) == (place not in places)


class Two(nn.Cell):
    """A net of two inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Dense(WIDTH, CLASSES), nn.Dense(WIDTH, CLASSES)

    def construct(self, a, b):
        return self.left(a) * self.right(b)


def test_nets_of_two_inputs():
    net, left, right = filled(Two()), torch.nn.Linear(WIDTH, CLASSES), torch.nn.Linear(WIDTH, CLASSES)
    params = [*left.parameters(), *right.parameters()]
    for param, array in zip(params, initial([p.shape for p in params]), strict=True):
        param.data = torch.tensor(array)
    optimizer = SophiaG(net.trainable_params(), learning_rate=0.02, **OPTIONS)
    mirror = hessiod_torch.SophiaG(params, **MIRRORED)
    step = TrainStep(net, CrossEntropy(), optimizer)
    for t in range(1, 7):
        (a, y), (b, _) = batch(t), batch(100 + t)
        step(Tensor(a), Tensor(b), Tensor(y))
        logits = left(torch.tensor(a)) * right(torch.tensor(b))
        loss = F.cross_entropy(logits, torch.tensor(y).long())
        if mirror.curvature_due:
            mirror.update_curvature(loss=loss, logits=logits)
        loss.backward()
        mirror.step()
        mirror.zero_grad()
    agree(optimizer, mirror)


@pytest.mark.parametrize("optimizer_class", [SophiaG, SophiaH])
def test_batch_norm_statistics_move_once_a_step(optimizer_class):
    """On steps with curvature too: worked by hand from the inputs, which the norm sees first."""
    net = nn.SequentialCell(nn.BatchNorm1d(WIDTH, momentum=0.75), nn.Dense(WIDTH, CLASSES))
    norm = net[0]
    optimizer = optimizer_class(net.trainable_params(), learning_rate=0.02, every=2)
    step = TrainStep(net, CrossEntropy(), optimizer)
    step.set_train()
    mean, variance = np.zeros(WIDTH), np.ones(WIDTH)
    for t in range(1, 5):
        x, y = batch(t)
        step(Tensor(x), Tensor(y))
        mean = 0.75 * mean + 0.25 * x.mean(0, dtype=np.float64)
        variance = 0.75 * variance + 0.25 * x.astype(np.float64).var(0, ddof=1)
        assert error(norm.moving_mean.asnumpy(), mean) < 1e-5, t
        assert error(norm.moving_variance.asnumpy(), variance) < 1e-5, t


@pytest.mark.parametrize(("mode", "optimizer_class"), [("pynative", SophiaH), ("graph", SophiaG)], indirect=["mode"])
def test_nonfinite_step_changes_nothing(mode, optimizer_class):
    """On a step with curvature and on one without; afterwards training goes on."""
    net = perceptron()
    optimizer = optimizer_class(net.trainable_params(), learning_rate=0.02, every=3)
    step = TrainStep(net, CrossEntropy(), optimizer)
    x, y = batch(1)
    bad = x.copy()
    bad[3, 2] = np.nan
    for taken in range(2):
        assert optimizer.curvature_due == (taken == 0)
        before = state(net, optimizer)
        with pytest.raises(NonFinite, match=r"parameter '0\.weight'.*nothing was changed"):
            step(Tensor(bad), Tensor(y))
        assert state(net, optimizer) == before
        assert np.isfinite(float(step(Tensor(x), Tensor(y)).asnumpy()))
        assert optimizer.steps == taken + 1
    optimizer.nonfinite = "skip"
    before = state(net, optimizer)
    step(Tensor(bad), Tensor(y))
    assert state(net, optimizer) == before
    assert int(optimizer.refused.asnumpy()) == 3


@pytest.mark.parametrize("optimizer_class", [SophiaG, SophiaH])
def test_no_python_runs_inside_the_graph(optimizer_class, python_in_graphs):
    net = perceptron()
    step = TrainStep(net, CrossEntropy(), optimizer_class(net.trainable_params()))
    run(step, 1)
    assert python_in_graphs() == 0


@pytest.mark.parametrize("make", [AdamW, pytest.param(KFAC, marks=pytest.mark.slow)], ids=["host", "kronecker"])
def test_what_is_loaded_between_steps_is_what_the_next_step_sees(make, tmp_path):
    """``set_data`` gives a parameter another tensor, which a graph that has run does not see."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = perceptron()
    opt = make(net, 0.1) if make is KFAC else make(net.trainable_params(), learning_rate=0.1)
    step = TrainStep(net, CrossEntropy(), opt)
    x, y = map(Tensor, batch(0))
    step(x, y)
    ms.save_checkpoint(opt, str(tmp_path / "opt.ckpt"))
    weights = [param.asnumpy().copy() for param in net.trainable_params()]
    losses = [float(step(x, y)) for _ in range(3)]

    for param, values in zip(net.trainable_params(), weights, strict=True):
        param.set_data(Tensor(values))
    ms.load_param_into_net(opt, ms.load_checkpoint(str(tmp_path / "opt.ckpt")))
    again = [float(step(x, y)) for _ in range(3)]
    np.testing.assert_allclose(again, losses, rtol=3e-7)  # two runs of one graph on the same weights differ by an ULP

    rate = opt.learning_rate[0] if make is KFAC else opt.learning_rate
    rate.set_data(Tensor(0.0, ms.float32))
    kept = [param.asnumpy().copy() for param in net.trainable_params()]
    step(x, y)
    assert all(np.array_equal(param.asnumpy(), old) for param, old in zip(net.trainable_params(), kept, strict=True))
