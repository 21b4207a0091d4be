"""The checkpoint file: exact, atomic, and refused whole when it is torn, damaged or foreign."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from hessiod.backends.checkpoint import FORMAT, Container, atomic
from hessiod.backends.checkpoint.arrays import DTYPES, Array, as_array
from hessiod.backends.checkpoint.atomic import write_atomically
from hessiod.backends.checkpoint.container import write_container
from hessiod.backends.checkpoint.legacy import modern
from hessiod.backends.checkpoint.record import record_from
from hessiod.core import InvalidArgument

FIXTURES = Path(__file__).parent / "fixtures"
ARRAYS = {
    "model/w": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "model/scalar": np.array(np.pi),
    "optimizer/w/exp_avg": np.array([0.0, -0.0, 1e-45, np.inf, np.nan], np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "counter": np.array([2**62 + 1]),
    "half": np.array([1.5, -2.0, 65504.0], np.float16),
    "flags": np.array([True, False, True]),
}
DOCUMENT = {"step": 37, "run": {"lr": 0.1, "name": "größe", "none": None}}


def save_arrays(path, arrays, document):
    write_container(path, [as_array(name, array) for name, array in arrays.items()], document)


def load_arrays(path):
    with Container(path) as file:
        file.verify()
        return {name: file.read(name) for name in file.entries}, file.document


def refusal(path, way_out="give a checkpoint.safetensors written by hessiod"):
    with pytest.raises(InvalidArgument) as caught:
        load_arrays(path)
    message = str(caught.value)
    assert message.startswith("checkpoint: ")
    assert repr(str(path)) in message
    assert way_out in message
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


def test_safetensors_itself_reads_the_same(tmp_path):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    theirs = load_file(tmp_path / "c")
    assert {name: array.tobytes() for name, array in theirs.items()} == {n: a.tobytes() for n, a in ARRAYS.items()}


def test_every_dtype_goes_through_and_lies_aligned(tmp_path):
    values = {code: np.frombuffer(bytes(range(1, 25)), dtype)[:3] for code, dtype in DTYPES.items() if code != "BOOL"}
    arrays = [Array(code, code, (3,), lambda v=v: v, lambda v: None) for code, v in values.items()]
    write_container(tmp_path / "c", arrays, {})
    with Container(tmp_path / "c") as file:
        for code, array in values.items():
            assert file.entries[code].dtype == code
            assert file.entries[code].begin % DTYPES[code].itemsize == 0
            assert file.read(code).tobytes() == array.tobytes()


@given(st.dictionaries(st.text(max_size=8), st.lists(st.integers(0, 4), max_size=3), max_size=5), st.text(max_size=8))
@settings(max_examples=15, deadline=None)
def test_any_names_and_shapes_go_through(tmp_path_factory, shapes, text):
    path = tmp_path_factory.getbasetemp() / "any"
    shapes.pop("__metadata__", None)
    arrays = {name: np.random.default_rng(0).normal(size=shape) for name, shape in shapes.items()}
    save_arrays(path, arrays, {"text": text})
    found, document = load_arrays(path)
    assert document == {"text": text}
    assert {n: (a.shape, a.tobytes()) for n, a in found.items()} == {
        n: (a.shape, a.tobytes()) for n, a in arrays.items()
    }


def test_the_content_is_the_arrays_whoever_wrote_them_and_in_whatever_order(tmp_path):
    save_arrays(tmp_path / "a", ARRAYS, DOCUMENT)
    save_arrays(tmp_path / "b", dict(reversed(ARRAYS.items())), {"another": "document"})
    save_arrays(tmp_path / "c", ARRAYS | {"counter": np.array([2**62])}, DOCUMENT)
    contents = []
    for name in "abc":
        with Container(tmp_path / name) as file:
            contents.append(file.content)
    assert contents[0] == contents[1] != contents[2]


def test_the_digests_are_the_documented_ones(tmp_path):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    data = (tmp_path / "c").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert (8 + length) % 8 == 0
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    begin = 8 + len(b'{"__metadata__":{"digest":"')
    assert data[8:begin] == b'{"__metadata__":{"digest":"'
    zeros = data[:begin] + b"0" * 64 + data[begin + 64 : 8 + length]
    assert metadata["digest"] == hashlib.sha256(zeros).hexdigest()
    assert json.loads(metadata["sha256"]) == {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in ARRAYS.items()
    }


def test_a_missing_file_is_refused(tmp_path):
    refusal(tmp_path / "none")


def test_a_directory_is_refused(tmp_path):
    refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b"")
    refusal(tmp_path / "c")


class Exploding:
    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a checkpoint", "cannot read"),
        (pickle.dumps(Exploding()), "none is ever loaded"),
        (b"PK\x03\x04" + bytes(100), "checkpoint convert"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_no_pickle_is_run(tmp_path, content, said):
    (tmp_path / "c").write_bytes(content)
    assert said in refusal(tmp_path / "c")


@pytest.mark.parametrize("kept", [1, 7, 8, 9, 100, -1])
def test_a_torn_file_is_refused(tmp_path, kept):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    (tmp_path / "torn").write_bytes((tmp_path / "c").read_bytes()[:kept])
    refusal(tmp_path / "torn")


def test_a_file_with_something_behind_its_end_is_refused(tmp_path):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    with (tmp_path / "c").open("ab") as file:
        file.write(b"\0")
    refusal(tmp_path / "c")


def test_every_flipped_bit_is_found(tmp_path):
    save_arrays(tmp_path / "c", {"a": np.arange(6.0), "b": np.ones(3, np.float32)}, {"step": 1})
    whole = (tmp_path / "c").read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(InvalidArgument, match="checkpoint: "):
            load_arrays(tmp_path / "d")


def test_a_damaged_array_is_named(tmp_path):
    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    with Container(tmp_path / "c") as file:
        place = file.entries["optimizer/w/exp_avg"].begin
    data = bytearray((tmp_path / "c").read_bytes())
    data[place] ^= 1
    (tmp_path / "c").write_bytes(data)
    assert "'optimizer/w/exp_avg' is damaged" in refusal(tmp_path / "c")


def test_safetensors_of_somebody_else_are_refused(tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "c")
    message = refusal(tmp_path / "c")
    assert f"has the format None, expected {FORMAT!r}" in message
    assert "checkpoint convert" in message


def test_a_file_of_a_newer_format_is_refused_with_upgrade(tmp_path):
    save_file({"w": np.zeros(3)}, tmp_path / "c", metadata={"format": "hessiod-3", "document": "{}"})
    assert "upgrade" in refusal(tmp_path / "c", way_out="a newer hessiod wrote it")


def test_a_foreign_dtype_does_not_hide_that_the_file_is_foreign(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "c").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    assert "has the format None" in refusal(tmp_path / "c")


@pytest.mark.parametrize("format", ["hessiod-1", "hessiod-2"])
@pytest.mark.parametrize("metadata", [{}, {"document": "{"}, {"document": "[]"}])
def test_a_checkpoint_without_a_readable_document_is_refused(tmp_path, metadata, format):
    save_file({"w": np.zeros(3)}, tmp_path / "c", metadata={"format": format, **metadata})
    refusal(tmp_path / "c")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch, failing):
    def full(*arguments):
        raise OSError("no space left on device")

    save_arrays(tmp_path / "c", ARRAYS, DOCUMENT)
    before = (tmp_path / "c").read_bytes()
    monkeypatch.setattr(atomic.os, failing, full)
    with pytest.raises(OSError, match="no space left"):
        save_arrays(tmp_path / "c", {"w": np.ones(1)}, {})
    monkeypatch.undo()
    assert (tmp_path / "c").read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


KILLING = """
import json, os, signal, sys, time
from pathlib import Path
import numpy as np
from hessiod.backends.checkpoint import Container
from hessiod.backends.checkpoint.arrays import as_array
from hessiod.backends.checkpoint.container import write_container

