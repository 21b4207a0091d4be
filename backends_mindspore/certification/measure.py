"""A case's derivatives in MindSpore by route.

=============  ================================================================================
``eager``      ``ms.grad(ms.grad)`` in PyNative mode, as a user would write it; for the record
``plain``      the same, traced by ``ms.jit``
``engine``     hessiod's: traced, with cures and refusals, in PyNative mode
``graph``      the same in graph mode; the product only, as gradients are on the way to it
``product``    the engine's product only, in PyNative mode; what tests run
``operators``  no derivatives, only what the forward is made of
=============  ================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import mindspore as ms

from hessiod.backends.certification.measurement import Measurement, compare
from hessiod.backends_mindspore.certification.catalogue import NAMES, case_of
from hessiod.backends_mindspore.certification.subject import Subject, arrays, eager_gradient, eager_product
from hessiod.backends_mindspore.derivatives import engine

FRAMEWORK = "mindspore"
ROUTES = ("plain", "engine", "graph")
EXTRA = ("eager",)
ENGINE_ROUTES = ("engine", "graph")
__all__ = ["ENGINE_ROUTES", "EXTRA", "FRAMEWORK", "NAMES", "ROUTES", "case_of", "header", "measure"]


def header() -> dict[str, str]:
    """What the results depend on."""
    return {"framework": FRAMEWORK, "version": ms.__version__, "device": ms.get_context("device_target").lower()}


def measure(name: str, route: str, check: bool = True) -> Measurement:
    """A case by a route; ``check=False`` lets the engine go on where its table would refuse."""
    subject = Subject(name)
    expected = list(subject.golden.gradients.values()), list(subject.golden.products.values())
    ms.set_context(mode=ms.GRAPH_MODE if route == "graph" else ms.PYNATIVE_MODE)
    try:
        if route == "operators":
            return Measurement(operators=operators(subject, cures=True))
        if route == "eager":
            return compare(partial(eager_gradient, subject), partial(eager_product, subject), *expected)
        settings = dict(cures=False, check=False) if route == "plain" else dict(cures=True, check=check)
        first = None if route in ("graph", "product") else partial(gradient, subject, settings)
        found = compare(first, partial(product, subject, settings), *expected)
        if route in ("plain", "engine"):
            found.operators = operators(subject, cures=route == "engine")
        return found
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def gradient(subject: Subject, settings: dict[str, Any]) -> Sequence[Any]:
    """The engine's gradient."""
    return arrays(engine.gradient(subject.net, subject.params, subject.constants, **settings))


def product(subject: Subject, settings: dict[str, Any]) -> Sequence[Any]:
    """The engine's product."""
    return arrays(engine.product(subject.net, subject.params, subject.directions, subject.constants, **settings))


def operators(subject: Subject, cures: bool) -> tuple[str, ...]:
    """The names of the primitives in the forward, each once, as it is traced with or without cures."""
    try:
        found = engine.listed(subject.net, subject.constants, cures=cures)
    except Exception:  # a forward that cannot be traced: the derivatives have said why
        return ()
    return tuple(sorted({operator.name for operator in found}))
