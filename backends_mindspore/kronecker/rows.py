"""Rows in and rows out of a layer, traced: patches of convolutions, normalised inputs, per-example gradients."""

from mindspore import ops


def linear_rows(x):
    """``[..., d]`` as ``[rows, d]``."""
    return x.reshape((-1, x.shape[-1]))


def same_pads(size, positions, kernel, stride, dilation):
    """What pad_mode "same" adds before and after an axis."""
    total = max((positions - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def padded(x, pads):
    """``[N, C, H, W]`` with zeros at (top, bottom, left, right)."""
    top, bottom, left, right = pads
    if top + bottom + left + right == 0:
        return x
    return ops.pad(x, (left, right, top, bottom))


def patch_rows(x, height, width, offsets, stride, groups):
    """Patches of a padded ``[N, C, H, W]`` at ``height * width`` places: ``[groups, N * places, C / groups * K]``.

    ``offsets`` are where the kernel's K entries stand.
    """
    spans = ((height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1)
    parts = [x[:, :, top : top + spans[0] : stride[0], left : left + spans[1] : stride[1]] for top, left in offsets]
    number, channels, count = x.shape[0], x.shape[1], len(offsets)
    patches = ops.stack(parts, 2).reshape((number, groups, channels // groups * count, height * width))
    return ops.transpose(patches, (1, 0, 3, 2)).reshape((groups, number * height * width, channels // groups * count))


def position_rows(grad, groups):
    """``[N, O, *positions]`` as ``[groups, N * positions, O / groups]``."""
    number, channels = grad.shape[0], grad.shape[1]
    rows = ops.transpose(grad.reshape((number, groups, channels // groups, -1)), (1, 0, 3, 2))
    return rows.reshape((groups, -1, channels // groups))


def centred(x, axes, eps):
    """``(x - mean) / sqrt(var + eps)`` over some axes."""
    difference = x - ops.mean(x, axes, True)
    return difference / ops.sqrt(ops.mean(difference * difference, axes, True) + eps)


def per_example_channels(grad):
    """``[N, C, *positions]`` summed over the positions, ``[N, C]``."""
    if len(grad.shape) == 2:
        return grad
    return grad.reshape((grad.shape[0], grad.shape[1], -1)).sum(-1)


def per_example_last(grad, channels):
    """``[N, ..., *normalized]`` summed over what is between, ``[N, channels]``."""
    return grad.reshape((grad.shape[0], -1, channels)).sum(1)
