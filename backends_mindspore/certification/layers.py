"""Layers: functions, functions of mint, Cells."""

import mindspore as ms
from mindspore import Tensor, mint, nn, ops
from mindspore.mint.nn import functional as F


def conv1d(x, weight, bias):
    return ops.conv1d(x, weight, bias)


def conv1d_stride_pad(x, weight, bias):
    return ops.conv1d(x, weight, bias, stride=2, pad_mode="pad", padding=1)


def conv2d(x, weight, bias):
    return ops.conv2d(x, weight, bias)


def conv2d__mint(x, weight, bias):
    return F.conv2d(x, weight, bias)


def conv2d_no_bias(x, weight):
    return ops.conv2d(x, weight)


def conv2d_stride_pad(x, weight, bias):
    return ops.conv2d(x, weight, bias, stride=2, pad_mode="pad", padding=1)


def conv2d_dilation(x, weight, bias):
    return ops.conv2d(x, weight, bias, dilation=2)


def conv2d_groups(x, weight, bias):
    return ops.conv2d(x, weight, bias, groups=2)


def conv2d_depthwise(x, weight, bias):
    return ops.conv2d(x, weight, bias, pad_mode="pad", padding=1, groups=3)


def conv2d_pointwise(x, weight, bias):
    return ops.conv2d(x, weight, bias)


def conv3d(x, weight, bias):
    return ops.conv3d(x, weight, bias)


def conv_transpose2d__mint(x, weight, bias):
    return F.conv_transpose2d(x, weight, bias, stride=2)


def batch_norm1d_train(x, weight, bias):
    return ops.batch_norm(x, ops.zeros((3,)), ops.ones((3,)), weight, bias, training=True)


def batch_norm2d_train(x, weight, bias):
    return ops.batch_norm(x, ops.zeros((2,)), ops.ones((2,)), weight, bias, training=True)


def batch_norm2d_train__mint(x, weight, bias):
    return F.batch_norm(x, ops.zeros((2,)), ops.ones((2,)), weight, bias, training=True)


def batch_norm2d_eval(x, weight, bias, mean, variance):
    return ops.batch_norm(x, mean, variance, weight, bias, training=False)


def layer_norm(x, weight, bias):
    return ops.layer_norm(x, (6,), weight, bias)


def layer_norm__mint(x, weight, bias):
    return F.layer_norm(x, (6,), weight, bias)


def layer_norm__primitive(x, weight, bias):
    return ops.LayerNorm(begin_norm_axis=1, begin_params_axis=1, epsilon=1e-5)(x, weight, bias)[0]


def layer_norm_small(x, weight, bias):
    return ops.layer_norm(x, (6,), weight, bias)


def layer_norm_small__mint(x, weight, bias):
    return F.layer_norm(x, (6,), weight, bias)


def layer_norm_small__primitive(x, weight, bias):
    return ops.LayerNorm(begin_norm_axis=1, begin_params_axis=1, epsilon=1e-5)(x, weight, bias)[0]


def layer_norm_two_axes(x, weight, bias):
    return ops.layer_norm(x, (3, 4), weight, bias)


def layer_norm_plain(x):
    return ops.layer_norm(x, (6,))


def group_norm(x, weight, bias):
    return ops.group_norm(x, 2, weight, bias)


def group_norm__mint(x, weight, bias):
    return F.group_norm(x, 2, weight, bias)


def group_norm_small(x, weight, bias):
    return ops.group_norm(x, 2, weight, bias)


def rms_norm(x, weight):
    return ops.rms_norm(x, weight, 1e-6)[0]


def rms_norm_small(x, weight):
    return ops.rms_norm(x, weight, 1e-6)[0]


def normalize(x):
    return ops.L2Normalize(1)(x)


def normalize__mint(x):
    return F.normalize(x, dim=1)


def cosine_similarity(x, y):
    return ops.cosine_similarity(x, y, dim=1)


def local_response_norm(x):
    return ops.lrn(x, depth_radius=1, bias=1.0, alpha=0.1, beta=0.75)


def max_pool2d(x):
    return ops.max_pool2d(x * x, 2, 2)


def max_pool2d__mint(x):
    return F.max_pool2d(x * x, 2)


def max_pool2d_overlap(x):
    return ops.max_pool2d(x * x, 3, 2)


def max_pool2d_pad(x):
    return ops.max_pool2d(x * x, 3, 2, padding=1)


def max_pool2d_floor(x):
    return ops.max_pool2d(x * x, 2, 2)


def avg_pool1d(x):
    return ops.avg_pool1d(x * x, 2, 2)


def avg_pool2d(x):
    return ops.avg_pool2d(x * x, 2, 2)


def avg_pool2d__mint(x):
    return F.avg_pool2d(x * x, 2)


def avg_pool2d_overlap(x):
    return ops.avg_pool2d(x * x, 3, 2)


def avg_pool2d_pad(x):
    return ops.avg_pool2d(x * x, 3, 2, padding=1)


