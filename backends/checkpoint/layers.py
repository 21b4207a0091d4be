"""What K-FAC, SP-NGD and THOR keep of a layer, as files have it: arrays, and counters in the record.

An array is called by the layer's first parameter, and its own name: ``0.weight/factor_a``, ``0.weight/inverse_g.1`` for
the second block of an inverse. The projections of an attention layer stand between: ``in_proj_weight/q/factor_a``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hessiod.core.errors import InvalidArgument
from hessiod.core.kronecker.inverses import block_shapes

Shape = tuple[int, ...]

SETTINGS = (
    *("kl_clip", "factor_every", "inverse_every", "factor_decay", "fisher", "likelihood", "reduction", "inverse"),
    *("block_size", "fallback", "seed", "alpha", "couple_momentum", "damping_start", "damping_steps"),
    *("damping_decay", "epoch_steps", "growth", "longest", "thresholds", "rescale", "adapt_every"),
)
"""Settings of the whole optimizer that decide how a run goes on. The damping is state: it may follow a schedule."""

NOTHING: Mapping[str, Any] = {"arrays": [], "counters": {}}
"""The entry of a layer that has no statistics yet."""

COUNTERS = {"refreshes": 0, "check": 3, "damping": 0, "interval_a": 3, "interval_g": 3, "interval_f": 3}
"""A layer's counters, and how many numbers each holds; 0 is one that is no list."""


def settings_of(values: Mapping[str, Any], goal: float | None = None, optimizer: Any = None) -> dict[str, Any]:
    """Those of an optimizer's settings that a file has, as JSON holds them.

    ``optimizer`` has the rest of them as attributes; ``goal`` is the damping that a schedule starts from or ends at, a
    setting where there is a schedule.

    >>> settings_of({"alpha": 0.1, "thresholds": (0.0, 1.0), "block_size": None, "lr": 1.0})
    {'alpha': 0.1, 'thresholds': [0.0, 1.0]}
    """
    given = {name: values.get(name, getattr(optimizer, name, None)) for name in SETTINGS}
    found = {name: value for name, value in given.items() if value not in (None, ())}
    if values.get("damping_steps") or values.get("epoch_steps"):
        found["damping"] = goal
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def array_shapes(factors: Mapping[str, Shape], block: int | None) -> dict[str, Shape]:
    """Every array that a layer may have, from the shapes of its factors.

    >>> array_shapes({"a": (3, 3)}, 2)
    {'factor_a': (3, 3), 'earlier_a': (3, 3), 'inverse_a.0': (2, 2), 'inverse_a.1': (1, 1)}
    """
    found: dict[str, Shape] = {}
    for name, shape in factors.items():
        blocks = () if name == "f" else block_shapes(shape, block)
        found |= {f"factor_{name}": shape, f"earlier_{name}": shape}
        found |= {f"inverse_{name}.{place}": part for place, part in enumerate(blocks)}
    return found


def flattened(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state's arrays by the names that a file has for them; counters are left out."""
    found: dict[str, Any] = {}
    for key, value in state.items():
        if key.startswith("inverse_"):
            found |= {f"{key}.{place}": part for place, part in enumerate(value)}
        elif key.startswith(("factor_", "earlier_")):
            found[key] = value
    return found


def gathered(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of :func:`flattened`.

    >>> gathered({"inverse_a.1": "second", "factor_a": "factor", "inverse_a.0": "first"})
    {'factor_a': 'factor', 'inverse_a': ['first', 'second']}
    """
    found: dict[str, Any] = {}
    for name in sorted(arrays, key=place_of):
        key, dot, _ = name.partition(".")
        if dot:
            found.setdefault(key, []).append(arrays[name])
        else:
            found[name] = arrays[name]
    return found


def place_of(name: str) -> int:
    """The place of a block in its inverse."""
    return int(name.partition(".")[2] or 0)


def described(state: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's entry in the record."""
    counters = {name: state[name] for name in COUNTERS if name in state}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in counters.items()}
    return {"arrays": sorted(flattened(state)), "counters": plain}


def checked(saved: Mapping[str, Any], names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """A record's layers by name, those of a live optimizer only; raise for what is not in this form."""
    try:
        damping, layers = float(saved["damping"]), saved["layers"]
        if not damping > 0:
            raise ValueError(f"damping {damping}")
        for entry in layers.values():
            if not all(is_counter(*pair) for pair in entry["counters"].items()):
                raise ValueError(f"counters {entry['counters']}")
            if not all(isinstance(name, str) for name in entry["arrays"]):
                raise ValueError(f"arrays {entry['arrays']}")
        return {name: layers[name] for name in names if name in layers}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument(
            f"checkpoint: its record of the layers is not of this format ({error!r}); it was not written by hessiod"
        ) from error


def is_counter(name: str, value: Any) -> bool:
    """Whether a counter holds as many numbers as it should; the next check of a frozen layer is None.

    >>> is_counter("check", [None, 8, 0.5]), is_counter("check", [9, 8]), is_counter("refreshes", -1)
    (True, False, False)
    """
    length = COUNTERS.get(name, -1)
    numbers = value if length else [value]
    if not isinstance(numbers, list) or len(numbers) != max(length, 1):
        return False
    if name == "check" and numbers[0] is None:
        numbers = numbers[1:]
    return all(isinstance(n, int | float) and not isinstance(n, bool) and n >= 0 for n in numbers)


def check_whole(name: str, entry: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise unless a layer that has anything has every factor and inverse; an earlier statistic it may lack."""
    absent = sorted({key for key in known if not key.startswith("earlier_")} - set(entry["arrays"]))
    if absent and any(entry.values()):
        raise InvalidArgument(
            f"checkpoint: its record of the layer {name!r} lacks {', '.join(absent)}, without which no step can be "
            "taken; give a file as hessiod wrote it, of an optimizer with the same block_size"
        )


def counters_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's counters as policies know them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry["counters"].items()}


def arrays_in(entry: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Sequence[tuple[str, Shape]]:
    """The arrays of a saved layer that the live one can have, with the live one's shapes."""
    return [(name, shapes[name]) for name in entry["arrays"] if name in shapes]
