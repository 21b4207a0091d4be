"""Runs the levels over backends."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hessiod.backends.contract import Backend
from hessiod.backends.registry import Listing, listings, load
from hessiod.conformance import golden
from hessiod.conformance.case import Case
from hessiod.conformance.check import Check, Outcome, perform
from hessiod.conformance.checkpoints import checkpoint_checks
from hessiod.conformance.derivatives import derivative_checks
from hessiod.conformance.estimators import estimator_checks
from hessiod.conformance.factored import factored_checks
from hessiod.conformance.functions import function_checks
from hessiod.conformance.kernels import kernel_checks
from hessiod.conformance.matrices import matrix_checks
from hessiod.conformance.processes import process_checks
from hessiod.conformance.result import FORMAT, Report, case_set
from hessiod.conformance.selection import EVERYTHING, NONE_KNOWN, KnownFailures, Selection
from hessiod.conformance.theorems import theorem_checks
from hessiod.conformance.trajectories import trajectory_checks

Perform = Callable[[Check, dict[str, Any]], Outcome]
Run = Callable[[Sequence[Check]], Iterator[tuple[Check, Outcome]]]


def choose(names: Sequence[str], device: str | None = None) -> list[Listing]:
    """The named backends, which must be usable, on a device if one is named; without names, all that are announced."""
    return [Listing(name, load(name, device)) for name in dict.fromkeys(names)] if names else listings()


def plan(chosen: Sequence[Listing], seed: int = 0, elsewhere: Sequence[str] = ()) -> list[Check]:
    """Every check of every level, level by level; a backend that cannot be loaded has one, which says why.

    ``seed`` is that of the drawn inputs; the checks' ids do not depend on it. Runs may begin on backends ``elsewhere``,
    in another process, and be taken up by these.
    """
    backends = [listing.backend for listing in chosen if listing.backend is not None]
    return [
        *(absent(listing) for listing in chosen if listing.backend is None),
        *(check for backend in backends for check in function_checks(backend, seed)),
        *(check for backend in backends for check in kernel_checks(backend, seed)),
        *(check for backend in backends for check in derivative_checks(backend)),
        *(check for backend in backends for check in estimator_checks(backend)),
        *(check for backend in backends for check in factored_checks(backend)),
        *(check for backend in backends for check in matrix_checks(backend)),
        *(check for backend in backends for check in theorem_checks(backend)),
        *trajectory_checks(backends),
        *checkpoint_checks(backends, elsewhere),
        *(check for backend in backends for check in process_checks(backend)),
    ]


def absent(listing: Listing) -> Check:
    """The one check of a backend that cannot be loaded."""
    fields: dict[str, Any] = dict(level="L0", rule="", backend=listing.name, device="", dtype="")
    return Check("L0", **fields, kinds=(listing.name,), unsupported=listing.reason)


def run_checks(checks: Sequence[Check], known_failures: KnownFailures, perform: Perform = perform) -> Iterator[Case]:
    """The rows of the checks, as they are found."""
    for _, outcome in in_turn(checks, perform):
        yield from known_failures.apply(outcome.cases)


def in_turn(checks: Sequence[Check], perform: Perform = perform) -> Iterator[tuple[Check, Outcome]]:
    """Perform one check after another; a check's data is kept for those that compare with it."""
    data: dict[str, Any] = {}
    for check in checks:
        outcome = perform(check, data)
        if outcome.data is not None:
            data[check.id] = outcome.data
        yield check, outcome


def run_suite(
    chosen: Sequence[Listing],
    on_case: Callable[[Case], None] = lambda case: None,
    selection: Selection = EVERYTHING,
    known_failures: KnownFailures = NONE_KNOWN,
    perform: Perform = perform,
    seed: int = 0,
    run: Run | None = None,
) -> Report:
    """Run the selected checks; ``on_case`` sees each row as it is found, which ``run`` may do in any order.

    Interrupted (Ctrl-C raises KeyboardInterrupt), it returns the rows so far as a report that says it is partial.
    """
    planned = plan(chosen, seed)
    checks = selection.choose(planned)
    found: dict[str, list[Case]] = {}
    partial = False
    try:
        for check, outcome in run(checks) if run else in_turn(checks, perform):
            found[check.id] = known_failures.apply(outcome.cases)
            for case in found[check.id]:
                on_case(case)
    except KeyboardInterrupt:
        partial = True
    cases = [case for check in checks for case in found.get(check.id, ())]
    return Report(header(chosen, checks, selection.document(planned), partial, seed), cases)


def header(
    chosen: Sequence[Listing], checks: Sequence[Check], selection: dict[str, Any], partial: bool = False, seed: int = 0
) -> dict[str, Any]:
    """What the results depend on, and what was asked."""
    backends: list[Backend] = [listing.backend for listing in chosen if listing.backend is not None]
    return {
        "format": FORMAT,
        "hessiod": own_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hypothesis": version("hypothesis"),
        "processor": platform.machine(),
        "backends": {backend.name: dict(backend.versions()) for backend in backends},
        "devices": {backend.name: list(backend.devices()) for backend in backends},
        "selection": selection,
        "seed": seed,
        "case_set": case_set((identity for check in checks for identity in check.case_ids), golden.digest()),
        "partial": partial,
    }


def own_version() -> str:
    """The version of this package."""
    try:
        return version("hessiod")
    except PackageNotFoundError:
        return "0+unknown"
