"""Operators that move numbers: each by the places in the input that its output comes from."""

import jax.numpy as jnp
import numpy as np


def moved(places):
    """The operator that takes ``x * x`` at the flat places that ``places`` gives for an array of place numbers."""

    def operator(x, *constants):
        numbers = np.arange(x.size).reshape(x.shape)
        return (x * x).reshape(-1)[places(numbers, *constants)]

    return operator


def padded(mode):
    """Two columns after, one before, one row on each side."""
    return moved(lambda n: np.pad(n, ((0, 0), (0, 0), (1, 1), (1, 2)), mode=mode))


def scatter_add(x, index):
    """Each entry added to the row that its index names."""
    rows = [sum((index[i] == row) * x[i] ** 2 for i in range(2)) for row in range(3)]
    return jnp.stack(rows)


def linear_map(size, new):
    """The matrix of bilinear interpolation along one axis, corners not aligned."""
    matrix = np.zeros((new, size))
    for row in range(new):
        place = max((row + 0.5) * size / new - 0.5, 0.0)
        low = int(place)
        high = min(low + 1, size - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


def interpolate_bilinear(x):
    """From 3 x 2 to 5 x 4."""
    return jnp.einsum("ih,jw,nchw->ncij", linear_map(3, 5), linear_map(2, 4), x * x)


def patches(n):
    """The columns of 2 x 2 patches of a 4 x 3 image, channels slowest."""
    cut = [n[0, c, i : i + 3, j : j + 2].reshape(-1) for c in range(2) for i in range(2) for j in range(2)]
    return np.stack(cut)[None]


def shuffled(n):
    """Four channels as one of twice the height and width."""
    out = np.zeros((1, 1, 4, 6), int)
    for c in range(4):
        out[0, 0, c // 2 :: 2, c % 2 :: 2] = n[0, c]
    return out


CASES = {
    "reshape": moved(lambda n: n.reshape(2, 6)),
    "flatten": moved(lambda n: n.reshape(2, 6)),
    "transpose": moved(np.transpose),
    "permute": moved(lambda n: n.transpose(2, 0, 1)),
    "expand_dims": moved(lambda n: n[:, None]),
    "squeeze": moved(lambda n: n[:, 0]),
    "broadcast_to": moved(lambda n: np.broadcast_to(n, (3, 4))),
    "stack": lambda x, y: jnp.swapaxes(jnp.array([x * x, y * y]), 0, 1),
    "concat": lambda x, y: jnp.array([*x, *y]) ** 2,
    "split": moved(lambda n: n[:, 2:]),
    "split_sizes": moved(lambda n: n[:, 1:]),
    "chunk": moved(lambda n: n[:, :2]),
    "unbind": moved(lambda n: n[1]),
    "gather": moved(lambda n, index: np.take_along_axis(n, index, 0)),
    "index_select": moved(lambda n, index: n[index]),
    "index_array": moved(lambda n, index: n[index]),
    "index_integer": moved(lambda n: n[1]),
    "slice": moved(lambda n: n[1:, :3]),
    "slice_step": moved(lambda n: n[::2]),
    "narrow": moved(lambda n: n[:, 1:3]),
    "where": lambda x, y, mask: mask * x**2 + (1 - mask) * y**3,
    "masked_fill": lambda x, mask: (1 - mask) * x**2 - mask,
    "pad_constant": lambda x: jnp.pad(x * x, ((0, 0), (0, 0), (0, 1), (1, 2))),
    "pad_reflect": padded("reflect"),
    "pad_replicate": padded("edge"),
    "flip": moved(lambda n: n[:, ::-1]),
    "roll": moved(lambda n: n[:, [3, 0, 1, 2]]),
    "tile": moved(lambda n: np.concatenate([n, n])),
    "repeat_interleave": moved(lambda n: n[:, [0, 0, 1, 1, 2, 2, 3, 3]]),
    "swapaxes": moved(np.transpose),
    "tril": lambda x: x * x * np.tri(3, 4),
    "triu": lambda x: x * x * (1 - np.tri(3, 4)),
    "diagonal": moved(lambda n: n[[0, 1, 2], [0, 1, 2]]),
    "scatter_add": scatter_add,
    "meshgrid": lambda x, y: (x * x)[:, None] * y[None],
    "unfold": moved(patches),
    "pixel_shuffle": moved(shuffled),
    "interpolate_nearest": moved(lambda n: n.repeat(2, 2).repeat(2, 3)),
    "interpolate_bilinear": interpolate_bilinear,
}
