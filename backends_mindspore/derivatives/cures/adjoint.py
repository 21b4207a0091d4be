"""Linear operators, whose gradient operator MindSpore cannot differentiate.

The gradient of a linear operator ``y = A x`` is ``A' dy``, and the derivative of that is A itself: a cotangent of the
gradient goes through the forward operator.
"""

from __future__ import annotations

from mindspore.ops.auto_generate import AvgPool, ResizeBilinearV2, ResizeNearestNeighborV2
from mindspore.ops.composite.multitype_ops.zeros_like_impl import zeros_like
from mindspore.ops.operations import AdaptiveAvgPool2D

PAD_MODES, FORMATS = ("PAD", "SAME", "VALID"), ("NCHW", "NHWC")
"""MindSpore's numbers for words, as places."""


def avg_pool_grad(primitive):
    """``AvgPoolGrad(x, y, dy, kernel_size, strides, pad_mode, data_format)``."""

    def bprop(x, y, dy, kernel_size, strides, pad_mode, data_format, out, dout):
        again = AvgPool(kernel_size, strides, PAD_MODES[pad_mode], FORMATS[data_format])(dout)
        rest = zeros_like(kernel_size), zeros_like(strides), zeros_like(pad_mode), zeros_like(data_format)
        return zeros_like(x), zeros_like(y), again, *rest

    return bprop


def adaptive_avg_pool_2d_grad(primitive):
    """``AdaptiveAvgPool2DGrad(dy, shape)``; the forward's size is that of dy."""

    def bprop(dy, shape, out, dout):
        return AdaptiveAvgPool2D(dy.shape[-2:])(dout), zeros_like(shape)

    return bprop


def resize_bilinear_grad(primitive):
    """``ResizeBilinearGrad(dy, x, align_corners, half_pixel_centers)``."""

    def bprop(dy, x, align_corners, half_pixel_centers, out, dout):
        again = ResizeBilinearV2(align_corners, half_pixel_centers)(dout, dy.shape[-2:])
        return again, zeros_like(x), zeros_like(align_corners), zeros_like(half_pixel_centers)

    return bprop


def resize_nearest_grad(primitive):
    """``ResizeNearestNeighborV2Grad(dy, size, align_corners, half_pixel_centers)``."""

    def bprop(dy, size, align_corners, half_pixel_centers, out, dout):
        again = ResizeNearestNeighborV2(align_corners, half_pixel_centers)(dout, dy.shape[-2:])
        return again, zeros_like(size), zeros_like(align_corners), zeros_like(half_pixel_centers)

    return bprop


DERIVATIVES = {
    "AvgPoolGrad": avg_pool_grad,
    "AdaptiveAvgPool2DGrad": adaptive_avg_pool_2d_grad,
    "ResizeBilinearGrad": resize_bilinear_grad,
    "ResizeNearestNeighborV2Grad": resize_nearest_grad,
}
