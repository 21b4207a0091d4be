"""Compiled libraries on disk: private to the user, checked before they are loaded, safe with several processes.

A library's name is ``<key>-<hash>.so``: the key says what it was made from, the hash (SHA-256) what it holds. It
appears under that name whole, by a rename, so two processes that compile at once do not disturb each other. Loading
runs code, so a file counts only if it and its folder belong to this user, nobody else can write to them, and the hash
is right; anything else is compiled anew.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

LOG = logging.getLogger("hessiod.kernels")


def folder() -> Path:
    """``$XDG_CACHE_HOME/hessiod/kernels``, by default ``~/.cache/hessiod/kernels``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root and os.path.isabs(root) else Path.home() / ".cache") / "hessiod" / "kernels"


def key(*parts: str) -> str:
    """A name for what a library is made from."""
    return sha256("\0".join(parts).encode()).hexdigest()[:32]


def library(name: str, build: Callable[[Path], None]) -> Path:
    """The library of a key; ``build`` writes it to a path if it is not there, or not as it was written."""
    where = folder()
    try:
        prepare(where)
    except OSError as error:
        LOG.warning("%s cannot hold compiled kernels (%s): they are compiled again in every process", where, error)
        return built(Path(tempfile.mkdtemp(prefix="hessiod-")), name, build)
    found = look_up(where, name)
    if found is not None:
        return found
    try:
        return built(where, name, build)
    except OSError as error:  # full, or read-only
        LOG.warning("%s cannot be written (%s): kernels are compiled again in every process", where, error)
        return built(Path(tempfile.mkdtemp(prefix="hessiod-")), name, build)


def prepare(where: Path) -> None:
    """Make the folder, for this user only, or raise ``OSError`` if it is somebody else's."""
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = where.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError("it is a link or belongs to another user")
    if found.st_mode & 0o077:
        where.chmod(0o700)


def look_up(where: Path, name: str) -> Path | None:
    """The library of a key if it is there and whole; damaged ones are removed."""
    for path in sorted(where.glob(f"{name}-*.so")):
        if trusted(path) and path.name == f"{name}-{digest(path)}.so":
            return path
        LOG.warning("%s is damaged or not this user's alone; it is compiled again", path)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            LOG.warning("%s cannot be removed", path)
    return None


def trusted(path: Path) -> bool:
    """Whether a file is a plain one of this user's that nobody else can write to."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def digest(path: Path) -> str:
    """The hash that a library's name ends with."""
    return sha256(path.read_bytes()).hexdigest()[:32]


def built(where: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Build a library beside its place, and rename it into it."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=where) as scratch:
        fresh = Path(scratch) / f"{name}.so"
        build(fresh)
        fresh.chmod(0o600)
        path = where / f"{name}-{digest(fresh)}.so"
        os.replace(fresh, path)
    return path
