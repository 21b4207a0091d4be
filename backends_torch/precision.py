"""Half-precision parameters: state and arithmetic in float32, the result rounded back into the parameter once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """A float16 or bfloat16 tensor in float32, which holds it exactly; any other as it is.

    >>> widened(torch.ones(1, dtype=torch.bfloat16)).dtype, widened(torch.ones(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def zeros_for(param: Tensor) -> Tensor:
    """A state slot's or a sum's beginning: zeros of the parameter's shape, at least in float32."""
    dtype = torch.float32 if param.dtype.itemsize < 4 else param.dtype
    return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)


def restore_wide_slots(state: Mapping[Tensor, dict[str, Any]], saved: Mapping[Tensor, Mapping[str, Any]]) -> None:
    """Put back what torch's ``load_state_dict`` cast to a half-precision parameter's dtype."""
    for param, slots in saved.items():
        if param.dtype.itemsize < 4:
            for name, value in slots.items():
                if isinstance(value, Tensor):
                    state[param][name] = widened(value).to(param.device, copy=True)
