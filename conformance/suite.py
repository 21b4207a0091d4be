"""Runs the levels over backends."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hessiod.backends.contract import Backend
from hessiod.backends.registry import Listing, listings, load
from hessiod.conformance.case import FAIL, UNSUPPORTED, Case
from hessiod.conformance.kernels import run_kernels
from hessiod.conformance.trajectories import Trajectories, golden


@dataclass(frozen=True)
class Report:
    """Everything that a run of the suite found."""

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
    def passed(self) -> bool:
        """Whether nothing failed and something ran."""
        return self.count(FAIL) == 0 and self.count(UNSUPPORTED) < len(self.cases)


def sha256(document: Any) -> str:
    """SHA-256 of a document's canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def choose(names: Sequence[str]) -> list[Listing]:
    """The named backends, which must be usable; without names, all that are announced."""
    return [Listing(name, load(name)) for name in dict.fromkeys(names)] if names else listings()


def rows(listing: Listing, trajectories: Trajectories) -> Iterator[Case]:
    """Every row of a backend."""
    backend = listing.backend
    if backend is None:
        row: dict[str, Any] = dict(
            level="L1", rule="", backend=listing.name, device="", dtype="", worst_ulp=None, budget_ulp=None
        )
        yield Case(f"L1/{listing.name}", **row, verdict=UNSUPPORTED, why=listing.reason)
        return
    yield from run_kernels(backend)
    yield from trajectories.run(backend)


def run_suite(chosen: Sequence[Listing], on_case: Callable[[Case], None] = lambda case: None) -> Report:
    """Run every level over the backends, in their order; ``on_case`` sees each row as it is found."""
    trajectories, cases = Trajectories(), []
    for listing in chosen:
        for case in rows(listing, trajectories):
            cases.append(case)
            on_case(case)
    return Report(header([listing.backend for listing in chosen if listing.backend], cases), cases)


def header(backends: Sequence[Backend], cases: Sequence[Case]) -> dict[str, Any]:
    """What the results depend on."""
    try:
        own = version("hessiod")
    except PackageNotFoundError:
        own = "0+unknown"
    return {
        "hessiod": own,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "backends": {backend.name: dict(backend.versions()) for backend in backends},
        "devices": {backend.name: list(backend.devices()) for backend in backends},
        "case_set": sha256(
            {"ids": sorted(case.id for case in cases), "golden": {name: list(v) for name, v in golden().items()}}
        ),
    }
