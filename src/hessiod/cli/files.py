"""Output folders and files."""

from __future__ import annotations

from pathlib import Path

from hessiod.core.errors import InvalidArgument


def make_folder(path: Path, option: str = "out") -> Path:
    """The folder that an option names, made if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror
        raise InvalidArgument(f"{option}: cannot make the folder {str(path)!r} ({why}); give another") from error
    return path


def make_folder_of(path: Path, option: str) -> None:
    """The folder of a file that is yet to be written, made before the work that it is for."""
    if path.is_dir():
        raise InvalidArgument(f"{option}: found the folder {str(path)!r}, expected the name of a file")
    make_folder(path.parent, option)
