"""The user's names for arrays whose names no table can know."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hessiod.backends.checkpoint.state import Names
from hessiod.core.errors import InvalidArgument


def renamer(names: Names, known: Iterable[str]) -> Callable[[str], str]:
    """``names`` as a function from the canonical name that was found to the file's.

    >>> renamer({"trunk.weight": "backbone.weight"}, ["trunk.weight"])("trunk.weight")
    'backbone.weight'
    """
    if names is None:
        return lambda name: name
    if callable(names):
        return names
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InvalidArgument(
            f"names: the model has no {', '.join(map(repr, unknown))}; its names are {', '.join(known)}"
        )
    return lambda name: names.get(name, name)
