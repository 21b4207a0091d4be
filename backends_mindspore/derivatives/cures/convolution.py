"""Convolutions as matrix products of shifted slices, which can be differentiated as often as one wants.

MindSpore has no second derivative of Conv3D. That of Conv2D is right, but its CPU kernels take about ten times as long
as these products, and a Hessian-vector product calls nine of them where a gradient calls three.
"""

from __future__ import annotations

from itertools import product

from mindspore import ops

from hessiod.backends_mindspore.derivatives.cures.cell import CuredOperator
from hessiod.backends_mindspore.derivatives.cures.pooling import same_padding


class Convolution(CuredOperator):
    """An array ``[N, C, ...]`` with weights ``[O, C / group, ...]``, of any number of spatial axes.

    An entry of the output is the product of a row of weights with the window under it. What stands at one place of all
    windows is a slice of the array. ``data_format`` can only be the usual one: other ones exist on GPUs alone, and for
    Conv2D.
    """

    arguments = ("out_channel", "kernel_size", "mode", "pad_mode", "padding", "stride", "dilation", "group")
    rank = 0

    def __init__(
        self, out_channel, kernel_size, mode=1, pad_mode="valid", pad=0, stride=1, dilation=1, group=1, data_format=None
    ):
        super().__init__()
        self.kernel, self.strides, self.gaps = self.sizes(kernel_size), self.sizes(stride), self.sizes(dilation)
        self.extents = tuple((k - 1) * gap + 1 for k, gap in zip(self.kernel, self.gaps, strict=True))
        self.offsets = tuple(
            tuple(place * gap for place, gap in zip(places, self.gaps, strict=True))
            for places in product(*map(range, self.kernel))
        )
        self.same, self.pads = pad_mode.lower() == "same", (pad,) * (2 * self.rank) if isinstance(pad, int) else pad
        self.channels, self.group, self.axes = out_channel, group, tuple(range(self.rank))

    def sizes(self, given):
        """One number an axis, from a number or the end of a tuple."""
        return (given,) * self.rank if isinstance(given, int) else tuple(given[-self.rank :])

    def margins(self, size, axis):
        """Zeros before and after an axis."""
        if self.same:
            return same_padding(size, self.extents[axis], self.strides[axis])
        return self.pads[2 * axis : 2 * axis + 2]

    def padded(self, x):
        """The array as the windows see it."""
        last_first = self.margins(x.shape[-1], self.rank - 1)
        for axis in self.axes[-2::-1]:
            last_first = last_first + self.margins(x.shape[2 + axis], axis)
        return ops.pad(x, last_first) if sum(last_first) > 0 else x

    def construct(self, x, weight):
        """The convolution, ``[N, O, ...]``."""
        x = self.padded(x)
        rows, channels = x.shape[0], x.shape[1]
        size = [(x.shape[2 + axis] - self.extents[axis]) // self.strides[axis] + 1 for axis in self.axes]
        columns = []
        for offset in self.offsets:
            ends = [offset[axis] + (size[axis] - 1) * self.strides[axis] + 1 for axis in self.axes]
            columns.append(ops.strided_slice(x, (0, 0, *offset), (rows, channels, *ends), (1, 1, *self.strides)))
        windows = ops.stack(columns, 2).reshape((rows, self.group, channels * len(columns) // self.group, -1))
        matrix = weight.reshape((1, self.group, self.channels // self.group, -1))
        return ops.matmul(matrix, windows).reshape((rows, self.channels, *size))


class CuredConv2D(Convolution):
    """``Conv2D(...)(x, weight)`` of ``NCHW``, the one format that a CPU takes."""

    rank = 2


class CuredConv3D(Convolution):
    """``Conv3D(...)(x, weight)``."""

    rank = 3


OPERATORS = {"Conv3D": CuredConv3D}
FASTER = {"Conv2D": CuredConv2D}
