"""What a run of measurements is about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Names of parameter lists (:mod:`hessiod.bench.lists`), rounds of interleaved timing, threads, a torch device."""

    lists: tuple[str, ...]
    rounds: int = 15
    threads: int = 1
    device: str = "cpu"
