"""Sharded state through torch.distributed.checkpoint: saved by two processes, taken up by two, four and one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("sharded_run.py")


@pytest.mark.parametrize("optimizer", ["sophia-g", "adamw"])
def test_two_processes_save_and_two_four_and_one_go_on(optimizer, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(RUN), str(tmp_path), optimizer]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    losses, weights = found["2-save"]
    assert found["2-load"] == [losses[3:], weights]  # bit for bit
    for world in (4, 1):
        again, resharded = found[f"{world}-load"]
        assert again == pytest.approx(losses[3:], rel=1e-6)  # gradients are added up in another order
        for name, values in weights.items():
            assert resharded[name] == pytest.approx(values, rel=1e-5, abs=1e-6), name
