import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from hessiod.cli.app import app
from hessiod.core.errors import HessiodError

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in BLOCKED:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocker())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in BLOCKED else found(name, package)
"""


def hessiod(*arguments, cwd, blocked=()):
    code = (f"BLOCKED = {blocked!r}" + BLOCKER if blocked else "") + "\nfrom hessiod.cli.app import main\nmain()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)


def refused(result, *said):
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("hessiod: error: ")
    assert len(result.stderr.splitlines()) == 1
    for words in said:
        assert words in result.stderr


def test_backends_are_listed_with_versions_and_routes(tmp_path):
    result = hessiod("backends", cwd=tmp_path)
    assert result.returncode == 0
    for name in ("numpy", "torch", "mindspore", "compiled", "jit", "--devices"):
        assert name in result.stdout


def test_backends_are_asked_for_their_devices_where_that_is_wanted(tmp_path):
    result = hessiod("backends", "--devices", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.count(" cpu ") == 4


def test_backends_without_frameworks_say_what_to_install(tmp_path):
    result = hessiod("backends", cwd=tmp_path, blocked=("torch", "mindspore"))
    assert result.returncode == 0, result.stderr
    assert "pip install 'hessiod[torch]'" in result.stdout
    assert "pip install 'hessiod[mindspore]'" in result.stdout
    assert "numpy" in result.stdout


@pytest.mark.parametrize("command", ["train", "conformance"])
def test_a_backend_whose_framework_is_missing_is_refused_with_what_to_install(command, tmp_path):
    result = hessiod(command, "--backend", "torch", "--out", "here", cwd=tmp_path, blocked=("torch",))
    refused(result, "pip install 'hessiod[torch]'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--backend", "tensorflow"], ["'tensorflow'", "torch"]),
        (["train", "--backend", "numpy"], ["numpy", "sophia-g"]),
        (["train", "--optimizer", "adam"], ["'adam'", "sophia-g"]),
        (["train", "--lr", "-1"], ["lr", "-1.0", ">= 0"]),
        (["train", "--lr", "nan"], ["lr", "nan"]),
        (["train", "--steps", "0"], ["steps", "at least 1"]),
        (["train", "--batch", "0"], ["batch", "at least 1"]),
        (["train", "--seed", "-1"], ["seed", "-1"]),
        (["train", "--text", "nothing.txt"], ["nothing.txt", "cannot read"]),
        (["train", "--text", "empty.txt"], ["empty", "at least 65 bytes"]),
        (["train", "--text", "short.txt"], ["64 bytes", "at least 65 bytes"]),
        (["train", "--resume", "nothing.safetensors"], ["nothing.safetensors", "cannot read"]),
        (["train", "--resume", "empty.txt"], ["empty.txt", "checkpoint"]),
        (["train", "--out", "empty.txt"], ["empty.txt", "folder"]),
        (["conformance", "--backend", "tensorflow"], ["'tensorflow'", "torch"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, said, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_bytes(b"x" * 64)
    before = sorted(tmp_path.iterdir())
    out = [] if "--out" in arguments else ["--out", "here"]
    refused(hessiod(*arguments, *out, cwd=tmp_path), *said)
    assert sorted(tmp_path.iterdir()) == before


def train(folder, backend, steps, *more):
    result = hessiod("train", "--backend", backend, "--steps", steps, "--out", folder, *more, cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    return folder


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["torch", "mindspore"])
def backend(request):
    return request.param


@pytest.fixture(scope="module", params=[40, pytest.param(200, marks=pytest.mark.slow)])
def steps(request):
    return request.param


@pytest.fixture(scope="module")
def whole(steps, tmp_path_factory):
    return {name: train(tmp_path_factory.mktemp(name) / "whole", name, steps) for name in ("torch", "mindspore")}


@pytest.fixture(scope="module")
def half(steps, tmp_path_factory):
    return {name: train(tmp_path_factory.mktemp(name) / "half", name, steps // 2) for name in ("torch", "mindspore")}


def resumed(half, backend, steps, folder):
    """A copy of a run of half the steps, gone on with to the end."""
    shutil.copytree(half, folder)
    return train(folder, backend, steps, "--resume", folder / "checkpoint.safetensors")


def test_a_run_writes_metrics_a_picture_and_a_checkpoint(whole, steps, backend):
    folder = whole[backend]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.safetensors", "loss.png", "metrics.jsonl"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert set(rows[0]) == {"step", "loss", "lr", "clip_fraction", "seconds"}
    assert all(0 < row["clip_fraction"] < 1 for row in rows)
    assert (folder / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert sum(row["loss"] for row in rows[-10:]) / 10 < (3.0 if steps == 200 else 4.2)  # log(256) = 5.5 at first


def test_the_two_frameworks_losses_agree(whole):
    pairs = list(zip(losses(whole["torch"]), losses(whole["mindspore"]), strict=True))
    apart = [abs(a - b) / abs(a) for a, b in pairs]
    assert max(apart[:50]) < 1e-4
    assert apart[-1] < 1e-2


def test_a_run_resumed_at_half_ends_in_the_same_bits(whole, half, steps, backend, tmp_path):
    folder = resumed(half[backend], backend, steps, tmp_path / "resumed")
    ours, theirs = (load_file(where / "checkpoint.safetensors") for where in (folder, whole[backend]))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 3 * len([name for name in ours if name.startswith("model/")])  # weights, exp_avg, hessian
    for name, array in ours.items():
        assert array.tobytes() == theirs[name].tobytes(), name
    assert losses(folder) == losses(whole[backend])


def test_a_run_resumed_at_half_by_the_other_framework_goes_on_as_if_nothing_had_happened(
    whole, half, steps, backend, tmp_path
):
    (other,) = {"torch", "mindspore"} - {backend}
    found, expected = losses(resumed(half[other], backend, steps, tmp_path / "moved")), losses(whole[other])
    assert found[: steps // 2] == expected[: steps // 2]
    assert found[-1] == pytest.approx(expected[-1], rel=1e-2)
    assert found[steps // 2] == pytest.approx(expected[steps // 2], rel=1e-5)  # the same weights and batch


def test_a_checkpoint_of_another_run_is_refused(whole, steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = whole["torch"] / "checkpoint.safetensors"
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(checkpoint.read_bytes()[:-1000])
    for resume, arguments, said in (
        (checkpoint, ["--seed", "1"], "seed 0"),
        (checkpoint, ["--optimizer", "adamw"], "optimizer 'sophia-g'"),
        (checkpoint, ["--lr", "0.1"], "lr 0.0005"),
        (checkpoint, ["--steps", str(steps)], f"the checkpoint is at step {steps}"),
        (torn, [], "torn.safetensors"),
    ):
        command = ["train", "--steps", "300", "--resume", str(resume), "--out", "here", *arguments]
        error = CliRunner().invoke(app, command).exception
        assert isinstance(error, HessiodError)
        assert said in str(error)
    refused(hessiod("train", "--steps", 300, "--resume", torn, "--out", "here", cwd=tmp_path), "torn.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["torn.safetensors"]


def test_an_interrupted_run_leaves_a_checkpoint_that_resumes(tmp_path):
    code = f"""
