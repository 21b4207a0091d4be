"""docs/new-backend.md: the package on the page, written to an empty folder, is found and passes."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from hessiod.backends import load
from hessiod.conformance.case import PASS, UNSUPPORTED
from hessiod.conformance.selection import NONE_KNOWN, Selection
from hessiod.conformance.suite import choose, plan, run_checks

PAGE = Path(__file__).parents[2] / "docs" / "new-backend.md"
FILES = ("my_package/namespace.py", "my_package/__init__.py", "pyproject.toml")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The files of the page, and what an installer makes of the last one."""
    blocks = re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert tuple(name for name, _ in blocks) == FILES
    (tmp_path / "my_package").mkdir()
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    project = tomllib.loads(dict(blocks)["pyproject.toml"])["project"]
    information = tmp_path / f"my_package-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    entries = [f"{name} = {place}" for name, place in project["entry-points"]["hessiod.backends"].items()]
    (information / "entry_points.txt").write_text("\n".join(["[hessiod.backends]", *entries]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, at entries that overflow
def test_the_backend_on_the_page_passes_what_it_supports(installed):
    assert load("mine").versions() == {"my_package": "0.1"}
    checks = plan(choose(["mine"]))
    rows = Counter()
    for case in run_checks(Selection(levels=("L0", "L1", "L3")).choose(checks), NONE_KNOWN):
        rows[case.level, case.verdict] += 1
        assert case.verdict in (PASS, UNSUPPORTED), case
    assert min(rows[level, PASS] for level in ("L0", "L1", "L3")) >= 8
    others = Selection(levels=("L2", "L4", "L5", "L6")).choose(checks)
    assert all(check.unsupported for check in others)
