"""Pooling.

A maximum is flat in where it stands, so the gradient's derivative picks, from a cotangent, what stands at the places of
the maxima. MindSpore's own maximum pools keep these places; the one that does not is replaced by one that does. On ties
the first entry of a window counts, as in the forward.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops
from mindspore.ops.auto_generate import GatherD
from mindspore.ops.composite.multitype_ops.zeros_like_impl import zeros_like
from mindspore.ops.operations import AvgPool3D, MaxPoolWithArgmaxV2
from mindspore.ops.operations._grad_ops import AvgPool3DGrad

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


class CuredMaxPool(CuredOperator):
    """``MaxPool(kernel_size, strides, pad_mode, data_format)(x)``."""

    arguments = ("kernel_size", "strides", "pad_mode", "format")

    def __init__(self, kernel_size=1, strides=1, pad_mode="valid", data_format="NCHW"):
        super().__init__()
        self.kernel, self.strides = pair(kernel_size), pair(strides)
        self.same = pad_mode.upper() == "SAME"
        self.pool = own(MaxPoolWithArgmaxV2(self.kernel, self.strides))

    def construct(self, x):
        """The largest entry of each window, padding left out."""
        if self.same:
            top, bottom = same_padding(x.shape[2], self.kernel[0], self.strides[0])
            left, right = same_padding(x.shape[3], self.kernel[1], self.strides[1])
            x = ops.pad(x, (left, right, top, bottom), "constant", -3e38)
        return self.pool(x)[0]


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
