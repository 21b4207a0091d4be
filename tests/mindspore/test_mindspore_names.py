"""Parameters of any name: those of an optimizer's own attributes, parameters and slots included."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends_mindspore.gpt import CrossEntropy
from hessiod.mindspore import AdamW, SophiaG, SophiaH, TrainStep

ATTRIBUTES = ("every", "seed", "nonfinite", "parameters", "loss_scale", "slot0", "fraction", "samples", "second_order")
OF_THE_STEP = ("loss", "weights", "estimate", "optimizer", "net", "slopes")
OWN = ("global_step", "learning_rate", "refused", "refreshes", "finite", "exp_avg", "hessian", "exp_avg.every")
NAMES = (*ATTRIBUTES, *OF_THE_STEP, *OWN)
generator = np.random.default_rng(0)
WEIGHTS = generator.normal(size=(len(NAMES), 3, 4)).astype(np.float32)
INPUTS, TARGETS = Tensor(generator.normal(size=(5, 3)).astype(np.float32)), Tensor(np.arange(5, dtype=np.int32) % 4)


class Sums(nn.Cell):
    """A sum of one-layer nets, each with one weight of the given name."""

    def __init__(self, names):
        super().__init__()
        pairs = zip(WEIGHTS, names, strict=True)
        self.all_of_them = ms.ParameterTuple([Parameter(Tensor(array), name=name) for array, name in pairs])

    def construct(self, x):
        total = 0.0
        for weight in self.all_of_them:
            total = total + ops.tanh(ops.matmul(x, weight))
        return total


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("graph", SophiaG), pytest.param("pynative", SophiaH, marks=pytest.mark.slow), ("pynative", AdamW)],
    indirect=["mode"],
)
def test_the_names_change_nothing(mode, kind, tmp_path):
    """The same bits as with plain names, and a checkpoint of the optimizer holds everything."""
    found = []
    for names in (NAMES, [f"weight{place}" for place in range(len(NAMES))]):
        net = Sums(names)
        optimizer = kind(net.trainable_params(), learning_rate=0.1)
        step = TrainStep(net, CrossEntropy(), optimizer)
        for _ in range(2):
            step(INPUTS, TARGETS)
        found.append([weight.asnumpy().tobytes() for weight in net.all_of_them])
        assert (optimizer.steps, int(optimizer.refused.asnumpy())) == (2, 0)
        ms.save_checkpoint(optimizer, str(tmp_path / "optimizer.ckpt"))
        held = [param.name for param in optimizer.get_parameters()]
        assert sorted(ms.load_checkpoint(str(tmp_path / "optimizer.ckpt"))) == sorted(held)
    assert found[0] == found[1]
    assert found[0][0] != WEIGHTS[0].tobytes()


def test_an_optimizer_prints_its_hyperparameters_and_how_far_it_is():
    net = nn.Dense(3, 2)
    assert repr(AdamW(net.trainable_params(), learning_rate=1e-3, eps=1e-6)) == (
        "AdamW(beta1=0.9, beta2=0.999, eps=1e-06, 2 parameters, 0 steps taken)"
    )
