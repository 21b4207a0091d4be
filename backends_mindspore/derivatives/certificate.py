"""Whether a net's operators can be trusted, by the table that ``hessiod certify`` wrote for this MindSpore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import mindspore as ms

from hessiod.backends.certification import REFUSED, UNCERTIFIED, WRONG, Table, load
from hessiod.backends_mindspore.derivatives.cures import OPERATORS
from hessiod.backends_mindspore.derivatives.operators import Operator
from hessiod.core.errors import InvalidArgument

ORDERS = {1: "first", 2: "second"}


def table() -> Table:
    """What is known about this MindSpore on this device."""
    return load("mindspore", ms.__version__, ms.get_context("device_target").lower())


def uncertified(operators: Iterable[Operator], order: int = 2) -> list[Operator]:
    """The operators that nobody has measured; raise for the first one whose derivative is known to be wrong.

    What stands within a cure is the cure's business. An operator that has a cure and is met outside of one was hidden
    from the tracer, in a list say, and is as wrong as if there were no cure.
    """
    known = table()
    unknown = []
    for operator in operators:
        if operator.cured:
            continue
        if operator.overwritten:
            raise refusal(operator, order, "its weight lies where it writes the moving variance; pass it a copy")
        if operator.name in OPERATORS:
            raise refusal(operator, order, "the cure did not reach it; keep it as an attribute, not in a list or dict")
        verdict = known.verdict(operator.name, order)
        if verdict in (REFUSED, WRONG):
            raise refusal(operator, order, known.why(operator.name) or "see `hessiod certify --backend mindspore`")
        if verdict == UNCERTIFIED:
            unknown.append(operator)
    return unknown


def refusal(operator: Operator, order: int, why: str) -> InvalidArgument:
    """An error that names the operator, its place and the way out."""
    way = "use a Gauss-Newton estimate (SophiaG, gauss_newton_diagonal), which needs first derivatives only"
    ending = f"; write it from elementary operators, or {way}" if order == 2 else "; write it from elementary operators"
    return InvalidArgument(
        f"forward: {operator.place or 'the function'!r} uses {operator.name}, whose {ORDERS[order]} derivative in "
        f"MindSpore {ms.__version__} is not right ({why}){ending}"
    )


LACKS = re.compile(r"Primitive (\w+)'s bprop not defined|Bprop \"(\w+)\" encounter a problem|Unsupported op \[(\w+)\]")
"""How MindSpore says that it lacks a derivative or a kernel."""


@contextmanager
def explained(operators: Sequence[Operator], order: int) -> Iterator[None]:
    """Turn MindSpore's errors about missing derivatives into ones that name the operator of the net and its place."""
    try:
        yield
    except RuntimeError as error:
        said = LACKS.search(str(error))
        if said is None:
            raise
        missing = next(name for name in said.groups() if name)
        near = [operator for operator in operators if missing.startswith(operator.name)]
        culprit = max(near, key=lambda operator: len(operator.name), default=Operator(missing, ""))
        why = f"there is none for {missing} on {ms.get_context('device_target')}"
        raise refusal(culprit, order, why) from error