path, rng = Path(sys.argv[1]) / "c", np.random.default_rng(0)
arrays = {kind: [as_array(f"w{n}", np.full(200_000, kind, np.float32)) for n in range(4)] for kind in (1, 2)}
begin = time.perf_counter()
write_container(path, arrays[1], {"kind": 1})
whole_write, kind, drafts, taken = time.perf_counter() - begin, 1, 0, 0
for turn in range(50):
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(go, b"x")
        write_container(path, arrays[3 - kind], {"kind": 3 - kind})
        os._exit(0)
    os.read(ready, 1)
    time.sleep(rng.uniform(0, 1.5 * whole_write))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready), os.close(go)
    with Container(path) as file:
        file.verify()
        found = file.document["kind"]
        assert all((file.read(f"w{n}") == found).all() for n in range(4)), turn
    assert found in (1, 2), turn
    drafts, taken, kind = drafts + len(os.listdir(path.parent)) - 1, taken + (found != kind), found
    for draft in path.parent.glob(".c.*"):
        draft.unlink()
print(json.dumps([drafts, taken]))
"""


def test_a_writer_killed_at_50_random_points_leaves_the_old_file_or_the_new_one_whole(tmp_path):
    """The writers are forks of a process that has imported numpy alone; each dies after a random part of a write."""
    command = [sys.executable, "-c", KILLING, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    drafts, taken = json.loads(result.stdout)
    assert drafts > 5  # killed in the middle of a write
    assert taken + drafts <= 50


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


def test_a_disk_that_fails_while_the_rest_is_written_leaves_the_old_file(tmp_path, monkeypatch):
    """The system reports such an error once, to the flush that met it; the last one succeeds."""
    path, failures = tmp_path / "c", [OSError(5, "Input/output error")]
    save_arrays(path, {"w": np.zeros(1)}, {})
    before = path.read_bytes()

    def fsync(number):
        if failures:
            raise failures.pop()

    monkeypatch.setattr(atomic, "LARGE", 1 << 10)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        save_arrays(path, {f"w{n}": np.zeros(1000) for n in range(5)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("hessiod-*.safetensors")), ids=lambda path: path.stem)
def test_files_of_every_format_so_far_are_read(path):
    with Container(path) as file:
        file.verify()
        document = modern(file)
        assert f"hessiod-{file.version}" == path.stem
        record = record_from(document["optimizer"])
        assert record.step == 7
        assert document["extra"] == {"run": {"optimizer": "sophia-g", "seed": 0}}
        assert set(file.entries) == {
            *("model/weight", "model/bias", "optimizer/weight/exp_avg", "optimizer/weight/hessian"),
            *("optimizer/bias/exp_avg", "optimizer/bias/hessian"),
        }
        weight = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
        assert file.read("model/weight").tobytes() == weight.tobytes()


def test_there_is_a_fixture_of_every_format():
    number = int(FORMAT.removeprefix("hessiod-"))
    assert [path.stem for path in sorted(FIXTURES.glob("*"))] == [f"hessiod-{n + 1}" for n in range(number)]
