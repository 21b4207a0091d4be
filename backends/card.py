"""What can be said about a backend without importing its framework, which takes seconds.

A backend whose object is in the module ``package.module`` may have a module ``package.module_card`` with a ``CARD``.
``hessiod backends`` shows that; a backend without a card is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from importlib.util import find_spec


@dataclass(frozen=True)
class Name:
    """A route by its name alone."""

    name: str


@dataclass(frozen=True)
class Card:
    """What a backend's object says too, in the same words; tests compare the two.

    ``framework`` is the module that must be there, ``extra`` what installs it, ``distributions`` those whose versions
    results depend on.
    """

    name: str
    framework: str
    extra: str
    distributions: tuple[str, ...]
    dtypes: tuple[str, ...]
    routes: tuple[Name, ...]
    optimizers: tuple[str, ...]

    def versions(self) -> Mapping[str, str]:
        """Installed versions, from the distributions' own records.

        >>> list(Card("mine", "numpy", "mine", ("numpy", "not-installed"), (), (), ()).versions())
        ['numpy']
        """
        found = {}
        for name in self.distributions:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found


def card_of(entry: EntryPoint) -> Card | None:
    """The card beside the object that an entry point names, if there is one."""
    module = f"{entry.module}_card"
    try:
        return import_module(module).CARD if find_spec(module) else None
    except ImportError:  # the package itself cannot be imported; loading the backend will say why
        return None
