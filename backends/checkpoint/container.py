"""The container: a safetensors file whose header also holds a JSON document and the SHA-256 of everything.

Bytes, in order: the header's length (8 bytes, little endian); the header, JSON padded with spaces; the arrays without
gaps. The header begins with ``{"__metadata__":{"digest":"`` and 64 hexadecimal digits: the SHA-256 of the length and
the header with these digits as zeros. The header holds each array's SHA-256, so that the digest vouches for the whole
file, and a damaged array is known by name.

Arrays are written and read one by one. Their SHA-256 is worked out beside the writing, and goes into the header at the
end; it has the same length whatever it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from hessiod.backends.checkpoint.arrays import DTYPES, Array
from hessiod.backends.checkpoint.atomic import flushed_meanwhile, replacing, write_all
from hessiod.core.errors import InvalidArgument

VERSION = 2
FORMAT = f"hessiod-{VERSION}"
START = b'{"__metadata__":{"digest":"'
BLANK = "0" * 64
PIECE = 1 << 20
READERS = 8
"""Threads that read a file: more than two cores want, because some of them wait for the disk."""


def digest_of_header(header: bytes) -> str:
    """The SHA-256 of a header and its length, with the digits of the digest itself as zeros."""
    blank = header[: len(START)] + BLANK.encode() + header[len(START) + len(BLANK) :]
    return hashlib.sha256(len(header).to_bytes(8, "little") + blank).hexdigest()


def header_bytes(arrays: Sequence[Array], document: Mapping[str, Any], digests: Mapping[str, str]) -> bytes:
    """The header, complete."""
    metadata = {
        "digest": BLANK,
        "format": FORMAT,
        "document": json.dumps(document, sort_keys=True, allow_nan=False),
        "sha256": json.dumps({array.name: digests.get(array.name, BLANK) for array in arrays}),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for array in arrays:
        begin, end = end, end + array.nbytes
        header[array.name] = {"dtype": array.dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return text[: len(START)] + digest_of_header(text).encode() + text[len(START) + len(BLANK) :]


def bytes_of(values: np.ndarray) -> memoryview:
    """An array's bytes in row-major order, without a copy where they lie so."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def sha256_of(data: memoryview) -> str:
    """The SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write_container(path: Path, arrays: Sequence[Array], document: Mapping[str, Any]) -> None:
    """Write arrays and a document that JSON can hold, atomically; one array at a time is in memory."""
    arrays = sorted(arrays, key=lambda array: (-DTYPES[array.dtype].itemsize, array.name))  # aligned, without gaps
    names = [array.name for array in arrays]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"checkpoint: two arrays are called {twice!r}; give names= that are all different")
    digests: dict[str, str] = {}
    header = header_bytes(arrays, document, digests)
    with replacing(path) as file, flushed_meanwhile(file) as flush, ThreadPoolExecutor(1) as hasher:
        write_all(file, len(header).to_bytes(8, "little") + header)
        for array in arrays:
            data = bytes_of(array.read())
            if len(data) != array.nbytes:
                raise InvalidArgument(f"checkpoint: {array.name!r} has {len(data)} bytes, expected {array.nbytes}")
            digest = hasher.submit(sha256_of, data)
            write_all(file, data)
            flush()
            digests[array.name] = digest.result()
        file.seek(8)
        write_all(file, header_bytes(arrays, document, digests))


@dataclass(frozen=True)
class Entry:
    """Where an array lies in a file, and what it is."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    sha256: str | None


def refusal(path: Path, reason: object) -> InvalidArgument:
    """The error for a file that cannot be taken."""
    return InvalidArgument(
        f"checkpoint: cannot read {str(path)!r} ({reason}); give a checkpoint.safetensors written by hessiod"
    )


