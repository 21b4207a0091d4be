"""MindSpore writes rank_0/ into the current directory and keeps its mode for the whole process: fences for both."""

from __future__ import annotations

import os
from importlib.util import find_spec

os.environ.setdefault("GLOG_v", "3")  # before the import; 3 is errors only

import pytest

collect_ignore_glob = [] if find_spec("mindspore") else ["test_*.py"]


@pytest.fixture(autouse=True)
def in_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["pynative", "graph"])
def mode(request):
    """Run the test in both of MindSpore's modes, and leave the process in the default one."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE if request.param == "pynative" else ms.GRAPH_MODE)
    yield request.param
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def python_in_graphs(tmp_path):
    """How many nodes of the graphs compiled in a test call back into Python; MindSpore says so only in its dumps."""
    import mindspore as ms

    ms.set_context(save_graphs=1, save_graphs_path=str(tmp_path / "graphs"))

    def count():
        dumps = list(tmp_path.rglob("*validate*.ir"))
        assert dumps
        return sum(dump.read_text().count("= PyExecute(") for dump in dumps)

    yield count
    ms.set_context(save_graphs=0)
