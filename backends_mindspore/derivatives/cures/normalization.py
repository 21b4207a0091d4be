"""Normalisations from means, ``rsqrt`` and products.

MindSpore's LayerNorm drops epsilon from its double gradient, without a word; GroupNorm has no second derivative, and
the others have no CPU kernel. Statistics of half-precision input are taken in float32, as the fused kernels do.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator


def widened(x):
    """Float32 for half precision."""
    return ops.cast(x, ms.float32) if x.dtype in (ms.float16, ms.bfloat16) else x


def standardized(x, axes, epsilon):
    """``(x - mean) / sqrt(var + epsilon)`` over some axes, the mean, and the reciprocal root."""
    x = widened(x)
    mean = x.mean(axes, keep_dims=True)
    centred = x - mean
    inverse = ops.rsqrt((centred * centred).mean(axes, keep_dims=True) + epsilon)
    return centred * inverse, mean, inverse


class CuredLayerNorm(CuredOperator):
    """``LayerNorm(begin_norm_axis, begin_params_axis, epsilon)(x, gamma, beta)``."""

    arguments = ("begin_norm_axis", "begin_params_axis", "epsilon")

    def __init__(self, begin_norm_axis=1, begin_params_axis=1, epsilon=1e-7):
        super().__init__()
        self.begin, self.epsilon = begin_norm_axis, epsilon

    def construct(self, x, gamma, beta):
        """The result, and the mean and reciprocal root of each normalised slice."""
        first = self.begin % x.ndim
        normal, mean, inverse = standardized(x, tuple(range(first, x.ndim)), self.epsilon)
        return ops.cast(normal * gamma + beta, x.dtype), mean, inverse


class CuredLayerNormExt(CuredOperator):
    """``LayerNormExt()(x, normalized_shape, weight, bias, eps)``."""

    def construct(self, x, normalized_shape, weight=None, bias=None, eps=1e-5):
        """The result, and the mean and reciprocal root of each normalised slice."""
        first = x.ndim - len(normalized_shape)
        normal, mean, inverse = standardized(x, tuple(range(first, x.ndim)), eps)
        if weight is not None:
            normal = normal * weight
        if bias is not None:
            normal = normal + bias
        return ops.cast(normal, x.dtype), mean, inverse


def rms_norm(x, gamma, epsilon=1e-6):
    """``x / sqrt(mean(x^2) + epsilon) * gamma`` over the axes of gamma, and the reciprocal root."""
    wide = widened(x)
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    inverse = ops.rsqrt((wide * wide).mean(axes, keep_dims=True) + epsilon)
    return ops.cast(wide * inverse * gamma, x.dtype), inverse


class CuredRmsNorm(CuredOperator):
    """``RmsNorm(epsilon)(x, gamma)`` (Zhang and Sennrich, arXiv:1910.07467)."""

    arguments = ("epsilon",)

    def __init__(self, epsilon=1e-6):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x, gamma):
        """The result, and the reciprocal root of each mean square."""
        return rms_norm(x, gamma, self.epsilon)


def by_channel(array, ndim):
    """An array of channels against ``[N, C, ...]``."""
    return array.reshape((1, -1) + (1,) * (ndim - 2))


class CuredGroupNorm(CuredOperator):
    """``GroupNorm()(x, num_groups, weight, bias, eps)``."""

    def construct(self, x, num_groups, weight=None, bias=None, eps=1e-5):
        """The result, and the mean and reciprocal root of each group."""
        groups = x.reshape((x.shape[0], num_groups, -1))
        normal, mean, inverse = standardized(groups, -1, eps)
        normal = normal.reshape(x.shape)
        if weight is not None:
            normal = normal * by_channel(weight, x.ndim)
        if bias is not None:
            normal = normal + by_channel(bias, x.ndim)
        return ops.cast(normal, x.dtype), mean.squeeze(-1), inverse.squeeze(-1)


class CuredInstanceNorm(CuredOperator):
    """``InstanceNorm(epsilon, momentum)(x, gamma, beta, mean, variance)``, without the moving statistics."""

    arguments = ("epsilon", "momentum")

    def __init__(self, epsilon=1e-5, momentum=0.1):
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x, gamma, beta, mean, variance):
        """The result, and the mean and reciprocal root of each channel of each example."""
        normal, mean, inverse = standardized(x, tuple(range(2, x.ndim)), self.epsilon)
        normal = normal * by_channel(gamma, x.ndim) + by_channel(beta, x.ndim)
        return ops.cast(normal, x.dtype), mean, inverse


OPERATORS = {
    "LayerNorm": CuredLayerNorm,
    "LayerNormExt": CuredLayerNormExt,
    "RmsNorm": CuredRmsNorm,
    "GroupNorm": CuredGroupNorm,
    "InstanceNorm": CuredInstanceNorm,
}
