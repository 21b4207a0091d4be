"""One row of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

PASS, FAIL, UNSUPPORTED, XFAIL = "pass", "fail", "unsupported", "xfail"
"""``xfail`` is a failure that the user listed as known."""


@dataclass(frozen=True)
class Case:
    """What was compared, how far apart it was, and how far it may be.

    ``worst_ulp`` and ``budget_ulp`` are those of the entry that comes nearest to its budget (or exceeds it most), in
    ULP of the dtype at the size of the result; for a sum that cancels, of its larger term. ``worst`` is that entry
    with its inputs, where they were kept (:mod:`hessiod.conformance.entry`).
    """

    id: str
    level: str
    rule: str
    backend: str
    device: str
    dtype: str
    worst_ulp: float | None
    budget_ulp: float | None
    verdict: str
    why: str
    worst: Mapping[str, Any] | None = field(default=None, hash=False)

    def document(self) -> dict[str, Any]:
        """The row as JSON holds it, which knows no infinity."""
        row = asdict(self)
        if row["worst"] is None:
            del row["worst"]
        for name in ("worst_ulp", "budget_ulp"):
            if row[name] is not None and not isfinite(row[name]):
                row[name] = None
        return row
