"""SophiaH refuses by name what MindSpore differentiates wrongly a second time; SophiaG takes it."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import layer_norm as renamed

from hessiod.backends_mindspore.gpt import CrossEntropy
from hessiod.core import InvalidArgument
from hessiod.mindspore import SophiaG, SophiaH, TrainStep

WIDTH, CLASSES = 4, 3


class Normed(nn.Cell):
    """A linear map behind a norm that subclasses write in different ways."""

    def __init__(self):
        super().__init__()
        self.head = nn.Dense(WIDTH, CLASSES)
        self.gamma = Parameter(Tensor(np.ones(WIDTH, np.float32)), name="gamma")
        self.beta = Parameter(Tensor(np.zeros(WIDTH, np.float32)), name="beta")


class Stock(Normed):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm((WIDTH,))

    def construct(self, x):
        return self.head(self.norm(x))


class Functional(Normed):
    def construct(self, x):
        return self.head(ops.layer_norm(x, (WIDTH,), self.gamma, self.beta))


class Renamed(Normed):
    def construct(self, x):
        return self.head(renamed(x, (WIDTH,), self.gamma, self.beta))


class Primitive(Normed):
    def __init__(self):
        super().__init__()
        self.operator = ops.LayerNorm(-1, -1)

    def construct(self, x):
        return self.head(self.operator(x, self.gamma, self.beta)[0])


class Inline(Normed):
    def construct(self, x):
        return self.head(ops.LayerNorm(-1, -1)(x, self.gamma, self.beta)[0])


class InAMethod(Normed):
    def construct(self, x):
        return self.head(self.prepared(x))

    def prepared(self, x):
        return ops.layer_norm(x, (WIDTH,), self.gamma, self.beta)


def helper(x, gamma, beta):
    return deeper(x, gamma, beta)


def deeper(x, gamma, beta):
    return ops.layer_norm(x, (WIDTH,), gamma, beta)


class InAFunction(Normed):
    def construct(self, x):
        return self.head(helper(x, self.gamma, self.beta))


class Elementary(nn.Cell):
    def construct(self, x):
        centred = x - x.mean(-1, keep_dims=True)
        return centred * ops.rsqrt((centred * centred).mean(-1, keep_dims=True) + 1e-5)


def layer_norm(x):
    return x - x.mean(-1, keep_dims=True)


class RightUnderTheSameName(Normed):
    """Written from elementary operators, and called what everybody calls it."""

    def __init__(self):
        super().__init__()
        self.layer_norm = Elementary()
        self.LayerNorm = Elementary()

    def construct(self, x):
        return self.head(self.LayerNorm(self.layer_norm(layer_norm(x))))


def function_loss(logits, labels):
    return ops.SoftmaxCrossEntropyWithLogits()(logits, labels)[0].mean()


def right_loss(logits, labels):
    return -(ops.log(ops.softmax(logits, -1)) * labels).sum(-1).mean()


NETS = (Stock, Functional, Renamed, Primitive, Inline, InAMethod, InAFunction)


@pytest.mark.parametrize("net_class", NETS)
def test_layer_norm_is_refused_by_name(net_class):
    net = net_class()
    with pytest.raises(InvalidArgument, match="uses LayerNorm, whose second derivative") as caught:
        TrainStep(net, CrossEntropy(), SophiaH(net.trainable_params()))
    assert "\n" not in str(caught.value)
    assert ("'norm'" if net_class is Stock else f"'{net_class.__name__}'") in str(caught.value)
    assert "use SophiaG" in str(caught.value)


def test_the_place_in_a_deeper_net_is_named():
    net = nn.SequentialCell(nn.Dense(WIDTH, WIDTH), nn.SequentialCell(nn.LayerNorm((WIDTH,)), nn.Dense(WIDTH, 2)))
    with pytest.raises(InvalidArgument, match=r"'1\.0' uses LayerNorm"):
        TrainStep(net, CrossEntropy(), SophiaH(net.trainable_params()))


@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropyWithLogits(), nn.SoftmaxCrossEntropyWithLogits(sparse=True), function_loss]
)
def test_softmax_cross_entropy_with_logits_is_refused_by_name(loss):
    net = nn.Dense(WIDTH, CLASSES)
    with pytest.raises(InvalidArgument, match="uses SoftmaxCrossEntropyWithLogits, whose second derivative"):
        TrainStep(net, loss, SophiaH(net.trainable_params()))


def test_what_is_right_is_taken():
    net = RightUnderTheSameName()
    for loss in (CrossEntropy(), right_loss):
        TrainStep(net, loss, SophiaH(net.trainable_params()))


@pytest.mark.parametrize("net_class", NETS)
def test_sophia_g_takes_them(net_class):
    net = net_class()
    TrainStep(net, nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"), SophiaG(net.trainable_params()))


def test_sophia_g_trains_with_them():
    net = Stock()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    step = TrainStep(net, loss, SophiaG(net.trainable_params(), learning_rate=0.05))
    x = np.random.default_rng(0).normal(size=(8, WIDTH)).astype(np.float32)
    y = np.arange(8, dtype=np.int32) % CLASSES
    losses = [float(step(Tensor(x), Tensor(y)).asnumpy()) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_why_layer_norm_is_refused():
    """If this fails, MindSpore has mended its second derivative, and the refusal can go.

    x = (t, -t) has the variance t^2, and norm(x)[0] is t / sqrt(t^2 + eps), whose second derivative in t is
    -3 t eps / (t^2 + eps)^(5/2).
    """
    t, epsilon = 0.5, 0.1

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm((2,), epsilon=epsilon)
            self.signs = Tensor([[1.0, -1.0]], ms.float32)

        def construct(self, t):
            return self.norm(t * self.signs)[0, 0]

    net = Net()
    second = ms.jit(ms.grad(ms.grad(net)))(Tensor(t, ms.float32))
    truth = -3 * t * epsilon / (t**2 + epsilon) ** 2.5
    assert abs(float(second.asnumpy()) / truth - 1) > 0.1
