"""``hessiod bench`` measures what it says, and writes it down. Whether an aim is met depends on the machine."""

import json

import pytest
import torch
from typer.testing import CliRunner

from hessiod.bench import report, torch_cold
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import interleaved
from hessiod.bench.torch_memory import CLEAR, peak_growth
from hessiod.cli.app import app
from hessiod.core.errors import InvalidArgument


def test_steps_are_written_as_json_and_as_a_picture(tmp_path):
    file, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["bench", "--list", "small", "--section", "step", "--rounds", "1", "--json", str(file)]
    result = CliRunner().invoke(app, [*arguments, "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    document = json.loads(file.read_text())
    assert document["header"]["versions"]["torch"] == torch.__version__
    rows = {(row["name"], row["peer"]): row for row in document["rows"]}
    sophia = rows["Sophia", "torch AdamW(fused)"]
    assert (sophia["unit"], sophia["limit"]) == ("x", 0.60)
    assert sophia["met"] == (sophia["value"] <= 0.60)
    assert rows["pytorch_optimizer SophiaH", "Sophia"]["at_least"]
    assert all(row["value"] > 0 for row in document["rows"])
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_cold_starts_are_measured_in_processes_of_their_own():
    first, cached, *others = torch_cold.rows(Settings(()), repeats=1)
    assert first.value > 5 * cached.value > 0
    assert [row.name for row in others] == ["import hessiod.torch", "hessiod --help", "hessiod backends"]
    assert all(row.value > 0 for row in others)


def test_curvatures_share_of_a_training_step_is_measured(tmp_path):
    file = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "--section", "training", "--rounds", "1", "--json", str(file)])
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text())["rows"]
    assert [(row["unit"], row["limit"]) for row in rows] == [("%", 8.0), ("%", 6.0), ("x", None), ("x", None)]
    assert all(row["value"] > 0 for row in rows if row["unit"] == "x")


def test_kronecker_steps_are_measured_in_steps_of_adam(tmp_path):
    file = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "--section", "kronecker", "--rounds", "1", "--json", str(file)])
    assert result.exit_code == 0, result.output
    *steps, inverse = json.loads(file.read_text())["rows"]
    assert [(row["name"], row["limit"]) for row in steps] == [
        ("K-FAC", 1.5),
        ("K-FAC, empirical", 1.5),
        ("THOR", None),
        ("SP-NGD", None),
    ]
    assert all(row["value"] > 0 for row in steps)
    assert (inverse["peer"], inverse["limit"], inverse["at_least"]) == ("blocks of 128", 20.0, True)


@pytest.mark.parametrize(("option", "value"), [("--backend", "jax"), ("--list", "bert"), ("--section", "speed")])
def test_unknown_names_are_refused_with_those_that_exist(option, value):
    result = CliRunner().invoke(app, ["bench", option, value])
    assert isinstance(result.exception, InvalidArgument)
    assert f"found '{value}', expected one of" in str(result.exception)


def test_a_device_that_torch_does_not_have_is_refused_before_anything_is_timed():
    for arguments, said in ((["--section", "step"], "expected one of cpu"), (["--section", "cold"], "expected cpu;")):
        result = CliRunner().invoke(app, ["bench", "--list", "small", "--device", "npu", *arguments])
        assert isinstance(result.exception, InvalidArgument)
        assert said in str(result.exception)


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_timed(option, tmp_path):
    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path, "expected the name of a file"),
        (tmp_path / "file" / "b.out", "cannot make the folder"),
    ):
        result = CliRunner().invoke(app, ["bench", "--list", "gpt2", option, str(path)])
        assert isinstance(result.exception, InvalidArgument)
        assert str(result.exception).startswith(f"{option[2:]}: ")
        assert said in str(result.exception)


def test_figures_without_a_ratio_are_drawn_by_their_units():
    rows = [
        Row("cold", "first", "", 1.2, "s", 3.0),
        Row("cold", "cached", "", 0.1, "s"),
        Row("peak", "step", "", 7, "MB"),
    ]
    assert report.picture(rows).startswith(b"\x89PNG")


def test_a_turn_calls_every_candidate_and_the_next_one_begins_with_another():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "ab"}
    ticks = iter(range(100))
    times = interleaved(candidates, rounds=2, warmup=0, clock=lambda: next(ticks))
    assert calls == ["a", "b", "b", "a"]
    assert times.seconds == {"a": (1, 1), "b": (1, 1)}


@pytest.mark.skipif(not CLEAR.exists(), reason="the peak of resident memory is read from Linux's /proc")
def test_the_meter_of_peak_memory_sees_a_temporary():
    assert peak_growth(lambda: torch.ones(8 * 2**20)) > 16


def test_a_table_says_met_and_missed(capsys):
    console = report.Console(width=200, force_terminal=False)
    rows = [Row("steps", "a", "b", 0.5, "x", 0.6), Row("steps", "c", "b", 2.0, "x", 3.0, at_least=True)]
    report.show(rows, console)
    printed = capsys.readouterr().out
    assert "met" in printed
    assert "missed" in printed
