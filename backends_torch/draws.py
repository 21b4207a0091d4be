"""Random numbers by a compiled kernel, bit for bit those of :mod:`hessiod.core.philox`."""

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
    if not is_taken(block, index):
        return philox.words(xp, block, seed=seed, step=step, index=index, sample=sample, stream=stream)
    block, found = block.contiguous(), torch.empty((len(block), 4), dtype=torch.int64)
    counter, key = philox.place_of(seed=seed, step=step, index=index, sample=sample, stream=stream)
    kernels.philox(len(block), block.data_ptr(), counter, key, found.data_ptr(), torch.get_num_threads())
    return found


def uniforms(xp: Any, like: Tensor, *, seed: int, step: int, sample: int, first: int) -> Tensor:
    """:func:`hessiod.core.philox.uniforms` for sampled targets.

    >>> from hessiod.backends_torch import namespace as xp
    >>> uniforms(xp, torch.empty(2), seed=1, step=2, sample=0, first=5)
    tensor([0.8630, 0.8028])
    """
    drawn = dict(seed=seed, step=step, index=0, sample=sample, stream=philox.TARGET)
    if not is_taken(like, first):
        return philox.uniforms(xp, like, **drawn, first=first, draw=words)
    block, skipped = divmod(first, 4)
    blocks = philox.blocks_of(skipped + like.numel(), 4)
    found = torch.empty(4 * blocks, dtype=torch.float32)
    counter, key = philox.place_of(**drawn)
    kernels.uniforms(blocks, block, counter, key, found.data_ptr(), torch.get_num_threads())
    return found[skipped : skipped + like.numel()].view(like.shape)


def normals(xp: Any, like: Tensor, **drawn: Any) -> Tensor:
    """:func:`hessiod.core.philox.normals` for sampled targets."""
    return philox.normals(xp, like, **drawn, draw=words)


DRAWS = {"categorical": uniforms, "bernoulli": uniforms, "gaussian": normals}
"""What each of :data:`hessiod.core.likelihood.RESIDUALS` draws."""


def is_taken(tensor: Tensor, place: Any) -> bool:
    """Whether numbers for a tensor are drawn in compiled code, with a place in the counter that is a number."""
    return tensor.is_cpu and type(tensor) is Tensor and isinstance(place, int) and kernels.available()
