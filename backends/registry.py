"""Backends by name, found through the entry-point group ``hessiod.backends`` and imported only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from hessiod.backends.card import Card, card_of
from hessiod.backends.contract import Backend, check_backend
from hessiod.core.errors import BackendUnavailable, HessiodError, InvalidArgument

GROUP = "hessiod.backends"


@dataclass(frozen=True)
class Listing:
    """A backend's name with the backend itself, or with the reason why it cannot be used here."""

    name: str
    backend: Backend | None
    reason: str = ""


@dataclass(frozen=True)
class CardListing:
    """The same of a backend that may not have been loaded."""

    name: str
    backend: Backend | Card | None
    reason: str = ""


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Names of all announced backends, whether or not their frameworks are installed; imports nothing."""
    return sorted(_entry_points())


def load(name: str, device: str | None = None) -> Backend:
    """Import a backend and check it against the contract; put it on a device of its, if one is named.

    >>> load("numpy").name
    'numpy'
    """
    entries = _entry_points()
    if name not in entries:
        raise InvalidArgument(f"backend: found {name!r}, expected one of {', '.join(sorted(entries))}")
    entry = entries[name]
    try:
        backend = entry.load()
    except BackendUnavailable:
        raise
    except (ImportError, AttributeError, OSError) as error:  # not there, no such object, a shared library missing
        distribution = entry.dist.name if entry.dist else "the package that provides it"
        raise BackendUnavailable(f"backend {name!r} of {distribution} cannot be imported: {error}") from error
    check_backend(backend, name)
    return backend if device is None else on_device(backend, device)


def on_device(backend: Backend, device: str) -> Backend:
    """The backend on one of its devices; a backend with several has a method ``on(device)``."""
    devices = backend.devices()
    if device not in devices:
        raise InvalidArgument(
            f"device: found {device!r}, expected one of {', '.join(devices)}, which {backend.name} has here"
        )
    if device == devices[0]:
        return backend
    move = getattr(backend, "on", None)
    if move is None:
        raise InvalidArgument(f"device: {backend.name} runs on {devices[0]} only; it has no method on(device)")
    return move(device)


def listings() -> list[Listing]:
    """Every announced backend, loaded if it can be."""
    result = []
    for name in names():
        try:
            result.append(Listing(name, load(name)))
        except HessiodError as error:
            result.append(Listing(name, None, str(error)))
    return result


def cards() -> list[CardListing]:
    """Every announced backend, by its card if it has one; only the others are loaded."""
    result = []
    for name, entry in sorted(_entry_points().items()):
        try:
            card = card_of(entry)
            if card is not None:
                require(card.framework, card.extra)
            result.append(CardListing(name, load(name) if card is None else card))
        except HessiodError as error:
            result.append(CardListing(name, None, str(error)))
    return result


def require(module: str, extra: str) -> None:
    """Raise :class:`BackendUnavailable` with the command that installs ``module``, if it is not installed."""
    if find_spec(module) is None:
        raise BackendUnavailable(f"{module} is not installed; run: pip install 'hessiod[{extra}]'")
