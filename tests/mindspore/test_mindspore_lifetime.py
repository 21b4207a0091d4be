"""What a long run needs: no graph compiled twice, memory that stays, checkpoints that resume bit for bit."""

from __future__ import annotations

import gc

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.graph import api
from mindspore.train import Model

from hessiod.mindspore import AdamW, Diagnostics, SophiaG, TrainStep

ROWS, WIDTH, CLASSES = 12, 5, 4


def batch(step, rows=ROWS):
    generator = np.random.default_rng(step)
    x = generator.normal(size=(rows, WIDTH)).astype(np.float32)
    return Tensor(x), Tensor(generator.integers(CLASSES, size=rows).astype(np.int32))


def new(seed=0, **options):
    """A small net, its SophiaG and its step."""
    net = nn.SequentialCell(nn.Dense(WIDTH, 7), nn.Tanh(), nn.Dense(7, CLASSES))
    generator = np.random.default_rng(seed)
    for param in net.trainable_params():
        param.asnumpy()[...] = 0.5 * generator.normal(size=param.shape)
    optimizer = SophiaG(net.trainable_params(), **{"learning_rate": 0.02, "every": 3, **options})
    return net, optimizer, TrainStep(net, nn.CrossEntropyLoss(), optimizer)


def compiled():
    """How many graphs this process holds; each compilation adds its phase to one of these."""
    return len(api.ms_compile_cache) + sum(len(phases) for phases in api.cells_compile_cache.values())


@pytest.mark.parametrize("mode", ["graph", pytest.param("pynative", marks=pytest.mark.slow)], indirect=True)
def test_two_graphs_for_all_steps_and_learning_rates(mode):
    """The first two steps make them, with curvature and without; another batch size is the control: it compiles."""
    _, optimizer, step = new()
    for t in (1, 2):
        step(*batch(t))
    before = compiled()
    for t in range(3, 51):
        if t % 10 == 0:
            ops.assign(optimizer.learning_rate, Tensor(0.02 / t, ms.float32))
        step(*batch(t))
    assert compiled() == before
    step(*batch(51, rows=ROWS + 1))
    assert compiled() > before


def test_one_graph_for_a_list_of_learning_rates():
    weight = Parameter(Tensor(np.ones(3, np.float32)), name="weight")
    optimizer = AdamW([weight], learning_rate=[0.1 / t for t in range(1, 22)])
    gradient = (Tensor(np.ones(3, np.float32)),)
    optimizer(gradient)
    before = compiled()
    for _ in range(20):
        optimizer(gradient)
    assert compiled() == before


def test_sophia_holds_two_arrays_a_parameter():
    """And beside them no more than counts, a learning rate and a bool a parameter."""
    net, optimizer, step = new()
    step(*batch(1))
    held = {param.name: param for param in optimizer.get_parameters()}
    weights = net.trainable_params()
    slots = {f"{slot}.{weight.name}": weight.shape for weight in weights for slot in ("exp_avg", "hessian")}
    assert {name: held[name].shape for name in slots} == slots
    rest = set(held) - set(slots) - {weight.name for weight in weights}
    assert {"learning_rate", "global_step", "refused", "finite"} <= rest
    assert sum(held[name].size for name in rest) < 12 < min(weight.size for weight in weights if weight.ndim > 1)


class Growth(ms.train.Callback):
    """How far memory rises from one step to another, in arrays of the weight's size."""

    def __init__(self, resident, size, first, last):
        super().__init__()
        self.resident, self.size, self.steps, self.found = resident, size, (first, last), []

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num in self.steps:
            gc.collect()
            self.found.append(self.resident() / self.size)

    def rise(self):
        first, last = self.found
        return last - first


class Leak(ms.train.Callback):
    """One array a step."""

    def __init__(self, param):
        super().__init__()
        self.param, self.kept = param, []

    def on_train_step_end(self, run_context):
        self.kept.append(self.param.asnumpy().copy())


def test_memory_does_not_grow_over_300_steps_of_model_train(resident):
    """With a weight of 4 MB, a leak of one array in a hundred steps would show as 3; the control leaks one a step."""
    width = 1024
    net = nn.Dense(width, width, has_bias=False)
    optimizer = SophiaG(net.trainable_params(), learning_rate=1e-4, likelihood="gaussian", every=5)
    model, seen = Model(TrainStep(net, nn.MSELoss(), optimizer)), []
    batches = {"x": np.ones((640, width), np.float32), "y": np.zeros((640, width), np.float32)}
    data = ms.dataset.NumpySlicesDataset(batches, shuffle=False).batch(2)
    log = Diagnostics(lambda values: seen.append(len(values)), every=20)

    growth = Growth(resident, 4 * width * width, 20, 320)
    model.train(1, data, callbacks=[log, growth])
    assert len(seen) == 16
    assert growth.rise() < 1.5
    control = Growth(resident, 4 * width * width, 1, 21)
    model.train(1, data.take(21), callbacks=[Leak(optimizer.exp_avg[0]), control])
    assert control.rise() > 10


def bits(net, optimizer):
    params = [*net.trainable_params(), *optimizer.exp_avg, *optimizer.hessian]
    return [param.asnumpy().tobytes() for param in params] + [optimizer.steps]


def restore_by_loading(net, optimizer, folder):
    """MindSpore's own way, before the first step."""
    for cell, name in ((net, "net"), (optimizer, "optimizer")):
        missing, _ = ms.load_param_into_net(cell, ms.load_checkpoint(str(folder / f"{name}.ckpt")))
        assert not missing


def restore_through_views(net, optimizer, folder):
    """Through the zero-copy arrays, which a graph that has run sees too."""
    for cell, name in ((net, "net"), (optimizer, "optimizer")):
        saved = ms.load_checkpoint(str(folder / f"{name}.ckpt"))
        for param in cell.get_parameters():
            param.asnumpy()[...] = saved[param.name].asnumpy()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run cut after five steps, between two estimates, with a refused step behind it; then on to the tenth."""
    folder = tmp_path_factory.mktemp("whole")
    net, optimizer, step = new(nonfinite="skip")
    for t in range(1, 6):
        step(*batch(t))
    step(Tensor(np.full((ROWS, WIDTH), np.nan, np.float32)), batch(1)[1])
    ms.save_checkpoint(net, str(folder / "net.ckpt"))
    ms.save_checkpoint(optimizer, str(folder / "optimizer.ckpt"))
    history = {5: bits(net, optimizer)}
    for t in range(6, 11):
        step(*batch(t))
        history[t] = bits(net, optimizer)
    return folder, history


@pytest.mark.parametrize("way", ["loaded before the first step", "written through views", "written into a used one"])
def test_standard_checkpoints_resume_bit_for_bit(way, whole):
    """The count of refused steps is restored too, and raises nothing."""
    folder, history = whole
    net, optimizer, step = new(seed=1)
    if way == "written into a used one":
        step(*batch(40))
    restore = restore_by_loading if way.startswith("loaded") else restore_through_views
    restore(net, optimizer, folder)
    assert bits(net, optimizer) == history[5]
    assert int(optimizer.refused.asnumpy()) == 1
    for t in range(6, 11):
        step(*batch(t))
        assert bits(net, optimizer) == history[t], t
    assert optimizer.steps == 10
