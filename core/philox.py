"""Philox4x32-10, the counter-based random generator (Salmon et al., SC 2011, "Parallel random numbers: as easy as
1, 2, 3"), in integer array arithmetic.

A block of 128 random bits is a pure function of a counter and a key, so there is no generator state to carry: the key
is the seed, and the counter says what the bits are for::

    counter = (block, index, step, stream + 256 * sample)        key = (seed mod 2^32, seed div 2^32)

``block`` is the position divided by what one block yields, ``index`` the parameter's position in the optimizer,
``step`` the optimizer step, ``sample`` the draw within a step, and ``stream`` keeps the uses apart. Every backend,
every shard and every process computes the same bits, and a resumed run continues the sequence.

Words are held in int64 arrays with values in [0, 2^32). Products are formed from 16-bit halves and stay below 2^49, so
nothing relies on wrap-around, which frameworks define differently.
"""

from __future__ import annotations

WORD = 0xFFFFFFFF
HALF = 0xFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
TURN_HIGH = float.fromhex("0x1.921fb60000000p-30")
TURN_LOW = float.fromhex("-0x1.777a5c0000000p-55")
"""2 pi / 2^32 as a sum of two float32 numbers, because constants in functions traced by ms.jit are float32."""

PROBE, TARGET, WEIGHT, BATCH = 0, 1, 2, 3
"""Streams: Hutchinson probes, sampled targets, initial weights, training batches."""


def multiply(xp, word, constant):
    """The high and low 32 bits of ``word * constant``."""
    low = constant * xp.bitwise_and(word, HALF)
    mid = constant * xp.shift_right(word, 16) + xp.shift_right(low, 16)
    return xp.shift_right(mid, 16), xp.shift_left(xp.bitwise_and(mid, HALF), 16) + xp.bitwise_and(low, HALF)


def philox4x32(xp, counter, key, rounds=10):
    """Four words from four counter words and two key words.

    counter: four int64 arrays of one shape; key: two Python integers. Known answer (Random123's kat_vectors):

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> zero = np.zeros(1, np.int64)
    >>> [hex(word[0]) for word in philox4x32(xp, (zero, zero, zero, zero), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = multiply(xp, c0, MULTIPLIERS[0])
        high1, low1 = multiply(xp, c2, MULTIPLIERS[1])
        c0 = xp.bitwise_xor(xp.bitwise_xor(high1, c1), k0)
        c2 = xp.bitwise_xor(xp.bitwise_xor(high0, c3), k1)
        c1 = low1
        c3 = low0
        k0 = (k0 + WEYL[0]) & WORD
        k1 = (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def blocks_of(size, each):
    """How many blocks yield ``size`` numbers, ``each`` from one."""
    return (size + each - 1) // each


def place_of(*, seed, step, index, sample, stream):
    """The words of the counter that follow the block's number, and the key."""
    return (index, step, stream + 256 * sample), (seed & WORD, (seed >> 32) & WORD)


def words(xp, block, *, seed, step, index, sample, stream):
    """``[blocks, 4]`` random words for an int64 array of block numbers.

    ``index`` is an int or an array like ``block``; ``step`` and ``sample`` may be 0-d int64 arrays.
    """
    zero, (rest, key) = block * 0, place_of(seed=seed, step=step, index=index, sample=sample, stream=stream)
    counter = (block, zero + rest[0], zero + rest[1], zero + rest[2])
    return xp.stack(philox4x32(xp, counter, key))


def size_of(like):
    """The number of entries of an array, from its shape."""
    size = 1
    for length in like.shape:
        size = size * length
    return size


def signs_from(xp, bits, like):
    """128 signs from each row of words, least bit first, shaped and typed like ``like``: bit 0 is +1, bit 1 is -1."""
    ones = xp.bitwise_and(xp.shift_right(bits[..., None], xp.arange(32, like)), 1)
    flat = xp.reshape(ones, (-1,))[: size_of(like)]
    return xp.reshape(xp.astype(1 - 2 * flat, like.dtype), like.shape)


