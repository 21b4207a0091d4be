"""Data parallel training on several processes, started by msrun: the weights of one process on the same batches."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hessiod.core import InvalidArgument

SCRIPT = Path(__file__).with_name("parallel_run.py")
RULES = ("SophiaG", "SophiaH", "AdaHessian", "DiagonalNewton", "Apollo", "AdamW", "SGD", "KFAC", "SPNGD", "THOR")
CASES = ("SophiaG-graph", "KFAC-pynative")


PAGE = Path(__file__).parents[2] / "docs" / "framework-bugs.md"
[(PROGRAM, PRINTED)] = re.findall(r"```python\n(# msrun.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)


def start(folder, count, *cases):
    """Run the script in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--master_addr=127.0.0.1", f"--master_port={port}", "--join=True", f"--log_dir={folder}/logs"]
    scripts = Path(sys.executable).parent  # msrun calls "python"
    number = [f"--worker_num={count}", f"--local_worker_num={count}"]
    done = subprocess.run(
        [str(scripts / "msrun"), *number, *where, "python", str(SCRIPT), str(folder), *cases],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300 * count,
    )
    logs = "\n".join(log.read_text()[-3000:] for log in sorted(folder.glob("logs/worker_*.log")))
    assert done.returncode == 0, logs


def check_trajectory(folder, count, case):
    """Equal bits on all processes, and within 1e-5 of the one process, weights and state."""
    found = [np.load(folder / f"{case}-rank{rank}.npy") for rank in range(count)]
    for other in found[1:]:
        assert other.tobytes() == found[0].tobytes()
    expected = np.load(folder / f"{case}-alone.npy")
    assert np.linalg.norm(found[0] - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes did."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "program.py").write_text(PROGRAM)
    start(folder, 2, *CASES)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_weights_of_one(two, case):
    """After 20 steps of Model.train, sampled targets and probes included."""
    check_trajectory(two, 2, case)


def test_all_processes_refuse_what_one_cannot_take(two):
    """A batch that is not finite on process 1 only, unlike weights, and settings under which processes drift apart."""
    said = [(two / f"refusals-rank{rank}.txt").read_text() for rank in range(2)]
    assert said[0] == said[1]
    lines = said[0].splitlines()
    assert lines[0].startswith("NonFinite: the gradient or curvature estimate of parameter '0.weight' (4 in all)")
    assert lines[1].startswith("InvalidState: parameter '0.weight': found other values on process 1 than on process 0")
    assert lines[2].startswith("InvalidArgument: parameter '0.weight': found float64 on 2 processes")
    assert lines[3].startswith("InvalidArgument: parallel_mode: found 'stand_alone' in 2 processes")
    assert lines[4].startswith("InvalidArgument: gradients_mean: found False, expected True")


def test_an_inverse_that_fails_on_one_process_has_its_damping_raised_for_all_or_is_refused_by_all(two):
    """A factor that only process 1 inverts is not positive definite: it alone warns, and both have the same bits."""
    said = [(two / f"failing-rank{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert [lines[0] for lines in said] == ["10 times"] * 2
    assert said[0][1] == "the factors of a layer have no inverse, on a process whose message says which one"
    assert "its factors have no inverse even with damping" in said[1][1]
    assert [lines[2] for lines in said] == ["0", "1"]
    for attempt in range(2):
        found = [(two / f"failing-{attempt}-rank{rank}.npy").read_bytes() for rank in range(2)]
        assert found[0] == found[1]


def test_a_program_of_the_documentation_prints_what_it_shows(two):
    assert [(two / f"printed-rank{rank}.txt").read_text() for rank in range(2)] == [PRINTED, ""]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", ["pynative", "graph"])
def test_four_processes_with_every_rule(mode, tmp_path):
    cases = [f"{rule}-{mode}" for rule in RULES]
    start(tmp_path, 4, *cases)
    for case in cases:
        check_trajectory(tmp_path, 4, case)


def test_level_6_has_every_optimizer():
    from hessiod.backends import load
    from hessiod.conformance.processes import OPTIMIZERS, process_checks

    assert {check.rule: check.unsupported for check in process_checks(load("mindspore"))} == dict.fromkeys(
        OPTIMIZERS, ""
    )


def test_settings_of_one_process(monkeypatch):
    import mindspore as ms
    from mindspore import nn

    from hessiod.mindspore import AdamW, TrainStep

    def new(**options):
        net = nn.Dense(3, 2)
        return TrainStep(net, nn.MSELoss(), AdamW(net.trainable_params()), **options)

    with pytest.raises(InvalidArgument, match="data_parallel: found no processes; start the script with msrun"):
        new(data_parallel=True)
    with pytest.raises(InvalidArgument, match="data_parallel: found 'yes', expected True, False or None"):
        new(data_parallel="yes")
    ms.set_auto_parallel_context(parallel_mode="semi_auto_parallel")
    try:
        with pytest.raises(InvalidArgument, match="parallel_mode: found 'semi_auto_parallel'"):
            new()
    finally:
        ms.reset_auto_parallel_context()
