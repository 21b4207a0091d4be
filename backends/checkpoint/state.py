"""Saving and loading a model and its optimizer, through what a framework tells about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hessiod.backends.checkpoint.arrays import Array
from hessiod.backends.checkpoint.container import READERS, Container, write_container
from hessiod.backends.checkpoint.legacy import modern
from hessiod.backends.checkpoint.pairs import check_pairs
from hessiod.backends.checkpoint.record import Record, check_order, check_same, record_from
from hessiod.core.errors import InvalidArgument

Names = Mapping[str, str] | Callable[[str], str] | None
"""The names that a file has for a model's: a mapping of those that differ, or a function of each."""


class Bridge(Protocol):
    """A live model and optimizer of one framework, as a checkpoint sees them."""

    @property
    def framework(self) -> str:
        """The framework's name."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the framework and of what it rests on."""

    @property
    def lr_is_state(self) -> bool:
        """Whether the learning rate is set from a file; otherwise it is the construction's, and compared."""

    @property
    def model_arrays(self) -> Sequence[Array]:
        """Parameters and buffers, by their canonical names."""

    @property
    def layers(self) -> Mapping[str, str]:
        """Kinds of the layers whose names or layouts differ between frameworks, by path."""

    @property
    def tied(self) -> Mapping[str, str]:
        """Second names of shared parameters, and the names that their arrays are saved under."""

    def record(self, at: int | None = None) -> Record | None:
        """What is to be known of the optimizer, its schedules after ``at`` steps if given; None without one."""

    def slots(self) -> Sequence[Array]:
        """The optimizer's arrays as they are, named ``PARAMETER/SLOT``."""

    def slots_for(self, record: Record) -> Sequence[Array]:
        """The arrays that a file with this record must have; writing makes those that are not there yet."""

    def check(self, record: Record) -> None:
        """Raise :class:`InvalidArgument` for a record that this framework cannot take up."""

    def settle(self, record: Record) -> None:
        """Set what is not an array, after the arrays were written."""


@dataclass(frozen=True)
class Loaded:
    """What a file said besides the arrays: the step it was written after, the caller's extra, the whole document."""

    step: int
    extra: Any
    document: Mapping[str, Any]


def own_version() -> str:
    """The version of this package."""
    try:
        return version("hessiod")
    except PackageNotFoundError:
        return "0+unknown"


def check_json(extra: Any) -> None:
    """Raise :class:`InvalidArgument` unless JSON holds the caller's extra and gives the same back."""
    try:
        if json.loads(json.dumps(extra, allow_nan=False)) != extra:
            raise ValueError("it would come back as something else, such as a list for a tuple")
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"extra: found what JSON cannot hold ({error}); give numbers, text, lists, dictionaries with texts as keys"
        ) from error


def arrays_of(bridge: Bridge, slots: Sequence[Array]) -> list[Array]:
    """Everything under the names that a file has for it."""
    model = [array.named(f"model/{array.name}") for array in bridge.model_arrays]
    return model + [array.named(f"optimizer/{array.name}") for array in slots]


def save_state(path: str | Path, bridge: Bridge, extra: Any = None) -> None:
    """Write a checkpoint, atomically."""
    record = bridge.record()
    step = record.step if record else None
    document = {
        "written": {"hessiod": own_version(), "framework": bridge.framework, "versions": dict(bridge.versions)},
        "model": {
            "arrays": [array.name for array in bridge.model_arrays],
            "layers": dict(bridge.layers),
            "tied": dict(bridge.tied),
        },
        "optimizer": record.document() if record else None,
        "schedule": {"step": step},
        "extra": extra,
    }
    check_json(extra)
    try:
        write_container(Path(path), arrays_of(bridge, bridge.slots() if record else ()), document)
    except OSError as error:
        raise InvalidArgument(f"path: cannot write {str(path)!r} ({error.strerror}); give another") from error


def load_state(path: str | Path, bridge: Bridge, allow: Iterable[str] = ()) -> Loaded:
    """Take up a checkpoint, or raise :class:`InvalidArgument` and change nothing.

    The file is read twice: once whole against its SHA-256, and once array by array into place.
    """
    with Container(path) as file:
        file.verify()
        document = modern(file)
        saved = document.get("optimizer")
        record = record_from(saved) if saved is not None else None
        own = bridge.record(record.step if record else None)
        if own is not None and record is None:
            raise InvalidArgument(f"optimizer: {str(path)!r} holds none; load the model alone, with optimizer=None")
        slots: Sequence[Array] = ()
        if own is not None and record is not None:
            check_same(record, own, allow, bridge.lr_is_state)
            bridge.check(record)
            check_order(record, own, record.settings.get("probe") is not None)
            slots = bridge.slots_for(record)
        targets = arrays_of(bridge, slots)
        ignored = {name for name in file.entries if name.startswith("optimizer/")} if own is None else set()
        check_pairs(file, targets, ignored)
        copy_in(file, targets)
        if own is not None and record is not None:
            bridge.settle(record)
    return Loaded(record.step if record else 0, document.get("extra"), document)


def copy_in(file: Container, targets: Sequence[Array]) -> None:
    """Put every array in place: straight into its memory, or through one buffer of the largest one's size."""
    places = {array.name: array.memory() for array in targets}
    direct = {name: place.reshape(-1).view(np.uint8) for name, place in places.items() if place is not None}
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(file.read, direct, direct.values()))
    others = [array for array in targets if array.name not in direct]
    buffer = np.empty(max((array.nbytes for array in others), default=0), np.uint8)
    for array in others:
        array.write(file.read(array.name, buffer))
