"""What training on several devices costs with a diagonal rule: bytes of state on one, bytes that enter collectives.

Replicated is DistributedDataParallel. Sharded is ``fully_shard`` over rows of every parameter (Rajbhandari et al.,
arXiv:1910.02054, stage 3), padded to equal shards, with weights gathered anew in the backward. What enters a collective
is counted once, as the whole tensor; on a ring of N each device then sends (N - 1) / N of it for a gather or a
reduce-scatter, and twice that for an all-reduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

from hessiod.core.errors import InvalidArgument

Shape = tuple[int, ...]
REFRESHES = ("none", "gauss-newton-bartlett", "hutchinson")


def gpt(layers: int = 24, width: int = 2048, context: int = 2048, vocabulary: int = 50257) -> list[Shape]:
    """The parameters of a GPT with tied embeddings and biases; by default that of 1.3 B (arXiv:2005.14165, Table 2.1).

    >>> round(sum(prod(shape) for shape in gpt()) / 1e9, 2)
    1.32
    """
    norm = [(width,), (width,)]
    attention = [(3 * width, width), (3 * width,), (width, width), (width,)]
    perceptron = [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(vocabulary, width), (context, width), *(norm + attention + norm + perceptron) * layers, *norm]


def padded(shape: Shape, devices: int) -> int:
    """Entries of a parameter's largest shard.

    >>> padded((5, 3), 2), padded((5, 3), 8)
    (9, 3)
    """
    return ceil(shape[0] / devices) * prod(shape[1:])


def state_bytes(shapes: Sequence[Shape], slots: int, devices: int, sharded: bool, word: int = 4) -> int:
    """Bytes of ``slots`` state arrays a parameter on the device that has most.

    >>> state_bytes([(4, 2)], 2, 4, sharded=False), state_bytes([(4, 2)], 2, 4, sharded=True)
    (64, 16)
    """
    return word * slots * sum(padded(shape, devices if sharded else 1) for shape in shapes)


def pass_bytes(shapes: Sequence[Shape], devices: int, sharded: bool, word: int = 4) -> int:
    """Bytes that enter collectives in a forward and a backward: gradients, and sharded weights twice.

    All but the modules that keep their weights between the two (``reshard_after_forward=False``, by default the root's
    own), which are gathered once.
    """
    if not sharded:
        return word * sum(map(prod, shapes))
    return 3 * word * devices * sum(padded(shape, devices) for shape in shapes)


def refresh_bytes(
    shapes: Sequence[Shape], devices: int, sharded: bool, estimator: str, samples: int = 1, word: int = 4
) -> int:
    """Bytes that enter collectives to refresh the curvature, beside a step's own.

    Replicated, one array a parameter is summed, and Gauss-Newton-Bartlett's counts: where each process's targets begin,
    8 bytes a device, and their number. Sharded, it is a further forward and backward, and without a ``mask`` weights
    are gathered once more to see which targets the loss depends on; for Hutchinson's estimate it is two a sample,
    because differences of gradients stand for the product. A closure's first call gathers the weights once more.
    """
    if estimator not in REFRESHES:
        raise InvalidArgument(f"estimator: found {estimator!r}, expected one of {', '.join(REFRESHES)}")
    if estimator == "none":
        return 0
    counts = 8 * devices + 8 if estimator == "gauss-newton-bartlett" else 0
    whole_pass = pass_bytes(shapes, devices, sharded, word)
    if not sharded:
        return whole_pass + counts
    if estimator == "hutchinson":
        return 2 * samples * whole_pass
    return whole_pass + whole_pass // 3 + counts