def adaptive_avg_pool1d(x):
    return ops.adaptive_avg_pool1d(x * x, 3)


def adaptive_avg_pool2d(x):
    return ops.adaptive_avg_pool2d(x * x, (2, 2))


def adaptive_avg_pool2d__mint(x):
    return F.adaptive_avg_pool2d(x * x, (2, 2))


def adaptive_avg_pool2d_one(x):
    return ops.adaptive_avg_pool2d(x * x, 1)


def adaptive_avg_pool2d_uneven(x):
    return ops.adaptive_avg_pool2d(x * x, 3)


def adaptive_max_pool2d(x):
    return ops.adaptive_max_pool2d(x * x, (2, 2))


def embedding(weight, tokens):
    return ops.gather(weight, tokens, 0) ** 2


def embedding__mint(weight, tokens):
    return F.embedding(tokens, weight) ** 2


def embedding__ops(weight, tokens):
    return ops.embedding(tokens, weight) ** 2


def embedding_padding(weight, tokens):
    return ops.embedding(tokens, weight, padding_idx=2) ** 2


def embedding_padding__mint(weight, tokens):
    return F.embedding(tokens, weight, padding_idx=2) ** 2


def dropout_eval(x):
    return ops.dropout(x * x, 0.5, training=False)


def dropout_eval__mint(x):
    return F.dropout(x * x, 0.5, training=False)


def bilinear(x, y, weight, bias):
    return ops.bidense(x, y, weight, bias)


def attention(q, k, v):
    scores = ops.softmax(ops.matmul(q, k.swapaxes(-1, -2)) / 2.0, -1)
    return ops.matmul(scores, v)


def attention_causal(q, k, v, mask):
    scores = ops.masked_fill(ops.matmul(q, k.swapaxes(-1, -2)) / 2.0, ops.logical_not(mask), -1e9)
    return ops.matmul(ops.softmax(scores, -1), v)


class First(nn.Cell):
    """The first of a layer's outputs."""

    def __init__(self, layer):
        super().__init__(auto_prefix=False)
        self.layer = layer

    def construct(self, *inputs):
        """What the layer returns, less its state."""
        return self.layer(*inputs)[0]


class AfterSquare(nn.Cell):
    """A layer of ``x * x``."""

    def __init__(self, layer):
        super().__init__(auto_prefix=False)
        self.layer = layer

    def construct(self, x):
        """The layer's output."""
        return self.layer(x * x)


class Squared(nn.Cell):
    """The square of a layer's output."""

    def __init__(self, layer):
        super().__init__(auto_prefix=False)
        self.layer = layer

    def construct(self, *inputs):
        """The square."""
        return self.layer(*inputs) ** 2


class LSTMStep(nn.Cell):
    """An LSTM cell's new output from three tensors."""

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.layer = nn.LSTMCell(3, 2)

    def construct(self, x, h, c):
        """The output."""
        return self.layer(x, (h, c))[0]


class SelfAttention(nn.Cell):
    """Multi-head attention of a sequence with itself."""

    def __init__(self, layer):
        super().__init__(auto_prefix=False)
        self.layer = layer

    def construct(self, x):
        """The output without the weights."""
        return self.layer(x, x, x)[0]


def trained(layer):
    """A Cell in training mode."""
    return layer.set_train()


def evaluated(layer, **statistics):
    """A Cell in evaluation mode, with stored statistics."""
    for name, values in statistics.items():
        getattr(layer, name).set_data(Tensor(values, ms.float32))
    return layer.set_train(False)


NORM = {"weight": "gamma", "bias": "beta"}
RECURRENT = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0", "b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
STEP = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
ATTENTION = {"w_in": "in_proj_weight", "b_in": "in_proj_bias", "w_out": "out_proj.weight", "b_out": "out_proj.bias"}
PARAMETERS = {
    "batch_norm": NORM,
    "layer_norm": NORM,
    "group_norm": NORM,
    "instance_norm": NORM,
    "lstm": RECURRENT,
    "gru": RECURRENT,
    "rnn_tanh": RECURRENT,
    "lstm_cell": STEP,
    "gru_cell": STEP,
    "rnn_cell": STEP,
    "multihead_attention": ATTENTION,
    "embedding": {"weight": "embedding_table"},
}
"""What a Cell calls the inputs that are its parameters, by the beginning of the case's name; else the same names."""

