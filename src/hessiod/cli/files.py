"""Output folders."""

from __future__ import annotations

from pathlib import Path

from hessiod.core.errors import InvalidArgument


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(f"out: cannot make the folder {str(path)!r} ({error.strerror}); give another") from error
    return path
