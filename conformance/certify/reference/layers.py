"""Layers, from their definitions: windows are cut out one by one, recurrences are loops."""

from itertools import product

import jax.numpy as jnp
import numpy as np

from hessiod.conformance.certify.reference.elementwise import sigmoid, softmax


def windows(x, size, stride, padding=0, dilation=1, fill=0.0):
    """All windows of an array [N, C, ...]: [N, C, *windows, *size]."""
    axes = x.ndim - 2
    x = jnp.pad(x, ((0, 0), (0, 0), *((padding, padding),) * axes), constant_values=fill)
    span = [dilation * (length - 1) + 1 for length in size]
    counts = [(whole - part) // stride + 1 for whole, part in zip(x.shape[2:], span, strict=True)]
    cut = [
        x[
            (
                slice(None),
                slice(None),
                *(slice(i * stride, i * stride + s, dilation) for i, s in zip(at, span, strict=True)),
            )
        ]
        for at in product(*map(range, counts))
    ]
    return jnp.stack(cut, 2).reshape(*x.shape[:2], *counts, *size)


def convolution(stride=1, padding=0, dilation=1, groups=1):
    """The cross-correlation that deep learning calls a convolution."""

    def operator(x, weight, bias=None):
        axes, outputs = x.ndim - 2, weight.shape[0]
        seen = windows(x, weight.shape[2:], stride, padding, dilation)
        parts = []
        for group in range(groups):
            ins = seen[:, group * weight.shape[1] : (group + 1) * weight.shape[1]]
            outs = weight[group * outputs // groups : (group + 1) * outputs // groups]
            flat = ins.reshape(*ins.shape[: 2 + axes], -1)
            parts.append(jnp.einsum("nc...k,ock->no...", flat, outs.reshape(*outs.shape[:2], -1)))
        y = jnp.concatenate(parts, 1)
        return y if bias is None else y + bias.reshape(-1, *(1,) * axes)

    return operator


def transposed_convolution(x, weight, bias):
    """Each input number adds its multiple of the kernel, at steps of two."""
    sizes = [2 * (n - 1) + k for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    y = jnp.zeros((x.shape[0], weight.shape[1], *sizes))
    for at in product(*map(range, x.shape[2:])):
        place = tuple(slice(2 * i, 2 * i + k) for i, k in zip(at, weight.shape[2:], strict=True))
        part = jnp.einsum("nc,co...->no...", x[(slice(None), slice(None), *at)], weight)
        y = y.at[(slice(None), slice(None), *place)].add(part)
    return y + bias.reshape(-1, *(1,) * (x.ndim - 2))


def standardized(x, axes, eps=1e-5):
    """Less the mean, over the root of the biased variance plus eps."""
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)


def by_channel(y, weight, bias):
    """A weight and a bias for each channel of [N, C, ...]."""
    shape = (-1, *(1,) * (y.ndim - 2))
    return y * weight.reshape(shape) + bias.reshape(shape)


def batch_norm(x, weight, bias):
    """Over examples and positions."""
    return by_channel(standardized(x, (0, *range(2, x.ndim))), weight, bias)


def batch_norm_eval(x, weight, bias, mean, variance):
    """With stored statistics."""
    moved = by_channel(x, jnp.ones(2), -mean)
    return by_channel(moved, weight / jnp.sqrt(variance + 1e-5), bias)


def layer_norm(x, weight=1.0, bias=0.0):
    """Over the last axes, as many as the weight has."""
    axes = tuple(range(-max(jnp.ndim(weight), 1), 0))
    return standardized(x, axes) * weight + bias


def group_norm(x, weight, bias):
    """Over half of the channels at a time."""
    halves = [standardized(part, (1, 2, 3)) for part in (x[:, :2], x[:, 2:])]
    return by_channel(jnp.concatenate(halves, 1), weight, bias)


def rms_norm(x, weight):
    """Over the root of the mean square."""
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def response_norm(x):
    """Krizhevsky et al. 2012, over three neighbouring channels."""
    squares = jnp.pad(x * x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    around = (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]) / 3
    return x / (1 + 0.3 * around) ** 0.75


def pool(reduce, axes, size, stride, padding=0, fill=0.0):
    """A reduction of each window of ``x * x``."""
    over = tuple(range(-axes, 0))
    return lambda x: reduce(windows(x * x, (size,) * axes, stride, padding, fill=fill), axis=over)


def adaptive(reduce, axes, bins):
    """A reduction of bins that begin at ``floor(i n / bins)`` and end at ``ceil((i + 1) n / bins)``."""

    def operator(x):
        cuts = [[slice(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)] for n in x.shape[2:]]
        over = tuple(range(-axes, 0))
        parts = [reduce((x * x)[(slice(None), slice(None), *at)], axis=over) for at in product(*cuts)]
        return jnp.stack(parts, 2).reshape(*x.shape[:2], *(bins,) * axes)

    return operator


def lstm_step(x, h, c, w_ih, w_hh, b_ih, b_hh):
    """Gates in the order input, forget, cell, output."""
    i, f, g, o = jnp.split(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def gru_step(x, h, w_ih, w_hh, b_ih, b_hh):
    """Gates in the order reset, update, new."""
    (ir, iz, inew), (hr, hz, hnew) = jnp.split(x @ w_ih.T + b_ih, 3, -1), jnp.split(h @ w_hh.T + b_hh, 3, -1)
    z = sigmoid(iz + hz)
    return (1 - z) * jnp.tanh(inew + sigmoid(ir + hr) * hnew) + z * h


def rnn_step(x, h, w_ih, w_hh, b_ih, b_hh):
    """Elman's."""
    return jnp.tanh(x @ w_ih.T + b_ih + h @ w_hh.T + b_hh)


def lstm(x, *weights):
    """The outputs of all steps, from zero."""
    h, c, outputs = jnp.zeros((2, 2)), jnp.zeros((2, 2)), []
    for step in range(3):
        h, c = lstm_step(x[:, step], h, c, *weights)
        outputs.append(h)
    return jnp.stack(outputs, 1)


def recurrent(step_function):
    """The outputs of all steps, from zero, of a cell with one state."""

    def operator(x, *weights):
        h, outputs = jnp.zeros((2, 2)), []
        for step in range(3):
            h = step_function(x[:, step], h, *weights)
            outputs.append(h)
        return jnp.stack(outputs, 1)

    return operator


def attention(q, k, v, mask=None):
    """Vaswani et al. 2017."""
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -1e30)
    return jnp.einsum("bhqk,bhkd->bhqd", softmax(scores), v)


def multihead_attention(x, w_in, b_in, w_out, b_out):
    """Two heads."""
    q, k, v = (part.reshape(2, 3, 2, 2).transpose(0, 2, 1, 3) for part in jnp.split(x @ w_in.T + b_in, 3, -1))
    return attention(q, k, v).transpose(0, 2, 1, 3).reshape(2, 3, 4) @ w_out.T + b_out


def without(row):
    """The embedding whose row of a number gets no gradient: to it, the row is a constant."""

    def operator(weight, tokens):
        from jax.lax import stop_gradient

        return jnp.where((tokens == row)[..., None], stop_gradient(weight)[tokens], weight[tokens]) ** 2

    return operator


LEAST = -np.inf
CASES = {
    "conv1d": convolution(),
    "conv1d_stride_pad": convolution(stride=2, padding=1),
    "conv2d": convolution(),
    "conv2d_no_bias": convolution(),
    "conv2d_stride_pad": convolution(stride=2, padding=1),
    "conv2d_dilation": convolution(dilation=2),
    "conv2d_groups": convolution(groups=2),
    "conv2d_depthwise": convolution(padding=1, groups=3),
    "conv2d_pointwise": convolution(),
    "conv3d": convolution(),
    "conv_transpose1d": transposed_convolution,
    "conv_transpose2d": transposed_convolution,
    "batch_norm1d_train": batch_norm,
    "batch_norm2d_train": batch_norm,
    "batch_norm2d_eval": batch_norm_eval,
    "layer_norm": layer_norm,
    "layer_norm_small": layer_norm,
    "layer_norm_two_axes": layer_norm,
    "layer_norm_plain": layer_norm,
    "group_norm": group_norm,
    "group_norm_small": group_norm,
    "instance_norm": lambda x, weight, bias: by_channel(standardized(x, (2, 3)), weight, bias),
    "rms_norm": rms_norm,
    "rms_norm_small": rms_norm,
    "normalize": lambda x: x / jnp.sqrt((x * x).sum(1, keepdims=True)),
    "cosine_similarity": lambda x, y: (x * y).sum(1) / jnp.sqrt((x * x).sum(1) * (y * y).sum(1)),
    "local_response_norm": response_norm,
    "max_pool1d": pool(jnp.max, 1, 2, 2),
    "max_pool2d": pool(jnp.max, 2, 2, 2),
    "max_pool2d_overlap": pool(jnp.max, 2, 3, 2),
    "max_pool2d_pad": pool(jnp.max, 2, 3, 2, 1, LEAST),
    "max_pool2d_floor": pool(jnp.max, 2, 2, 2),
    "avg_pool1d": pool(jnp.mean, 1, 2, 2),
    "avg_pool2d": pool(jnp.mean, 2, 2, 2),
    "avg_pool2d_overlap": pool(jnp.mean, 2, 3, 2),
    "avg_pool2d_pad": pool(jnp.mean, 2, 3, 2, 1),
    "adaptive_avg_pool1d": adaptive(jnp.mean, 1, 3),
    "adaptive_avg_pool2d": adaptive(jnp.mean, 2, 2),
    "adaptive_avg_pool2d_one": adaptive(jnp.mean, 2, 1),
    "adaptive_avg_pool2d_uneven": adaptive(jnp.mean, 2, 3),
    "adaptive_max_pool2d": adaptive(jnp.max, 2, 2),
    "embedding": lambda weight, tokens: jnp.einsum("btv,vf->btf", jnp.eye(5)[tokens], weight) ** 2,
    "embedding_padding": without(2),
    "embedding_bag": lambda weight, tokens: jnp.einsum("btv,vf->bf", jnp.eye(5)[tokens], weight) ** 2 / 9,
    "dropout_eval": lambda x: x**2,
    "bilinear": lambda x, y, weight, bias: jnp.einsum("ni,oij,nj->no", x, weight, y) + bias,
    "lstm": lstm,
    "gru": recurrent(gru_step),
    "rnn_tanh": recurrent(rnn_step),
    "lstm_cell": lambda *tensors: lstm_step(*tensors)[0],
    "gru_cell": gru_step,
    "rnn_cell": rnn_step,
    "attention": attention,
    "attention_causal": attention,
    "multihead_attention": multihead_attention,
}
