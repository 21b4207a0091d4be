"""Symmetric statistics as triangles, the form in which they are sent."""

from __future__ import annotations

import torch
from torch import Tensor


def packed(statistic: Tensor) -> Tensor:
    """The upper triangles of symmetric matrices in one row; anything else flattened."""
    if statistic.dim() < 2 or statistic.shape[-1] != statistic.shape[-2]:
        return statistic.reshape(-1)
    rows, columns = torch.triu_indices(*statistic.shape[-2:], device=statistic.device)
    return statistic[..., rows, columns].reshape(-1)


def unpacked(row: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The symmetric matrices back from their triangles.

    >>> unpacked(packed(torch.tensor([[1.0, 2.0], [2.0, 3.0]])), (2, 2))
    tensor([[1., 2.],
            [2., 3.]])
    """
    if len(shape) < 2 or shape[-1] != shape[-2]:
        return row.reshape(shape)
    rows, columns = torch.triu_indices(*shape[-2:], device=row.device)
    whole, flat = row.new_zeros(shape), row.reshape(*shape[:-2], -1)
    whole[..., rows, columns] = flat
    whole[..., columns, rows] = flat
    return whole
