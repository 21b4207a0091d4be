"""The checkpoint file: exact, atomic, and refused whole when it is torn or foreign."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from hessiod.backends import checkpoint
from hessiod.backends.checkpoint import load_arrays, save_arrays, write_atomically
from hessiod.core import InvalidArgument

ARRAYS = {
    "model/w": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "model/scalar": np.array(np.pi),
    "optimizer/w/exp_avg": np.array([0.0, -0.0, 1e-45, np.inf, np.nan], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "counter": np.array([2**62 + 1]),
}
DOCUMENT = {"step": 37, "run": {"lr": 0.1, "name": "größe", "none": None}}


def refusal(path):
    with pytest.raises(InvalidArgument) as caught:
        load_arrays(path)
    message = str(caught.value)
    assert message.startswith("checkpoint: ")
    assert repr(str(path)) in message
    assert "give a checkpoint.safetensors written by hessiod" in message
    assert "\n" not in message
    return message


def test_a_round_trip_keeps_every_bit_shape_dtype_and_setting(tmp_path):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    arrays, document = load_arrays(tmp_path / "c")
    assert document == DOCUMENT
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


def test_a_missing_file_is_refused(tmp_path):
    refusal(tmp_path / "none")


def test_a_directory_is_refused(tmp_path):
    refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b"")
    refusal(tmp_path / "c")


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\x80\x04\x95" + bytes(100), b"PK\x03\x04" + bytes(100)])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    refusal(tmp_path / "c")


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 100, -1])
def test_a_torn_file_is_refused(tmp_path, kept):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    (tmp_path / "torn").write_bytes((tmp_path / "c").read_bytes()[:kept])
    refusal(tmp_path / "torn")


def test_safetensors_of_somebody_else_are_refused(tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "c")
    assert "has the format None, expected 'hessiod-1'" in refusal(tmp_path / "c")


def test_a_foreign_dtype_does_not_hide_that_the_file_is_foreign(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "c").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    assert "has the format None" in refusal(tmp_path / "c")


@pytest.mark.parametrize("metadata", [{}, {"document": "{"}])
def test_a_checkpoint_without_a_readable_document_is_refused(tmp_path, metadata):
    save_file({"w": np.zeros(3)}, tmp_path / "c", metadata={"format": checkpoint.FORMAT, **metadata})
    refusal(tmp_path / "c")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch, failing):
    def full(*arguments):
        raise OSError("no space left on device")

    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    before = (tmp_path / "c").read_bytes()
    monkeypatch.setattr(checkpoint.os, failing, full)
    with pytest.raises(OSError, match="no space left"):
        save_arrays(tmp_path / "c", {"w": np.ones(1)}, {})
    monkeypatch.undo()
    assert (tmp_path / "c").read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "c", b"old")
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom hessiod.backends.checkpoint import write_atomically\n"
        "os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), bytes(10**6))"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "c")], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "c").read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # the draft shows that the write had begun
    write_atomically(tmp_path / "c", b"new")
    assert (tmp_path / "c").read_bytes() == b"new"
