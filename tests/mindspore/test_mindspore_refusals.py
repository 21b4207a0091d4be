"""What the optimizers refuse: bad input, gradients that are not finite, second-order steps without curvature."""

from __future__ import annotations

import copy
import pickle

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from hessiod.core import HessiodError, InvalidArgument, InvalidState, NonFinite
from hessiod.mindspore import KFAC, SGD, AdamW, SophiaG, SophiaH, TrainStep

VALUES = np.array([1.0, -2.0, 3.0], np.float32)


def parameters(dtype=np.float32):
    return [Parameter(Tensor(VALUES.astype(dtype)), name="first"), Parameter(Tensor(VALUES * 2), name="second")]


def gradients(first=1.0):
    return Tensor(np.full(3, first, np.float32)), Tensor(np.ones(3, np.float32))


def bits(optimizer):
    """Everything a step may change, except the count of refusals and what caused the last one."""
    arrays = {param.name: param.asnumpy().tobytes() for param in optimizer.get_parameters()}
    arrays |= {param.name: param.asnumpy().tobytes() for param in optimizer.parameters}
    return {name: value for name, value in arrays.items() if name not in ("refused", "finite")}


def a_group(**settings):
    return [{"params": parameters(), **settings}]


BAD = {
    "no parameters": (lambda: AdamW([]), "params: found an empty list"),
    "not parameters": (lambda: AdamW([Tensor(VALUES)]), "params: found Tensor, expected Parameter"),
    "integers": (lambda: AdamW(parameters(np.int32)), "parameter 'first': found Int32"),
    "twice": (lambda: AdamW(parameters() + parameters()), "parameter 'first': found twice"),
    "twice in groups": (lambda: AdamW(a_group() + a_group()), "parameter 'first': found twice"),
    "an empty group": (lambda: AdamW([*a_group(), {"params": []}]), "a group without a parameter"),
    "a group of nothing": (lambda: AdamW([{"lr": 0.1}]), "found a group with 'lr', expected 'params'"),
    "an unknown key": (lambda: AdamW(a_group(grad_centralization=True)), "'grad_centralization', expected 'params'"),
    "negative rate": (lambda: AdamW(parameters(), learning_rate=-0.1), "learning_rate: found -0.1, expected .* >= 0"),
    "negative rate in a list": (lambda: AdamW(parameters(), learning_rate=[0.1, -0.2]), "learning_rate: found -0.2"),
    "NaN in a tensor": (lambda: AdamW(parameters(), learning_rate=Tensor([0.1, np.nan])), "learning_rate: found nan"),
    "negative rate in a group": (lambda: AdamW(a_group(lr=-0.1)), "learning_rate: found -0.1"),
    "a word for a rate": (lambda: AdamW(parameters(), learning_rate="fast"), "learning_rate: found 'fast'"),
    "no rate": (lambda: AdamW(parameters(), learning_rate=None), "learning_rate: found None|learning_rate: found nan"),
    "an empty list of rates": (lambda: AdamW(parameters(), learning_rate=[]), r"learning_rate: found \[\]"),
    "a table of rates": (lambda: AdamW(parameters(), learning_rate=[[0.1], [0.2]]), "learning_rate: found"),
    "negative decay": (lambda: AdamW(parameters(), weight_decay=-1.0), "weight_decay: found -1.0, expected .* >= 0"),
    "negative decay in a group": (lambda: SGD(a_group(weight_decay=-1.0)), "weight_decay: found -1.0"),
    "a word for a decay": (lambda: SGD(parameters(), weight_decay="much"), "weight_decay: found 'much'"),
    "beta1 = 1": (lambda: AdamW(parameters(), beta1=1.0), r"beta1: found 1.0, expected .* in \[0, 1\)"),
    "beta2 < 0": (lambda: SophiaG(parameters(), beta2=-0.1), r"beta2: found -0.1, expected .* in \[0, 1\)"),
    "NaN for eps": (lambda: AdamW(parameters(), eps=float("nan")), "eps: found nan"),
    "rho = 0": (lambda: SophiaG(parameters(), rho=0.0), "rho: found 0.0, expected .* > 0"),
    "every = 0": (lambda: SophiaG(parameters(), every=0), "every: found 0, expected .* >= 1"),
    "seed < 0": (lambda: SophiaH(parameters(), seed=-1), "seed: found -1"),
    "a likelihood": (
        lambda: SophiaG(parameters(), likelihood="poisson"),
        "likelihood: found 'poisson', expected one of",
    ),
    "nonfinite": (lambda: SGD(parameters(), nonfinite="ignore"), "nonfinite: found 'ignore', expected 'raise' or"),
    "loss_scale = 0": (lambda: SGD(parameters(), loss_scale=0), "loss_scale: found 0, expected"),
    "Nesterov alone": (lambda: SGD(parameters(), nesterov=True), "nesterov: found True with momentum=0"),
    "bfloat16 on the CPU": (
        lambda: SGD([Parameter(Tensor(VALUES, ms.bfloat16), name="first")]),
        "parameter 'first': found bfloat16, expected float16, float32 or float64 on the CPU",
    ),
    "a frozen parameter": (
        lambda: SGD([Parameter(Tensor(VALUES), name="still", requires_grad=False)]),
        r"parameter 'still': found requires_grad=False, .* Pass net\.trainable_params\(\)",
    ),
    "every = True": (lambda: SophiaG(parameters(), every=True), "every: found True"),
    "a stock optimizer": (
        lambda: TrainStep(nn.Dense(3, 2), nn.MSELoss(), nn.Adam(parameters())),
        "optimizer: found Adam, expected an optimizer of hessiod.mindspore",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_in_one_line(case):
    construct, message = BAD[case]
    with pytest.raises(InvalidArgument, match=message) as caught:
        construct()
    assert "\n" not in str(caught.value)


WRONG_GRADIENTS = {
    "too few": ((gradients()[0],), "gradients: found 1, expected 2"),
    "too many": ((*gradients(), gradients()[0]), "gradients: found 3, expected 2"),
    "a wrong shape": ((gradients()[0], Tensor(np.ones((3, 1), np.float32))), r"shape \(3, 1\) for parameter 'second'"),
    "nothing": ((None, gradients()[0]), "found None for parameter 'first', expected a dense Tensor"),
}


@pytest.mark.parametrize("case", WRONG_GRADIENTS)
def test_wrong_gradients_are_refused_before_anything_changes(case):
    given, message = WRONG_GRADIENTS[case]
    optimizer = AdamW(parameters())
    before = bits(optimizer)
    with pytest.raises(InvalidArgument, match=message) as caught:
        optimizer(given)
    assert "\n" not in str(caught.value)
    assert bits(optimizer) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_gradient_changes_nothing(mode, bad):
    optimizer = AdamW(parameters(), learning_rate=0.1)
    optimizer(gradients())
    before = bits(optimizer)
    with pytest.raises(NonFinite, match=r"parameter 'first' \(1 in all\).*nothing was changed") as caught:
        optimizer(gradients(bad))
    assert "\n" not in str(caught.value)
    assert bits(optimizer) == before
    assert optimizer.steps == 1
    optimizer(gradients())
    after = bits(optimizer)
    assert optimizer.steps == 2
    assert all(after[name] != before[name] for name in before if not name.startswith("learning_rate"))


def test_nonfinite_gradient_is_passed_over_if_asked(mode):
    optimizer = AdamW(parameters(), learning_rate=0.1, nonfinite="skip")
    other = AdamW(parameters(), learning_rate=0.1)
    for first in (1.0, np.nan, 2.0, np.inf, 3.0):
        optimizer(gradients(first))
        if np.isfinite(first):
            other(gradients(first))
    assert bits(optimizer) == bits(other)
    assert (optimizer.steps, int(optimizer.refused.asnumpy())) == (3, 2)


def test_in_somebody_elses_graph_refusals_are_counted():
    """And a later step from the host, with good gradients, does not raise for them."""
    optimizer = AdamW(parameters(), learning_rate=0.1)

    @ms.jit
    def step(given):
        return optimizer(given)

    step(gradients())
    before = bits(optimizer)
    step(gradients(np.nan))
    step(gradients(np.inf))
    assert bits(optimizer) == before
    assert int(optimizer.refused.asnumpy()) == 2
    optimizer(gradients())
    assert optimizer.steps == 2


def test_restored_count_of_refusals_raises_nothing():
    """The count is saved with the optimizer's parameters, and belongs to the past."""
    optimizer = AdamW(parameters(), learning_rate=0.1)
    optimizer.refused.asnumpy()[...] = 3
    optimizer(gradients())
    assert optimizer.steps == 1


class Product(nn.Cell):
    def __init__(self, weights):
        super().__init__()
        self.weights = ms.ParameterTuple(weights)

    def construct(self, x):
        return (self.weights[0] * x).sum() + (self.weights[1] * x).sum()


@pytest.mark.parametrize("optimizer_class", [SophiaG, SophiaH])
def test_second_order_without_curvature_is_refused(mode, optimizer_class):
    """From the host, in a function of the user's and in TrainOneStepCell: never a silent sign step."""
    weights = parameters()
    optimizer = optimizer_class(weights)
    before = bits(optimizer)
    with pytest.raises(InvalidState, match=r"train with hessiod.mindspore.TrainStep\(net, loss_fn, opt\)") as caught:
        optimizer(gradients())
    assert isinstance(caught.value, HessiodError)
    assert "\n" not in str(caught.value)

    @ms.jit
    def step(given):
        return optimizer(given)

    with pytest.raises(RuntimeError, match="TrainStep"):
        step(gradients())
    with pytest.raises(RuntimeError, match="TrainStep"):
        nn.TrainOneStepCell(Product(weights), optimizer)(Tensor(VALUES))
    assert bits(optimizer) == before


class Rows(nn.Cell):
    """A loss a row, which nothing reduces."""

    def construct(self, output, target):
        return ((output - target) * (output - target)).mean(-1)


class OneClass(nn.Cell):
    """The mean of logits [rows, 1], in which nothing can be sampled."""

    def construct(self, logits, target):
        return (logits * target).mean()


@pytest.mark.parametrize(
    ("optimizer_class", "loss", "classes", "message"),
    [
        (AdamW, Rows, 2, r"^loss: found the shape \(3\), expected a scalar; reduce it with \.mean\(\)$"),
        (SophiaG, Rows, 2, r"^loss: found the shape \(3\), expected a scalar"),
        (SophiaG, OneClass, 1, r"^logits: found the shape \(3, 1\), expected \[\.\.\., classes\] with at least 2"),
    ],
)
def test_losses_and_logits_of_a_wrong_shape_are_refused(optimizer_class, loss, classes, message):
    """MindSpore would differentiate the sum of a loss with many entries, without a word."""
    net = nn.Dense(4, classes)
    optimizer = optimizer_class(net.trainable_params())
    before = bits(optimizer)
    step = TrainStep(net, loss(), optimizer)
    with pytest.raises(InvalidArgument, match=message):
        step(Tensor(np.ones((3, 4), np.float32)), Tensor(np.ones((3, classes), np.float32)))
    assert bits(optimizer) == before


def test_a_parameter_that_is_frozen_later_is_refused():
    """A graph that was traced would move it still."""
    net = nn.Dense(4, 2)
    optimizer = SGD(net.trainable_params())
    step = TrainStep(net, nn.MSELoss(), optimizer)
    net.bias.requires_grad = False
    given = tuple(Tensor(np.ones(param.shape, np.float32)) for param in optimizer.parameters)
    for call in (lambda: step(Tensor(VALUES), Tensor(VALUES)), lambda: optimizer(given)):
        with pytest.raises(InvalidState, match=r"'bias' \(1 in all\) was frozen after the optimizer was constructed"):
            call()


@pytest.mark.parametrize("optimizer_class", [AdamW, KFAC])
def test_a_parameter_that_is_replaced_later_is_refused(optimizer_class):
    """The graph and the optimizer would go on with the old one, and the net stay as it is."""
    net = nn.Dense(4, 2)
    optimizer = optimizer_class(net) if optimizer_class is KFAC else optimizer_class(net.trainable_params())
    step, before = TrainStep(net, nn.MSELoss(), optimizer), bits(optimizer)
    net.weight = Parameter(Tensor(np.ones((2, 4), np.float32)), name="weight")
    with pytest.raises(InvalidState, match=r"^parameter 'weight' of Dense was replaced after the TrainStep was built"):
        step(Tensor(VALUES), Tensor(VALUES))
    assert bits(optimizer) == before


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_are_refused_with_the_way_out(copy_of):
    """MindSpore's own optimizers raise "cannot pickle 'Map' object"."""
    with pytest.raises(InvalidState, match=r"AdamW: .* cannot be copied or pickled; save it with hessiod\.checkpoint"):
        copy_of(AdamW(parameters()))
