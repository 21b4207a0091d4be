"""Which layers of a model are covered, and why a parameter is not."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn

from hessiod.backends_torch.kronecker.attention import projections
from hessiod.backends_torch.kronecker.layers import Convolution, Embedding, Layer, Slot
from hessiod.backends_torch.kronecker.norms import CHANNELS_LAST, CHANNELS_SECOND, Norm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AnyLayer = Layer | Norm


class Found(NamedTuple):
    """Covered layers, and the reason for every other trained parameter, by its name."""

    layers: list[AnyLayer]
    names: dict[Tensor, str]
    reasons: dict[str, str]


def trained(module: Any, *names: str) -> list[Slot]:
    """Slots of the named parameters that exist and require a gradient."""
    params = [getattr(module, name, None) for name in names]
    return [Slot(param) for param in params if param is not None and param.requires_grad]


def layers_of(name: str, module: nn.Module) -> list[AnyLayer] | str:
    """The layers of one module, or why it has none; an empty list for modules without parameters of their own."""
    weight = getattr(module, "weight", None)
    if type(module) in (nn.Linear, *CONVOLUTIONS):
        if not weight.requires_grad:  # type: ignore[union-attr]
            return "its weight is frozen"
        kind = Layer if type(module) is nn.Linear else Convolution
        return [kind(name, module, trained(module, "weight", "bias"))]
    if type(module) is nn.Embedding:
        if module.scale_grad_by_freq or module.sparse or module.max_norm is not None:
            return "an embedding with scale_grad_by_freq, sparse or max_norm"
        return [Embedding(name, module, trained(module, "weight"))]
    if type(module) in (*CHANNELS_SECOND, *CHANNELS_LAST):
        slots, both = trained(module, "weight", "bias"), ("weight", "bias")
        roles = tuple(role for role, field in zip(("scale", "shift"), both, strict=True) if trained(module, field))
        return [Norm(name, module, slots, roles)] if slots else []
    if type(module) is nn.MultiheadAttention:
        return projections(name, module)
    return f"{type(module).__name__} has no Kronecker-factored form here"


def discover(model: nn.Module, wanted: set[Tensor], skip: Sequence[str]) -> Found:
    """The layers of a model whose parameters are all in ``wanted`` and that no pattern in ``skip`` matches.

    A pattern is matched against a module's name and against its class's name, with ``*`` and ``?``.
    """
    names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
    layers: list[AnyLayer] = []
    reasons: dict[str, str] = {}
    inside_attention: set[nn.Module] = set()
    for name, module in model.named_modules():
        own = [param for param in module.parameters(recurse=False) if param.requires_grad and param in wanted]
        if isinstance(module, nn.MultiheadAttention):
            inside_attention.add(module.out_proj)
            own += [param for param in module.out_proj.parameters() if param.requires_grad and param in wanted]
        if not own or module in inside_attention:
            continue
        skipped = [p for p in skip if fnmatchcase(name, p) or fnmatchcase(type(module).__name__, p)]
        found = f"skip={skipped[0]!r}" if skipped else layers_of(name, module)
        if isinstance(found, str):
            reasons |= {names[param]: found for param in own}
            continue
        for layer in found:
            if set(layer.params) <= wanted:
                layers.append(layer)
    return Found(merged(layers, names, reasons), names, reasons | uncovered(layers, names, wanted, reasons))


def merged(layers: list[AnyLayer], names: dict[Tensor, str], reasons: dict[str, str]) -> list[AnyLayer]:
    """Layers with modules that share all their parameters taken together; those that share some of them left out."""
    kept: list[AnyLayer] = []
    for layer in list(layers):
        twins = [other for other in kept if places(other) == places(layer) and type(other) is type(layer)]
        if twins:
            twins[0].modules += layer.modules
        else:
            kept.append(layer)
    for layer in list(kept):
        others = [other for other in kept if other is not layer and overlap(layer, other)]
        if others:
            why = f"shared by {layer.name} and {others[0].name}, which use it differently"
            for one in (layer, *others):
                kept.remove(one)
                reasons |= {names[param]: why for param in one.params}
    layers[:] = kept
    return kept


def overlap(layer: AnyLayer, other: AnyLayer) -> bool:
    """Whether two layers share an entry of a parameter; projections of one attention do not."""
    return not set(places(layer)).isdisjoint(places(other))


def places(layer: AnyLayer) -> list[Any]:
    """Where a layer's entries are."""
    return [slot.place for slot in layer.slots]


def uncovered(
    layers: list[AnyLayer], names: dict[Tensor, str], wanted: set[Tensor], reasons: dict[str, str]
) -> dict[str, str]:
    """A reason for each wanted parameter that is in no layer and has none yet."""
    covered = {param for layer in layers for param in layer.params}
    left = [names[param] for param in wanted if param not in covered and param.requires_grad and param in names]
    return {name: "its layer is covered only in part" for name in left if name not in reasons}
