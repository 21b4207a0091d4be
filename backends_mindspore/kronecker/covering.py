"""What a Kronecker optimizer works on: the layers that it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindspore import nn

from hessiod.backends.kronecker.covering import check_covered
from hessiod.backends_mindspore.kronecker.discover import Found, discover


def covered_layers(method: str, net: nn.Cell, groups: Sequence[Mapping[str, Any]], skip: Sequence[str]) -> Found:
    """The covered layers of a net; an error if there is none."""
    found = discover(net, {id(param): param for group in groups for param in group["params"]}, tuple(skip))
    check_covered(found, "net", net, method, "Dense, Conv, Embedding")
    return found
