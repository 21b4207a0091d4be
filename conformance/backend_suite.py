"""The suite as one pytest class, for the tests of a package that provides a backend.

    from hessiod.conformance import BackendSuite

    class TestMine(BackendSuite):
        backend = "mine"

Every check of the suite is then one test: it fails with the rows that failed, and is skipped, with the reason, where
the backend does not support it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from hessiod.backends.contract import Backend, check_backend
from hessiod.backends.registry import Listing, load, on_device
from hessiod.conformance.case import FAIL, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.check import Check, perform
from hessiod.conformance.selection import NONE_KNOWN, KnownFailures, Selection
from hessiod.conformance.suite import plan


class BackendSuite:
    """Inherit, and say which backend.

    Attributes:
        backend: the name that the backend's entry point announces, or the backend itself.
        device: one of its devices; None for the first.
        levels, include, exclude, quick: as in :class:`hessiod.conformance.selection.Selection`.
        xfails: a file of known failures, ``PATTERN  # reason`` a line.
    """

    backend: ClassVar[str | Backend]
    device: ClassVar[str | None] = None
    levels: ClassVar[tuple[str, ...]] = ()
    include: ClassVar[tuple[str, ...]] = ()
    exclude: ClassVar[tuple[str, ...]] = ()
    quick: ClassVar[bool] = False
    xfails: ClassVar[str | Path | None] = None

    @classmethod
    def checks(cls) -> list[Check]:
        """The chosen checks of the backend."""
        return checks_of(cls.backend, cls.device, Selection(cls.levels, cls.include, cls.exclude, cls.quick))

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test for each check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", [pytest.param(check, id=check.id) for check in self.checks()])

    def test_conformance(self, check: Check) -> None:
        """The rows of one check."""
        assert_passes(check, KnownFailures.read(Path(self.xfails)) if self.xfails else NONE_KNOWN)


def checks_of(backend: str | Backend, device: str | None, selection: Selection) -> list[Check]:
    """The selected checks of a backend, given by name or as it is."""
    if isinstance(backend, str):
        found = load(backend, device)
    else:
        found = check_backend(backend, backend.name)
        found = found if device is None else on_device(found, device)
    return selection.choose(plan([Listing(found.name, found)]))


def assert_passes(check: Check, known: KnownFailures) -> None:
    """Fail with the rows that fail; skip or expect the failure, with the reason, where that is the verdict."""
    rows = known.apply(perform(check, {}).cases)
    failed = [row for row in rows if row.verdict == FAIL]
    assert not failed, "\n".join(map(said, failed))
    for verdict, end in ((UNSUPPORTED, pytest.skip), (XFAIL, pytest.xfail)):
        ended = [row for row in rows if row.verdict == verdict]
        if ended:
            end(said(ended[0]))


def said(row: Case) -> str:
    """A row in one line."""
    figures = "" if row.worst_ulp is None else f" ({row.worst_ulp:.3g} ULP of {row.budget_ulp:.3g})"
    return f"{row.id}: {row.why}{figures}"
