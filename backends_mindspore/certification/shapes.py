"""Operators that move numbers."""

from mindspore import mint, ops


def reshape(x):
    return (x * x).reshape((2, 6))


def reshape__ops(x):
    return ops.reshape(x * x, (2, 6))


def reshape__view(x):
    return (x * x).view(2, 6)


def reshape__mint(x):
    return mint.reshape(x * x, (2, 6))


def flatten(x):
    return ops.flatten(x * x, start_dim=1)


def flatten__mint(x):
    return mint.flatten(x * x, 1)


def transpose(x):
    return (x * x).T


def transpose__ops(x):
    return ops.transpose(x * x, (1, 0))


def transpose__mint(x):
    return mint.transpose(x * x, 0, 1)


def permute(x):
    return ops.permute(x * x, (2, 0, 1))


def permute__mint(x):
    return mint.permute(x * x, (2, 0, 1))


def expand_dims(x):
    return ops.expand_dims(x * x, 1)


def expand_dims__mint(x):
    return mint.unsqueeze(x * x, 1)


def squeeze(x):
    return ops.squeeze(x * x, 1)


def squeeze__mint(x):
    return mint.squeeze(x * x, 1)


def broadcast_to(x):
    return ops.broadcast_to(x * x, (3, 4))


def broadcast_to__mint(x):
    return mint.broadcast_to(x * x, (3, 4))


def stack(x, y):
    return ops.stack((x * x, y * y), 1)


def stack__mint(x, y):
    return mint.stack((x * x, y * y), 1)


def concat(x, y):
    return ops.cat((x * x, y * y))


def concat__mint(x, y):
    return mint.cat((x * x, y * y))


def split(x):
    return ops.split(x * x, 2, 1)[1]


def split__mint(x):
    return mint.split(x * x, 2, 1)[1]


def split_sizes(x):
    return ops.split(x * x, (1, 3), 1)[1]


def chunk(x):
    return ops.chunk(x * x, 2, 1)[0]


def chunk__mint(x):
    return mint.chunk(x * x, 2, 1)[0]


def unbind(x):
    return ops.unbind(x * x, 0)[1]


def unbind__mint(x):
    return mint.unbind(x * x, 0)[1]


def gather(x, index):
    return ops.gather_elements(x * x, 0, index)


def gather__mint(x, index):
    return mint.gather(x * x, 0, index)


def index_select(x, index):
    return ops.index_select(x * x, 0, index)


def index_select__gather(x, index):
    return ops.gather(x * x, index, 0)


def index_select__mint(x, index):
    return mint.index_select(x * x, 0, index)


def index_array(x, index):
    return (x * x)[index]


def index_integer(x):
    return (x * x)[1]


def slice(x):
    return (x * x)[1:, :3]


def slice_step(x):
    return (x * x)[::2]


def narrow(x):
    return ops.narrow(x * x, 1, 1, 2)


def narrow__mint(x):
    return mint.narrow(x * x, 1, 1, 2)


def where(x, y, mask):
    return ops.where(mask, x * x, y * y * y)


def where__mint(x, y, mask):
    return mint.where(mask, x * x, y * y * y)


def masked_fill(x, mask):
    return ops.masked_fill(x * x, mask, -1.0)


def pad_constant(x):
    return ops.pad(x * x, (1, 2, 0, 1))


def pad_constant__mint(x):
    return mint.nn.functional.pad(x * x, (1, 2, 0, 1))


def pad_reflect(x):
    return ops.pad(x * x, (1, 2, 1, 1), mode="reflect")


def pad_reflect__mint(x):
    return mint.nn.functional.pad(x * x, (1, 2, 1, 1), mode="reflect")


def pad_replicate(x):
    return ops.pad(x * x, (1, 2, 1, 1), mode="replicate")


def flip(x):
    return ops.flip(x * x, (1,))


def flip__mint(x):
    return mint.flip(x * x, (1,))


def roll(x):
    return ops.roll(x * x, 1, 1)


def roll__mint(x):
    return mint.roll(x * x, 1, 1)


def tile(x):
    return ops.tile(x * x, (2, 1))


def tile__mint(x):
    return mint.tile(x * x, (2, 1))


def repeat_interleave(x):
    return ops.repeat_interleave(x * x, 2, 1)


def repeat_interleave__mint(x):
    return mint.repeat_interleave(x * x, 2, 1)


def swapaxes(x):
    return ops.swapaxes(x * x, 0, 2)


def tril(x):
    return ops.tril(x * x)


def tril__mint(x):
    return mint.tril(x * x)


def triu(x):
    return ops.triu(x * x, 1)


def diagonal(x):
    return ops.diagonal(x * x)


def scatter_add(x, index):
    return ops.tensor_scatter_elements(ops.zeros((3, 4)), index, x * x, 0, "add")


def scatter_add__mint(x, index):
    return mint.scatter_add(mint.zeros((3, 4)), 0, index, x * x)


def meshgrid(x, y):
    return ops.meshgrid(x * x, y * y, indexing="ij")[0] * y


def unfold(x):
    return ops.unfold(x * x, 2)


def unfold__mint(x):
    return mint.nn.functional.unfold(x * x, 2)


def pixel_shuffle(x):
    return ops.pixel_shuffle(x * x, 2)


def interpolate_nearest(x):
    return ops.interpolate(x * x, size=(6, 4), mode="nearest")


def interpolate_nearest__mint(x):
    return mint.nn.functional.interpolate(x * x, size=(6, 4), mode="nearest")


def interpolate_bilinear(x):
    return ops.interpolate(x * x, size=(5, 4), mode="bilinear")


def interpolate_bilinear__mint(x):
    return mint.nn.functional.interpolate(x * x, size=(5, 4), mode="bilinear")
