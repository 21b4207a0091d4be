"""Symmetric statistics as triangles, the form in which they are sent."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a statistic is made of symmetric matrices.

    An embedding's ``a`` is a diagonal, and the ``f`` of a normalisation three sums a channel, for three channels too.
    """
    return name != "f" and len(shape) > 1


def packed(name: str, statistic: Tensor) -> Tensor:
    """The upper triangles of symmetric matrices in one row; anything else flattened."""
    if not symmetric(name, tuple(statistic.shape)):
        return statistic.reshape(-1)
    rows, columns = torch.triu_indices(*statistic.shape[-2:], device=statistic.device)
    return statistic[..., rows, columns].reshape(-1)


def unpacked(name: str, row: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The symmetric matrices back from their triangles.

    >>> unpacked("a", packed("a", torch.tensor([[1.0, 2.0], [2.0, 3.0]])), (2, 2))
    tensor([[1., 2.],
            [2., 3.]])
    """
    if not symmetric(name, shape):
        return row.reshape(shape)
    rows, columns = torch.triu_indices(*shape[-2:], device=row.device)
    whole, flat = row.new_zeros(shape), row.reshape(*shape[:-2], -1)
    whole[..., rows, columns] = flat
    whole[..., columns, rows] = flat
    return whole
