"""What each process of test_mindspore_parallel runs: ``msrun ... python parallel_run.py FOLDER CASE ...``.

Every process trains on its part of each batch; one of them then trains alone on whole batches. Weights go to FOLDER.
"""

from __future__ import annotations

import contextlib
import io
import logging.handlers
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.communication import get_group_size, get_rank, init

from hessiod.core import HessiodError, NonFinite
from hessiod.core.kronecker import fixed
from hessiod.mindspore import (
    KFAC,
    SGD,
    SPNGD,
    THOR,
    AdaHessian,
    AdamW,
    Apollo,
    DiagonalNewton,
    SophiaG,
    SophiaH,
    TrainStep,
)

ROWS, WIDTH, CLASSES, STEPS = 16, 5, 4, 20
RULES = {
    "SophiaG": lambda params, **more: SophiaG(params, learning_rate=0.02, rho=0.3, every=3, **more),
    "SophiaH": lambda params, **more: SophiaH(params, learning_rate=0.02, rho=0.3, every=3, **more),
    "AdaHessian": lambda params, **more: AdaHessian(params, learning_rate=0.05, every=2, **more),
    "DiagonalNewton": lambda params, **more: DiagonalNewton(params, learning_rate=0.05, every=2, damping=0.5, **more),
    "Apollo": lambda params, **more: Apollo(params, learning_rate=0.05, warmup=5, **more),
    "AdamW": lambda params, **more: AdamW(params, learning_rate=0.02, **more),
    "SGD": lambda params, **more: SGD(params, learning_rate=0.05, momentum=0.9, **more),
}
"""DiagonalNewton divides by its curvature: with its own small damping one ULP of the weights is a run of its own."""

KRONECKER = {
    "KFAC": lambda net: KFAC(net, 0.05, factor_every=2, inverse_every=4, adapt_every=5, damping=0.1, skip=["5"]),
    "SPNGD": lambda net: SPNGD(net, 0.05, damping=0.1, skip=["5"]),
    "THOR": lambda net: THOR(net, 0.05, damping=0.1, block_size=4, factor_every=3, placement="every", skip=["5"]),
}
"""Targets sampled by K-FAC, of the loss by the others; the last layer follows the fallback."""

MODES = {"pynative": ms.PYNATIVE_MODE, "graph": ms.GRAPH_MODE}


def data():
    """Whole batches."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(STEPS, ROWS, WIDTH)).astype(np.float32)
    return x, generator.integers(CLASSES, size=(STEPS, ROWS)).astype(np.int32)


def net_of(rule):
    """A perceptron; for Kronecker methods with a normalisation, and with a layer more than two processes own."""
    if rule not in KRONECKER:
        return nn.SequentialCell(nn.Dense(WIDTH, 7), nn.Tanh(), nn.Dense(7, CLASSES))
    norm = nn.LayerNorm((7,), epsilon=1e-5)
    return nn.SequentialCell(nn.Dense(WIDTH, 7), norm, nn.Tanh(), nn.Dense(7, 7), nn.Dense(7, 6), nn.Dense(6, CLASSES))


def new(rule, seed=0, dtype=ms.float32, step={}, **options):  # noqa: B006 - only read
    """A TrainStep with equal weights everywhere for equal seeds."""
    generator, net = np.random.default_rng(seed), net_of(rule)
    for param in net.trainable_params():
        param.set_dtype(dtype)
        param.asnumpy()[...] = generator.normal(size=param.shape) / 2
    optimizer = KRONECKER[rule](net) if rule in KRONECKER else RULES[rule](net.trainable_params(), **options)
    return TrainStep(net, nn.CrossEntropyLoss(), optimizer, **step)


def weights(train):
    """All weights and slots, one after the other, and a Kronecker method's damping."""
    members = train.optimizer.members
    groups = [group for one in members for group in (one.parameters, *(getattr(one, slot) for slot in one.slot_names))]
    arrays = [param.asnumpy().ravel() for params in groups for param in params]
    return np.concatenate([*arrays, np.ravel(getattr(train.optimizer, "damping", ()))])


class Part:
    """A process's part of the batches, for ms.dataset."""

    def __init__(self):
        self.x, self.y = data()
        self.rows = np.array_split(np.arange(ROWS), get_group_size())[get_rank()]

    def __len__(self):
        return STEPS

    def __getitem__(self, place):
        return self.x[place][self.rows], self.y[place][self.rows]


