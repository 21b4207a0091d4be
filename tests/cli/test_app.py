"""The list of commands, which is written beside them so that showing it imports none."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hessiod.cli.app import COMMANDS, app, loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_first_line_of_its_help(name):
    assert loaded(name).help.partition("\n")[0] == COMMANDS[name]


def test_a_command_is_called_with_its_own_options():
    result = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"})
    assert "Usage: root bench [OPTIONS]" in result.output
    assert "--rounds" in result.output


def test_an_unknown_command_is_refused_with_the_nearest():
    result = CliRunner().invoke(app, ["bnch"])
    assert result.exit_code == 2
    assert "Did you mean 'bench'?" in result.output


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "hessiod", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Usage: python -m hessiod" in shown
    assert all(name in shown for name in COMMANDS)