class Container:
    """A file open for reading, its header checked. Raises :class:`InvalidArgument` for anything that is not ours."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with safe_open(self.path, framework="numpy"):  # offsets, sizes and dtypes are right
                pass
            self.file: BinaryIO = self.path.open("rb")
        except (OSError, SafetensorError) as error:
            raise refusal(self.path, what_it_is(self.path) or error) from error
        try:
            self._read_header()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Container:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self.file.close()

    def _read_header(self) -> None:
        length = int.from_bytes(self.file.read(8), "little")
        header = self.file.read(length)
        self.start = 8 + length
        try:
            table = json.loads(header)
            metadata = table.pop("__metadata__", None) or {}
            self.version = self._version(metadata)
            self.document = json.loads(metadata["document"])
            self.digest = metadata["digest"] if self.version > 1 else None
            digests = json.loads(metadata["sha256"]) if self.version > 1 else {}
            self.entries = {name: self._entry(table[name], digests.get(name)) for name in sorted(table)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise refusal(self.path, f"its header has no readable {error}") from error
        if self.version > 1 and (not header.startswith(START) or digest_of_header(header) != self.digest):
            raise refusal(self.path, "its header is damaged: the SHA-256 does not agree")
        if self.version > 1 and set(digests) != set(self.entries):
            raise refusal(self.path, "its header lists other arrays than its SHA-256 table")
        if not isinstance(self.document, dict):
            raise refusal(self.path, "its document is not a JSON object")

    def _version(self, metadata: Mapping[str, str]) -> int:
        known = {f"hessiod-{number}": number for number in range(1, VERSION + 1)}
        found = metadata.get("format")
        if found in known:
            return known[found]
        way_out = "give a checkpoint.safetensors written by hessiod"
        if isinstance(found, str) and found.startswith("hessiod-"):
            way_out = "a newer hessiod wrote it: upgrade this one"
        elif found in (None, "pt", "np", "ms"):
            way_out += ", or make one of it: hessiod checkpoint convert FILE --to hessiod"
        raise InvalidArgument(
            f"checkpoint: {str(self.path)!r} has the format {found!r}, expected {FORMAT!r}; {way_out}"
        )

    def _entry(self, row: Mapping[str, Any], sha256: str | None) -> Entry:
        if row["dtype"] not in DTYPES:
            raise refusal(self.path, f"the dtype {row['dtype']} is not one of {', '.join(DTYPES)}")
        begin, end = row["data_offsets"]
        return Entry(row["dtype"], tuple(row["shape"]), self.start + begin, self.start + end, sha256)

    def verify(self) -> None:
        """Read everything and compare with the SHA-256 of each array; raise for the first that is damaged."""
        entries = [(name, entry) for name, entry in self.entries.items() if entry.sha256 is not None]
        with ThreadPoolExecutor(READERS) as pool:
            for (name, entry), found in zip(entries, pool.map(self._digest, entries), strict=True):
                if found != entry.sha256:
                    raise refusal(self.path, f"{name!r} is damaged: its SHA-256 is {found}, not {entry.sha256}")

    def _digest(self, item: tuple[str, Entry]) -> str:
        name, entry = item
        sha256, place, buffer = hashlib.sha256(), entry.begin, bytearray(min(PIECE, entry.end - entry.begin))
        while place < entry.end:
            piece = memoryview(buffer)[: min(PIECE, entry.end - place)]
            self._fill(name, piece, place)
            sha256.update(piece)
            place += len(piece)
        return sha256.hexdigest()

    def _fill(self, name: str, target: memoryview, place: int) -> None:
        """Read bytes from a place; short files were refused, so there is one only if it shrank since."""
        while target:
            count = os.preadv(self.file.fileno(), [target], place)
            if count == 0:
                raise refusal(self.path, f"it ends within {name!r}")
            target, place = target[count:], place + count

    def read(self, name: str, buffer: np.ndarray | None = None) -> np.ndarray:
        """An array's values, in a buffer of bytes if one is given that is long enough."""
        entry = self.entries[name]
        size = entry.end - entry.begin
        memory = np.empty(size, np.uint8) if buffer is None else buffer[:size]
        if size:
            self._fill(name, memory.data, entry.begin)
        return memory.view(DTYPES[entry.dtype]).reshape(entry.shape)

    @property
    def content(self) -> str:
        """One SHA-256 of all arrays by name, dtype, shape and values, the same whoever wrote them."""
        rows = [[name, e.dtype, list(e.shape), e.sha256 or self._digest((name, e))] for name, e in self.entries.items()]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def what_it_is(path: Path) -> str | None:
    """What a file is that is not safetensors, if that can be seen; None if not."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return None
    if start.startswith(b"PK"):
        return "it is a zip archive such as torch.save writes: hessiod checkpoint convert FILE --to hessiod"
    return "it is a pickle, and none is ever loaded" if start.startswith(b"\x80") else None