from hessiod.cli.train import prepare, run_steps
from pathlib import Path
from hessiod.backends.training.run import RunConfig
run = prepare(RunConfig(optimizer="adamw"), "torch", None, Path({str(tmp_path / "run")!r}), None)
def interrupt(row):
    if row["step"] == 7:
        raise KeyboardInterrupt
run_steps(run, 20, interrupt)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert "KeyboardInterrupt" in result.stderr
    folder = tmp_path / "run"
    train(folder, "torch", 20, "--optimizer", "adamw", "--resume", folder / "checkpoint.safetensors")
    whole = train(tmp_path / "whole", "torch", 20, "--optimizer", "adamw")
    assert losses(folder) == losses(whole)


def test_a_kronecker_method_trains_with_the_settings_that_are_given_for_it(tmp_path):
    folder = train(tmp_path / "run", "torch", 20, "--optimizer", "kfac")
    assert losses(folder)[0] > 5.5  # log(256)
    assert losses(folder)[-1] < 4.2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kfac", "spngd", "thor"])
def test_a_kronecker_run_is_one_run_whichever_framework_takes_its_steps(method, tmp_path):
    begun = {name: train(tmp_path / name, name, 12, "--optimizer", method) for name in ("torch", "mindspore")}
    whole = losses(train(tmp_path / "whole", "torch", 24, "--optimizer", method))
    for first, second in (("torch", "mindspore"), ("mindspore", "torch")):
        folder = tmp_path / f"{first}-{second}"
        shutil.copytree(begun[first], folder)
        train(folder, second, 24, "--optimizer", method, "--resume", folder / "checkpoint.safetensors")
        assert losses(folder) == pytest.approx(whole, rel=1e-4)


def test_conformance_exits_with_0_and_writes_three_reports(tmp_path):
    result = hessiod("conformance", "--backend", "numpy", "--out", "report", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["report.html", "report.json", "report.md"]


def test_conformance_exits_with_1_when_a_row_fails(tmp_path):
    code = """
import hessiod.backends.numpy as numpy_backend, numpy as np
from hessiod.backends.contract import Route
right = numpy_backend.run
def wrong(function, arrays, scalars):
    return tuple(-result for result in right(function, arrays, scalars))
numpy_backend.BACKEND.routes = (Route("eager", wrong),)
import sys
sys.argv = ["hessiod", "conformance", "--backend", "numpy", "--no-isolate", "--out", "report"]
from hessiod.cli.app import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert result.returncode == 1, result.stderr
    assert Path(tmp_path / "report" / "report.json").exists()
    assert "fail: L1/sophia.step" in result.stdout
