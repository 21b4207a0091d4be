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
    """``[N, C, D, H, W]`` with zeros at (front, back, top, bottom, left, right)."""
    front, back, top, bottom, left, right = pads
    if front + back + top + bottom + left + right == 0:
        return x
    return ops.pad(x, (left, right, top, bottom, front, back))


def patch_rows(x, places, offsets, stride, groups):
    """Patches of a padded ``[N, C, D, H, W]`` at ``places``, three lengths: ``[groups, N * places, C / groups * K]``.

    ``offsets`` are where the kernel's K entries stand.
    """
    deep, high, wide = [(length - 1) * step + 1 for length, step in zip(places, stride)]  # noqa: B905 - not traceable
    parts = [
        x[:, :, i : i + deep : stride[0], j : j + high : stride[1], k : k + wide : stride[2]] for i, j, k in offsets
    ]
    number, channels, count = x.shape[0], x.shape[1], len(offsets)
    patches = ops.stack(parts, 2).reshape((number, groups, channels // groups * count, -1))
    return ops.transpose(patches, (1, 0, 3, 2)).reshape((groups, -1, channels // groups * count))


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
