"""Text as bytes, cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics

import numpy as np

from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox
from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class Corpus:
    """A text, where it came from, and how much of it the network sees at once."""

    data: np.ndarray
    source: str
    context: int

    def batch(self, step: int, *, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets of a step, int32 ``[rows, context]``: a pure function of seed and step."""
        bits = philox.words(xp, np.arange(rows), seed=seed, step=step, index=0, sample=0, stream=philox.BATCH)[:, 0]
        starts = bits % (len(self.data) - self.context)
        window = self.data[starts[:, None] + np.arange(self.context + 1)].astype(np.int32)
        return window[:, :-1], window[:, 1:]


def from_bytes(text: bytes, source: str, context: int) -> Corpus:
    """A corpus of at least one context and its next byte."""
    if len(text) <= context:
        found = "an empty text" if not text else f"{len(text)} bytes"
        raise InvalidArgument(
            f"text: found {found} in {source}, expected at least {context + 1} bytes (one context and its next byte); "
            "give a longer text"
        )
    return Corpus(np.frombuffer(text, np.uint8), source, context)


def from_file(path: Path, context: int) -> Corpus:
    """The bytes of a file, whatever its encoding."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"text: cannot read {str(path)!r} ({error.strerror}); give a file of at least {context + 1} bytes"
        ) from error
    return from_bytes(text, str(path), context)


def python_documentation(context: int) -> Corpus:
    """The language reference that ships with CPython, about 0.5 MB of English."""
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    return from_bytes(text.encode(), "pydoc_data.topics", context)
