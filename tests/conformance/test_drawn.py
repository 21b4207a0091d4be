"""Inputs that hypothesis draws: replayed by their seed, in budget for any seed, and sharper than the fixed ones."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from hessiod.backends.contract import Route
from hessiod.backends.numpy import NumpyBackend, run
from hessiod.cli.app import app
from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.compare import compare
from hessiod.conformance.drawn import HYPERPARAMETERS, drawn
from hessiod.conformance.kernels import kernel_checks, subjects
from hessiod.conformance.selection import NONE_KNOWN, Selection
from hessiod.conformance.suite import choose, run_checks, run_suite
from hessiod.conformance.verify import read_report

SOPHIA = Selection(include=("L1/sophia.step/numpy/eager/*",))
(STEP,) = (subject for subject in subjects() if subject.name == "sophia.step")


def arrays_of(seed, dtype="float32"):
    return [array.tobytes() for example in drawn(STEP, dtype, seed) for array in example.arrays]


def test_a_seed_draws_the_same_calls_and_another_seed_others():
    first = arrays_of(3)
    drawn.cache_clear()
    assert arrays_of(3) == first
    assert arrays_of(4) != first
    assert arrays_of(3, "bfloat16") != first


def test_a_seed_draws_the_same_in_another_process_with_other_modules(tmp_path):
    code = (
        "import hashlib; from hessiod.conformance.drawn import drawn; from hessiod.conformance.kernels import *\n"
        "(step,) = (subject for subject in subjects() if subject.name == 'sophia.step')\n"
        "bits = b''.join(array.tobytes() for call in drawn(step, 'float32', 3) for array in call.arrays)\n"
        "print(hashlib.sha256(bits).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert there.stdout.strip() == hashlib.sha256(b"".join(arrays_of(3))).hexdigest()


def test_every_hyperparameter_of_every_kernel_is_drawn():
    assert {name for subject in subjects() for name in subject.kernel.hyperparameters} <= HYPERPARAMETERS
    values = [example.values["beta1"] for seed in range(5) for example in drawn(STEP, "float32", seed)]
    assert len(set(values)) > 5


def test_the_seed_is_in_the_header_and_replays_the_rows_but_for_the_fixed_ones_which_stay():
    one, again, other = (run_suite(choose(["numpy"]), selection=SOPHIA, seed=seed) for seed in (11, 11, 12))
    assert one == again
    assert one.header["seed"] == 11
    drawn_rows = [(a, b) for a, b in zip(one.cases, other.cases, strict=True) if "/drawn/" in a.id]
    fixed_rows = [(a, b) for a, b in zip(one.cases, other.cases, strict=True) if "/drawn/" not in a.id]
    assert len(drawn_rows) == len(fixed_rows) == 8
    assert all(a == b for a, b in fixed_rows)
    assert any(a != b for a, b in drawn_rows)
    assert {row.verdict for row in other.cases} == {PASS}
    found = compare(one, other)
    assert found.versions == {"seed": (11, 12)}
    assert found.figures == []  # errors on other inputs cannot be compared


def test_a_mistake_that_fixed_settings_cannot_show_is_caught_with_its_inputs():
    def broken_run(kernel, arrays, scalars):
        clamped = {name: min(value, 0.5) if name == "take" else value for name, value in scalars.items()}
        return run(kernel, arrays, clamped)  # an average of the last two gradients at most: beta1 is 0.96 in the fixed

    backend = NumpyBackend()
    backend.routes, backend.dtypes = (Route("eager", broken_run),), ("float32",)
    checks = [check for check in kernel_checks(backend, seed=1) if "/sophia.step/" in check.id]
    rows = list(run_checks(checks, NONE_KNOWN))
    assert {row.verdict for row in rows if "/drawn/" not in row.id} == {PASS}
    failed = [row for row in rows if "/drawn/" in row.id]
    assert {row.verdict for row in failed} == {FAIL}
    for row in failed:
        assert row.why.startswith("bit for bit; drawn with seed 1, call") or "half an ULP" in row.why
        assert row.worst["hyperparameters"]["beta1"] < 0.5
        assert set(row.worst["operands"]) == {"param", "grad", "exp_avg", "hessian"}


def test_the_command_prints_the_seed_and_takes_it_back(tmp_path):
    def command(out, *options):
        arguments = ["conformance", "--backend", "numpy", "--include", "L1/sgd.step", "--no-isolate"]
        return CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / out), *options])

    first = command("first")
    seed = json.loads((tmp_path / "first" / "report.json").read_text())["header"]["seed"]
    assert f"seed {seed}: give --seed {seed} to draw the same inputs again" in first.output
    second = command("second", "--seed", str(seed))
    assert first.exit_code == second.exit_code == 0
    assert read_report(tmp_path / "first" / "report.json") == read_report(tmp_path / "second" / "report.json")
    assert str(seed) in (tmp_path / "first" / "report.html").read_text()
    assert f"`--seed {seed}`" in (tmp_path / "first" / "report.md").read_text()


@pytest.mark.slow
def test_no_seed_is_beyond_the_budgets():
    backend = NumpyBackend()
    backend.routes = backend.routes[:1]
    for seed in range(100):
        checks = [check for check in kernel_checks(backend, seed) if check.id.endswith("/drawn")]
        assert [row.id for row in run_checks(checks, NONE_KNOWN) if row.verdict == FAIL] == [], seed
    assert np.isfinite([example.values["lr"] for example in drawn(STEP, "float32", 0)]).all()
