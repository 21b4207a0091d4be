"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
