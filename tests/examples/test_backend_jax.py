"""The example backend, installed away from the repository, as a third party's package would be."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hessiod.conformance.search_path import search_path

SOURCE = Path(__file__).parents[2] / "examples" / "backend_jax"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    place = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(SOURCE)]
    subprocess.run(command, check=True, timeout=300)
    path = os.pathsep.join([str(place), search_path()])
    blocked = place / "sitecustomize.py"
    blocked.write_text(
        "import sys\nfor name in ('torch', 'mindspore'):\n    sys.modules[name] = None  # as if it were not installed\n"
    )
    return os.environ | {"PYTHONPATH": path}


def run(environment, folder, *command):
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)


def test_it_has_at_most_200_lines():
    written = [path for path in SOURCE.rglob("*.py") if "build" not in path.parts]  # where pip leaves copies
    assert 100 < sum(len(path.read_text().splitlines()) for path in written) <= 200


def test_one_command_runs_the_suite_over_it_without_torch_and_mindspore(environment, tmp_path):
    chosen = ["--include", "L0", "--include", "L1/sophia", "--include", "L2", "--include", "L4/digits.sophia"]
    main = "from hessiod.cli.app import main; main()"
    result = run(environment, tmp_path, sys.executable, "-c", main, "conformance", "--backend", "jax", *chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads((tmp_path / "out" / "conformance" / "report.json").read_text())["cases"]
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {row["level"] for row in rows} == {"L0", "L1", "L2", "L4"}


def test_its_own_tests_are_the_suite(environment, tmp_path):
    tests = str(SOURCE / "tests" / "test_conformance.py")
    options = ["-q", "-p", "no:cacheprovider", "-k", "L0 or (L1 and sgd and eager)"]
    result = run(environment, tmp_path, sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", tests)
    assert result.returncode == 0, result.stdout
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) > 60


@pytest.mark.slow
def test_a_fresh_environment_without_torch_and_mindspore_finds_it_and_passes_with_one_command(tmp_path):
    """What the README says, from a copy of the sources; pip fetches jax and numpy, of any version that they allow."""
    root, copy = SOURCE.parents[1], tmp_path / "sources"
    shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns(".*", "out", "build", "*.egg-info"))
    fresh = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True, timeout=300)
    scripts = tmp_path / "fresh" / "bin"
    install = [str(scripts / "pip"), "install", "--quiet", f"{copy}[onnx]", str(copy / "examples" / "backend_jax")]
    subprocess.run(install, check=True, timeout=900, env=fresh)
    found = run(fresh, tmp_path, str(scripts / "hessiod"), "backends").stdout
    assert "not available: torch" in found
    assert "not available: mindspore" in found
    result = run(fresh, tmp_path, str(scripts / "hessiod"), "conformance", "--backend", "jax", "--quick")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ", 0 failed," in result.stdout
