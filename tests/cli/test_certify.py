import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hessiod.cli.app import app
from hessiod.conformance.certify import pool

FAKE = """
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.backends.certification.measurement import Measurement
NAMES, ROUTES, ENGINE_ROUTES, EXTRA = ["exp", "log", "sin"], ("plain", "engine"), ("engine",), ()
case_of = CATALOGUE.get
def header():
    return {"framework": "torch", "version": "9.9.9", "device": "cpu"}
def measure(name, route, check=True):
    wrong = name == "log" and (route == "plain" or not CURED)
    if wrong and route == "engine" and check and REFUSES:
        return Measurement(1e-7, None, second_error="InvalidArgument: log", refused=True)
    return Measurement(1e-7, 0.5 if wrong else 1e-7, operators=(name.title(), "Mul"))
"""


def hessiod(*arguments, cwd):
    command = [sys.executable, "-c", "from hessiod.cli.app import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_certify_writes_a_table_for_engines_and_one_for_people_and_exits_with_0(tmp_path):
    result = hessiod("certify", "--backend", "torch", "--out", "found", "--jobs", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (table,) = (tmp_path / "found").glob("torch-*.json")
    counts = json.loads(table.read_text())["counts"]
    assert counts["wrong"] == 0
    assert counts["right"] > 200
    assert "| gelu_tanh | right |" in table.with_name(table.name.replace(".json", ".md")).read_text()


@pytest.mark.parametrize(
    ("setting", "status", "verdict"),
    [("True, False", 0, "cured"), ("False, True", 0, "refused"), ("False, False", 1, "wrong")],
)
def test_a_wrong_number_must_be_cured_or_refused_or_the_exit_status_is_1(
    setting, status, verdict, tmp_path, monkeypatch
):
    name = f"fake_{verdict}"
    (tmp_path / f"{name}.py").write_text(f"CURED, REFUSES = {setting}{FAKE}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(pool.MODULES, "torch", name)
    arguments = ["certify", "--backend", "torch", "--out", str(tmp_path / "found"), "--jobs", "1"]
    assert CliRunner().invoke(app, arguments).exit_code == status
    document = json.loads((tmp_path / "found" / "torch-9.9.9.json").read_text())
    assert {case["name"]: case["verdict"] for case in document["cases"]} == {
        "exp": "right",
        "log": verdict,
        "sin": "right",
    }
    assert document["operators"]["Log"]["second"] == ("cured" if verdict == "cured" else "refused")
    assert document["operators"]["Mul"]["second"] == "right"
    page = (tmp_path / "found" / "torch-9.9.9.md").read_text()
    assert "| exp | right |" in page
    assert f"| log | {verdict} |" in page.replace("**", "")  # what is not right stands out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "numpy"], "'numpy'"),
        (["--backend", "tensorflow"], "'tensorflow'"),
        (["--backend", "torch", "--jobs", "-1"], "jobs: found -1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, said, tmp_path):
    result = hessiod("certify", *arguments, "--out", "found", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("hessiod: error: ")
    assert said in result.stderr
    assert not list(tmp_path.iterdir())
