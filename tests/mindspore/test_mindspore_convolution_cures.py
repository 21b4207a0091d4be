"""Convolutions as matrix products are torch's convolutions, in every setting that MindSpore's operators have."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, ops

from hessiod.backends_mindspore.derivatives.cures.convolution import CuredConv2D, CuredConv3D

SETTINGS = {
    "plain": dict(kernel=3),
    "pad": dict(kernel=3, pad_mode="pad", pad=(1, 2, 0, 1), stride=2),
    "same, stride": dict(kernel=(2, 3), pad_mode="same", stride=2),
    "same, dilation": dict(kernel=(3, 2), pad_mode="same", dilation=(1, 2)),
    "groups": dict(kernel=3, pad_mode="pad", pad=1, dilation=2, group=2),
    "depthwise": dict(kernel=(1, 3), pad_mode="same", group=4),
    "one place": dict(kernel=1, stride=(2, 1)),
}


def several(value, rank):
    return (value,) * rank if isinstance(value, int) else tuple(value)


def by_torch(x, weight, kernel, pad_mode="valid", pad=0, stride=1, dilation=1, group=1):
    """The same in float64; MindSpore's paddings are given for torch's pad, which wants the last axis first."""
    rank = x.ndim - 2
    kernel, stride, dilation = (several(value, rank) for value in (kernel, stride, dilation))
    margins = list(several(pad, 2 * rank))
    if pad_mode == "same":
        for axis in range(rank):
            size, extent = x.shape[2 + axis], (kernel[axis] - 1) * dilation[axis] + 1
            missing = max((-(-size // stride[axis]) - 1) * stride[axis] + extent - size, 0)
            margins[2 * axis : 2 * axis + 2] = missing // 2, missing - missing // 2
    last_first = [margins[2 * axis + end] for axis in reversed(range(rank)) for end in (0, 1)]
    wide = torch.nn.functional.pad(torch.tensor(x), last_first)
    function = torch.conv2d if rank == 2 else torch.conv3d
    return function(wide, torch.tensor(weight), None, stride, 0, dilation, group).numpy()


def close(cured, x, weight, settings):
    found = cured(Tensor(x, ms.float32), Tensor(weight, ms.float32)).asnumpy()
    expected = by_torch(x, weight, **settings)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def operator(kind, kernel, pad_mode="valid", pad=0, stride=1, dilation=1, group=1):
    return kind(8, kernel, 1, pad_mode, pad, stride, dilation, group)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_axes(name):
    settings, generator = SETTINGS[name], np.random.default_rng(0)
    channels = 4 // settings.get("group", 1)
    weight = generator.normal(size=(8, channels, *several(settings["kernel"], 2)))
    close(CuredConv2D.like(operator(ops.Conv2D, **settings)), generator.normal(size=(2, 4, 9, 8)), weight, settings)


@pytest.mark.parametrize(
    "settings",
    [
        dict(kernel=(3, 2, 1)),
        dict(kernel=2, pad_mode="same", stride=2),
        dict(kernel=3, pad_mode="pad", pad=(1, 2, 0, 1, 1, 1), stride=2),
    ],
)
def test_three_axes(settings):
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(8, 4, *several(settings["kernel"], 3)))
    close(CuredConv3D.like(operator(ops.Conv3D, **settings)), generator.normal(size=(2, 4, 5, 6, 7)), weight, settings)
