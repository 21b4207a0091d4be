"""Mutants of the Kronecker functions, which are no graphs: their sources, with one change each.

As for kernels: each operator becomes another one or is left out, the operands of quotients, differences and matrix
products change places, constants and the host's scalars become a thousandth larger or change their sign; besides,
comparisons turn round and numbers in indices are one larger.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np

from hessiod.backends.numpy import NumpyBackend
from hessiod.conformance.factored import CORE, PARTS, measured

NOT_HELD: Mapping[str, tuple[str, ...]] = {
    "damping": ("LevenbergMarquardt", "warmed_up"),
    "inverses": ("block_shapes",),
}
"""What plans and adapts on the host, without arrays: the unit tests' matter."""
OTHERS: Mapping[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
}
CALLED_OTHERS = {"maximum": "minimum", "minimum": "maximum"}
DROPPED = ("transpose", "sqrt", "maximum", "minimum", "abs")
NUDGE = 1.001


@dataclass(frozen=True)
class SourceMutant:
    """A module with one change, and what the change is."""

    module: str
    tree: ast.Module
    change: str

    def __str__(self) -> str:
        return self.change

    def core(self) -> SimpleNamespace:
        """:data:`~hessiod.conformance.factored.CORE` with the changed module in its place."""
        changed = ModuleType(self.module)
        exec(compile(ast.fix_missing_locations(self.tree), f"<{self.change}>", "exec"), changed.__dict__)
        return SimpleNamespace(**{**vars(CORE), self.module: changed})


def source_mutants() -> Iterator[SourceMutant]:
    """Every mutant of every function that level 3 holds."""
    for name, module in vars(CORE).items():
        tree = ast.parse(inspect.getsource(module))
        for place, held in enumerate(tree.body):
            if isinstance(held, ast.FunctionDef) and held.name not in NOT_HELD.get(name, ()):
                for function, change in changed_functions(held):
                    body = [*tree.body[:place], function, *tree.body[place + 1 :]]
                    yield SourceMutant(name, ast.Module(body, []), f"{name}.{held.name}: {change}")


def changed_functions(function: ast.FunctionDef) -> Iterator[tuple[ast.FunctionDef, str]]:
    """The function with each change in turn."""
    scalars = {argument.arg for argument in function.args.kwonlyargs}
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    indices = {id(node) for one in nodes if isinstance(one, ast.Subscript) for node in ast.walk(one.slice)}
    for node in nodes:
        line = getattr(node, "lineno", function.lineno) - function.lineno
        for change, said in changes(node, scalars, id(node) in indices):
            yield replaced(function, node, change), f"{said} in line {line}"


def replaced(function: ast.FunctionDef, old: ast.AST, new: ast.AST) -> ast.FunctionDef:
    """A copy of the function with another node in a place."""
    found = deepcopy(function, {id(old): new})
    assert isinstance(found, ast.FunctionDef)
    return found


def changes(node: ast.AST, scalars: set[str], is_index: bool) -> Iterator[tuple[ast.AST, str]]:
    """What may stand in a node's place."""
    if isinstance(node, ast.BinOp) and not is_index:
        for other in OTHERS.get(type(node.op), ()):
            said = f"{type(node.op).__name__} becomes {other.__name__}"
            yield ast.BinOp(node.left, other(), node.right), said
        if isinstance(node.op, ast.Sub | ast.Div):
            yield ast.BinOp(node.right, node.op, node.left), f"{type(node.op).__name__} has its operands swapped"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from changed_calls(node, node.func)
    elif isinstance(node, ast.Compare):
        flipped = ast.LtE() if isinstance(node.ops[0], ast.Gt) else ast.NotEq()
        yield ast.Compare(node.left, [flipped], node.comparators), "a comparison is turned round"
    elif isinstance(node, ast.Constant) and is_index and type(node.value) is int:
        yield ast.Constant(node.value + 1), f"the index {node.value} is one larger"
    elif isinstance(node, ast.Constant) and type(node.value) is float and node.value:
        yield ast.Constant(node.value * NUDGE), f"the constant {node.value:g} is a thousandth larger"
    elif isinstance(node, ast.Name) and node.id in scalars:
        for factor, said in ((NUDGE, "a thousandth larger"), (-1.0, "of the other sign")):
            yield ast.BinOp(node, ast.Mult(), ast.Constant(factor)), f"{node.id} is {said}"


def changed_calls(node: ast.Call, function: ast.Attribute) -> Iterator[tuple[ast.AST, str]]:
    """Another function of the namespace, none, or the operands the other way round."""
    name = function.attr
    if name in CALLED_OTHERS:
        other = ast.Attribute(function.value, CALLED_OTHERS[name], ast.Load())
        yield ast.Call(other, node.args, node.keywords), f"{name} becomes {CALLED_OTHERS[name]}"
    if name in DROPPED:
        yield node.args[0], f"{name} is left out"
    if name == "matmul":
        yield ast.Call(function, node.args[::-1], node.keywords), "matmul has its operands swapped"


def source_caught(mutant: SourceMutant) -> bool:
    """Whether level 3 fails on a mutant, by a wrong result or by an error."""
    core, backend = mutant.core(), NumpyBackend()
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error")  # a root of a negative number is complex, which numpy only warns of
            return not all(finding.passed for part in PARTS.values() for finding in measured(part, backend, core))
    except (TypeError, ValueError, IndexError, ArithmeticError, Warning, np.linalg.LinAlgError):
        return True
