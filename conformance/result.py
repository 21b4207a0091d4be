"""What a run of the suite found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hessiod.conformance.case import FAIL, UNSUPPORTED, Case

FORMAT = 2
"""The version of ``report.schema.json``; 2 added the header's ``format`` and a row's ``worst`` entry."""


@dataclass(frozen=True)
class Report:
    """A header, which says what the results depend on, and the rows."""

    header: dict[str, Any]
    cases: list[Case]

    @property
    def digest(self) -> str:
        """SHA-256 of header and cases in canonical JSON."""
        return sha256({"header": self.header, "cases": [case.document() for case in self.cases]})

    @property
    def document(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {"header": self.header, "cases": [case.document() for case in self.cases], "digest": self.digest}

    def count(self, verdict: str) -> int:
        """How many rows have a verdict."""
        return sum(case.verdict == verdict for case in self.cases)

    @property
    def partial(self) -> bool:
        """Whether the run was interrupted."""
        return bool(self.header.get("partial"))

    @property
    def passed(self) -> bool:
        """Whether everything that was chosen ran, nothing failed and something was supported."""
        return not self.partial and self.count(FAIL) == 0 and self.count(UNSUPPORTED) < len(self.cases)


def sha256(document: Any) -> str:
    """SHA-256 of a document's canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def case_set(ids: Iterable[str], golden: str) -> str:
    """SHA-256 of what was asked: the rows' ids, and the digest of the golden data that they are compared with."""
    return sha256({"ids": sorted(ids), "golden": golden})
