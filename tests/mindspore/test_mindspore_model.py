"""Model.train: curvature when due, diagnostics logged, runs that go on bit for bit, stock callbacks and train cells."""

from __future__ import annotations

import shutil

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train import CheckpointConfig, LearningRateScheduler, LossMonitor, Model, ModelCheckpoint

from hessiod.core import InvalidArgument, InvalidState
from hessiod.mindspore import KFAC, AdamW, Apollo, Checkpoint, Diagnostics, SophiaG, SophiaH, TrainStep, scalars

ROWS, BATCH, WIDTH, CLASSES = 40, 8, 5, 4
generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, WIDTH)).astype(np.float32)
Y = (X @ generator.normal(size=(WIDTH, CLASSES))).argmax(-1).astype(np.int32)
WEIGHTS = [
    generator.normal(size=shape).astype(np.float32) / 2 for shape in ((7, WIDTH), (7,), (CLASSES, 7), (CLASSES,))
]


def batches():
    return ms.dataset.NumpySlicesDataset({"x": X, "y": Y}, shuffle=False).batch(BATCH)


class Half(nn.Cell):
    """A net that works in float16."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        net.to_float(ms.float16)

    def construct(self, x):
        return self.net(x)


def filled(half=False):
    net = nn.SequentialCell(nn.Dense(WIDTH, 7), nn.Tanh(), nn.Dense(7, CLASSES))
    for param, array in zip(net.trainable_params(), WEIGHTS, strict=True):
        param.asnumpy()[...] = array
    return Half(net) if half else net


def trainer(kind, half=False, **options):
    """A TrainStep with an optimizer of this kind."""
    net = filled(half)
    settings = dict(learning_rate=0.05)
    if kind is KFAC:
        optimizer = KFAC(net, factor_every=2, inverse_every=4, **settings)
    elif kind in (SophiaG, SophiaH):
        optimizer = kind(net.trainable_params(), rho=0.3, every=4, **settings)
    else:
        optimizer = kind(net.trainable_params(), **settings)
    return TrainStep(net, nn.CrossEntropyLoss(), optimizer, **options)


def state(step):
    """The bits of everything that a run has."""
    return {param.name: param.asnumpy().tobytes() for param in step.get_parameters() if "probe" not in param.name}


class Losses(ms.train.Callback):
    def __init__(self):
        self.found = []

    def on_train_step_end(self, run_context):
        self.found.append(float(run_context.original_args().net_outputs.asnumpy()))


@pytest.mark.parametrize(
    ("mode", "kind", "refreshed"), [("graph", SophiaG, [1, 5, 9]), ("pynative", KFAC, None)], indirect=["mode"]
)
def test_a_run_is_logged(mode, kind, refreshed):
    """The loss falls, curvature comes at its steps, and stock monitors find what they look for."""
    step, losses, seen = trainer(kind), Losses(), []
    net = step.loss.net
    evaluate = nn.WithEvalCell(net, nn.CrossEntropyLoss())
    model = Model(step, eval_network=evaluate, metrics={"accuracy": ms.train.Accuracy()}, eval_indexes=[0, 1, 2])
    model.fit(2, batches(), batches(), callbacks=[losses, LossMonitor(10), Diagnostics(seen.append, every=1)])
    assert [entry["hessiod/step"] for entry in seen] == list(range(1, 11))
    assert [entry["hessiod/loss"] for entry in seen] == losses.found
    assert np.mean(losses.found[5:]) < np.mean(losses.found[:5])
    if refreshed:
        counts = [0, *(entry["hessiod/refreshes"] for entry in seen)]
        assert [place for place in range(1, 11) if counts[place] > counts[place - 1]] == refreshed
        assert seen[-1]["hessiod/clip_fraction"] == step.optimizer.clip_fraction()
        assert seen[-1]["hessiod/interval"] == 4
    else:
        taken = step.optimizer.states[step.optimizer.layers[0]].numbers()["refreshes"]
        assert taken == 5
        assert seen[-1]["hessiod/interval/max"] == 2
        assert seen[-1]["hessiod/damping"] == step.optimizer.damping
    assert all(isinstance(value, int | float) for entry in seen for value in entry.values())


def test_the_same_names_as_on_torch():
    """One dashboard for both."""
    import torch

    import hessiod.torch as hessiod_torch

    step = trainer(SophiaG)
    step(Tensor(X), Tensor(Y))
    model = torch.nn.Linear(WIDTH, CLASSES)
    opt = hessiod_torch.SophiaG(model.parameters(), every=4)
    with hessiod_torch.CurvatureHook(model, opt):
        torch.nn.functional.cross_entropy(model(torch.tensor(X)), torch.tensor(Y).long()).backward()
        opt.step()
    assert set(scalars(step.optimizer)) - set(hessiod_torch.scalars(opt)) == {"hessiod/refused"}
    assert set(hessiod_torch.scalars(opt)) <= set(scalars(step.optimizer))


# 2^20 times the loss is infinite in float16's gradients: the first steps overflow, and the scale moves.
SCALE = {"half": True, "loss_scale": lambda: ms.amp.DynamicLossScaleManager(2**20, 2, 3)}
RUNS = {
    "SophiaG, dynamic loss scale": (SophiaG, ".safetensors", SCALE),
    "SophiaH, mid-epoch": (SophiaH, ".safetensors", {}),
    "KFAC": (KFAC, ".ckpt", {}),
    "KFAC, a file for torch too": (KFAC, ".safetensors", {}),
    "AdamW, micro-batches": (AdamW, ".ckpt", {"accumulation": 5}),
}
SLOW = ("KFAC, a file for torch too", "SophiaH, mid-epoch", "AdamW, micro-batches")


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow][: case in SLOW]) for case in RUNS])
def test_a_run_goes_on_bit_for_bit(case, tmp_path):
    """Taken up by a new net, optimizer and step, after one epoch of three or within the second."""
    kind, suffix, options = RUNS[case]
    options = {name: value() if callable(value) else value for name, value in options.items()}
    file, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    middle = "mid-epoch" in case
    whole, losses = trainer(kind, **options), Losses()
    save = Checkpoint(file, whole, every=7 if middle else None)
    Model(whole).train(3, batches(), callbacks=[save, losses, Copy(file, cut, 7 if middle else 6)])

    options = {name: value() if callable(value) else value for name, value in RUNS[case][2].items()}
    second, rest = trainer(kind, **options), Losses()
    save = Checkpoint(cut, second)
    at = save.resume()
    assert (at.epoch, at.batch) == (1, 2 if middle else 0)
    if middle:
        Model(second).train(2, batches().skip(at.batch), callbacks=[save, rest], initial_epoch=1)
    Model(second).train(3, batches(), callbacks=[save, rest], initial_epoch=save.position.epoch)
    assert rest.found == losses.found[5 + at.batch :]
    assert state(second) == state(whole)
    if "scale" in case:
        assert int(whole.optimizer.refused.asnumpy()) >= 4
        assert whole.optimizer.steps + int(whole.optimizer.refused.asnumpy()) == 15
        assert all(np.isfinite(param.asnumpy()).all() for param in whole.get_parameters())


class Copy(ms.train.Callback):
    """What a run that is killed in its n-th batch leaves behind."""

    def __init__(self, file, to, batch):
        self.file, self.to, self.left = file, to, batch

    def on_train_step_end(self, run_context):
        self.left -= 1
        if not self.left:
            shutil.copy(self.file, self.to)


def test_mindspore_s_own_checkpoints_go_on_bit_for_bit_too(tmp_path):
    """Loaded before the first step: later a compiled graph would not see them."""
    whole, first = trainer(SophiaG), trainer(SophiaG)
    Model(whole).train(2, batches())
    Model(first).train(1, batches(), callbacks=[ModelCheckpoint("run", str(tmp_path), CheckpointConfig(5))])
    second = trainer(SophiaG)
    left = ms.load_param_into_net(second, ms.load_checkpoint(str(tmp_path / "run-1_5.ckpt")))
    assert left == ([], [])
    Model(second).train(2, batches(), initial_epoch=1)
    assert state(second) == state(whole)


def test_a_learning_rate_scheduler_finds_the_optimizer():
    """Behind a callback of this package; the run is that of the same rates in a list."""
    step, other = trainer(SophiaG), filled()
    callbacks = [Diagnostics(lambda values: None), LearningRateScheduler(lambda rate, step: rate / 2)]
    Model(step).train(1, batches(), callbacks=callbacks)
    optimizer = SophiaG(other.trainable_params(), learning_rate=[0.05 / 2**k for k in range(5)], rho=0.3, every=4)
    Model(TrainStep(other, nn.CrossEntropyLoss(), optimizer)).train(1, batches())
    for ours, theirs in zip(step.weights, optimizer.parameters, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-6)


def test_stock_train_cells_take_rules_of_the_gradient():
    """Model(net, loss_fn, optimizer), which is nn.TrainOneStepCell: the same bits as TrainStep."""
    net, step = filled(), trainer(Apollo)
    Model(net, nn.CrossEntropyLoss(), Apollo(net.trainable_params(), learning_rate=0.05)).train(1, batches())
    Model(step).train(1, batches())
    for ours, theirs in zip(step.weights, net.trainable_params(), strict=True):
        assert ours.asnumpy().tobytes() == theirs.asnumpy().tobytes()


@pytest.mark.parametrize("kind", [SophiaG, KFAC])
def test_stock_train_cells_refuse_rules_of_curvature(kind, mode):
    step = trainer(kind)
    model = Model(step.loss.net, nn.CrossEntropyLoss(), step.optimizer)
    with pytest.raises(
        (InvalidState, RuntimeError), match=r"train with hessiod.mindspore.TrainStep\(net, loss_fn, opt"
    ):
        model.train(1, batches())
    assert step.optimizer.steps == 0


@pytest.mark.parametrize("level", [pytest.param(level, marks=pytest.mark.slow) for level in ("O1", "O3")] + ["O2"])
def test_nets_of_ms_amp(level):
    """Mixed precision with a dynamic scale that overflows first: within 1e-2 of the float32 run's losses."""
    net = ms.amp.auto_mixed_precision(filled(), level)
    optimizer = SophiaG(net.trainable_params(), learning_rate=0.05, rho=0.3, every=4)
    scale = ms.amp.DynamicLossScaleManager(2**20, 2, 100)
    step = TrainStep(net, nn.CrossEntropyLoss(), optimizer, loss_scale=scale)
    losses, seen = Losses(), []
    Model(step).train(3, batches(), callbacks=[losses, Diagnostics(seen.append, every=1)])
    skipped = int(optimizer.refused.asnumpy())
    assert skipped >= 1
    assert seen[-1]["hessiod/loss_scale"] == 2 ** (20 - skipped)
    assert [entry["hessiod/step"] for entry in seen] == list(range(1, 16 - skipped))
    assert np.mean(losses.found[-5:]) < np.mean(losses.found[:5])
    assert all(np.isfinite(param.asnumpy()).all() for param in step.get_parameters())


def test_what_does_not_fit_is_refused(tmp_path):
    step = trainer(KFAC)
    with pytest.raises(InvalidArgument, match=r"path: found .*run\.pt.*\.safetensors or \.ckpt"):
        Checkpoint(tmp_path / "run.pt", step)
    with pytest.raises(InvalidArgument, match="every: found 0"):
        Diagnostics(print, every=0)
    halves = trainer(AdamW, accumulation=2)
    with pytest.raises(InvalidArgument, match="accumulation: found 2 with epochs of 5 batches"):
        Model(halves).train(1, batches(), callbacks=[Checkpoint(tmp_path / "run.ckpt", halves)])
    net = filled()
    stock = Model(net, nn.CrossEntropyLoss(), AdamW(net.trainable_params()))
    with pytest.raises(InvalidArgument, match="Model: found the network TrainOneStepCell, expected a hessiod"):
        stock.train(1, batches(), callbacks=[Diagnostics(print)])
