"""Which method works for a closure: found at the first call, checked, logged once, and remembered.

What is remembered belongs to the first parameter (and goes with it), the code of the closure, the number of
parameters, and whether autocast is on: training loops make a new function object of the same code at every step. A
remembered method that fails is looked for again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hessiod.backends_torch.derivatives import checks, refusals
from hessiod.backends_torch.derivatives.methods import Differences, Forward, Method, Products, Reverse, scalar
from hessiod.backends_torch.derivatives.places import Places, nodes
from hessiod.backends_torch.derivatives.session import Session
from hessiod.core.errors import InvalidArgument

METHODS = ("auto", "reverse", "forward", "finite-difference")
EXACT: dict[str, type[Reverse] | type[Forward]] = {"reverse": Reverse, "forward": Forward}
DESCRIBED = {"reverse": "reverse mode over reverse mode", "forward": "forward mode over reverse mode"}
LOG = logging.getLogger("hessiod")


@dataclass
class Settled:
    """What is known about a closure: its method, and the parameters that its loss really does not use."""

    method: str
    by_backward: bool = False
    unused: set[int] = field(default_factory=set)


_KNOWN: Any = WeakIdKeyDictionary()


def code_of(closure: Callable[[], Any]) -> Any:
    """What identifies a closure from one step to the next: its code, or its type's."""
    while isinstance(closure, functools.partial):
        closure = closure.func
    closure = getattr(closure, "__func__", closure)
    return getattr(closure, "__code__", None) or type(closure)


class Engine:
    """Products of the Hessian of closures' losses, within a session."""

    def __init__(self, session: Session, method: str = "auto") -> None:
        if method not in METHODS:
            raise InvalidArgument(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
        self.session, self.params, self.method = session, session.params, method

    def products(self, closure: Callable[[], Any]) -> Callable[[list[Tensor], bool], list[Tensor]]:
        """A function from vectors, and whether they are the last, to products."""
        key = (self.method, code_of(closure), len(self.params), torch.is_autocast_enabled(self.params[0].device.type))
        known = _KNOWN.setdefault(self.params[0], {})
        if key not in known:
            known[key] = self._settle(closure)
        method: Method | None = None

        def attempt(vectors: list[Tensor], last: bool) -> list[Tensor]:
            nonlocal method
            method = method or self._made(known[key], closure)
            return self._filled(known[key], closure, method, method(vectors, last))

        def product(vectors: list[Tensor], last: bool) -> list[Tensor]:
            nonlocal method
            try:
                return attempt(vectors, last)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # the model is another than it was: find out anew, which explains what is wrong
                method = None
                del known[key]
                known[key] = self._settle(closure)
                return attempt(vectors, last)

        return product

    def _made(self, settled: Settled, closure: Callable[[], Any]) -> Method:
        if settled.method == "finite-difference":
            return Differences(self.session, closure, self.params, settled.by_backward)
        return EXACT[settled.method](self.session, closure, self.params)

    def _filled(self, settled: Settled, closure: Callable[[], Any], method: Method, found: Products) -> list[Tensor]:
        """Zeros where there is no curvature, once it is known that nothing was lost."""
        unused = method.unused - settled.unused
        if unused:
            astray = checks.lost(self.session, closure, self.params, sorted(unused))
            if astray:
                with self.session.recorded() as places:
                    self.session.run(closure)
                raise refusals.lost(self.params, astray, places)
            settled.unused |= unused
        pairs = zip(self.params, found, strict=True)
        return [torch.zeros_like(param) if product is None else product.detach() for param, product in pairs]

    def _settle(self, closure: Callable[[], Any]) -> Settled:
        """Run the closure once with its places noted; refuse what cannot work; try what can."""
        with self.session.recorded() as places:
            graph = list(nodes(scalar(self.session.run(closure))))
        sharded = self.session.sharded
        if self.method == "finite-difference":
            refusals.refuse_half_precision(self.params, graph, places, sharded)
            by_backward = sharded is not None or refusals.reentrant_checkpoint(graph) is not None
            return Settled(self.method, by_backward)
        refusals.refuse_sharded(sharded)
        refusals.refuse_split(self.session.split)
        refusals.refuse_reentrant(graph, places)
        return self._tried(closure, graph, places)

    def _tried(self, closure: Callable[[], Any], graph: list[Any], places: Places) -> Settled:
        verdicts = refusals.Verdicts(graph, self.params[0].device.type)
        vectors = checks.probe_for(self.params)
        failures: dict[str, Exception] = {}
        for name, kind in EXACT.items():
            if self.method not in ("auto", name):
                continue
            try:
                if name == "reverse":
                    verdicts.refuse(places)
                method = kind(self.session, closure, self.params)
                found = method(vectors)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                failures[name] = error
                continue
            settled = Settled(name)
            self._filled(settled, closure, method, found)
            self._verify(closure, places, verdicts, vectors, found)
            LOG.info("curvature: %s for %s", DESCRIBED[name], getattr(closure, "__qualname__", repr(closure)))
            return settled
        raise refusals.without_method(graph, places, failures)

    def _verify(
        self,
        closure: Callable[[], Any],
        places: Places,
        verdicts: refusals.Verdicts,
        vectors: list[Tensor],
        found: Products,
    ) -> None:
        """Compare with differences where the table does not vouch for every operator, or where a path is missing."""
        if not verdicts.doubtful and all(product is not None for product in found):
            return
        wrong, silent = checks.wrong_products(self.session, closure, self.params, vectors, found)
        if wrong:
            raise refusals.wrong(self.params, wrong, places, verdicts)
        if silent and verdicts.uncertified:
            LOG.warning(
                "curvature: the certification table does not know %s, and the loss is not smooth enough here for a "
                "check by differences; products are unverified",
                verdicts.custom_places(places) or ", ".join(verdicts.uncertified),
            )
