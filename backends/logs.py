"""Diagnostics as numbers for a logger: a flat dictionary, to any function of one, or to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hessiod.core.errors import InvalidArgument

Log = Callable[[dict[str, float]], Any]

PREFIX = "hessiod/"


def named(groups: Sequence[Mapping[str, Any]], others: Mapping[str, float]) -> dict[str, float]:
    """An optimizer's diagnostics, one dictionary a group, and other numbers of it, under the names that a logger gets.

    >>> named([{"clip_fraction": 0.5}], {"step": 3})
    {'hessiod/clip_fraction': 0.5, 'hessiod/step': 3}
    """
    found = dict[str, float]()
    for index, group in enumerate(groups):
        found |= flat(group, f"{index}/" if len(groups) > 1 else "")
    return {PREFIX + name: value for name, value in (found | dict(others)).items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested dictionaries as one, with the keys joined by slashes.

    >>> flat({"curvature": {"min": 0.0, "max": 2.0}, "clip_fraction": 0.5})
    {'curvature/min': 0.0, 'curvature/max': 2.0, 'clip_fraction': 0.5}
    """
    found = dict[str, float]()
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def intervals(state: Mapping[str, Any], every: int) -> list[int]:
    """A layer's steps between two statistics, one for each statistic that has its own; ``every`` if none has.

    ``state`` holds the counters of a policy of :mod:`hessiod.backends.kronecker.policies`.
    """
    own = [value[1] for key, value in state.items() if key.startswith("interval_") or key == "check"]
    return own or [every]


def spread(numbers: Sequence[int]) -> Iterator[tuple[str, float]]:
    """The least, the mean and the largest of the intervals of all layers."""
    yield "interval/min", min(numbers)
    yield "interval/mean", sum(numbers) / len(numbers)
    yield "interval/max", max(numbers)


def check_every(every: Any) -> None:
    """Raise unless ``every`` is a number of steps."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise InvalidArgument(f"every: found {every!r}, expected a whole number >= 1")


class TensorBoard:
    """A ``log`` that writes to a TensorBoard ``SummaryWriter``, torch's or tensorboardX's, at the optimizer's own step.

    log_diagnostics(opt, TensorBoard(SummaryWriter("runs/one")))
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def __call__(self, values: Mapping[str, float]) -> None:
        """Write all numbers at the step that is among them."""
        step = int(values[f"{PREFIX}step"])
        for name, value in values.items():
            if name != f"{PREFIX}step":
                self.writer.add_scalar(name, value, step)
