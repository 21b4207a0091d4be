"""What changed between two reports: two devices, two releases, two days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hessiod.conformance.case import FAIL, Case
from hessiod.conformance.result import Report


@dataclass(frozen=True)
class Comparison:
    """The rows of a second report beside those of a first.

    ``verdicts`` and ``figures`` hold (before, after) of rows that both have; ``verdicts`` where the verdict changed,
    ``figures`` where only the error did, on the same inputs. ``versions`` holds header entries that differ.
    """

    versions: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    verdicts: list[tuple[Case, Case]] = field(default_factory=list)
    figures: list[tuple[Case, Case]] = field(default_factory=list)
    only_before: list[Case] = field(default_factory=list)
    only_after: list[Case] = field(default_factory=list)

    @property
    def worse(self) -> list[tuple[Case, Case]]:
        """Rows that fail now and did not before."""
        return [(before, after) for before, after in self.verdicts if after.verdict == FAIL]

    @property
    def same(self) -> bool:
        """Whether every row is in both, with the same verdict and the same error."""
        return not (self.verdicts or self.figures or self.only_before or self.only_after)


def compare(before: Report, after: Report) -> Comparison:
    """Lay the rows of two reports beside each other, by id."""
    first, second = by_id(before), by_id(after)
    shared = [(first[identity], second[identity]) for identity in first if identity in second]
    changed = [(a, b) for a, b in shared if a.verdict != b.verdict]
    redrawn = drawn_otherwise(before, after)
    return Comparison(
        versions=differences(before.header, after.header),
        verdicts=changed,
        figures=[
            (a, b)
            for a, b in shared
            if a.verdict == b.verdict and a.worst_ulp != b.worst_ulp and not (redrawn and "/drawn/" in a.id)
        ],
        only_before=[case for identity, case in first.items() if identity not in second],
        only_after=[case for identity, case in second.items() if identity not in first],
    )


def drawn_otherwise(before: Report, after: Report) -> bool:
    """Whether the drawn inputs of two reports are others, so that their errors cannot be compared."""
    names = ("seed", "hypothesis")
    return any(before.header.get(name) != after.header.get(name) for name in names)


def by_id(report: Report) -> dict[str, Case]:
    """The rows by their id."""
    return {case.id: case for case in report.cases}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> dict[str, tuple[Any, Any]]:
    """Entries of nested mappings that differ, by their path."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*before, *after)):
        one, other = before.get(name), after.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= differences(one, other, f"{path}{name}.")
        elif one != other:
            found[f"{path}{name}"] = (one, other)
    return found