CELLS = {
    "conv1d__nn": lambda: nn.Conv1d(2, 3, 3, pad_mode="valid", has_bias=True),
    "conv1d_stride_pad__nn": lambda: nn.Conv1d(2, 3, 3, stride=2, pad_mode="pad", padding=1, has_bias=True),
    "conv2d__nn": lambda: nn.Conv2d(2, 3, 3, pad_mode="valid", has_bias=True),
    "conv2d__mint_nn": lambda: mint.nn.Conv2d(2, 3, 3),
    "conv2d_no_bias__nn": lambda: nn.Conv2d(2, 3, 3, pad_mode="valid"),
    "conv2d_stride_pad__nn": lambda: nn.Conv2d(2, 3, 3, stride=2, pad_mode="pad", padding=1, has_bias=True),
    "conv2d_dilation__nn": lambda: nn.Conv2d(2, 2, 2, pad_mode="valid", dilation=2, has_bias=True),
    "conv2d_groups__nn": lambda: nn.Conv2d(4, 4, 2, pad_mode="valid", group=2, has_bias=True),
    "conv2d_depthwise__nn": lambda: nn.Conv2d(3, 3, 3, pad_mode="same", group=3, has_bias=True),
    "conv2d_pointwise__nn": lambda: nn.Conv2d(3, 2, 1, has_bias=True),
    "conv3d__nn": lambda: nn.Conv3d(2, 2, 2, pad_mode="valid", has_bias=True),
    "conv_transpose1d__nn": lambda: nn.Conv1dTranspose(2, 3, 3, stride=2, pad_mode="valid", has_bias=True),
    "conv_transpose2d__nn": lambda: nn.Conv2dTranspose(2, 2, 2, stride=2, pad_mode="valid", has_bias=True),
    "batch_norm1d_train__nn": lambda: trained(nn.BatchNorm1d(3)),
    "batch_norm2d_train__nn": lambda: trained(nn.BatchNorm2d(2)),
    "batch_norm2d_eval__nn": lambda: evaluated(
        nn.BatchNorm2d(2), moving_mean=[0.5, -0.25], moving_variance=[1.5, 0.75]
    ),
    "layer_norm__nn": lambda: nn.LayerNorm((6,), epsilon=1e-5),
    "layer_norm__mint_nn": lambda: mint.nn.LayerNorm((6,)),
    "layer_norm_small__nn": lambda: nn.LayerNorm((6,), epsilon=1e-5),
    "layer_norm_two_axes__nn": lambda: nn.LayerNorm((3, 4), begin_norm_axis=1, begin_params_axis=1, epsilon=1e-5),
    "group_norm__nn": lambda: nn.GroupNorm(2, 4, eps=1e-5),
    "group_norm_small__nn": lambda: nn.GroupNorm(2, 4, eps=1e-5),
    "instance_norm__nn": lambda: trained(nn.InstanceNorm2d(2)),
    "local_response_norm__nn": lambda: nn.LRN(depth_radius=1, bias=1.0, alpha=0.1, beta=0.75),
    "max_pool1d__nn": lambda: AfterSquare(nn.MaxPool1d(2, 2)),
    "max_pool2d__nn": lambda: AfterSquare(nn.MaxPool2d(2, 2)),
    "max_pool2d_overlap__nn": lambda: AfterSquare(nn.MaxPool2d(3, 2)),
    "max_pool2d_pad__nn": lambda: AfterSquare(nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)),
    "max_pool2d_pad__same": lambda: AfterSquare(nn.MaxPool2d(3, 2, pad_mode="same")),
    "avg_pool1d__nn": lambda: AfterSquare(nn.AvgPool1d(2, 2)),
    "avg_pool2d__nn": lambda: AfterSquare(nn.AvgPool2d(2, 2)),
    "avg_pool2d_overlap__nn": lambda: AfterSquare(nn.AvgPool2d(3, 2)),
    "avg_pool2d_pad__nn": lambda: AfterSquare(nn.AvgPool2d(3, 2, pad_mode="pad", padding=1)),
    "adaptive_avg_pool1d__nn": lambda: AfterSquare(nn.AdaptiveAvgPool1d(3)),
    "adaptive_avg_pool2d__nn": lambda: AfterSquare(nn.AdaptiveAvgPool2d(2)),
    "adaptive_avg_pool2d_one__nn": lambda: AfterSquare(nn.AdaptiveAvgPool2d(1)),
    "adaptive_avg_pool2d_uneven__nn": lambda: AfterSquare(nn.AdaptiveAvgPool2d(3)),
    "adaptive_max_pool2d__nn": lambda: AfterSquare(nn.AdaptiveMaxPool2d(2)),
    "embedding__nn": lambda: Squared(nn.Embedding(5, 3)),
    "dropout_eval__nn": lambda: AfterSquare(nn.Dropout(p=0.5).set_train(False)),
    "bilinear__nn": lambda: nn.BiDense(2, 3, 2),
    "lstm__nn": lambda: First(nn.LSTM(3, 2, batch_first=True)),
    "gru__nn": lambda: First(nn.GRU(3, 2, batch_first=True)),
    "rnn_tanh__nn": lambda: First(nn.RNN(3, 2, batch_first=True)),
    "lstm_cell__nn": LSTMStep,
    "gru_cell__nn": lambda: nn.GRUCell(3, 2),
    "rnn_cell__nn": lambda: nn.RNNCell(3, 2),
    "multihead_attention__nn": lambda: SelfAttention(nn.MultiheadAttention(4, 2, batch_first=True)),
}
