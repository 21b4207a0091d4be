"""What a Kronecker optimizer works on: the layers that it covers, and the processes that share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hessiod.backends.kronecker.covering import check_covered
from hessiod.backends_torch.kronecker.alone import Alone
from hessiod.backends_torch.kronecker.discover import AnyLayer, Found, discover
from hessiod.backends_torch.kronecker.distributed import Cluster


def covered_layers(method: str, model: nn.Module, groups: Sequence[Mapping[str, Any]], skip: Any) -> Found:
    """The covered layers of a model; an error if there is none."""
    found = discover(model, {param for group in groups for param in group["params"]}, tuple(skip))
    check_covered(found, "model", model, method, "Linear, Conv, Embedding, MultiheadAttention")
    return found


def processes(given: Mapping[str, Any], layers: list[AnyLayer], groups: Sequence[Mapping[str, Any]]) -> Alone | Cluster:
    """The group of processes that the user gave, or this one alone."""
    group = given["process_group"]
    if group in (None, False):
        return Alone(layers)
    every = [param for group in groups for param in group["params"]]
    block = groups[0]["block_size"]
    return Cluster(None if group is True else group, given["placement"], given["overlap"], layers, every, block)
