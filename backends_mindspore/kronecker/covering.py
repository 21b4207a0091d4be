"""What a Kronecker optimizer works on: the layers that it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindspore import nn

from hessiod.backends_mindspore.kronecker.discover import Found, discover
from hessiod.core.errors import InvalidArgument


def covered_layers(method: str, net: nn.Cell, groups: Sequence[Mapping[str, Any]], skip: Sequence[str]) -> Found:
    """The covered layers of a net; an error if there is none."""
    found = discover(net, {id(param): param for group in groups for param in group["params"]}, tuple(skip))
    if not found.layers:
        reasons = ", ".join(sorted(set(found.reasons.values()))) or "it has no trained parameters"
        raise InvalidArgument(
            f"net: found {type(net).__name__} with no layer that {method} covers ({reasons}), "
            "expected at least one Dense, Conv, Embedding or normalisation layer; use AdamW"
        )
    return found
