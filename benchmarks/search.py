"""The same search for every optimizer: as many trials each, at low-discrepancy points of a box.

A box is a range for each of two hyperparameters, the learning rate and the one that matters most beside it, both on a
logarithmic scale. Points are Sobol's, unscrambled but for a fixed seed, so a search can be repeated. Values are rounded
to two digits before they are tried: what is written down is what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, log10

from scipy.stats import qmc

from hessiod.core.errors import NonFinite

Settings = Mapping[str, float]
Score = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Ranges by hyperparameter, and what stays fixed. ``1 - momentum`` is a range for its distance from 1."""

    ranges: Mapping[str, tuple[float, float]]
    fixed: Settings = field(default_factory=dict)

    def points(self, trials: int) -> list[dict[str, float]]:
        """The settings to try."""
        unit = qmc.Sobol(len(self.ranges), seed=0).random(trials)
        return [self.settings(dict(zip(self.ranges, row, strict=True))) for row in unit]

    def settings(self, shares: Mapping[str, float]) -> dict[str, float]:
        """The settings at a place in the unit square."""
        found: dict[str, float] = {}
        for name, (low, high) in self.ranges.items():
            value = float(f"{10 ** (log10(low) + shares[name] * log10(high / low)):.2g}")
            if name.startswith("1 - "):
                found[name.removeprefix("1 - ")] = round(1 - value, 6)
            else:
                found[name] = value
        return found | dict(self.fixed)

    def on_the_edge(self, settings: Settings) -> list[str]:
        """The hyperparameters that lie in the outer tenth of their range: a wider box might hold better ones."""
        names = []
        for name, (low, high) in self.ranges.items():
            value = 1 - settings[name.removeprefix("1 - ")] if name.startswith("1 - ") else settings[name]
            if not 0.1 <= log10(value / low) / log10(high / low) <= 0.9:
                names.append(name)
        return names


def tune(box: Box, trials: int, score: Callable[[Settings], Score]) -> tuple[dict[str, float], Score]:
    """The settings with the lowest score; a run that leaves the finite numbers scores infinity."""
    scored = []
    for number, settings in enumerate(box.points(trials)):
        try:
            value = score(settings)
        except NonFinite:
            value = (inf, inf)
        scored.append((value, number, settings))
    value, _, settings = min(scored)
    return settings, value
