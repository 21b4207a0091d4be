import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hessiod.backends import load
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.isolation import Isolation
from hessiod.conformance.search_path import search_path
from hessiod.conformance.selection import Selection
from hessiod.conformance.suite import choose, run_suite
from hessiod.conformance.verify import read_report

spec = importlib.util.spec_from_file_location("broken_backend", Path(__file__).with_name("broken_backend.py"))
broken_backend = importlib.util.module_from_spec(spec)
spec.loader.exec_module(broken_backend)

MAIN = "from hessiod.cli.app import main; main()"


@pytest.fixture
def broken(tmp_path, monkeypatch):
    broken_backend.announce(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "broken"


def test_a_backend_that_hangs_crashes_raises_or_returns_another_dtype_gives_rows_and_the_suite_goes_on(broken):
    kernels = ("sgd.step", "adamw.step", "apollo-l2.step", "sophia.step", "gauss-newton-bartlett.estimate")
    selection = Selection(include=tuple(f"L1/{kernel}/*/float32/formula" for kernel in kernels))
    with Isolation(limit=3.0) as isolation:
        report = run_suite(choose([broken]), selection=selection, perform=isolation.perform)
    rows = {case.id.split("/")[1]: case for case in report.cases}
    assert rows["sgd.step"].why == "no answer within 3 s; stopped"
    assert rows["adamw.step"].why == "the process ended by SIGSEGV: out of luck"
    assert rows["apollo-l2.step"].why == "RuntimeError: no such kernel"
    assert "expected float32" in rows["sophia.step"].why
    assert [rows[name].verdict for name in ("sgd.step", "adamw.step", "apollo-l2.step", "sophia.step")] == [FAIL] * 4
    assert rows["gauss-newton-bartlett.estimate"].verdict == PASS


def test_a_worker_finds_what_this_process_finds():
    selection = Selection(include=("L1/sophia.step",))
    with Isolation(limit=60.0) as isolation:
        isolated = run_suite(choose(["numpy"]), selection=selection, perform=isolation.perform)
    assert isolated == run_suite(choose(["numpy"]), selection=selection)
    kinds = [case.id.split("/", 3)[3] for case in isolated.cases if case.id.startswith("L1/sophia.step/")]
    routes, dtypes, sources = ("eager", "kernels"), load("numpy").dtypes, ("formula", "agreement")
    inputs = ("", "drawn/")
    assert kinds == [f"{r}/{d}/{i}{source}" for r in routes for d in dtypes for i in inputs for source in sources]


def test_a_package_whose_modules_are_named_like_the_standard_librarys_does_not_mislead_a_worker(tmp_path, monkeypatch):
    """MindSpore puts folders of its own in front of the path, where ``math`` is one of its modules."""
    for name in ("__init__.py", "math.py"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Isolation(limit=60.0) as isolation:
        report = run_suite(choose(["numpy"]), selection=Selection(include=("L1/sgd.step",)), perform=isolation.perform)
    assert {case.verdict for case in report.cases} == {PASS}


@pytest.mark.parametrize(("interruption", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_a_valid_report_that_says_it_is_partial(interruption, status, broken, tmp_path):
    command = [sys.executable, "-c", MAIN, "conformance", "--backend", broken, "--level", "L1"]
    environment = os.environ | {"PYTHONPATH": search_path()}
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        for line in process.stdout:  # apollo's rows fail before sgd's hang
            if "apollo" in line:
                break
        time.sleep(1.5)
        process.send_signal(interruption)
        process.send_signal(interruption if interruption == signal.SIGTERM else 0)  # timeout(1) sends it twice
        said, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert "PARTIAL, interrupted" in said
    report = read_report(tmp_path / "out" / "report.json")
    assert report.partial
    assert not report.passed
    assert report.cases
