"""Lists of parameter shapes that steps are timed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

Shape = tuple[int, ...]


def gpt2_like() -> list[Shape]:
    """A GPT-2 of 12 layers and width 432, its weights tied: 148 tensors, 31 million entries.

    >>> shapes = gpt2_like()
    >>> len(shapes), entries(shapes)
    (148, 30923424)
    """
    return transformer(432, 8192)


def gpt2() -> list[Shape]:
    """GPT-2's, the small one, its weights tied: 148 tensors, 124 million entries.

    >>> shapes = gpt2()
    >>> len(shapes), entries(shapes)
    (148, 124439808)
    """
    return transformer(768, 50257)


def transformer(width: int, vocabulary: int) -> list[Shape]:
    """Twelve layers of a width, with a context of 1024 tokens."""
    layer: list[Shape] = [
        *[(width,), (width,)],
        *[(3 * width, width), (3 * width,), (width, width), (width,)],
        *[(width,), (width,)],
        *[(4 * width, width), (4 * width,), (width, 4 * width), (width,)],
    ]
    return [(vocabulary, width), (1024, width), *layer * 12, (width,), (width,)]


def small() -> list[Shape]:
    """400 tensors of 64 by 64.

    >>> len(small()), entries(small())
    (400, 1638400)
    """
    return [(64, 64)] * 400


def hundred() -> list[Shape]:
    """100 tensors of 100,000 entries.

    >>> entries(hundred())
    10000000
    """
    return [(100_000,)] * 100


def one() -> list[Shape]:
    """One tensor of 30 million entries.

    >>> entries(one())
    30000000
    """
    return [(30_000_000,)]


def resnet50() -> list[Shape]:
    """ResNet-50's: 161 tensors, 25.6 million entries.

    >>> len(resnet50()), entries(resnet50())
    (161, 25557032)
    """
    return list(_resnet50())


def _resnet50() -> Iterator[Shape]:
    def convolution(inputs: int, outputs: int, kernel: int) -> Iterator[Shape]:
        yield from [(outputs, inputs, kernel, kernel), (outputs,), (outputs,)]  # with its batch normalisation

    yield from convolution(3, 64, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            yield from convolution(inputs, width, 1)
            yield from convolution(width, width, 3)
            yield from convolution(width, 4 * width, 1)
            if block == 0:
                yield from convolution(inputs, 4 * width, 1)
            inputs = 4 * width
    yield from [(1000, inputs), (1000,)]


LISTS: dict[str, Callable[[], list[Shape]]] = {
    "gpt": gpt2_like,
    "gpt2": gpt2,
    "small": small,
    "hundred": hundred,
    "one": one,
    "resnet50": resnet50,
}
TITLES = {
    "gpt": "GPT-2-like, 148 tensors, 31 M",
    "gpt2": "GPT-2, 148 tensors, 124 M",
    "small": "400 tensors of 64x64",
    "hundred": "100 tensors of 100,000",
    "one": "one tensor, 30 M",
    "resnet50": "ResNet-50, 161 tensors, 25.6 M",
}
DEFAULT = ("gpt", "small", "hundred", "one", "resnet50")
"""What is timed where no list is named; GPT-2 whole takes four gigabytes a candidate, and is for GPUs."""


def entries(shapes: list[Shape]) -> int:
    """How many entries some shapes have together."""
    return sum(map(prod, shapes))
