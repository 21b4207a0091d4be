"""Which checks to run, by level and by pattern, and which rows are known to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hessiod.conformance.case import FAIL, PASS, XFAIL, Case
from hessiod.conformance.check import Check
from hessiod.core.errors import InvalidArgument

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6")


def level_named(text: str) -> str:
    """A level as ids have it, from that or from its number.

    >>> level_named("6"), level_named("L6")
    ('L6', 'L6')
    """
    known = {name: level for level in LEVELS for name in (level, level.removeprefix("L"))}
    if text not in known:
        numbers = ", ".join(level.removeprefix("L") for level in LEVELS)
        raise InvalidArgument(f"level: found {text!r}, expected one of {', '.join(LEVELS)}, or of {numbers}")
    return known[text]


@dataclass(frozen=True)
class Selection:
    """Checks by level and by glob patterns over row ids, such as ``L1/sophia*`` or ``*/float64/*``.

    A row is chosen if it matches one of ``include`` (or there is none) and none of ``exclude``. A pattern without a
    wildcard stands for everything that begins with it. A level is "L6" or "6". ``quick`` leaves out the checks that are
    marked as slow.
    """

    levels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    quick: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(dict.fromkeys(map(level_named, self.levels))))

    def wants(self, level: str, case_id: str) -> bool:
        """Whether a row is chosen."""
        return (
            (not self.levels or level in self.levels)
            and (not self.include or any(matches(case_id, pattern) for pattern in self.include))
            and not any(matches(case_id, pattern) for pattern in self.exclude)
        )

    def document(self, checks: Sequence[Check] = ()) -> dict[str, Any]:
        """The selection as a report's header holds it; ``checks`` are those that it chooses from."""
        patterns = {name: list(getattr(self, name)) for name in ("levels", "include", "exclude")}
        return {**patterns, "quick": self.quick, "left_out": self.left_out(checks)}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Selection:
        """The selection that a report's header holds; reports of older releases are never quick."""
        patterns = {name: tuple(document[name]) for name in ("levels", "include", "exclude")}
        return cls(**patterns, quick=document.get("quick", False))

    def left_out(self, checks: Sequence[Check]) -> list[str]:
        """What a quick run leaves out of the rows that are chosen otherwise, with the number of rows."""
        if not self.quick:
            return []
        rows = Counter(check.slow for check in self.narrowed(checks) for _ in check.kinds if check.slow)
        return [f"{what}: {count} rows" for what, count in rows.items()]

    def choose(self, checks: Sequence[Check]) -> list[Check]:
        """The checks of which a row is chosen; a pattern that matches nothing is an error."""
        ids = [identity for check in checks for identity in check.case_ids]
        for name, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(matches(identity, pattern) for identity in ids):
                    raise InvalidArgument(
                        f"{name}: {pattern!r} matches none of {len(ids)} rows; ids look like {', '.join(ids[:1])}"
                    )
        chosen = [check for check in self.narrowed(checks) if not (self.quick and check.slow)]
        if not chosen:
            names = "level, include, exclude" + (", quick" if self.quick else "")
            raise InvalidArgument(f"{names}: together they leave none of {len(ids)} rows; widen one")
        return chosen

    def narrowed(self, checks: Sequence[Check]) -> list[Check]:
        """The checks with the kinds that level and patterns leave, slow ones among them."""
        narrowed = (
            replace(check, kinds=tuple(kind for kind in check.kinds if self.wants(check.level, f"{check.id}/{kind}")))
            for check in checks
        )
        return [check for check in narrowed if check.kinds]


EVERYTHING = Selection()


def matches(identity: str, pattern: str) -> bool:
    """Whether an id matches a glob; without a wildcard, whether it begins with the pattern."""
    return fnmatchcase(identity, pattern if any(mark in pattern for mark in "*?[") else pattern + "*")


@dataclass(frozen=True)
class KnownFailures:
    """Patterns of rows that are known to fail, each with its reason."""

    reasons: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> KnownFailures:
        """Read a file with one ``pattern  # reason`` a line; the reason is required."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"xfails: cannot read {str(path)!r} ({error}); give a text file") from error
        reasons = {}
        for number, line in enumerate(lines, 1):
            pattern, _, reason = (part.strip() for part in line.partition("#"))
            if not pattern:
                continue
            if not reason:
                raise InvalidArgument(f"xfails: {path.name} line {number}: {pattern!r} has no reason; add '# why'")
            reasons[pattern] = reason
        return cls(reasons)

    def apply(self, cases: Iterable[Case]) -> list[Case]:
        """Rows that fail as known become ``xfail``; a known failure that passes fails: the list stays true."""
        return [self.judge(case) for case in cases]

    def judge(self, case: Case) -> Case:
        """One row with what is known of it."""
        reason = next((why for pattern, why in self.reasons.items() if matches(case.id, pattern)), None)
        if reason is None:
            return case
        if case.verdict == FAIL:
            return replace(case, verdict=XFAIL, why=f"known: {reason}; {case.why}")
        if case.verdict == PASS:
            return replace(case, verdict=FAIL, why=f"passes, although listed as a known failure ({reason}): unlist it")
        return case


NONE_KNOWN = KnownFailures({})
