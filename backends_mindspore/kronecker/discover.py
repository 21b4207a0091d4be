"""Which layers of a net are covered, and why a parameter is not."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from mindspore import Parameter, nn

from hessiod.backends_mindspore.kronecker.layers import TRAINED_BATCH_NORMS, Convolution, Embedding, Layer, Norm

ATTENTIONS = (nn.MultiheadAttention,)
"""Their projections are multiplied by a function that no tap sees."""
PASSED_BY = "{} multiplies by its weights in a function, and not in a Cell; attention built of Dense is covered"
NORMS = (*TRAINED_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)


class Found(NamedTuple):
    """Covered layers, and the reason for every other trained parameter, by its name."""

    layers: list[Layer]
    reasons: dict[str, str]


def trained(cell: Any, *names: str) -> list[Parameter]:
    """The named parameters that exist and require a gradient."""
    params = [getattr(cell, name, None) for name in names]
    return [param for param in params if isinstance(param, Parameter) and param.requires_grad]


def layer_of(name: str, cell: Any) -> Layer | str:
    """The layer of one Cell, or why it has none."""
    if type(cell) is nn.Dense:
        params = trained(cell, "weight", "bias")
        return Layer(name, cell, params) if cell.weight.requires_grad else "its weight is frozen"
    if type(cell) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if cell.data_format not in ("NCHW", "NCDHW"):
            return f"a convolution with data_format {cell.data_format}"
        params = trained(cell, "weight", "bias")
        return Convolution(name, cell, params) if cell.weight.requires_grad else "its weight is frozen"
    if type(cell) is nn.Embedding:
        return Embedding(name, cell, [cell.embedding_table])
    if type(cell) in NORMS:
        if type(cell) is nn.LayerNorm and not whole_scale(cell):
            return "a LayerNorm whose scale does not cover the axes that it normalises"
        if getattr(cell, "format", "NCHW") != "NCHW":
            return f"a normalisation with data_format {cell.format}"
        roles = tuple(role for role, field in (("scale", "gamma"), ("shift", "beta")) if trained(cell, field))
        return Norm(name, cell, trained(cell, "gamma", "beta"), roles)
    if isinstance(cell, ATTENTIONS):
        return PASSED_BY.format(name)
    return f"{type(cell).__name__} has no Kronecker-factored form here"


def whole_scale(cell: Any) -> bool:
    """Whether a LayerNorm's scale has the axes over which it takes the mean, all counted from the end."""
    axes = len(cell.normalized_shape)
    return cell.begin_norm_axis == -axes and cell.begin_params_axis == -axes


def discover(net: nn.Cell, wanted: dict[int, Parameter], skip: Sequence[str]) -> Found:
    """The layers of a net whose parameters are all in ``wanted``, by id, and that no pattern in ``skip`` matches.

    A pattern is matched against a Cell's name and against its class's name, with ``*`` and ``?``.
    """
    layers: list[Layer] = []
    reasons: dict[str, str] = {}
    passed_by = {id(cell.out_proj): name for name, cell in net.cells_and_names() if isinstance(cell, ATTENTIONS)}
    for name, cell in net.cells_and_names():
        own = [param for param in cell._params.values() if id(param) in wanted]
        if not own:
            continue
        skipped = [p for p in skip if fnmatchcase(name, p) or fnmatchcase(type(cell).__name__, p)]
        found = f"skip={skipped[0]!r}" if skipped else layer_of(name, cell)
        if id(cell) in passed_by:
            found = PASSED_BY.format(passed_by[id(cell)])
        if isinstance(found, str):
            reasons |= {param.name: found for param in own}
        elif all(id(param) in wanted for param in found.params):
            layers.append(found)
    layers = merged(layers, reasons)
    covered = {id(param) for layer in layers for param in layer.params}
    left = [param.name for key, param in wanted.items() if key not in covered]
    return Found(layers, {name: reasons.get(name, "its layer is covered only in part") for name in left})


def merged(layers: list[Layer], reasons: dict[str, str]) -> list[Layer]:
    """Cells that share all their parameters taken together; those that share some of them, or with others, left out."""
    kept: list[Layer] = []
    for layer in layers:
        twins = [other for other in kept if places(other) == places(layer) and type(other) is type(layer)]
        if twins:
            twins[0].cells += layer.cells
        else:
            kept.append(layer)
    alone = [layer for layer in kept if not any(overlap(layer, other) for other in kept if other is not layer)]
    for layer in kept:
        if layer not in alone:
            others = [other.name for other in kept if other is not layer and overlap(layer, other)]
            why = f"shared by {layer.name} and {others[0]}, which use it differently"
            reasons |= {param.name: why for param in layer.params}
    elsewhere = [layer for layer in alone if any(param.name in reasons for param in layer.params)]
    for layer in elsewhere:
        reasons |= {param.name: f"shared by {layer.name} and a Cell that is not covered" for param in layer.params}
    return [layer for layer in alone if layer not in elsewhere]


def overlap(layer: Layer, other: Layer) -> bool:
    """Whether two layers share a parameter."""
    return not set(places(layer)).isdisjoint(places(other))


def places(layer: Layer) -> list[int]:
    """What a layer's parameters are known by."""
    return [id(param) for param in layer.params]
