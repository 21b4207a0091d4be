"""The layers of a Kronecker optimizer as a checkpoint sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from hessiod.backends.checkpoint import layers as files
from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends_torch.kronecker.discover import AnyLayer
from hessiod.backends_torch.kronecker.states import LAYER_KEYS, prefix_of
from hessiod.backends_torch.precision import zeros_for
from hessiod.backends_torch.saved_tensors import array_in, array_of
from hessiod.core.errors import InvalidArgument, InvalidState


class SavedLayers:
    """Factors, inverses and counters, by the names of the layers' first parameters."""

    def __init__(self, optimizer: Any, name_of: Callable[[Tensor], str]) -> None:
        if optimizer._ranks.spread:
            raise InvalidArgument(
                "optimizer: found one whose factors are spread over processes, expected one with all of them; save "
                "each rank's state_dict()"
            )
        self.optimizer = optimizer
        self.written: dict[str, dict[str, Tensor]] = {}
        names = (name_of(layer.params[0]) + (f"/{layer.label}" if layer.label else "") for layer in optimizer.layers)
        self.layers: dict[str, AnyLayer] = dict(zip(names, optimizer.layers, strict=True))

    def state(self, layer: AnyLayer) -> dict[str, Any]:
        """A layer's own entries."""
        return {key: value for key, value in self.optimizer.layer_state(layer).items() if key in LAYER_KEYS}

    def document(self) -> dict[str, Any]:
        """The record's part."""
        sums = self.optimizer._capture.sums
        if sums.outputs or sums.calls:
            raise InvalidState("checkpoint: statistics were gathered and their step is yet to come; call step() first")
        if getattr(self.optimizer, "damping_due", False):
            raise InvalidState("checkpoint: update_damping is due for the last step; call it first")
        entries = {name: files.described(self.state(layer)) for name, layer in self.layers.items()}
        known = {name: entry for name, entry in entries.items() if any(entry.values())}
        return {"damping": self.optimizer.damping, "layers": known}

    def slots(self) -> Iterator[Array]:
        """The arrays that there are."""
        for name, layer in self.layers.items():
            for key, tensor in files.flattened(self.state(layer)).items():
                yield array_of(f"{name}/{key}", tensor, f"{name}/{key}")

    def slots_for(self, saved: Mapping[str, Any]) -> Iterator[Array]:
        """The arrays that a file with this part has; what is written waits for :meth:`settle`."""
        block = self.optimizer.param_groups[0]["block_size"]
        for name, entry in files.checked(saved, self.layers).items():
            layer = self.layers[name]
            shapes = files.array_shapes(layer.factor_shapes(), block)
            files.check_whole(name, entry, shapes)
            for key, shape in files.arrays_in(entry, shapes):
                yield self._awaited(name, key, shape, zeros_for(layer.params[0].detach().reshape(-1)[:1]))

    def _awaited(self, name: str, key: str, shape: tuple[int, ...], like: Tensor) -> Array:
        """An array that has no place yet."""

        def make() -> Tensor:
            return self.written.setdefault(name, {}).setdefault(key, like.new_empty(shape))

        full = f"{name}/{key}"
        return array_in(make, full, like.dtype, shape, full)

    def settle(self, saved: Mapping[str, Any]) -> None:
        """Set the damping and every layer's entries, and forget those that the file has not."""
        entries = files.checked(saved, self.layers)
        for name, layer in self.layers.items():
            state = self.optimizer.state[layer.params[0]]
            for key in self.state(layer):
                del state[prefix_of(layer) + key]
            new = files.gathered(self.written.get(name, {})) | files.counters_of(entries.get(name, files.NOTHING))
            state.update({prefix_of(layer) + key: value for key, value in new.items()})
            if not state:
                del self.optimizer.state[layer.params[0]]
        self.written = {}
        for group in self.optimizer.param_groups:
            group["damping"] = float(saved["damping"])
