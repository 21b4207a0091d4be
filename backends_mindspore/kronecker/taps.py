"""Statistics as derivatives: hooks never fire in a graph, so a tap in each covered layer has them for its gradient.

A tap returns a layer's output as it is. Its derivative with respect to Parameters of its own, the *probes*, is defined
to be the second moments of the layer's inputs and of the gradients of its output, and the number of rows. So one pull
back of a residual through the net brings the statistics of all layers. Sums over several uses of a layer are the sum
that differentiation takes anyway, the probes have the factors' shapes at any size of a batch, and what the user's net
computes does not change by a bit.

While a graph is traced the covered Cells are of a class that has the tap; :func:`tapped` gives them their own back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from hessiod.backends_mindspore import namespace as xp
from hessiod.backends_mindspore.kronecker import rows
from hessiod.backends_mindspore.kronecker.layers import TRAINED_BATCH_NORMS, Convolution, Embedding, Layer, Norm
from hessiod.core.kronecker import factors, unitwise


class Tap(nn.Cell):
    """A layer's output as it is; the probes are the tap's Parameters."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(auto_prefix=False)
        self.bias, self.dtype = layer.bias, ms.float64 if layer.dtype == np.float64 else ms.float32
        shapes = layer.factor_shapes()
        self.count = probe(layer, "rows", ())
        self.first = probe(layer, layer.statistics[0], shapes[layer.statistics[0]])
        self.second = probe(layer, "g", shapes["g"]) if "g" in shapes else self.count
        self.derivative = derivative_of(layer, self.dtype)

    def construct(self, output, x):
        """The output."""
        return self.derivative(output, x, self.first, self.second, self.count)

    def probes(self) -> list[Parameter]:
        """What is differentiated with respect to: the statistics, then the number of rows."""
        named = [self.first, self.count] if self.second is self.count else [self.first, self.second, self.count]
        return named


def probe(layer: Layer, name: str, shape: tuple[int, ...]) -> Parameter:
    """A Parameter that is only differentiated with respect to."""
    return Parameter(Tensor(np.zeros(shape, layer.dtype)), name=f"probe_{name}.{layer.name}")


class MatrixTap(nn.Cell):
    """The derivative of a linear layer's tap."""

    def __init__(self, bias: bool, dtype: Any) -> None:
        super().__init__(auto_prefix=False)
        self.bias, self.dtype = bias, dtype

    def construct(self, output, x, first, second, count):
        """The output."""
        return output

    def input_rows(self, x, grad):
        """``[..., rows, in]``."""
        return rows.linear_rows(x)

    def output_rows(self, grad):
        """``[..., rows, out]``."""
        return rows.linear_rows(grad)

    def bprop(self, output, x, first, second, count, result, grad):
        """``sum a a'``, ``sum g g'`` and the number of rows for the probes."""
        wide = ops.cast(grad, self.dtype)
        inputs = self.input_rows(ops.cast(x, self.dtype), wide)
        if self.bias:
            inputs = factors.with_ones(xp, inputs)
        outputs = self.output_rows(wide)
        a, g = factors.second_moment(xp, inputs), factors.second_moment(xp, outputs)
        return grad, ops.zeros_like(x), a, g, ops.zeros_like(count) + inputs.shape[-2]


