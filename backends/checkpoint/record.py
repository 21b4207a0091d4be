"""What a checkpoint says about an optimizer, in terms that every framework has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hessiod.core.errors import InvalidArgument


@dataclass(frozen=True)
class Group:
    """Parameters that share everything: rule, learning rate of the coming step, hyperparameters, settings."""

    parameters: Sequence[str]
    rule: str
    lr: float
    hyperparameters: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """An optimizer between two steps, without its arrays.

    ``parameters`` are in the order that numbers the probes; ``step`` and ``refreshes`` count what was taken;
    ``behind`` holds the counts of parameters that were passed over now and then; ``modes`` is what a run has become by
    the calls that were made (the loop of Sophia's authors), and which only some frameworks have; ``kronecker`` is the
    damping and what is known of the layers, for methods that have factors (:mod:`hessiod.backends.checkpoint.layers`).

    Format 1 recorded no groups, order or refreshes; there they are None.
    """

    optimizer: str | None
    step: int
    refreshes: int | None
    parameters: Sequence[str] | None
    settings: Mapping[str, Any]
    groups: Sequence[Group] | None
    behind: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    modes: Mapping[str, Any] = field(default_factory=dict)
    kronecker: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON holds it; the probes' seed and counter are settings and step, and stand there once more by name."""
        found = asdict(self)
        if "seed" in self.settings:
            found["probes"] = {"seed": self.settings["seed"], "counter": self.step}
        return found

    def group_of(self, name: str) -> Group | None:
        """The group of a parameter."""
        return next((group for group in self.groups or () if name in group.parameters), None)

    def counts(self, name: str) -> dict[str, int | None]:
        """The counts of a parameter."""
        return {"step": self.step, "refreshes": self.refreshes} | dict(self.behind.get(name, {}))


def record_from(document: Mapping[str, Any]) -> Record:
    """The record in a document; raise :class:`InvalidArgument` for one that is not as it should be."""
    try:
        known = {name: document[name] for name in Record.__dataclass_fields__ if name != "kronecker"}
        known["kronecker"] = document.get("kronecker", {})  # files of before have none
        groups = known["groups"]
        known["groups"] = groups if groups is None else [Group(**group) for group in groups]
        record = Record(**known)
        counts = [
            record.step,
            record.refreshes or 0,
            *(n for counts in record.behind.values() for n in counts.values()),
        ]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"counts {counts}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument(
            f"checkpoint: its record of the optimizer is not of this format ({error!r}); it was not written by hessiod"
        ) from error
    return record


def same_number(saved: Any, own: Any) -> bool:
    """Whether two settings are the same; numbers also when one of them went through float32."""
    if isinstance(saved, int | float) and isinstance(own, int | float) and type(saved) is not bool:
        return saved == own or (bool(np.float32(saved) == np.float32(own)) and min(abs(saved), abs(own)) < 2**24)
    return bool(saved == own)


def check_same(saved: Record, own: Record, allow: Iterable[str], lr_is_state: bool) -> None:
    """Raise :class:`InvalidArgument`, with every difference, unless the two optimizers would go on alike."""
    allowed = set(allow)
    found = [line for name, line in differences(saved, own, lr_is_state) if name not in allowed]
    if found:
        raise InvalidArgument(
            f"optimizer: the file is of another one: {'; '.join(dict.fromkeys(found))}. Construct it with the file's "
            "values, or name in allow= what may differ and keep this one's"
        )


def differences(saved: Record, own: Record, lr_is_state: bool) -> Iterable[tuple[str, str]]:
    """Names of settings and hyperparameters that differ, each with a line that says how."""
    if saved.groups is None or own.groups is None:
        return
    if saved.optimizer != own.optimizer:
        yield "optimizer", f"it is {saved.optimizer}, this one {own.optimizer}"
    yield from unequal("", saved.settings, own.settings)
    for name in sorted(set(saved.parameters or ()) & set(own.parameters or ())):
        theirs, ours = saved.group_of(name), own.group_of(name)
        if theirs is None or ours is None:
            continue
        where = f" of {name!r}" if len(saved.groups) > 1 or len(own.groups) > 1 else ""
        if theirs.rule != ours.rule:
            yield "rule", f"rule{where} {theirs.rule!r}, this one {ours.rule!r}"
            continue
        yield from unequal(where, theirs.hyperparameters, ours.hyperparameters)
        yield from unequal(where, theirs.settings, ours.settings)
        if not lr_is_state:
            yield from unequal(where, {"lr": theirs.lr}, {"lr": ours.lr})


def unequal(where: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The names at which two mappings differ."""
    for name in sorted(saved.keys() | own.keys()):
        if not same_number(saved.get(name), own.get(name)):
            yield name, f"{name}{where} {saved.get(name)!r}, this one {own.get(name)!r}"


def check_order(saved: Record, own: Record, probed: bool) -> None:
    """Raise :class:`InvalidArgument` if probes, numbered by the parameters' order, would be others than in the file."""
    if not probed or saved.parameters is None or list(saved.parameters) == list(own.parameters or ()):
        return
    raise InvalidArgument(
        f"optimizer: its parameters stand in another order than the file's ({', '.join(saved.parameters)}), and the "
        "order numbers the probes; construct the optimizer with the parameters in the file's order"
    )
