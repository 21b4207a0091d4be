"""Where in a model an autograd node was made, and which operators a graph holds.

Autograd numbers its nodes in the order of the forward pass. A module's nodes are those numbered between its entry and
its exit, so that the innermost module around a number is the place of that node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LEAF = "torch::autograd::AccumulateGrad"


class Places:
    """The modules of one run, by the numbers of the autograd nodes made in them."""

    def __init__(self) -> None:
        self.stack: list[tuple[nn.Module, str, int]] = []
        self.spans: list[tuple[int, int, str]] = []
        self.roots: dict[nn.Module, None] = {}

    def enter(self, module: nn.Module) -> None:
        """A module's forward begins."""
        if self.stack:
            parent, path, _ = self.stack[-1]
            names = (name for name, child in parent.named_modules() if child is module)
            path = f"{path}.{next(names, type(module).__name__)}"
        else:
            path = type(module).__name__
            self.roots[module] = None
        self.stack.append((module, path, sequence_number()))

    def leave(self, module: nn.Module) -> None:
        """A module's forward ends; inner ones that raised end with it."""
        while self.stack:
            found, path, start = self.stack.pop()
            if found is module:
                kind = type(module).__name__
                self.spans.append((start, sequence_number(), path if path == kind else f"{path} ({kind})"))
                break

    def of(self, node: torch.autograd.graph.Node) -> str:
        """The innermost module in which a node was made."""
        number = node._sequence_nr()  # type: ignore[attr-defined]
        around = [(end - start, place) for start, end, place in self.spans if start <= number < end]
        around = [(length, place.replace("._orig_mod", "")) for length, place in around]  # torch.compile's wrapper
        return f"in {min(around)[1]}" if around else "outside of all modules"

    def name_of(self, params: list[Tensor], place: int) -> str:
        """A parameter in words: its name in the model, if a module of this run has it, and its place in ``params``."""
        names = (name for root in self.roots for name, param in root.named_parameters() if param is params[place])
        name = next(names, "")
        return f"params[{place}]" + (f" ({name})" if name else "")


def sequence_number() -> int:
    """The number that the next autograd node gets."""
    return torch._C._autograd._get_sequence_nr()  # type: ignore[attr-defined]


def nodes(output: Tensor) -> Iterator[torch.autograd.graph.Node]:
    """The autograd nodes under a tensor, each once, without the leaves."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(parent for parent, _ in node.next_functions)
            if node.name() != LEAF:
                yield node


def half_precision(node: torch.autograd.graph.Node) -> torch.dtype | None:
    """A dtype of fewer than four bytes among what a node computed."""
    found = (entry.dtype for entry in node._input_metadata)  # type: ignore[attr-defined]
    return next((dtype for dtype in found if dtype.is_floating_point and dtype.itemsize < 4), None)


def is_custom(node: torch.autograd.graph.Node) -> bool:
    """Whether a user's ``torch.autograd.Function`` made the node."""
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def operator_in(message: str) -> str:
    """What torch's error says cannot be differentiated: ``_cdist_backward``; empty for other errors."""
    patterns = (
        r"derivative for '?(?:aten::)?(\w+)'? is not implemented",
        r"forward AD with (\w+) that does not",
        r"derivative for (?:aten::)?(\w+) is not",
    )
    return next((found[1] for pattern in patterns if (found := re.search(pattern, message))), "")


def makes(node: torch.autograd.graph.Node, operator: str) -> bool:
    """Whether an operator of torch's error belongs to a node: ``_cdist_backward`` to ``CdistBackward0``."""
    return bool(operator) and plain(operator).startswith(plain(node.name()))


def plain(name: str) -> str:
    """A name without what autograd and the dispatcher write differently."""
    return re.sub(r"backward\d*$|forward$|_|dense", "", name.lower().replace("_backward", "backward"))
