"""Layers: the functional form where that is what the module calls, the module itself where it does more."""

import torch
from torch import nn
from torch.nn import functional as F


def with_weights(module, x, names, weights):
    """What a module returns for ``x`` when its parameters of some names are given tensors."""
    return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), x)


def recurrent(module, x, weights):
    """The outputs of a recurrent layer of three features and two units."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return with_weights(module(3, 2, batch_first=True), x, names, weights)[0]


def cell(module, x, weights):
    """The new state of a recurrent cell of three features and two units."""
    return with_weights(module(3, 2), x, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights)


def multihead_attention(x, *weights):
    """Self-attention of two heads."""
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    return with_weights(nn.MultiheadAttention(4, 2, batch_first=True), (x, x, x), names, weights)[0]


CASES = {
    "conv1d": F.conv1d,
    "conv1d_stride_pad": lambda x, weight, bias: F.conv1d(x, weight, bias, stride=2, padding=1),
    "conv2d": F.conv2d,
    "conv2d_no_bias": F.conv2d,
    "conv2d_stride_pad": lambda x, weight, bias: F.conv2d(x, weight, bias, stride=2, padding=1),
    "conv2d_dilation": lambda x, weight, bias: F.conv2d(x, weight, bias, dilation=2),
    "conv2d_groups": lambda x, weight, bias: F.conv2d(x, weight, bias, groups=2),
    "conv2d_depthwise": lambda x, weight, bias: F.conv2d(x, weight, bias, padding=1, groups=3),
    "conv2d_pointwise": F.conv2d,
    "conv3d": F.conv3d,
    "conv_transpose1d": lambda x, weight, bias: F.conv_transpose1d(x, weight, bias, stride=2),
    "conv_transpose2d": lambda x, weight, bias: F.conv_transpose2d(x, weight, bias, stride=2),
    "batch_norm1d_train": lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True),
    "batch_norm2d_train": lambda x, weight, bias: F.batch_norm(x, None, None, weight, bias, training=True),
    "batch_norm2d_eval": lambda x, weight, bias, mean, variance: F.batch_norm(x, mean, variance, weight, bias),
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, (6,), weight, bias),
    "layer_norm_small": lambda x, weight, bias: F.layer_norm(x, (6,), weight, bias),
    "layer_norm_two_axes": lambda x, weight, bias: F.layer_norm(x, (3, 4), weight, bias),
    "layer_norm_plain": lambda x: F.layer_norm(x, (6,)),
    "group_norm": lambda x, weight, bias: F.group_norm(x, 2, weight, bias),
    "group_norm_small": lambda x, weight, bias: F.group_norm(x, 2, weight, bias),
    "instance_norm": lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias),
    "rms_norm": lambda x, weight: F.rms_norm(x, (6,), weight, eps=1e-6),
    "rms_norm_small": lambda x, weight: F.rms_norm(x, (6,), weight, eps=1e-6),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine_similarity": lambda x, y: F.cosine_similarity(x, y, dim=1),
    "local_response_norm": lambda x: F.local_response_norm(x, 3, alpha=0.3, beta=0.75, k=1.0),
    "max_pool1d": lambda x: F.max_pool1d(x * x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x * x, 2),
    "max_pool2d_overlap": lambda x: F.max_pool2d(x * x, 3, stride=2),
    "max_pool2d_pad": lambda x: F.max_pool2d(x * x, 3, stride=2, padding=1),
    "max_pool2d_floor": lambda x: F.max_pool2d(x * x, 2),
    "avg_pool1d": lambda x: F.avg_pool1d(x * x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x * x, 2),
    "avg_pool2d_overlap": lambda x: F.avg_pool2d(x * x, 3, stride=2),
    "avg_pool2d_pad": lambda x: F.avg_pool2d(x * x, 3, stride=2, padding=1),
    "adaptive_avg_pool1d": lambda x: F.adaptive_avg_pool1d(x * x, 3),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x * x, 2),
    "adaptive_avg_pool2d_one": lambda x: F.adaptive_avg_pool2d(x * x, 1),
    "adaptive_avg_pool2d_uneven": lambda x: F.adaptive_avg_pool2d(x * x, 3),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x * x, 2),
    "embedding": lambda weight, tokens: F.embedding(tokens, weight) ** 2,
    "embedding_padding": lambda weight, tokens: F.embedding(tokens, weight, padding_idx=2) ** 2,
    "embedding__sparse": lambda weight, tokens: F.embedding(tokens, weight, sparse=True) ** 2,
    "embedding_bag": lambda weight, tokens: F.embedding_bag(tokens, weight, mode="mean") ** 2,
    "dropout_eval": lambda x: F.dropout(x * x, 0.5, training=False),
    "bilinear": F.bilinear,
    "lstm": lambda x, *weights: recurrent(nn.LSTM, x, weights),
    "gru": lambda x, *weights: recurrent(nn.GRU, x, weights),
    "rnn_tanh": lambda x, *weights: recurrent(nn.RNN, x, weights),
    "lstm_cell": lambda x, h, c, *weights: cell(nn.LSTMCell, (x, (h, c)), weights)[0],
    "gru_cell": lambda x, h, *weights: cell(nn.GRUCell, (x, h), weights),
    "rnn_cell": lambda x, h, *weights: cell(nn.RNNCell, (x, h), weights),
    "attention__written_out": lambda q, k, v: ((q @ k.mT) / 2.0).softmax(-1) @ v,
    "attention": F.scaled_dot_product_attention,
    "attention_causal": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "multihead_attention": multihead_attention,
}
