"""Operators whose traced second derivative MindSpore 2.10 has wrong without a word, and nets that use them.

A net is searched through its source, as MindSpore itself reads it: every name in ``construct``, and in the functions
and methods of the user's that it calls, is resolved to the object it stands for. So an alias does not hide an operator,
and a Cell of the user's that happens to be called ``layer_norm`` is no reason to refuse.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any

import mindspore as ms
from mindspore import nn, ops

from hessiod.core.errors import InvalidArgument

LAYER_NORM = "LayerNorm", "its double gradient drops epsilon"
CROSS_ENTROPY = "SoftmaxCrossEntropyWithLogits", "its double gradient is wrong by 40 %"
WRONG = {
    "LayerNorm": LAYER_NORM,
    "layer_norm": LAYER_NORM,
    "SoftmaxCrossEntropyWithLogits": CROSS_ENTROPY,
    "SparseSoftmaxCrossEntropyWithLogits": CROSS_ENTROPY,
}
"""By the name of MindSpore's function or class: what to call the operator, and what is wrong."""


def refuse_wrong_second_derivatives(net: Any) -> None:
    """Raise for a net, or a loss, that uses an operator whose second derivative is known to be wrong."""
    cells = net.cells_and_names() if isinstance(net, nn.Cell) else [("", net)]
    for name, cell in cells:
        for thing in reached(cell.construct if isinstance(cell, nn.Cell) else cell, set()):
            operator = type(thing) if isinstance(thing, ops.Primitive) else thing
            if getattr(operator, "__module__", None) and of_mindspore(operator) and operator.__name__ in WRONG:
                title, what = WRONG[operator.__name__]
                user = name or getattr(cell, "__name__", type(cell).__name__)
                raise InvalidArgument(
                    f"SophiaH: {user!r} uses {title}, whose second derivative in MindSpore {ms.__version__} is wrong "
                    f"({what}); write it from elementary operators, or use SophiaG, which needs first derivatives only"
                )


def of_mindspore(thing: Any) -> bool:
    """Whether a function or class is MindSpore's own."""
    return isinstance(thing, type | FunctionType) and thing.__module__.split(".")[0] == "mindspore"


def reached(function: Callable[..., Any], seen: set[Any]) -> Iterator[Any]:
    """Every object that a function names, and those that functions of the user's among them name."""
    code = function.__func__ if isinstance(function, MethodType) else function
    if not isinstance(code, FunctionType) or code in seen:
        return
    seen.add(code)
    for thing in named(function, code):
        yield thing
        if isinstance(thing, FunctionType | MethodType) and not thing.__module__.startswith("mindspore."):
            yield from reached(thing, seen)


def named(function: Callable[..., Any], code: FunctionType) -> Iterator[Any]:
    """The objects that the names in a function's source stand for."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):  # a lambda within a line; MindSpore cannot trace what has no source
        return
    scope = dict(code.__globals__)
    scope |= {
        name: cell.cell_contents for name, cell in zip(code.__code__.co_freevars, code.__closure__ or (), strict=True)
    }
    if isinstance(function, MethodType):
        scope[code.__code__.co_varnames[0]] = function.__self__
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            thing = resolved(node, scope)
            if thing is not None:
                yield thing


def resolved(node: ast.expr, scope: dict[str, Any]) -> Any:
    """What ``a`` or ``a.b.c`` stands for in a scope; None if that cannot be said."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(resolved(node.value, scope), node.attr, None)
    return None
