"""Level 6 on processes that are right and on some that are broken on purpose."""

import importlib.util
from pathlib import Path

import pytest

from hessiod.backends import load
from hessiod.conformance import processes, suite
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.group import Group
from hessiod.conformance.selection import NONE_KNOWN

spec = importlib.util.spec_from_file_location("broken_processes", Path(__file__).with_name("broken_processes.py"))
broken_processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(broken_processes)


@pytest.fixture
def announced(tmp_path, monkeypatch):
    broken_processes.announce(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def rows(backend, *optimizers, dtype=None):
    checks = [check for check in processes.process_checks(backend, optimizers) if dtype in (None, check.dtype)]
    return {row.id.split(".", 1)[1]: row for row in suite.run_checks(checks, NONE_KNOWN)}


def verdicts(found):
    return {name: row.verdict for name, row in found.items()}


def test_a_hessian_that_is_not_averaged_over_the_processes_is_caught_by_its_optimizers_rows(announced):
    """One start; SophiaG beside it, whose estimate is summed as it should be, passes."""
    found = rows(load("unaveraged"), "sophia-g", "sophia-h", dtype="float64")
    assert verdicts(found) == {
        "sophia-g/unaveraged/float64/one-process": PASS,
        "sophia-g/unaveraged/float64/ranks": PASS,
        "sophia-h/unaveraged/float64/one-process": FAIL,
        "sophia-h/unaveraged/float64/ranks": FAIL,
    }
    assert "hessian" in found["sophia-h/unaveraged/float64/ranks"].why


def test_what_goes_wrong_in_a_process_is_said_and_the_next_run_has_new_ones(announced):
    names = ("adamw", "nesterov", "apollo", "sophia-g", "sophia-h", "diagonal-newton", "apollow", "kfac")
    found = rows(load("moody"), *names)
    kinds = {name: tuple(found[f"{name}/moody/float64/{kind}"].verdict for kind in processes.KINDS) for name in names}
    assert kinds == {
        "adamw": (PASS, PASS),
        "nesterov": (FAIL, FAIL),
        "apollo": (FAIL, FAIL),
        "sophia-g": (PASS, FAIL),
        "sophia-h": (FAIL, PASS),
        "diagonal-newton": (PASS, FAIL),
        "apollow": (UNSUPPORTED, UNSUPPORTED),
        "kfac": (UNSUPPORTED, UNSUPPORTED),
    }
    said = {name: found[f"{name}/moody/float64/ranks"].why for name in names}
    assert said["nesterov"] == "RuntimeError: process 1: ValueError: no more memory"
    assert said["apollo"] == "RuntimeError: the processes ended with exit status 3: out of luck"
    assert said["sophia-g"].endswith("; model/weight differ")
    assert said["diagonal-newton"].endswith("; model/weight are not held")
    assert said["apollow"] == "not today"
    assert said["kfac"] == "the backend has no optimizer 'kfac'"


def test_processes_are_started_with_the_first_request_and_end_when_they_are_stopped(announced):
    group = Group(load("moody"), 2)
    group.stop()
    first = group.train("adamw", "float64")
    launcher = group.launcher
    assert group.train("adamw", "float64")[1].keys() == first[0].keys()
    assert group.launcher is launcher
    group.stop()
    assert launcher.returncode == 0
    assert not group.folder.exists()


def test_a_backend_that_other_processes_cannot_load_or_that_has_no_processes_is_unsupported():
    found = rows(load("numpy"), "adamw")
    assert {row.why for row in found.values()} == {"the backend has no optimizer 'adamw'"}
    torch = type(load("torch"))()
    assert processes.reason(torch, "adamw") == ""
    torch.name = "unheard of"
    assert processes.reason(torch, "adamw").startswith("the backend is not announced under hessiod.backends")
    torch.processes = None
    assert processes.reason(torch, "adamw") == "the backend declares no processes"


def test_a_quick_run_starts_no_processes():
    checks = list(processes.process_checks(load("torch")))
    assert all(check.slow == "L6: several processes" for check in checks)
    assert {check.dtype for check in checks} == {"float32", "float64"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "mindspore"])
def test_two_processes_train_what_one_trains(name):
    found = rows(load(name), *processes.OPTIMIZERS)
    assert FAIL not in verdicts(found).values()
    assert sum(row.verdict == PASS for row in found.values()) >= 16
