"""A report's rows laid out for reading: sections by level, in each a matrix of subjects by backends; counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.formats import HALF

LEVEL_TITLES = {
    "L0": "Level 0: functions of the namespace",
    "L1": "Level 1: kernels of the rules",
    "L2": "Level 2: gradients and Hessian products",
    "L3": "Level 3: probes, targets, estimates and theorems",
    "L4": "Level 4: training runs",
    "L5": "Level 5: runs that move between backends",
    "L6": "Level 6",
}
KERNEL_KINDS = {"formula": "against the published formulas", "agreement": "against the numpy backend"}
VERDICTS = (PASS, FAIL, XFAIL, UNSUPPORTED)
STEPS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the budget at which the colour changes."""


def title(case: Case) -> str:
    """The section of a row: its level; level 1 has one for each kind of comparison."""
    kind = KERNEL_KINDS.get(case.id.rpartition("/")[2]) if case.level == "L1" else None
    return LEVEL_TITLES[case.level] + (f", {kind}" if kind else "")


def strain(case: Case) -> float:
    """How much of its budget a row used; a failure is beyond any.

    In half precision the last rounding is nearly all of the budget, and every correct result uses it up: only what goes
    beyond half an ULP counts.
    """
    if case.verdict == FAIL:
        return float("inf")
    free = 0.5 if case.dtype in HALF else 0.0
    if not case.worst_ulp or case.worst_ulp <= free:
        return 0.0
    budget = (case.budget_ulp or 0.0) - free
    return (case.worst_ulp - free) / budget if budget > 0 else 1.0


@dataclass
class Cell:
    """The rows of one subject on one backend: every kernel, route and dtype."""

    cases: list[Case] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The gravest verdict; unsupported only if nothing was run."""
        found = {case.verdict for case in self.cases}
        return next(verdict for verdict in (FAIL, XFAIL, PASS, UNSUPPORTED) if verdict in found)

    @property
    def worst(self) -> Case:
        """The row that comes nearest to failing, of those with the cell's verdict."""
        return max((case for case in self.cases if case.verdict == self.verdict), key=strain)

    @property
    def colour(self) -> str:
        """The verdict; for a pass the step of the scale: ``pass0`` for no error, ``pass5`` for the last quarter."""
        if self.verdict != PASS:
            return self.verdict
        share = strain(self.worst)
        return f"pass{1 + sum(share > step for step in STEPS[:-1]) if share else 0}"


@dataclass
class Section:
    """A matrix: cells by subject (rule, function, objective) and backend."""

    title: str
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)

    @property
    def backends(self) -> list[str]:
        """The columns, in the order of their first appearance."""
        return list(dict.fromkeys(backend for cells in self.rows.values() for backend in cells))


def sections(cases: Iterable[Case]) -> list[Section]:
    """The matrices of a report, by level; rows about a backend as a whole are in none."""
    found: dict[str, Section] = {}
    for case in sorted((case for case in cases if case.rule), key=lambda case: case.level):
        section = found.setdefault(title(case), Section(title(case)))
        section.rows.setdefault(case.rule, {}).setdefault(case.backend, Cell()).cases.append(case)
    return list(found.values())


def detail(case: Case) -> str:
    """What a cell's row is about, beyond level and backend: kernel, route, dtype, kind."""
    parts = [part for part in case.id.split("/")[1:] if part not in (case.rule, case.backend)]
    return " ".join(parts)


def tally(cases: Iterable[Case]) -> dict[str, dict[str, Counter[str]]]:
    """Counts of verdicts by level and backend."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for case in sorted(cases, key=lambda case: case.level):
        found.setdefault(case.level, {}).setdefault(case.backend, Counter())[case.verdict] += 1
    return found


def counted(counts: Counter[str]) -> str:
    """Counts in words: "12 passed, 1 failed"."""
    words = {PASS: "passed", FAIL: "failed", XFAIL: "known to fail", UNSUPPORTED: "unsupported"}
    return ", ".join(f"{counts[verdict]} {words[verdict]}" for verdict in VERDICTS if counts[verdict])


def nearest(cases: Iterable[Case], count: int = 12) -> list[Case]:
    """The passing rows that used most of their budget, those first: one of each subject that has a budget."""
    found: dict[str, Case] = {}
    for case in cases:
        able = case.verdict == PASS and case.worst_ulp and case.budget_ulp
        if able and (case.rule not in found or strain(case) > strain(found[case.rule])):
            found[case.rule] = case
    return sorted(found.values(), key=strain, reverse=True)[:count]


def by_reason(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The unsupported rows by their reason, the commonest first."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        if case.verdict == UNSUPPORTED:
            found.setdefault(case.why, []).append(case)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
