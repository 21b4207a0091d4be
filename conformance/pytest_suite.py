"""The tests that ``pytest --hessiod-backend NAME`` collects."""

from pathlib import Path
from typing import Any

import pytest

from hessiod.conformance.backend_suite import assert_passes, checks_of
from hessiod.conformance.check import Check
from hessiod.conformance.selection import NONE_KNOWN, KnownFailures, Selection


def pytest_generate_tests(metafunc: Any) -> None:
    """One test for each check of each backend."""
    levels, include, exclude, backends = (
        tuple(metafunc.config.getoption(f"hessiod_{name}")) for name in ("level", "include", "exclude", "backend")
    )
    device = metafunc.config.getoption("hessiod_device")
    selection = Selection(levels, include, exclude, metafunc.config.getoption("hessiod_quick"))
    checks = [check for name in backends for check in checks_of(name, device, selection)]
    metafunc.parametrize("check", [pytest.param(check, id=check.id) for check in checks])


def test_conformance(check: Check, pytestconfig: pytest.Config) -> None:
    """The rows of one check."""
    path = pytestconfig.getoption("hessiod_xfails")
    assert_passes(check, KnownFailures.read(Path(path)) if path else NONE_KNOWN)
