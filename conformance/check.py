"""What the suite can run on a backend: checks, each of which gives one row or a few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, Case
from hessiod.conformance.formats import HALF
from hessiod.core.errors import BackendUnavailable


@dataclass(frozen=True)
class Finding:
    """What a check found of one kind.

    ``data`` is what later checks take, such as a run's losses, as JSON holds it; ``worst`` the worst entry with its
    inputs (:mod:`hessiod.conformance.entry`).
    """

    kind: str
    passed: bool
    worst_ulp: float | None
    budget_ulp: float | None
    why: str
    data: Any = None
    worst: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Check:
    """One call that a backend must survive, and the kinds of rows that it gives.

    ``run(*data)`` returns a finding of each kind; ``after`` names the checks whose data it takes; one that ``compares``
    does nothing else, and calls no backend. A check with a reason in ``unsupported`` is not run. ``slow`` says what it
    belongs to, if a quick run leaves it out.
    """

    id: str
    level: str
    rule: str
    backend: str
    device: str
    dtype: str
    kinds: tuple[str, ...]
    run: Callable[..., Iterable[Finding]] = field(compare=False, repr=False, default=lambda: ())
    after: tuple[str, ...] = ()
    compares: bool = False
    unsupported: str = ""
    slow: str = ""

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The ids of its rows."""
        return tuple(f"{self.id}/{kind}" for kind in self.kinds)

    def row(self, kind: str, verdict: str, why: str, worst: float | None = None, budget: float | None = None) -> Case:
        """A row of one kind."""
        return Case(
            f"{self.id}/{kind}",
            level=self.level,
            rule=self.rule,
            backend=self.backend,
            device=self.device,
            dtype=self.dtype,
            worst_ulp=worst,
            budget_ulp=budget,
            verdict=verdict,
            why=why,
        )

    def rows(self, verdict: str, why: str) -> list[Case]:
        """The same verdict for every kind, without figures."""
        return [self.row(kind, verdict, why) for kind in self.kinds]


@dataclass(frozen=True)
class Outcome:
    """A check's rows, and the data of the finding that has some."""

    cases: list[Case]
    data: Any = None


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def not_run(check: Check, known: Mapping[str, Any]) -> str:
    """Why a check cannot be run; empty if it can."""
    missing = [identity for identity in check.after if identity not in known]
    nothing = f"{missing[0]} was left out or failed, so there is nothing to compare" if missing else ""
    return check.unsupported or nothing


def perform(check: Check, known: Mapping[str, Any]) -> Outcome:
    """Run a check; whatever it raises is a row, not the end of the suite."""
    reason = not_run(check, known)
    if reason:
        return Outcome(check.rows(UNSUPPORTED, reason))
    try:
        findings = list(check.run(*[known[identity] for identity in check.after]))
    except BackendUnavailable as error:  # what a backend says that it does not do
        return Outcome(check.rows(UNSUPPORTED, first_line(error)))
    except Exception as error:
        return Outcome(check.rows(FAIL, first_line(error)))
    data = next((finding.data for finding in findings if finding.data is not None), None)
    return Outcome(list(judged(check, findings)), data)


def judged(check: Check, findings: Sequence[Finding]) -> Iterator[Case]:
    """A row of each kind, in the order in which the check declares them."""
    found = {finding.kind: finding for finding in findings}
    for kind in check.kinds:
        if kind not in found:
            yield check.row(kind, FAIL, "the check ended without this row")
            continue
        finding = found[kind]
        verdict = PASS if finding.passed else FAIL
        row = check.row(kind, verdict, finding.why, finding.worst_ulp, finding.budget_ulp)
        yield replace(row, worst=finding.worst)


def identified(backend: Any, **fields: Any) -> dict[str, Any]:
    """The fields of a check that say which backend it is for."""
    return {"backend": backend.name, "device": backend.devices()[0], **fields}


def whole_kernels(backend: Any) -> str:
    """Why a backend has no functions to call one by one; empty if it has."""
    return "" if backend.namespace is not None else "the backend runs whole kernels only"


def wide_dtypes(backend: Any) -> list[str]:
    """The dtypes that a backend calculates with: not those of half precision, which only steps have."""
    return [dtype for dtype in backend.dtypes if dtype not in HALF]
