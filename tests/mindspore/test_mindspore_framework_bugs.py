"""docs/framework-bugs.md says what the installed MindSpore does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "framework-bugs.md").read_text()
BLOCKS = re.findall(r"## ([^\n]+)\n.*?```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
ALONE = [block for block in BLOCKS if "# msrun" not in block[1]]  # test_mindspore_parallel.py starts the others


def test_every_section_has_a_program_and_its_output():
    assert len(BLOCKS) == PAGE.count("\n## ") >= 8
    for title, _, output in BLOCKS:
        expected, actual = (line.split(maxsplit=1)[1] for line in output.splitlines()[:2])
        assert expected != actual, title


@pytest.mark.parametrize(("program", "output"), [block[1:] for block in ALONE], ids=[block[0] for block in ALONE])
def test_a_program_prints_what_the_page_shows(program, output, tmp_path):
    path = tmp_path / "program.py"  # a file, because MindSpore reads the source
    path.write_text(program)
    environment = os.environ | {"GLOG_v": "3", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(path)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert result.stdout == output, result.stderr[-500:]
