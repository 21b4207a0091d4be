"""The tensors of a step as compiled kernels see them: where they lie, and whether kernels can take them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
PLAIN = {Tensor, torch.nn.Parameter}

LOOKS = (type, attrgetter("is_cpu"), attrgetter("dtype"), Tensor.numel, Tensor.is_contiguous, Tensor.is_neg)
"""Everything about a tensor that a kernel depends on, but its address and the order of its entries."""


class Arrays:
    """Tensors that a step reads, and what it has to know of them: looked at once, however many ask.

    Each look at a small tensor takes a fiftieth of the time that moving it takes.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors

    @cached_property
    def layouts(self) -> tuple[list[Any], ...]:
        """What each of ``LOOKS`` finds, and strides if they are needed."""
        found = tuple([list(map(look, self.tensors)) for look in LOOKS])
        if all(found[4]):  # for the others the strides follow from the parameter's shape
            return found
        return (*found, list(map(Tensor.stride, self.tensors)))

    @cached_property
    def addresses(self) -> array[int]:
        """Where the first entry of each lies."""
        return array("q", map(Tensor.data_ptr, self.tensors))

    def addresses_at(self, places: Sequence[int]) -> array[int]:
        """Those of some tensors."""
        if len(places) == len(self.tensors):
            return self.addresses
        return array("q", [self.addresses[place] for place in places])

    @property
    def sizes(self) -> list[int]:
        """How many entries each has."""
        return self.layouts[3]

    @property
    def contiguous(self) -> list[bool]:
        """Whether the entries of each lie in the order of its indices."""
        return self.layouts[4]

    @property
    def dtypes(self) -> list[str]:
        """The names of their dtypes; for those that kernels know."""
        found = self.layouts[2]
        if len(set(found)) == 1:
            return [DTYPES[found[0]]] * len(found)
        return [DTYPES[dtype] for dtype in found]

    @cached_property
    def plain(self) -> bool:
        """Whether all are ordinary tensors on the CPU whose entries lie in memory one after another."""
        return all(self.layouts[1]) and self.ordinary

    @cached_property
    def ordinary(self) -> bool:
        """Whether all are ordinary tensors, on any device, whose entries lie in memory one after another."""
        kinds, _, dtypes, _, contiguous, negated, *_ = self.layouts
        return (
            set(kinds) <= PLAIN
            and set(dtypes) <= DTYPES.keys()
            and not any(negated)
            and (all(contiguous) or all(map(dense, self.tensors)))
        )


def room_for(like: Arrays) -> Arrays:
    """New tensors for results, laid out as contiguous ones that were looked at; they need no look of their own."""
    found = Arrays(list(map(torch.empty_like, like.tensors)))
    found.layouts = like.layouts
    return found


def same(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences hold the same objects."""
    return len(ones) == len(others) and all(map(is_, ones, others))


def joined(given: Sequence[Arrays]) -> tuple[Sequence[int], Sequence[int], Sequence[str]]:
    """The sizes, addresses and dtypes of several lists of tensors, one after the other."""
    if len(given) == 1:
        return given[0].sizes, given[0].addresses, given[0].dtypes
    sizes, addresses, dtypes = ([*chain(*map(attrgetter(name), given))] for name in ("sizes", "addresses", "dtypes"))
    return sizes, addresses, dtypes


def dense(tensor: Tensor) -> bool:
    """Whether the entries fill a stretch of memory, each once, in any order of the dimensions.

    >>> dense(torch.ones(2, 3).T), dense(torch.ones(2, 3)[:, ::2]), dense(torch.ones(1).expand(3))
    (True, False, False)
    """
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def alike(arrays: Sequence[Tensor]) -> bool:
    """Whether plain arrays have their entries in the same order."""
    shape, strides = arrays[0].shape, arrays[0].stride()
    contiguous = arrays[0].is_contiguous()
    return all(
        other.shape == shape and ((contiguous and other.is_contiguous()) or other.stride() == strides)
        for other in arrays
    )
