"""An array of a live model or optimizer, as a checkpoint sees it: a name, a dtype, a shape, and a way to its bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
"""Safetensors' dtypes and the numpy dtypes that hold them. numpy has no bfloat16: its bits travel as uint16."""


@dataclass(frozen=True)
class Array:
    """One array by its canonical name, dtype and shape; ``native`` is what its framework calls it.

    ``read`` returns the values in the canonical shape and in the dtype of :data:`DTYPES`, without a copy where the
    framework's memory is the host's. ``write`` takes such an array and puts its values in place. ``memory`` makes the
    place ready to be overwritten and returns it, row by row, where it is the host's; None if only ``write`` can.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    write: Callable[[np.ndarray], None]
    native: str = ""
    native_shape: tuple[int, ...] | None = None
    memory: Callable[[], np.ndarray | None] = lambda: None

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def named(self, name: str) -> Array:
        """The same array under another name."""
        return replace(self, name=name)


def constant(name: str, dtype: str, values: np.ndarray) -> Array:
    """An array that can only be read."""

    def refuse(values: np.ndarray) -> None:
        raise TypeError(f"{name} cannot be written")

    return Array(name, dtype, values.shape, lambda: values, refuse)


def as_array(name: str, values: np.ndarray) -> Array:
    """A numpy array; raise TypeError for a dtype that safetensors does not have.

    >>> as_array("w", np.ones((2, 3), np.float32)).nbytes
    24
    """
    kept = values.astype(values.dtype.newbyteorder("<"), copy=False)
    for code, dtype in DTYPES.items():
        if dtype == kept.dtype and code != "BF16":
            return constant(name, code, kept)
    raise TypeError(f"{name}: safetensors has no dtype {values.dtype}")