def together(rule):
    """By Model.train."""
    train = new(rule)
    dataset = ms.dataset.GeneratorDataset(Part(), ["x", "y"], shuffle=False, num_parallel_workers=1)
    ms.train.Model(train).train(1, dataset)
    return train


def alone(rule):
    """On whole batches."""
    train = new(rule, step={"data_parallel": False})
    for x, y in zip(*data(), strict=True):
        train(Tensor(x), Tensor(y))
    return train


def trained(train, case):
    """The TrainStep of a rule in a mode, "SophiaG-graph", after its training."""
    rule, mode = case.split("-")
    ms.set_context(mode=MODES[mode])
    return train(rule)


def trajectories(folder, cases):
    """Every case together; then each process trains its share of them alone, with nobody waiting for it."""
    for case in cases:
        train = trained(together, case)
        np.save(folder / f"{case}-rank{get_rank()}.npy", weights(train))
        if isinstance(train.optimizer, KFAC):
            failing_inverses(folder, train)
    for case in cases[get_rank() :: get_group_size()]:
        np.save(folder / f"{case}-alone.npy", weights(trained(alone, case)))


def failing_inverses(folder, train):
    """Spoil a factor that process 1 inverts, before a step that inverts: until damping is raised, and for good."""
    optimizer, cluster, rank = train.optimizer, train.own_step.cluster, get_rank()
    layer = next(layer for layer in cluster.owner_of if layer.inverse_cost(None) and cluster.owner_of[layer] == 1)
    factor, said = optimizer.states[layer].arrays["factor_a"], []
    logged = logging.handlers.BufferingHandler(capacity=100)
    logging.getLogger("hessiod").addHandler(logged)
    for place, smallest in enumerate((-0.5, -1e30)):
        while not fixed.due(optimizer.steps + 1, optimizer.settings["inverse_every"]):
            take(train, place)
        factor.asnumpy()[...] = smallest * np.eye(len(factor.asnumpy()))
        before, damping = weights(train), optimizer.damping
        try:
            take(train, place)
            said.append(f"{optimizer.states[layer].read()['damping'] / damping:.6g} times")
        except NonFinite as error:
            said.append(str(error))
            assert (weights(train) == before).all()
        np.save(folder / f"failing-{place}-rank{rank}.npy", weights(train))
    said.append(str(sum("damping raised" in record.getMessage() for record in logged.buffer)))
    (folder / f"failing-rank{rank}.txt").write_text("\n".join(said))


def take(train, place):
    """A step on this process's part of a batch."""
    train(*map(Tensor, Part()[place]))


def refusals(folder):
    """What every process says, a line each: a batch of one process that is not finite, unlike weights, settings."""
    said = []
    part, rank = Part(), get_rank()
    train = new("AdamW")
    x, y = (array.copy() for array in part[0])
    x[0, 0] = np.nan if rank == 1 else 0.0
    before = weights(train)
    for attempt in (
        lambda: train(Tensor(x), Tensor(y)),
        lambda: new("AdamW", seed=rank)(Tensor(x), Tensor(y)),
        lambda: new("SGD", dtype=ms.float64),
        lambda: with_context(parallel_mode="stand_alone"),
        lambda: with_context(parallel_mode="data_parallel", gradients_mean=False),
    ):
        try:
            attempt()
            said.append("nothing")
        except HessiodError as error:
            said.append(f"{type(error).__name__}: {error}")
    assert (weights(train) == before).all()
    (folder / f"refusals-rank{rank}.txt").write_text("\n".join(said))


def with_context(**settings):
    """A TrainStep under other settings of MindSpore's, which are put back."""
    ms.set_auto_parallel_context(**settings)
    try:
        new("AdamW")
    finally:
        ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)


def printed(program):
    """What a program of the documentation prints."""
    with contextlib.redirect_stdout(io.StringIO()) as found:
        exec(program, {})
    return found.getvalue()


if __name__ == "__main__":
    init()
    ms.set_auto_parallel_context(parallel_mode="data_parallel", gradients_mean=True)
    folder = Path(sys.argv[1])
    refusals(folder)
    if (folder / "program.py").exists():
        (folder / f"printed-rank{get_rank()}.txt").write_text(printed((folder / "program.py").read_text()))
    trajectories(folder, sys.argv[2:])
