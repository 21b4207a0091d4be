"""A tensor as a checkpoint sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hessiod.backends.checkpoint.arrays import Array
from hessiod.core.errors import InvalidArgument

CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}


def values_of(tensor: Tensor) -> np.ndarray:
    """A tensor's values on the host; bfloat16 as the bits."""
    tensor = tensor.detach().cpu()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


@torch.no_grad()
def put(tensor: Tensor, values: np.ndarray) -> None:
    """Put values into a tensor where it is."""
    if tensor.dtype == torch.bfloat16:
        tensor.copy_(torch.from_numpy(values.view(np.int16)).view(torch.bfloat16))
    else:
        tensor.copy_(torch.from_numpy(values))


def memory_of(tensor: Tensor) -> np.ndarray | None:
    """A tensor's own memory, about to be overwritten; None where it is not the host's, row by row."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return None
    torch.autograd.graph.increment_version(tensor)  # a graph that kept the old values must not be used
    return values_of(tensor)


def array_in(tensor: Callable[[], Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...], native: str) -> Array:
    """The array of a tensor that is there, or made, when it is asked for."""
    return Array(
        *(name, CODES[dtype], shape, lambda: values_of(tensor()), lambda values: put(tensor(), values), native, shape),
        memory=lambda: memory_of(tensor()),
    )


def array_of(name: str, tensor: Tensor, native: str) -> Array:
    """A tensor of a model; raise for one that has no values here."""
    found = None
    if torch.nn.parameter.is_lazy(tensor):
        found = "not initialised yet; run the model once"
    elif tensor.device.type == "meta":
        found = "on the meta device; load real values first"
    elif hasattr(tensor, "full_tensor"):
        found = "sharded over processes; save and load sharded state with torch.distributed.checkpoint"
    elif tensor.layout != torch.strided:
        found = f"of layout {tensor.layout}, expected a dense one"
    elif tensor.dtype not in CODES:
        found = f"of dtype {tensor.dtype}, expected one of {', '.join(map(str, CODES))}"
    if found:
        raise InvalidArgument(f"model: {native!r} is {found}")
    return array_in(lambda: tensor, name, tensor.dtype, tuple(tensor.shape), native)
