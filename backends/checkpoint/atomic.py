"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LARGE = 1 << 24
"""Bytes that are worth a flush of their own."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` at the end; until then, and after an error, the old one stays.

    The draft lies in the same folder. Its bytes are on the disk before it is renamed, and the new name is before this
    returns. A process that is killed leaves the draft behind, as ``.NAME.PID``; it can be deleted.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w+b", buffering=0) as file:
            yield file
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def flushed_meanwhile(file: BinaryIO) -> Iterator[Callable[[], None]]:
    """A function to call between writes, which puts a large piece of them on the disk while the next are prepared.

    What a flush cannot write, the system may tell it alone and not the last one; so its error is raised here.
    """
    running: list[Future[None]] = []
    flushed = file.tell()
    with ThreadPoolExecutor(1) as thread:

        def flush() -> None:
            nonlocal flushed
            if file.tell() - flushed >= LARGE and (not running or running[-1].done()):
                flushed = file.tell()
                running.append(thread.submit(os.fsync, file.fileno()))

        yield flush
        for one in running:
            one.result()


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write every byte; one call of an unbuffered file may write fewer."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file with these bytes; at every moment it holds all of the old ones or all of the new."""
    with replacing(path) as file:
        write_all(file, data)