class ConvolutionTap(MatrixTap):
    """The derivative of a convolution's tap; all have three axes here, of which Conv1d and Conv2d use the last."""

    def __init__(self, cell: Any, bias: bool, dtype: Any) -> None:
        super().__init__(bias, dtype)
        self.groups, self.same, self.rank = cell.group, cell.pad_mode == "same", 1 if isinstance(cell, nn.Conv1d) else 2
        if isinstance(cell, nn.Conv3d):
            self.rank = 3
        self.kernel, self.stride, self.dilation = (
            (*(1,) * (3 - len(sizes)), *sizes) for sizes in (cell.kernel_size, cell.stride, cell.dilation)
        )
        spread = [range(0, size * apart, apart) for size, apart in zip(self.kernel, self.dilation, strict=True)]
        self.offsets = tuple(product(*spread))
        padding = cell.padding if isinstance(cell.padding, tuple) else (cell.padding,) * (2 * len(cell.kernel_size))
        self.pads = (*(0,) * (6 - len(padding)), *padding) if cell.pad_mode == "pad" else (0,) * 6

    def input_rows(self, x, grad):
        """Patches."""
        x = self.deep(x)
        places = self.deep(grad).shape[2:]
        pads = self.pads
        if self.same:
            front = rows.same_pads(x.shape[2], places[0], self.kernel[0], self.stride[0], self.dilation[0])
            above = rows.same_pads(x.shape[3], places[1], self.kernel[1], self.stride[1], self.dilation[1])
            left = rows.same_pads(x.shape[4], places[2], self.kernel[2], self.stride[2], self.dilation[2])
            pads = (front[0], front[1], above[0], above[1], left[0], left[1])
        found = rows.patch_rows(rows.padded(x, pads), places, self.offsets, self.stride, self.groups)
        if self.groups == 1:
            found = found[0]
        return found

    def deep(self, x):
        """``[N, C, D, H, W]``."""
        if self.rank == 1:
            x = ops.expand_dims(x, 2)
        if self.rank < 3:
            x = ops.expand_dims(x, 2)
        return x

    def output_rows(self, grad):
        """Positions."""
        found = rows.position_rows(grad, self.groups)
        if self.groups == 1:
            found = found[0]
        return found


class EmbeddingTap(nn.Cell):
    """The derivative of an embedding's tap: counts of tokens."""

    def __init__(self, tokens: int, dtype: Any) -> None:
        super().__init__(auto_prefix=False)
        self.tokens, self.dtype = tokens, dtype

    def construct(self, output, x, first, second, count):
        """The output."""
        return output

    def bprop(self, output, x, first, second, count, result, grad):
        """The counts, ``sum g g'`` and the number of tokens for the probes."""
        wide = rows.linear_rows(ops.cast(grad, self.dtype))
        ids = ops.cast(x, ms.int32).reshape((-1,))
        counts = ops.unsorted_segment_sum(ops.ones_like(wide[:, 0]), ids, self.tokens)
        return grad, ops.zeros_like(x), counts, factors.second_moment(xp, wide), ops.zeros_like(count) + wide.shape[0]


class NormTap(nn.Cell):
    """The derivative of a normalisation's tap: products of per-example gradients of scale and shift."""

    def __init__(self, cell: Any, channels: int, dtype: Any) -> None:
        super().__init__(auto_prefix=False)
        self.dtype, self.channels = dtype, channels
        self.is_batch, self.is_layer = isinstance(cell, TRAINED_BATCH_NORMS), isinstance(cell, nn.LayerNorm)
        self.eps = cell.epsilon if self.is_layer else cell.eps
        self.axes = tuple(range(-len(cell.normalized_shape), 0)) if self.is_layer else ()
        self.groups = 1 if self.is_layer or self.is_batch else cell.num_groups
        statistics = cell.use_batch_statistics if self.is_batch else True
        self.follows_training, self.of_batch = statistics is None, bool(statistics)
        self.mean = cell.moving_mean if self.is_batch else None
        self.variance = cell.moving_variance if self.is_batch else None

    def construct(self, output, x, first, second, count):
        """The output."""
        return output

    def normalized(self, x):
        """What the scale is multiplied by."""
        if self.is_layer:
            return rows.centred(x, self.axes, self.eps)
        if not self.is_batch:
            grouped = x.reshape((x.shape[0], self.groups, -1))
            return rows.centred(grouped, (-1,), self.eps).reshape(x.shape)
        if self.of_batch or (self.follows_training and self.training):
            flat = x.reshape((x.shape[0], x.shape[1], -1))
            return rows.centred(flat, (0, 2), self.eps).reshape(x.shape)
        shape = (1, self.channels) + (1,) * (len(x.shape) - 2)
        mean, variance = ops.cast(self.mean, self.dtype), ops.cast(self.variance, self.dtype)
        return (x - mean.reshape(shape)) / ops.sqrt(variance.reshape(shape) + self.eps)

    def per_example(self, grad):
        """``[examples, channels]``."""
        if self.is_layer:
            return rows.per_example_last(grad, self.channels)
        return rows.per_example_channels(grad)

    def bprop(self, output, x, first, second, count, result, grad):
        """The three sums, ``[3, channels]``, and the number of examples for the probes."""
        wide = ops.cast(grad, self.dtype)
        scale = self.per_example(wide * self.normalized(ops.cast(x, self.dtype)))
        sums = ops.concat(unitwise.unit_sums(xp, scale, self.per_example(wide)))
        return grad, ops.zeros_like(x), sums, ops.zeros_like(second), ops.zeros_like(count) + x.shape[0]


