"""Activations: as functions, as functions of mint, as Cells."""

from mindspore import mint, nn, ops
from mindspore.mint.nn import functional as F


def sigmoid(x):
    return ops.sigmoid(x)


def sigmoid__mint(x):
    return F.sigmoid(x)


def log_sigmoid(x):
    return ops.logsigmoid(x)


def log_sigmoid__mint(x):
    return F.logsigmoid(x)


def softplus(x):
    return ops.softplus(x)


def softplus__mint(x):
    return F.softplus(x)


def softplus_beta(x):
    return ops.softplus(x, beta=2)


def relu(x):
    return ops.relu(x)


def relu__mint(x):
    return F.relu(x)


def relu6(x):
    return ops.relu6(x)


def relu6__mint(x):
    return F.relu6(x)


def leaky_relu(x):
    return ops.leaky_relu(x, 0.2)


def leaky_relu__mint(x):
    return F.leaky_relu(x, 0.2)


def prelu(x, weight):
    return ops.prelu(x, weight)


def prelu__mint(x, weight):
    return F.prelu(x, weight)


def elu(x):
    return ops.elu(x)


def elu__mint(x):
    return F.elu(x)


def elu_alpha__mint(x):
    return F.elu(x, alpha=0.5)


def celu(x):
    return ops.celu(x, 2.0)


def selu(x):
    return ops.selu(x)


def selu__mint(x):
    return F.selu(x)


def gelu(x):
    return ops.gelu(x)


def gelu__mint(x):
    return F.gelu(x)


def gelu_tanh(x):
    return ops.gelu(x, approximate="tanh")


def gelu_tanh__mint(x):
    return F.gelu(x, approximate="tanh")


def silu(x):
    return ops.silu(x)


def silu__mint(x):
    return F.silu(x)


def mish(x):
    return ops.mish(x)


def mish__mint(x):
    return F.mish(x)


def hardswish(x):
    return ops.hardswish(x)


def hardswish__mint(x):
    return F.hardswish(x)


def hardsigmoid(x):
    return ops.hardsigmoid(x)


def hardsigmoid__mint(x):
    return F.hardsigmoid(x)


def hardtanh(x):
    return ops.hardtanh(x, -1.0, 1.0)


def hardtanh__mint(x):
    return F.hardtanh(x, -1.0, 1.0)


def softsign(x):
    return ops.softsign(x)


def tanhshrink(x):
    return ops.tanhshrink(x)


def softshrink(x):
    return ops.softshrink(x)


def softshrink__mint(x):
    return F.softshrink(x)


def hardshrink(x):
    return ops.hardshrink(x)


def hardshrink__mint(x):
    return F.hardshrink(x)


def threshold(x):
    return ops.threshold(x, 0.1, -2.0)


def threshold__mint(x):
    return F.threshold(x, 0.1, -2.0)


def glu(x):
    return ops.glu(x)


def glu__mint(x):
    return F.glu(x)


def softmax(x):
    return ops.softmax(x, -1)


def softmax__mint(x):
    return F.softmax(x, -1)


def softmax_first_axis(x):
    return ops.softmax(x, 0)


def log_softmax(x):
    return ops.log_softmax(x, -1)


def log_softmax__mint(x):
    return F.log_softmax(x, -1)


def softmin(x):
    return ops.softmin(x, -1)


def tanh__functional(x):
    return F.tanh(x)


def relu__clamp(x):
    return mint.clamp(x, min=0.0)


CELLS = {
    "sigmoid__nn": nn.Sigmoid,
    "log_sigmoid__nn": nn.LogSigmoid,
    "relu__nn": nn.ReLU,
    "relu6__nn": nn.ReLU6,
    "leaky_relu__nn": lambda: nn.LeakyReLU(0.2),
    "elu__nn": nn.ELU,
    "celu__nn": lambda: nn.CELU(2.0),
    "selu__nn": nn.SeLU,
    "gelu__nn": lambda: nn.GELU(approximate=False),
    "gelu_tanh__nn": nn.GELU,
    "silu__nn": nn.SiLU,
    "mish__nn": nn.Mish,
    "hardswish__nn": nn.HSwish,
    "hardsigmoid__nn": nn.HSigmoid,
    "hardtanh__nn": nn.Hardtanh,
    "softsign__nn": nn.Softsign,
    "tanh__nn": nn.Tanh,
    "tanhshrink__nn": nn.Tanhshrink,
    "softshrink__nn": nn.SoftShrink,
    "hardshrink__nn": nn.HShrink,
    "softmax__nn": nn.Softmax,
    "log_softmax__nn": nn.LogSoftmax,
    "softmin__nn": nn.Softmin,
}
