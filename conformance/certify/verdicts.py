"""From measurements to verdicts: on each case, and on the operators that the cases are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hessiod.backends.certification.measurement import FIRST_TOLERANCE, Measurement, within
from hessiod.backends.certification.table import CURED, REFUSED, RIGHT, WRONG

ABSENT = "absent"
"""The framework has no kernel for the operator on this device: even its gradient cannot be computed."""

VERDICTS = (RIGHT, CURED, REFUSED, WRONG, ABSENT)
ORDERS = (1, 2)


@dataclass
class Row:
    """A case, or a way to write it, with what every route found."""

    name: str
    family: str
    smooth: bool
    engines: tuple[str, ...]
    routes: dict[str, Measurement] = field(default_factory=dict)

    @property
    def plain(self) -> Measurement:
        """The framework's own derivatives, at their best."""
        return self.routes["plain"]

    @property
    def engine(self) -> Measurement:
        """The engine's, by the route that did worst."""
        return max((self.routes[route] for route in self.engines), key=lambda found: (found.wrong, not found.right))

    @property
    def vouched(self) -> bool:
        """Whether the engine gets it right, or would if it knew that the framework does.

        Without a table an engine may doubt what is right: differences of gradients do not see that ``cholesky`` reads
        one triangle only.
        """
        return self.engine.right or (self.plain.right and self.engine.refused)

    @property
    def verdict(self) -> str:
        """Right, cured, refused, wrong or absent."""
        if self.engine.wrong:
            return WRONG
        if self.engine.right:
            return RIGHT if self.plain.right else CURED
        return ABSENT if self.plain.first_error and not self.plain.died else REFUSED

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators of the forward, with and without cures."""
        return tuple(sorted({name for found in self.routes.values() for name in found.operators}))

    @property
    def silent(self) -> bool:
        """Whether the framework's own derivatives are wrong without a word."""
        return self.plain.wrong

    @property
    def why(self) -> str:
        """What is wrong with the framework's own derivatives, or why there are none."""
        plain, engine = self.plain, self.engine
        if plain.first is not None and not within(plain.first, FIRST_TOLERANCE):
            return f"its first derivative is off by {plain.first:.2g}"
        if plain.wrong:
            return f"its second derivative is off by {plain.second:.2g}"
        return (engine.second_error if not engine.right else "") or plain.second_error or plain.first_error

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "name": self.name,
            "family": self.family,
            "smooth": self.smooth,
            "verdict": self.verdict,
            "silent": self.silent,
            "why": "" if self.verdict == RIGHT else self.why,
            "operators": list(self.operators),
            "routes": {route: brief(found) for route, found in self.routes.items()},
        }


def brief(found: Measurement) -> dict[str, Any]:
    """A measurement's errors in two digits."""

    def figure(error: float | None) -> float | str | None:
        return None if error is None else float(f"{error:.2g}") if error != float("inf") else "not finite"

    said = {"first_error": found.first_error, "second_error": found.second_error, "refused": found.refused}
    return {"first": figure(found.first), "second": figure(found.second)} | {k: v for k, v in said.items() if v}


def guilty(rows: Sequence[Row], bad: Mapping[str, bool]) -> dict[str, list[Row]]:
    """Which operator to blame for each bad row: the one that the smallest share of good rows contains.

    A net in which LayerNorm stands among matmuls and sums accuses LayerNorm, as every other case with matmuls and sums
    is right.
    """
    using: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.operators:
            using.setdefault(name, []).append(row)
    share = {name: sum(not bad[row.name] for row in found) / len(found) for name, found in using.items()}
    blamed: dict[str, list[Row]] = {}
    for row in rows:
        if bad[row.name] and row.operators:
            least = min(share[name] for name in row.operators)
            for name in row.operators:
                if share[name] == least:
                    blamed.setdefault(name, []).append(row)
    return blamed


def operator_table(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """For each operator: verdicts on both derivatives, the cases they rest on, and why where not right.

    Refused is what the engine got wrong, or never got at all; what the engine gets right in some settings and what
    raises of itself in others is left to those errors.
    """
    rows = [row for row in rows if row.operators]
    using: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.operators:
            using.setdefault(name, []).append(row)
    plain, engine = accused(rows, "plain"), accused(rows, "engine")
    table = {}
    for name in sorted(using):
        verdicts = [
            judged(engine[order].get(name, []), plain[order].get(name, []), using[name], order) for order in ORDERS
        ]
        reasons = [row.why for order in ORDERS for row in (*engine[order].get(name, []), *plain[order].get(name, []))]
        table[name] = {
            "first": verdicts[0],
            "second": verdicts[1],
            "cases": [row.name for row in using[name]][:8],
            "why": next(filter(None, reasons), "") if verdicts != [RIGHT, RIGHT] else "",
        }
    return table


def accused(rows: Sequence[Row], side: str) -> dict[int, dict[str, list[Row]]]:
    """By the order of the derivative: which operators are to blame for what the plain or the engine's side lacks."""
    route = {row.name: "plain" if side == "plain" else row.engines[0] for row in rows}
    first = {row.name: not within(row.routes[route[row.name]].first, FIRST_TOLERANCE) for row in rows}
    second = {row.name: not (row.plain.right if side == "plain" else row.vouched) for row in rows}
    return {1: guilty(rows, first), 2: guilty(rows, second)}


def judged(failing: Sequence[Row], lacking: Sequence[Row], using: Sequence[Row], order: int) -> str:
    """A verdict from the rows that the engine fails on because of an operator, and those that the framework does."""
    if any(silently(row, order) for row in failing) or (failing and len(failing) == len(using)):
        return REFUSED
    return CURED if any(row not in failing for row in lacking) else RIGHT


def silently(row: Row, order: int) -> bool:
    """Whether the engine gave a number that is off."""
    if order == 1:
        first = row.routes[row.engines[0]].first
        return first is not None and not within(first, FIRST_TOLERANCE)
    return row.engine.wrong
