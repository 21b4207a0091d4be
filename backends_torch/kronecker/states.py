"""A layer's state: where it is kept, the check of a ``state_dict`` before it is loaded, and loading it unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hessiod.core.errors import InvalidArgument

STATISTICS = ("a", "g", "f")
LAYER_KEYS = frozenset(
    [f"{kind}_{name}" for kind in ("factor", "earlier", "interval", "inverse") for name in STATISTICS]
    + ["refreshes", "check", "damping"]
)
"""A layer's entries in the state of its first parameter; the projections of attention have them after their label."""


class LayerStates:
    """The entries of each layer, without the labels of projections."""

    def __init__(self, optimizer: Any, mine: Callable[[Any], bool]) -> None:
        self.optimizer, self.mine = optimizer, mine

    def __getitem__(self, layer: Any) -> Mapping[str, Any]:
        """Entries in the state of its first parameter, among others; of another rank's layer, when it is due."""
        if not self.mine(layer):
            return self.optimizer.param_groups[0]["numbers"].get(layer.name, {})
        state = self.optimizer.state.get(layer.slots[0].param) or {}
        if not layer.label:
            return state
        prefix = prefix_of(layer)
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    def store(self, layer: Any, new: Mapping[str, Any]) -> None:
        """Put new entries in the place of the old."""
        state, prefix = self.optimizer.state[layer.slots[0].param], prefix_of(layer)
        state.update({prefix + key: value for key, value in new.items()} if prefix else new)


def prefix_of(layer: Any) -> str:
    """What stands before the entries of an attention's projection."""
    return f"{layer.label}." if layer.label else ""


def entry(key: str) -> str:
    """A key without the label of a projection."""
    return key.rpartition(".")[2]


def saved_states(optimizer: Any, state_dict: Mapping[str, Any]) -> dict[Tensor, Mapping[str, Any]]:
    """The saved state of each parameter of ours."""
    ours = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    return {p: state_dict["state"].get(number) or {} for p, number in zip(ours, numbers, strict=True)}


def check_layers(optimizer: Any, state_dict: Mapping[str, Any]) -> None:
    """Raise :class:`InvalidArgument` unless every layer's factors have their shapes."""
    saved = saved_states(optimizer, state_dict)
    for layer in optimizer.layers:
        prefix = prefix_of(layer)
        state = saved.get(layer.params[0]) or {}
        for name, shape in layer.factor_shapes().items():
            for kind in ("factor", "earlier"):
                tensor = state.get(f"{prefix}{kind}_{name}")
                if tensor is not None and tuple(tensor.shape) != shape:
                    raise InvalidArgument(
                        f"state_dict: {kind} {name.upper()} of layer {layer.name} has the shape {tuple(tensor.shape)}, "
                        f"expected {shape}; it belongs to another model"
                    )


def restore(optimizer: Any, state_dict: Mapping[str, Any]) -> None:
    """Put factors and inverses back as they were saved: torch casts them to the parameter's dtype."""
    for param, state in saved_states(optimizer, state_dict).items():
        for key, value in state.items():
            if entry(key) in LAYER_KEYS:
                optimizer.state[param][key] = on_device(value, param)


def on_device(value: Any, param: Tensor) -> Any:
    """A copy of a tensor, or of a list of them, on the parameter's device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(param.device, copy=True)
    if isinstance(value, list) and all(isinstance(part, Tensor) for part in value):
        return [on_device(part, param) for part in value]
    return value