def derivative_of(layer: Layer, dtype: Any) -> nn.Cell:
    """The Cell that a layer's tap differentiates as."""
    cell = layer.cells[0]
    if isinstance(layer, Norm):
        return NormTap(cell, layer.params[0].size, dtype)
    if isinstance(layer, Embedding):
        return EmbeddingTap(layer.shape[1], dtype)
    if isinstance(layer, Convolution):
        return ConvolutionTap(cell, layer.bias, dtype)
    return MatrixTap(layer.bias, dtype)


class TappedDense(nn.Dense):
    """A Dense whose activation is behind the tap."""

    def construct(self, x):
        """The layer's output."""
        output = self.tap(super().construct(x), x)
        if self.tapped_activation:
            output = self.activation(output)
        return output


class TappedConv1d(nn.Conv1d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedConv2d(nn.Conv2d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedConv3d(nn.Conv3d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedEmbedding(nn.Embedding):
    """With a tap."""

    def construct(self, ids):
        """The layer's output."""
        return self.tap(super().construct(ids), ids)


class TappedBatchNorm1d(nn.BatchNorm1d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedBatchNorm2d(nn.BatchNorm2d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedBatchNorm3d(nn.BatchNorm3d):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


class TappedLayerNorm(nn.LayerNorm):
    """With a tap."""

    def construct(self, input_x):
        """The layer's output."""
        return self.tap(super().construct(input_x), input_x)


class TappedGroupNorm(nn.GroupNorm):
    """With a tap."""

    def construct(self, x):
        """The layer's output."""
        return self.tap(super().construct(x), x)


TAPPED: dict[type[nn.Cell], type[nn.Cell]] = {
    nn.Dense: TappedDense,
    nn.Conv1d: TappedConv1d,
    nn.Conv2d: TappedConv2d,
    nn.Conv3d: TappedConv3d,
    nn.Embedding: TappedEmbedding,
    nn.BatchNorm1d: TappedBatchNorm1d,
    nn.BatchNorm2d: TappedBatchNorm2d,
    nn.BatchNorm3d: TappedBatchNorm3d,
    nn.LayerNorm: TappedLayerNorm,
    nn.GroupNorm: TappedGroupNorm,
}


@contextmanager
def tapped(layers: Sequence[Layer], taps: Sequence[Tap]) -> Iterator[None]:
    """The layers' Cells with taps inside the block, and as they were after it."""
    cells = [(cell, tap, type(cell)) for layer, tap in zip(layers, taps, strict=True) for cell in layer.cells]
    try:
        for cell, tap, kind in cells:
            fields = vars(cell)
            fields["tap"] = tap
            if tap.derivative.training != cell.training:
                tap.derivative.set_train(cell.training)
            if kind is nn.Dense:
                fields["tapped_activation"], fields["activation_flag"] = fields["activation_flag"], False
            object.__setattr__(cell, "__class__", TAPPED[kind])
        yield
    finally:
        for cell, _, kind in cells:
            fields = vars(cell)
            if "tap" not in fields:
                continue
            object.__setattr__(cell, "__class__", kind)
            del fields["tap"]
            if kind is nn.Dense:
                fields["activation_flag"] = fields.pop("tapped_activation")
