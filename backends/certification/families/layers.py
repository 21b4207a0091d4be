"""Layers with the settings people use: padding, stride, dilation, groups, training and evaluation."""

from typing import Any

import numpy as np

from hessiod.backends.certification.case import Entry, case, family, normal, spread

TOKENS = np.array([[1, 4, 0], [2, 2, 3]])
CAUSAL = np.tril(np.ones((3, 3), bool))
MEANS, SPREADS = np.array([0.5, -0.25]), np.array([1.5, 0.75])


def norm(*shape: int, features: tuple[int, ...], scale: float = 1.0, shift: float = 0.5) -> Entry:
    """A normalization with a weight and a bias."""
    weight, bias = normal(*features, scale=0.3, shift=1.0), normal(*features)
    return case(x=normal(*shape, scale=scale, shift=shift), weight=weight, bias=bias)


def recurrent(gates: int) -> dict[str, Any]:
    """A batch of two sequences of three steps of three features, and the weights of a layer with two units."""
    half = {"w_ih": (gates * 2, 3), "w_hh": (gates * 2, 2), "b_ih": (gates * 2,), "b_hh": (gates * 2,)}
    return {name: normal(*shape, scale=0.6) for name, shape in half.items()}


def attention(width: int) -> dict[str, Any]:
    """The weights of a multi-head attention layer of a width."""
    return dict(
        w_in=normal(3 * width, width, scale=0.5),
        b_in=normal(3 * width, scale=0.5),
        w_out=normal(width, width, scale=0.5),
        b_out=normal(width),
    )


CONVOLUTIONS = family(
    "convolutions",
    conv1d=case(x=normal(2, 2, 6), weight=normal(3, 2, 3), bias=normal(3)),
    conv1d_stride_pad=case(x=normal(2, 2, 6), weight=normal(3, 2, 3), bias=normal(3)),
    conv2d=case(x=normal(2, 2, 4, 4), weight=normal(3, 2, 3, 3, scale=0.5), bias=normal(3)),
    conv2d_no_bias=case(x=normal(2, 2, 4, 4), weight=normal(3, 2, 3, 3, scale=0.5)),
    conv2d_stride_pad=case(x=normal(2, 2, 5, 4), weight=normal(3, 2, 3, 3, scale=0.5), bias=normal(3)),
    conv2d_dilation=case(x=normal(1, 2, 5, 5), weight=normal(2, 2, 2, 2), bias=normal(2)),
    conv2d_groups=case(x=normal(2, 4, 3, 3), weight=normal(4, 2, 2, 2), bias=normal(4)),
    conv2d_depthwise=case(x=normal(2, 3, 4, 4), weight=normal(3, 1, 3, 3, scale=0.5), bias=normal(3)),
    conv2d_pointwise=case(x=normal(2, 3, 2, 3), weight=normal(2, 3, 1, 1), bias=normal(2)),
    conv3d=case(x=normal(1, 2, 3, 3, 3), weight=normal(2, 2, 2, 2, 2, scale=0.5), bias=normal(2)),
    conv_transpose1d=case(x=normal(2, 2, 4), weight=normal(2, 3, 3), bias=normal(3)),
    conv_transpose2d=case(x=normal(1, 2, 3, 3), weight=normal(2, 2, 2, 2), bias=normal(2)),
)
NORMS = family(
    "normalization",
    batch_norm1d_train=norm(5, 3, features=(3,)),
    batch_norm2d_train=norm(2, 2, 3, 2, features=(2,)),
    batch_norm2d_eval=case(
        x=normal(2, 2, 3, 2), weight=normal(2, shift=1.0), bias=normal(2), mean=MEANS, variance=SPREADS
    ),
    layer_norm=norm(3, 6, features=(6,)),
    layer_norm_small=norm(3, 6, features=(6,), scale=0.02, shift=0.0),
    layer_norm_two_axes=norm(2, 3, 4, features=(3, 4)),
    layer_norm_plain=case(x=normal(3, 6, shift=0.5)),
    group_norm=norm(2, 4, 2, 2, features=(4,)),
    group_norm_small=norm(2, 4, 2, 2, features=(4,), scale=0.02, shift=0.0),
    instance_norm=norm(2, 2, 3, 2, features=(2,)),
    rms_norm=case(x=normal(3, 6), weight=normal(6, scale=0.3, shift=1.0)),
    rms_norm_small=case(x=normal(3, 6, scale=0.02), weight=normal(6, scale=0.3, shift=1.0)),
    normalize=case(x=normal(3, 4)),
    cosine_similarity=case(x=normal(3, 4), y=normal(3, 4)),
    local_response_norm=case(x=normal(1, 5, 2, 2)),
)
POOLS = family(
    "pooling",
    max_pool1d=case(x=spread(2, 2, 6), kinks=True),
    max_pool2d=case(x=spread(1, 2, 4, 4, gap=0.1), kinks=True),
    max_pool2d_overlap=case(x=spread(1, 2, 5, 5, gap=0.1), kinks=True),
    max_pool2d_pad=case(x=spread(1, 2, 5, 5, gap=0.1), kinks=True),
    max_pool2d_floor=case(x=spread(1, 2, 5, 5, gap=0.1), kinks=True),
    avg_pool1d=case(x=normal(2, 2, 6)),
    avg_pool2d=case(x=normal(1, 2, 4, 4)),
    avg_pool2d_overlap=case(x=normal(1, 2, 5, 5)),
    avg_pool2d_pad=case(x=normal(1, 2, 4, 4)),
    adaptive_avg_pool1d=case(x=normal(2, 2, 6)),
    adaptive_avg_pool2d=case(x=normal(1, 2, 4, 4)),
    adaptive_avg_pool2d_one=case(x=normal(2, 3, 3, 4)),
    adaptive_avg_pool2d_uneven=case(x=normal(1, 2, 5, 5)),
    adaptive_max_pool2d=case(x=spread(1, 2, 4, 4, gap=0.1), kinks=True),
)
OTHERS = family(
    "layers",
    embedding=case(weight=normal(5, 3), tokens=TOKENS),
    embedding_padding=case(weight=normal(5, 3), tokens=TOKENS),
    embedding_bag=case(weight=normal(5, 3), tokens=TOKENS),
    dropout_eval=case(x=normal(3, 4)),
    bilinear=case(x=normal(3, 2), y=normal(3, 3), weight=normal(2, 2, 3), bias=normal(2)),
    lstm=case(x=normal(2, 3, 3), **recurrent(4)),
    gru=case(x=normal(2, 3, 3), **recurrent(3)),
    rnn_tanh=case(x=normal(2, 3, 3), **recurrent(1)),
    lstm_cell=case(x=normal(2, 3), h=normal(2, 2), c=normal(2, 2), **recurrent(4)),
    gru_cell=case(x=normal(2, 3), h=normal(2, 2), **recurrent(3)),
    rnn_cell=case(x=normal(2, 3), h=normal(2, 2), **recurrent(1)),
    attention=case(q=normal(1, 2, 3, 4), k=normal(1, 2, 3, 4), v=normal(1, 2, 3, 4)),
    attention_causal=case(q=normal(1, 2, 3, 4), k=normal(1, 2, 3, 4), v=normal(1, 2, 3, 4), mask=CAUSAL),
    multihead_attention=case(x=normal(2, 3, 4), **attention(4)),
)
CASES = [*CONVOLUTIONS, *NORMS, *POOLS, *OTHERS]
