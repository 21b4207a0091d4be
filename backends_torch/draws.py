"""Random words by a compiled kernel, bit for bit those of :mod:`hessiod.core.philox`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hessiod.backends import kernels
from hessiod.core import philox


def words(xp: Any, block: Tensor, *, seed: int, step: int, index: Any, sample: int, stream: int) -> Tensor:
    """``[blocks, 4]`` random words for int64 block numbers: :func:`hessiod.core.philox.words`.

    >>> from hessiod.backends_torch import namespace as xp
    >>> words(xp, torch.arange(2), seed=1, step=2, index=3, sample=0, stream=philox.TARGET)[1, :2].tolist()
    [2741197340, 422541618]
    """
    if not (block.is_cpu and type(block) is Tensor and isinstance(index, int) and kernels.available()):
        return philox.words(xp, block, seed=seed, step=step, index=index, sample=sample, stream=stream)
    block, found = block.contiguous(), torch.empty((len(block), 4), dtype=torch.int64)
    counter, key = philox.place_of(seed=seed, step=step, index=index, sample=sample, stream=stream)
    kernels.philox(len(block), block.data_ptr(), counter, key, found.data_ptr(), torch.get_num_threads())
    return found
