"""The layers of a Kronecker optimizer as a checkpoint sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from mindspore import Parameter

from hessiod.backends.checkpoint import layers as files
from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends_mindspore.holder import put
from hessiod.backends_mindspore.kronecker.states import State

MakeArray = Callable[[str, Parameter, str, tuple[int, ...]], Array]


class SavedLayers:
    """Factors, inverses and counters, by the names of the layers' first parameters; ``array_of`` makes an array."""

    def __init__(self, optimizer: Any, name_of: Callable[[Parameter], str], array_of: MakeArray) -> None:
        self.optimizer, self.array_of = optimizer, array_of
        self.states: dict[str, State] = {name_of(layer.params[0]): state for layer, state in optimizer.states.items()}

    def document(self) -> dict[str, Any]:
        """The record's part."""
        entries = {name: files.described(state.whole()) for name, state in self.states.items()}
        known = {name: entry for name, entry in entries.items() if any(entry.values())}
        return {"damping": self.optimizer.damping, "layers": known}

    def slots(self) -> Iterator[Array]:
        """The arrays that have a value."""
        for name, state in self.states.items():
            for key in files.flattened(state.whole()):
                yield self._array(name, key, state)

    def slots_for(self, saved: Mapping[str, Any]) -> Iterator[Array]:
        """The arrays that a file with this part has."""
        for name, entry in files.checked(saved, self.states).items():
            known = files.flattened(self.states[name].places())
            files.check_whole(name, entry, known)
            yield from (self._array(name, key, self.states[name]) for key in entry["arrays"] if key in known)

    def _array(self, name: str, key: str, state: State) -> Array:
        parameter = files.flattened(state.places())[key]
        return self.array_of(f"{name}/{key}", parameter, parameter.name, tuple(parameter.shape))

    def settle(self, saved: Mapping[str, Any]) -> None:
        """Set the damping and the counters, and forget what the file has not."""
        entries = files.checked(saved, self.states)
        for name, state in self.states.items():
            entry = entries.get(name, files.NOTHING)
            places = files.flattened(state.places())
            state.forget([places[key] for key in entry["arrays"]])
            state.write(files.counters_of(entry))
        put(self.optimizer.damping_now, np.array(saved["damping"], np.float64))
        put(self.optimizer.usable, np.ones(self.optimizer.usable.shape, bool))
