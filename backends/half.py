"""Half precision in numpy, which has float16 but no bfloat16: that one's bits are kept in uint16."""

from __future__ import annotations

import numpy as np


def packed(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 numbers rounded to float16, or to bfloat16 as bits; to nearest, ties to even.

    >>> packed(np.float32([1.0, 1 + 2**-8, 1 + 3 * 2**-8]), "bfloat16").tolist()
    [16256, 16256, 16258]
    """
    if dtype == "float16":
        with np.errstate(all="ignore"):
            return values.astype(np.float16, order="C")
    bits = np.array(values, np.float32, order="C").view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.asarray(np.where(np.isnan(values), np.uint32(0x7FC0), rounded), np.uint16)


def unpacked(stored: np.ndarray, dtype: str) -> np.ndarray:
    """The same numbers in float32, exactly.

    >>> unpacked(np.uint16([16256, 65408]), "bfloat16").tolist()
    [1.0, -inf]
    """
    if dtype == "float16":
        return stored.astype(np.float32)
    return np.asarray(stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
