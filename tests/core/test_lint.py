"""Keeps core/ within what ``ms.jit`` can trace: no framework, no syntax that it compiles wrongly or not at all."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hessiod.core

SOURCES = sorted(Path(hessiod.core.__file__).parent.rglob("*.py"))


def violations(source: str) -> list[str]:
    """What a source may not contain in core/, one line for each finding."""
    tree = ast.parse(source)
    return [f"line {line}: {what}" for line, what in sorted(_findings(tree))]


def _findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if not _allowed(alias.name):
                        yield node.lineno, f"import of {alias.name}"
            case ast.ImportFrom(module=module, level=level, names=names):
                if level or not _allowed(module):
                    yield node.lineno, f"import of {'.' * level}{module or ''}"
                if module == "functools" and any(alias.name in ("partial", "partialmethod", "*") for alias in names):
                    yield node.lineno, "functools.partial"
            case ast.Attribute(attr="partial" | "partialmethod"):
                yield node.lineno, "functools.partial"
            case ast.AugAssign():
                yield node.lineno, "in-place operator"
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield node.lineno, "assignment to an element"
            case ast.NamedExpr():
                yield node.lineno, "walrus"
            case ast.Match():
                yield node.lineno, "match"
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                if node.args.posonlyargs:
                    yield node.lineno, "positional-only argument"
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Import | ast.ImportFrom):
                        yield inner.lineno, "import inside a function"
    lambda_lines = [line for node in ast.walk(tree) if isinstance(node, ast.Lambda) for line in _lines(node)]
    for line in {line for line in lambda_lines if lambda_lines.count(line) > 1}:
        yield line, "lambdas that share a line"


def _allowed(module: str) -> bool:
    return module.split(".")[0] in sys.stdlib_module_names or module.split(".")[:2] == ["hessiod", "core"]


def _lines(node: ast.expr) -> range:
    return range(node.lineno, node.end_lineno + 1)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_core_stays_within_what_a_graph_compiler_can_trace(path):
    assert violations(path.read_text()) == []


def test_the_lint_reads_every_rule():
    assert {"sophia.py", "adamw.py", "sgd.py", "philox.py", "likelihood.py"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize(
    ("snippet", "finding"),
    [
        ("import numpy", "import of numpy"),
        ("import numpy.linalg as la", "import of numpy.linalg"),
        ("import math, torch", "import of torch"),
        ("from mindspore import ops", "import of mindspore"),
        ("from hessiod.backends import load", "import of hessiod.backends"),
        ("from hessiod import RULES", "import of hessiod"),
        ("from hessiod.corelib import x", "import of hessiod.corelib"),
        ("from . import philox", "import of ."),
        ("from ..backends import load", "import of ..backends"),
        ("if True:\n    import torch", "import of torch"),
        ("from functools import partial", "functools.partial"),
        ("from functools import *", "functools.partial"),
        ("import functools\nf = functools.partial(print, 1)", "functools.partial"),
        ("def f(x, /): return x", "positional-only argument"),
        ("f = lambda x, /: x", "positional-only argument"),
        ("async def f(x, /): return x", "positional-only argument"),
        ("def f(x):\n    if (y := x): return y", "walrus"),
        ("def f(x):\n    match x:\n        case 0: return 1", "match"),
        ("def f(x):\n    import math\n    return math.sin(x)", "import inside a function"),
        ("class C:\n    def f(self):\n        from math import sin\n        return sin", "import inside a function"),
        ("def f(a):\n    a += 1\n    return a", "in-place operator"),
        ("def f(a, b):\n    a |= b\n    return a", "in-place operator"),
        ("def f(a, b):\n    a @= b\n    return a", "in-place operator"),
        ("def f(a):\n    a[0] = 1\n    return a", "assignment to an element"),
        ("def f(a):\n    del a[0]", "assignment to an element"),
        ("a, b = lambda x: x, lambda x: -x", "lambdas that share a line"),
        ("a = (lambda x: x,\n     1); b = lambda x: -x\nc = (lambda x:\n 1), lambda x: 2", "lambdas that share a line"),
    ],
)
def test_the_lint_catches(snippet, finding):
    assert finding in [found.split(": ", 1)[1] for found in violations(snippet)]


def test_the_lint_names_the_line():
    assert violations("x = 1\n\ny = 2\ny += 1") == ["line 4: in-place operator"]


@pytest.mark.parametrize(
    "snippet",
    [
        "import math\nfrom dataclasses import dataclass\nfrom collections.abc import Mapping",
        "from hessiod.core import philox\nfrom hessiod.core.rule import Rule\nimport hessiod.core.rule",
        "def f(x, *, y=1):\n    a, b = x\n    return a[..., 1:] + b if y else [c * 2 for c in (a, b)]",
        "f = lambda x: x\ng = lambda x: -x",
    ],
)
def test_the_lint_passes_what_is_legal(snippet):
    assert violations(snippet) == []