def rademacher_probes(xp, likes, *, seed, step, sample=0, indices=None):
    """A probe of independent signs for each parameter, shaped, typed and placed like it.

    ``indices`` number the parameters: their positions in the optimizer, so that a parameter's probe does not depend on
    which others are frozen. Without them it is the place in ``likes``.

    >>> from hessiod.backends.numpy import namespace as xp
    >>> import numpy as np
    >>> rademacher_probes(xp, [np.zeros((2, 3), np.float32), np.zeros(2)], seed=0, step=1)
    (array([[-1.,  1.,  1.],
           [ 1.,  1., -1.]], dtype=float32), array([-1.,  1.]))
    """
    numbers: tuple = ()
    indexed: tuple = ()
    probes: tuple = ()
    start = 0
    for like, place in zip(likes, range(len(likes)) if indices is None else indices):  # noqa: B905 - not traceable
        block = xp.arange(blocks_of(size_of(like), 128), like)
        numbers, indexed = (*numbers, block), (*indexed, block * 0 + place)
    bits = words(xp, xp.concat(numbers), seed=seed, step=step, index=xp.concat(indexed), sample=sample, stream=PROBE)
    for like in likes:
        end = start + blocks_of(size_of(like), 128)
        probes = (*probes, signs_from(xp, bits[start:end], like))
        start = end
    return probes


def normal_probes(xp, likes, *, seed, step, sample=0, indices=None):
    """A probe of independent standard normal numbers for each parameter, shaped, typed and placed like it."""
    probes: tuple = ()
    for like, place in zip(likes, range(len(likes)) if indices is None else indices):  # noqa: B905 - not traceable
        probes = (*probes, normals(xp, like, seed=seed, step=step, index=place, sample=sample, stream=PROBE))
    return probes


def quads(xp, like, first):
    """The numbers of the blocks that hold ``like``'s entries, four each, from place ``first`` of a longer array on."""
    if isinstance(first, int):
        return xp.arange(blocks_of(first % 4 + size_of(like), 4), like) + first // 4
    return xp.arange(blocks_of(3 + size_of(like), 4), like) + xp.shift_right(first, 2)


def window(xp, flat, like, first):
    """Those of the blocks' numbers that are ``like``'s; exact, because all but one of the terms are zero."""
    size = size_of(like)
    if isinstance(first, int):
        return flat[first % 4 : first % 4 + size]
    skip = xp.bitwise_and(first, 3)
    parts = [xp.astype(skip == place, flat.dtype) * flat[place : place + size] for place in range(4)]
    return parts[0] + parts[1] + parts[2] + parts[3]


def uniform_from(xp, word):
    """A number in [0, 1) from the upper 24 bits of a word, in float32 (exact)."""
    return xp.astype(xp.shift_right(word, 8), xp.float32) * 2.0**-24


def uniforms(xp, like, *, seed, step, index=0, sample=0, stream=TARGET, first=0, draw=words):
    """Numbers in [0, 1) with 24 bits, shaped like ``like``, in float32 (exact): four from each block.

    ``first`` is the place of the first one in a longer array of which ``like`` is a part: an int, or a 0-d int64 array
    where it is known only when a graph runs. ``draw`` is :func:`words`, or a backend's faster form of it.
    """
    bits = draw(xp, quads(xp, like, first), seed=seed, step=step, index=index, sample=sample, stream=stream)
    flat = window(xp, xp.reshape(bits, (-1,)), like, first)
    return xp.reshape(uniform_from(xp, flat), like.shape)


def normals(xp, like, *, seed, step, index=0, sample=0, stream=TARGET, first=0, draw=words):
    """Standard normal numbers shaped and typed like ``like``: Box and Muller's transform of pairs, in float64.

    ``first`` and ``draw`` are as in :func:`uniforms`.
    """
    bits = draw(xp, quads(xp, like, first), seed=seed, step=step, index=index, sample=sample, stream=stream)
    bits = xp.astype(bits, xp.float64)
    radius = xp.sqrt(-2.0 * xp.log((bits[:, 0::2] + 1.0) * 2.0**-32))
    angle = bits[:, 1::2] * TURN_HIGH + bits[:, 1::2] * TURN_LOW
    flat = window(xp, xp.reshape(xp.stack((radius * xp.cos(angle), radius * xp.sin(angle))), (-1,)), like, first)
    return xp.reshape(xp.astype(flat, like.dtype), like.shape)


PROBES = {"rademacher": rademacher_probes, "normal": normal_probes}
"""Distributions of Hutchinson's probes by name."""
