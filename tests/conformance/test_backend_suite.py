import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from hessiod.backends import load
from hessiod.conformance import BackendSuite
from hessiod.conformance.search_path import search_path
from hessiod.core.errors import InvalidArgument


class TestNumpy(BackendSuite):
    backend = "numpy"
    include = ("L0", "L1/sophia", "L4/gpt.sgd/numpy")


def run_pytest(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), search_path()])}
    announced = any(entry.name == "hessiod" for entry in entry_points(group="pytest11"))
    plugin = () if announced else ("-p", "hessiod.conformance.pytest_plugin")  # from the tree, not installed
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", "-q", "-ra", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_class_takes_a_name_or_a_backend_and_has_a_test_for_each_check():
    class Given(BackendSuite):
        backend = load("numpy")
        levels = ("L1",)

    assert [check.id for check in Given.checks()][:1] == ["L1/sophia.step/numpy/eager/float32"]
    assert {check.level for check in Given.checks()} == {"L1"}


def test_a_class_that_is_quick_leaves_out_slow_checks_and_one_with_a_device_moves_what_it_is_given():
    class Quick(BackendSuite):
        backend = "torch"
        quick = True

    class Elsewhere(BackendSuite):
        backend = load("numpy")
        device = "npu:0"

    levels = {check.level for check in Quick.checks()}
    assert levels == {"L0", "L1", "L2", "L3", "L4", "L5"}
    assert not any(check.slow for check in Quick.checks())
    with pytest.raises(InvalidArgument, match="device: found 'npu:0', expected one of cpu"):
        Elsewhere.checks()


def test_a_failing_row_fails_its_test_and_a_listed_one_is_expected(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        """
from hessiod.backends.contract import Route
from hessiod.backends.numpy import NumpyBackend, run
from hessiod.conformance import BackendSuite

class Backwards(NumpyBackend):
    name = "backwards"
    routes = (Route("eager", lambda function, arrays, scalars: tuple(-x for x in run(function, arrays, scalars))),)

class TestBackwards(BackendSuite):
    backend = Backwards()
    include = ("L1/sgd.step/*/float32/*", "L0/abs", "L4/gpt.sgd/backwards")

class TestKnown(TestBackwards):
    xfails = __file__.replace("test_mine.py", "known.txt")
"""
    )
    (tmp_path / "known.txt").write_text("L1/sgd.step  # the sign is wrong\n")
    result = run_pytest(tmp_path, "test_mine.py")
    assert "2 failed, 8 passed, 2 skipped, 2 xfailed" in result.stdout, result.stdout
    assert "L1/sgd.step/backwards/eager/float32/formula: half an ULP a rounding operation" in result.stdout
    assert "the backend has no optimizer 'sgd'" in result.stdout


@pytest.mark.parametrize("given", [(), ("test_other.py",)])
def test_the_option_adds_the_suite_to_other_tests_or_runs_it_alone(tmp_path, given):
    (tmp_path / "test_other.py").write_text("def test_other():\n    pass\n")
    options = ("--hessiod-backend", "numpy", "--hessiod-quick", "--hessiod-include", "L1/sgd.step")
    result = run_pytest(tmp_path, *given, *options)
    rows = 3 + 1  # dtypes, and drawn inputs in one of them
    assert f"{rows + len(given)} passed" in result.stdout, result.stdout


def test_the_plugin_costs_other_test_runs_no_import(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import sys\ndef test_other():\n    assert 'hessiod.backends' not in sys.modules\n"
    )
    assert run_pytest(tmp_path, "test_other.py").returncode == 0
