"""``pytest --hessiod-backend NAME``: the conformance suite of a backend, without a file of tests.

Installed with hessiod under the entry-point group ``pytest11``; imports nothing of hessiod until the option is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

OPTIONS = {
    "backend": "a backend whose conformance rows are tested; repeatable",
    "level": "only this level, L0 to L6 or 0 to 6; repeatable",
    "include": "only rows whose id matches this pattern; repeatable",
    "exclude": "no rows whose id matches this pattern; repeatable",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("hessiod", "hessiod's conformance suite")
    for name, meaning in OPTIONS.items():
        group.addoption(f"--hessiod-{name}", action="append", default=[], metavar=name.upper(), help=meaning)
    group.addoption("--hessiod-device", default=None, help="one of the backend's devices (default: its first)")
    group.addoption(
        "--hessiod-quick", action="store_true", help="leave out what hessiod conformance --quick leaves out"
    )
    group.addoption("--hessiod-xfails", default=None, metavar="FILE", help="known failures: 'PATTERN  # reason' a line")


def pytest_configure(config: Any) -> None:
    """Add the suite's tests to what is collected; without other arguments, collect them alone."""
    if config.getoption("hessiod_backend"):
        tests = str(Path(__file__).with_name("pytest_suite.py"))
        given = config.args_source == pytest.Config.ArgsSource.ARGS
        config.args = [*config.args, tests] if given else [tests]
