"""Which method works for a closure: found at the first call, checked, logged once, and remembered.

What is remembered belongs to the first parameter (and goes with it), the code of the closure, the number of
parameters, and whether autocast is on: training loops make a new function object of the same code at every step. A
remembered method that fails is looked for again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from hessiod.backends.certification import REFUSED, RIGHT, UNCERTIFIED, WRONG, shipped, table
from hessiod.backends_torch.derivatives import checks
from hessiod.backends_torch.derivatives.methods import Differences, Forward, Method, Products, Reverse, scalar
from hessiod.backends_torch.derivatives.places import Places, half_precision, is_custom, makes, nodes, operator_in
from hessiod.backends_torch.derivatives.session import Session
from hessiod.core.errors import InvalidArgument, InvalidState

METHODS = ("auto", "reverse", "forward", "finite-difference")
EXACT: dict[str, type[Reverse] | type[Forward]] = {"reverse": Reverse, "forward": Forward}
WAYS_OUT = 'method="finite-difference" (an approximation), or gauss_newton_diagonal, which needs no second derivative'
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

    def _filled(
        self, settled: Settled, closure: Callable[[], Any], method: Method, found: Products
    ) -> list[Tensor]:
        """Zeros where there is no curvature, once it is known that nothing was lost."""
        unused = {place for place, grad in enumerate(method.gradients) if grad is None}
        if unused - settled.unused and any(product is None for product in found):
            self._refuse_lost(closure, sorted(unused - settled.unused))
            settled.unused |= unused
        pairs = zip(self.params, found, strict=True)
        return [torch.zeros_like(param) if product is None else product.detach() for param, product in pairs]

    def _settle(self, closure: Callable[[], Any]) -> Settled:
        """Run the closure once with its places noted; refuse what cannot work; try what can."""
        with self.session.recorded() as places:
            graph = list(nodes(scalar(self.session.run(closure))))
        reentrant = next((node for node in graph if node.name() == "CheckpointFunctionBackward"), None)
        if self.method == "finite-difference":
            self._refuse_half_precision(graph, places)
            return Settled(self.method, by_backward=bool(reentrant or self.session.sharded))
        if self.session.sharded is not None:
            raise InvalidState(
                f"curvature: found fully_shard (FSDP2) on {type(self.session.sharded).__name__}: autograd does not "
                f"connect sharded parameters to the loss twice; use {WAYS_OUT}"
            )
        if reentrant is not None:
            raise InvalidState(
                f"curvature: found reentrant checkpointing {places.of(reentrant)}, which cannot be differentiated "
                "twice; use torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or "
                'method="finite-difference" (an approximation)'
            )
        return self._tried(closure, graph, places)

    def _tried(self, closure: Callable[[], Any], graph: list[Any], places: Places) -> Settled:
        verdicts = Verdicts(graph, self.params[0].device.type)
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
            except (RuntimeError, NotImplementedError) as error:
                failures[name] = error
                continue
            self._verify(closure, places, verdicts, vectors, found)
            settled = Settled(name)
            self._filled(settled, closure, method, found)
            LOG.info("curvature: %s for %s", DESCRIBED[name], getattr(closure, "__qualname__", repr(closure)))
            return settled
        raise self._explained(graph, places, failures)

    def _verify(
        self, closure: Callable[[], Any], places: Places, verdicts: Verdicts, vectors: list[Tensor], found: Products
    ) -> None:
        """Compare with differences where the table does not vouch for every operator, or where a path is missing."""
        if not verdicts.doubtful and all(product is not None for product in found):
            return
        wrong, silent = checks.wrong_products(self.session, closure, self.params, vectors, found)
        if wrong:
            custom = verdicts.described(places)
            raise InvalidState(
                f"curvature: the product for {', '.join(places.name_of(self.params, place) for place in wrong)} is not "
                "the derivative of the gradient: something in this model is differentiable once only and does not say "
                f"so{custom and ', perhaps ' + custom}; write its backward in differentiable operations, or use "
                f"{WAYS_OUT}"
            )
        if silent and verdicts.custom:
            LOG.warning("curvature: not certified and not smooth enough to check: %s", verdicts.described(places))

    def _refuse_lost(self, closure: Callable[[], Any], unused: list[int]) -> None:
        lost = checks.lost(self.session, closure, self.params, unused)
        if lost:
            with self.session.recorded() as places:
                self.session.run(closure)
            raise InvalidState(
                f"curvature: the loss changes with {', '.join(places.name_of(self.params, place) for place in lost)}, "
                "and its graph has no path there (a detach, a .data, a copy of the weights?); mend the path, or leave "
                "these parameters out of params"
            )

    def _refuse_half_precision(self, graph: list[Any], places: Places) -> None:
        for place, param in enumerate(self.params):
            if param.dtype.itemsize < 4:
                raise InvalidArgument(
                    f"method: found 'finite-difference' with {places.name_of(self.params, place)} in {param.dtype}, "
                    'expected float32 or float64; differences drown in its rounding. Use method="reverse"'
                )
        halved = ((half_precision(node), node) for node in graph)
        for dtype, node in halved:
            if dtype is not None:
                raise InvalidArgument(
                    f"method: found 'finite-difference' with {dtype} arithmetic {places.of(node)}, expected float32 or "
                    'float64 all through; run this closure without autocast, or use method="reverse"'
                )

    def _explained(self, graph: list[Any], places: Places, failures: dict[str, Exception]) -> Exception:
        """One error that names the operator, its place, and what is left."""
        error = next(iter(failures.values()))
        if isinstance(error, InvalidState):
            return error
        parts = []
        for name, failure in failures.items():
            message = " ".join(str(failure).split("\n")[0].split())
            operator = operator_in(message)
            where = {places.of(node) for node in graph if makes(node, operator)}
            parts.append(
                f"{name}: {operator} has no derivative{' ' if where else ''}{' and '.join(sorted(where))}"
                if operator
                else f"{name}: {message[:160]}"
            )
        found = InvalidState(f"curvature: this model has no exact product ({'; '.join(parts)}); use {WAYS_OUT}")
        found.__cause__ = error
        return found


DESCRIBED = {"reverse": "reverse mode over reverse mode", "forward": "forward mode over reverse mode"}


class Verdicts:
    """What the certification table says about the operators of a graph."""

    def __init__(self, graph: list[Any], device: str) -> None:
        self.custom = [node for node in graph if is_custom(node)]
        known = torch_table(device)
        verdict = {node.name(): known.verdict(node.name()) if known else UNCERTIFIED for node in graph}
        self.refused = [node for node in graph if verdict[node.name()] in (REFUSED, WRONG)]
        self.why = {node.name(): known.why(node.name()) if known else "" for node in self.refused}
        self.doubtful = bool(self.custom) or any(found != RIGHT for found in verdict.values())

    def refuse(self, places: Places) -> None:
        """Raise for an operator that the table refuses, by its name and its place."""
        if self.refused:
            node = self.refused[0]
            raise InvalidState(
                f"curvature: {node.name()} {places.of(node)} has no right second derivative"
                f"{self.why[node.name()] and ': ' + self.why[node.name()]}; use {WAYS_OUT}"
            )

    def described(self, places: Places) -> str:
        """The user's own functions with their places; torch's are not suspected."""
        return ", ".join(sorted({f"{node.name()} {places.of(node)}" for node in self.custom}))


@functools.cache
def torch_table(device: str) -> table.Table | None:
    """The table about the installed version; None while the package ships none for torch."""
    if not any(path.name.startswith("torch-") for path in shipped()):
        return None
    return table.load("torch", torch.__version__, device)
