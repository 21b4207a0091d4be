"""Pooling.

A maximum is flat in where it stands, so the gradient's derivative picks, from a cotangent, what stands at the places of
the maxima. Most of MindSpore's maximum pools keep these places; for the one that does not, windows are searched. On
ties the first entry of a window counts, as in the forward.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops
from mindspore.ops.auto_generate import GatherD
from mindspore.ops.composite.multitype_ops.zeros_like_impl import zeros_like
from mindspore.ops.operations import AvgPool, AvgPool3D, MaxPool
from mindspore.ops.operations._grad_ops import AvgPool3DGrad, MaxPoolGrad

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator, own

GATHER = own(GatherD())


def at_places(array, places):
    """``[N, C, ...]`` at flat places ``[N, C, ...]`` of its trailing axes."""
    rows, channels = places.shape[0], places.shape[1]
    flat = GATHER(array.reshape((rows, channels, -1)), 2, ops.cast(places, ms.int64).reshape((rows, channels, -1)))
    return flat.reshape(places.shape)


def places_grad(primitive):
    """``MaxPoolGradWithArgmaxV2(x, dy, argmax)`` and ``MaxPool3DGradWithArgmax(x, dy, argmax)``."""

    def bprop(x, dy, argmax, out, dout):
        return zeros_like(x), at_places(dout, argmax), zeros_like(argmax)

    return bprop


def adaptive_max_grad(primitive):
    """``AdaptiveMaxPool2DGrad(dy, x, argmax)``."""

    def bprop(dy, x, argmax, out, dout):
        return at_places(dout, argmax), zeros_like(x), zeros_like(argmax)

    return bprop


def same_padding(size, kernel, stride):
    """Entries before and after an axis such that ``ceil(size / stride)`` windows fit; the odd one comes after."""
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def entry(x, down, right, strides, size):
    """The entry of each window that stands so far down and right in it."""
    rows = slice(down, down + (size[0] - 1) * strides[0] + 1, strides[0])
    return x[:, :, rows, right : right + (size[1] - 1) * strides[1] + 1 : strides[1]]


def at_maxima(x, cotangent, kernel, strides, size):
    """A cotangent of x where each window of x has its first largest entry; ``size`` is the pooled height and width."""
    best, picked = entry(x, 0, 0, strides, size), entry(cotangent, 0, 0, strides, size)
    for down in range(kernel[0]):
        for right in range(kernel[1]):
            candidate = entry(x, down, right, strides, size)
            larger = candidate > best
            best = ops.where(larger, candidate, best)
            picked = ops.where(larger, entry(cotangent, down, right, strides, size), picked)
    return picked


class MaxPoolGradient(CuredOperator):
    """``MaxPool``'s gradient: linear in ``dy``, and flat in x.

    Where windows do not overlap, the gradient for ones marks the maxima, and a mean collects what stands there: two
    native kernels (1.5 ms where the search takes 24).
    """

    def __init__(self, kernel, strides, same):
        super().__init__()
        self.kernel, self.strides, self.same = kernel, strides, same
        self.apart = kernel[0] <= strides[0] and kernel[1] <= strides[1]
        self.mean = own(AvgPool(kernel, strides, "valid"))
        self.gradient = own(MaxPoolGrad(kernel, strides, "same" if same else "valid"))

    def construct(self, x, y, dy):
        """The gradient with respect to x."""
        return self.gradient(x, y, dy)

    def bprop(self, x, y, dy, out, dout):
        """Nothing for x and its pool; for dy, the cotangent at the places of the maxima."""
        if self.apart:
            marked = dout * self.gradient(x, y, ops.ones_like(dy))
            picked = self.mean(self.padded(marked, 0)) * (self.kernel[0] * self.kernel[1])
        else:
            wide = self.padded(x, -3e38)
            picked = at_maxima(wide, self.padded(dout, 0), self.kernel, self.strides, dy.shape[2:])
        return ops.zeros_like(x), ops.zeros_like(y), picked

    def padded(self, array, value):
        """An array as the windows see it."""
        if not self.same:
            return array
        top, bottom = same_padding(array.shape[2], self.kernel[0], self.strides[0])
        left, right = same_padding(array.shape[3], self.kernel[1], self.strides[1])
        return ops.pad(array, (left, right, top, bottom), "constant", value)


class CuredMaxPool(CuredOperator):
    """``MaxPool(kernel_size, strides, pad_mode, data_format)(x)``, with a gradient that can be differentiated.

    ``MaxPoolWithArgmaxV2``, which keeps the places, takes 150 times as long on a CPU (204 ms for 1.4 ms).
    """

    arguments = ("kernel_size", "strides", "pad_mode", "format")

    def __init__(self, kernel_size=1, strides=1, pad_mode="valid", data_format="NCHW"):
        super().__init__()
        kernel, strides = pair(kernel_size), pair(strides)
        self.pool = own(MaxPool(kernel, strides, pad_mode.lower()))
        self.backward = MaxPoolGradient(kernel, strides, pad_mode.upper() == "SAME")

    def construct(self, x):
        """The largest entry of each window, padding left out."""
        return self.pool(x)

    def bprop(self, x, out, dout):
        """The pool's gradient."""
        return (self.backward(x, out, dout),)


def pair(size):
    """Height and width from a number or the end of a tuple."""
    return (size, size) if isinstance(size, int) else tuple(size[-2:])


class AveragePoolGradient(CuredOperator):
    """``AvgPool3D``'s gradient, linear in ``dy``: its derivative is the pool."""

    def __init__(self, pool, gradient):
        super().__init__()
        self.pool, self.gradient = pool, gradient

    def construct(self, x, dy):
        """The gradient with respect to x."""
        return self.gradient(x.shape, dy)

    def bprop(self, x, dy, out, dout):
        """Nothing for x, the pooled cotangent for dy."""
        return ops.zeros_like(x), self.pool(dout)


class CuredAvgPool3D(CuredOperator):
    """``AvgPool3D(...)(x)``, with a gradient that can be differentiated."""

    arguments = (
        *("kernel_size", "strides", "pad_mode", "pad_list", "ceil_mode", "count_include_pad", "divisor_override"),
        "format",
    )

    def __init__(
        self,
        kernel_size=1,
        strides=1,
        pad_mode="valid",
        pad=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=0,
        data_format="NCDHW",
    ):
        super().__init__()
        kernel_size, strides = triple(kernel_size), triple(strides)
        rest = ceil_mode, count_include_pad, divisor_override, data_format
        pads = (pad,) * 6 if isinstance(pad, int) else tuple(pad)
        self.pool = own(AvgPool3D(kernel_size, strides, pad_mode, pad, *rest))
        gradient = own(AvgPool3DGrad(kernel_size, strides, pads, *rest, pad_mode))
        self.backward = AveragePoolGradient(self.pool, gradient)

    def construct(self, x):
        """The mean of each window."""
        return self.pool(x)

    def bprop(self, x, out, dout):
        """The pool's gradient."""
        return (self.backward(x, dout),)


def triple(size):
    """Depth, height and width from a number or the end of a tuple."""
    return size if isinstance(size, int) else tuple(size[-3:])


DERIVATIVES = {
    "MaxPoolGradWithArgmaxV2": places_grad,
    "MaxPool3DGradWithArgmax": places_grad,
    "AdaptiveMaxPool2DGrad": adaptive_max_grad,
}
OPERATORS = {"MaxPool": CuredMaxPool, "AvgPool3D": CuredAvgPool3D}
