"""Operators that move numbers. Each follows a square, because a tape is lost where a view meets another operator."""

import numpy as np

from hessiod.backends.certification.case import case, family, normal

SHAPE = (3, 4)
ALONG = np.array([[0, 2, 1, 0], [1, 1, 0, 2]])
MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], bool)
CASES = family(
    "shapes",
    reshape=case(x=normal(*SHAPE)),
    flatten=case(x=normal(2, 3, 2)),
    transpose=case(x=normal(*SHAPE)),
    permute=case(x=normal(2, 3, 2)),
    expand_dims=case(x=normal(*SHAPE)),
    squeeze=case(x=normal(3, 1, 4)),
    broadcast_to=case(x=normal(1, 4)),
    stack=case(x=normal(*SHAPE), y=normal(*SHAPE)),
    concat=case(x=normal(*SHAPE), y=normal(2, 4)),
    split=case(x=normal(*SHAPE)),
    split_sizes=case(x=normal(*SHAPE)),
    chunk=case(x=normal(*SHAPE)),
    unbind=case(x=normal(*SHAPE)),
    gather=case(x=normal(*SHAPE), index=ALONG),
    index_select=case(x=normal(*SHAPE), index=np.array([2, 0, 2])),
    index_array=case(x=normal(*SHAPE), index=np.array([1, 1, 0])),
    index_integer=case(x=normal(*SHAPE)),
    slice=case(x=normal(*SHAPE)),
    slice_step=case(x=normal(5, 4)),
    narrow=case(x=normal(*SHAPE)),
    where=case(x=normal(*SHAPE), y=normal(*SHAPE), mask=MASK),
    masked_fill=case(x=normal(*SHAPE), mask=MASK),
    pad_constant=case(x=normal(1, 2, 3, 4)),
    pad_reflect=case(x=normal(1, 2, 3, 4)),
    pad_replicate=case(x=normal(1, 2, 3, 4)),
    flip=case(x=normal(*SHAPE)),
    roll=case(x=normal(*SHAPE)),
    tile=case(x=normal(*SHAPE)),
    repeat_interleave=case(x=normal(*SHAPE)),
    swapaxes=case(x=normal(2, 3, 2)),
    tril=case(x=normal(*SHAPE)),
    triu=case(x=normal(*SHAPE)),
    diagonal=case(x=normal(*SHAPE)),
    scatter_add=case(x=normal(2, 4), index=ALONG),
    meshgrid=case(x=normal(3), y=normal(2)),
    unfold=case(x=normal(1, 2, 4, 3)),
    pixel_shuffle=case(x=normal(1, 4, 2, 3)),
    interpolate_nearest=case(x=normal(1, 2, 3, 2)),
    interpolate_bilinear=case(x=normal(1, 2, 3, 2)),
)
