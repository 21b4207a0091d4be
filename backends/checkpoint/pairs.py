"""Which array of a file is which of a model, and every one that has no partner, before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends.checkpoint.container import Container, Entry
from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class Pair:
    """A name with what the file and the model have under it; None for nothing."""

    name: str
    entry: Entry | None
    array: Array | None

    @property
    def problem(self) -> str | None:
        """Why the two cannot be one, or None."""
        entry, array = self.entry, self.array
        if entry is None or array is None:
            return "it is not in the file" if entry is None else "it is only in the file"
        if entry.shape != array.shape:
            return f"the file has the shape {list(entry.shape)}, expected {list(array.shape)}"
        if entry.dtype != array.dtype:
            return f"the file has {entry.dtype}, expected {array.dtype}"
        return None


def pair(entries: Mapping[str, Entry], targets: Sequence[Array]) -> list[Pair]:
    """Pairs by name: the model's in its order, then what only the file has."""
    arrays = {array.name: array for array in targets}
    rest = [name for name in entries if name not in arrays]
    return [Pair(name, entries.get(name), arrays.get(name)) for name in [*arrays, *rest]]


def check_pairs(file: Container, targets: Sequence[Array], ignored: Collection[str] = ()) -> None:
    """Raise :class:`InvalidArgument` with every array that is missing, extra, or of another shape or dtype."""
    found = [p for p in pair(file.entries, targets) if p.problem and p.name not in ignored]
    if not found:
        return
    lines = [f"{p.name}: {p.problem}" for p in found]
    raise InvalidArgument(
        f"checkpoint: {str(file.path)!r} does not fit this model and optimizer ({len(found)} arrays): "
        f"{'; '.join(lines)}. Give names= for those that only have another name; "
        "hessiod checkpoint map FILE --model shows the pairs"
    )
