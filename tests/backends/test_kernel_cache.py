"""Compiled kernels on disk: private, verified, and never in the way of a run."""

import ctypes
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hessiod.backends.kernels import compiler, disk

READY = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from hessiod.backends import kernels
from hessiod.core import RULES
print(kernels.available(), kernels.sweep_for((RULES["sgd"].step,), *["float32"] * 3) is not None)
"""
TRAIN = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import torch
from hessiod.torch import AdamW
theta = torch.nn.Parameter(torch.linspace(-1, 1, 200_000))
opt = AdamW([theta], lr=0.1)
for _ in range(3):
    theta.grad = theta.detach() * 2
    opt.step()
print(theta.detach().numpy().tobytes()[::4001].hex())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hessiod" / "kernels"


def fresh(code, **extra):
    environment = {**os.environ, **extra}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def writes(text, calls):
    def build(path):
        calls.append(path)
        path.write_text(text)

    return build


def test_a_library_is_built_once_into_a_folder_of_this_user_alone(folder):
    calls = []
    path = disk.library("key", writes("code", calls))
    assert disk.library("key", writes("code", calls)) == path
    assert len(calls) == 1
    assert path.read_text() == "code"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in folder.iterdir()] == [path.name]  # nothing half-built is left


def test_a_library_that_was_changed_is_built_again(folder, caplog):
    calls = []
    path = disk.library("key", writes("code", calls))
    path.write_text("other code")
    with caplog.at_level(logging.WARNING):
        assert disk.library("key", writes("code", calls)).read_text() == "code"
    assert len(calls) == 2
    assert "damaged" in caplog.text


def test_a_library_that_others_could_write_to_is_built_again(folder):
    calls = []
    path = disk.library("key", writes("code", calls))
    path.chmod(0o666)
    assert disk.trusted(disk.library("key", writes("code", calls)))
    assert len(calls) == 2


def test_a_link_in_the_place_of_a_library_is_not_followed(folder, tmp_path):
    path = disk.library("key", writes("code", []))
    elsewhere = tmp_path / "elsewhere.so"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert not disk.library("key", writes("code", [])).is_symlink()


def test_a_folder_open_to_others_is_closed(folder):
    folder.mkdir(parents=True, mode=0o755)
    disk.library("key", writes("code", []))
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_a_link_is_not_used(folder, tmp_path, caplog):
    (tmp_path / "target").mkdir()
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "target")
    with caplog.at_level(logging.WARNING):
        path = disk.library("key", writes("code", []))
    assert path.parent not in (folder, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
    assert "cannot hold compiled kernels" in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_compilation_a_process(folder, monkeypatch, caplog):
    folder.mkdir(parents=True, mode=0o700)

    class ReadOnly:
        def __init__(self, *, prefix, dir):
            if Path(dir) == folder:
                raise OSError(30, "Read-only file system")
            self.inner = real(prefix=prefix, dir=dir)

        def __enter__(self):
            return self.inner.__enter__()

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    real = disk.tempfile.TemporaryDirectory
    monkeypatch.setattr(disk.tempfile, "TemporaryDirectory", ReadOnly)
    with caplog.at_level(logging.WARNING):
        path = disk.library("key", writes("code", []))
    assert path.read_text() == "code"
    assert path.parent != folder
    assert "cannot be written" in caplog.text


def test_the_key_depends_on_every_part():
    assert len({disk.key("ab", "c"), disk.key("a", "bc"), disk.key("abc"), disk.key("ab", "c", "")}) == 4


def test_the_identity_names_the_compiler_and_the_processor():
    assert str(Path(compiler.find()[0]).resolve()) in compiler.identity()
    assert compiler.processor() in compiler.identity()


@pytest.fixture
def asked(monkeypatch):
    """A function that asks for a compiler by ``CXX``."""

    def ask(command):
        monkeypatch.setenv("CXX", command)
        compiler.find.cache_clear(), compiler.identity.cache_clear()

    yield ask
    monkeypatch.undo()
    compiler.find.cache_clear(), compiler.identity.cache_clear()


def test_a_compiler_is_taken_with_its_options_and_with_a_program_before_it(asked, tmp_path):
    cxx = shutil.which("c++")
    asked(cxx)
    plain = compiler.identity()
    asked(f"env {cxx} -O1 -DLIMIT=3")
    assert compiler.find() == (shutil.which("env"), cxx, "-O1", "-DLIMIT=3")
    assert str(Path(cxx).resolve()) in compiler.identity()
    assert compiler.identity() != plain
    compiler.compile_library('extern "C" int limit() { return LIMIT; }', tmp_path / "limit.so")
    assert ctypes.CDLL(str(tmp_path / "limit.so")).limit() == 3


def test_a_compiler_that_is_not_there_is_refused_by_its_name(asked):
    asked("g++-99 -O1")
    with pytest.raises(
        compiler.CompilerUnavailable, match=r"CXX: found 'g\+\+-99 -O1', .* there is no program 'g\+\+-99'"
    ):
        compiler.find()


def test_processes_that_compile_at_once_both_run(tmp_path):
    command = [sys.executable, "-c", READY]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].split() for process in running] == [["True", "True"]] * 2
    assert len(list((tmp_path / "hessiod" / "kernels").glob("*.so"))) == 2


@pytest.fixture(scope="module")
def compiled_bits():
    return fresh(TRAIN)[0]


@pytest.mark.parametrize("extra", [{"HESSIOD_KERNELS": "eager"}, {"OMP_NUM_THREADS": "2"}], ids=["eager", "2 threads"])
def test_every_way_gives_the_same_bits_and_says_nothing(compiled_bits, extra):
    assert fresh(TRAIN, **extra) == [compiled_bits, ""]


def test_without_a_compiler_steps_run_op_by_op_and_say_so_once(compiled_bits, tmp_path):
    said, bits, *rest = fresh(TRAIN, PATH=str(tmp_path), CXX="")
    assert said.startswith("optimizer steps are slower than they could be: no C++ compiler was found; install g++")
    assert (bits, rest) == (compiled_bits, [""])


def test_a_compiler_that_fails_is_quoted(compiled_bits, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'error: it is Monday' >&2\nexit 1\n")
    broken.chmod(0o755)
    said, bits, *_ = fresh(TRAIN, CXX=str(broken), XDG_CACHE_HOME=str(tmp_path))
    assert "cannot compile a kernel: error: it is Monday" in said
    assert bits == compiled_bits


def test_compiled_or_nothing_is_an_error_without_a_compiler(tmp_path):
    code = TRAIN.replace("opt.step()", "step_or_say(opt)").replace(
        "theta =",
        "def step_or_say(opt):\n    try:\n        opt.step()\n    except Exception as e:\n        print(e)\ntheta =",
    )
    said, *_ = fresh(code, PATH=str(tmp_path), CXX="", HESSIOD_KERNELS="compiled")
    assert said.startswith("HESSIOD_KERNELS=compiled: no C++ compiler was found")


def test_an_unknown_choice_is_refused(monkeypatch):
    from hessiod.backends import kernels
    from hessiod.core.errors import InvalidArgument

    monkeypatch.setenv("HESSIOD_KERNELS", "fast")
    with pytest.raises(InvalidArgument, match="HESSIOD_KERNELS: found 'fast', expected one of auto, eager, compiled"):
        kernels.available()
