"""A kernel's graph is the kernel: evaluated, it gives the same bits."""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.backends.numpy import run
from hessiod.conformance.inputs import SHAPES, hard_array
from hessiod.conformance.kernels import SETTINGS, subjects
from hessiod.core import RULES, InvalidArgument, Kernel
from hessiod.core.trace import GRAD_SCALE, Program, evaluate, passes, trace, trace_function, traffic
from hessiod.core.trace.graph import MATRIX

SUBJECTS = {subject.name: subject for subject in subjects()}
SECOND_ORDER = [rule for rule in RULES.values() if rule.refresh is not None]


def same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_graph_of_every_kernel_gives_the_kernels_bits(name, dtype):
    subject, dtype = SUBJECTS[name], np.dtype(dtype)
    graph = trace(subject.kernel)
    for shape in SHAPES:
        arrays = [hard_array(operand, place, shape, dtype) for place, operand in enumerate(graph.operands)]
        for setting in SETTINGS:
            scalars = subject.kernel.scalars_from({**subject.defaults, **setting})
            typed = {name: dtype.type(value) for name, value in scalars.items()}
            with np.errstate(all="ignore"):
                same_bits(evaluate(graph, xp, arrays, typed), run(subject.kernel.function, arrays, scalars))


def test_the_graph_of_a_measure_counts_what_the_kernel_counts():
    measure = RULES["sophia"].measures["clip_fraction"]
    arrays = [hard_array(name, place, (2048,), np.dtype("float32")) for place, name in enumerate(measure.operands)]
    scalars = {name: np.float32(value) for name, value in dict(rho=0.05, eps=1e-12).items()}
    with np.errstate(all="ignore"):
        (count,) = evaluate(trace(measure), xp, arrays, scalars)
        assert count == measure.function(xp, *arrays, **scalars)
    assert 0 < count < 2048


@pytest.mark.parametrize("rule", SECOND_ORDER, ids=lambda rule: rule.name)
def test_a_refresh_and_a_step_in_one_program_give_what_they_give_one_after_the_other(rule):
    program = Program((rule.refresh, rule.step))
    values = {**rule.defaults, "step": 3, "refreshes": 2, "weight_decay": 0.1}
    dtype = np.dtype("float32")
    arrays = {name: hard_array(name, place, (2048,), dtype) for place, name in enumerate(program.operands)}
    expected = {**arrays, "grad": -arrays["grad"]}
    for kernel in program.kernels:
        found = run(kernel.function, [expected[name] for name in kernel.operands], kernel.scalars_from(values))
        expected |= dict(zip(kernel.results, found, strict=True))
    scalars = {name: dtype.type(value) for name, value in program.scalars_from(values, grad_scale=-1.0).items()}
    with np.errstate(all="ignore"):
        found = evaluate(program.graph, xp, [arrays[name] for name in program.operands], scalars)
    same_bits(found, [expected[name] for name in program.results])


def test_common_expressions_stand_once_and_unused_ones_not_at_all():
    def kernel(xp, x, y, *, a):
        return xp.abs(a * x) + a * x, xp.sqrt(x)

    ops = [node.op for node in trace_function(kernel, ("x", "y"), ("a",), ("u", "v")).nodes]
    assert ops == ["operand", "scalar", "mul", "abs", "add", "sqrt"]


def test_a_sum_that_waits_for_another_one_is_one_more_pass():
    def kernel(xp, x):
        centred = x - xp.mean(x)
        return (centred / xp.sqrt(xp.mean(centred * centred)),)

    graph = trace_function(kernel, ("x",), (), ("x",))
    sweeps = passes(graph)
    assert [len(sweep.sums) for sweep in sweeps] == [1, 1, 0]
    assert [bool(sweep.stores) for sweep in sweeps] == [False, False, True]
    assert traffic(graph) == [(1, 0), (1, 0), (1, 1)]


def test_a_sum_need_not_read_what_only_a_scalar_of_zero_brings_in():
    def kernel(xp, x, y, *, a):
        return x + a * y + xp.sum(x + a * y), y

    def used_twice(xp, x, y, *, a):
        return (x + xp.sum(a * y + y),)

    graph = trace_function(kernel, ("x", "y"), ("a",), ("x", "y"))
    first, last = passes(graph)
    assert [(graph.nodes[load].name, graph.nodes[scalar].name) for load, scalar in first.spared] == [("y", "a")]
    assert not last.spared
    assert traffic(graph) == [(2, 0), (2, 2)]
    assert traffic(graph, ["a"]) == [(1, 0), (2, 2)]
    assert not passes(trace_function(used_twice, ("x", "y"), ("a",), ("x",)))[0].spared


def test_the_gradients_factor_is_the_only_scalar_that_a_program_adds():
    rule = RULES["adamw"]
    program = Program((rule.step,))
    assert set(program.graph.scalars) == {GRAD_SCALE, *(f"{name}_0" for name in trace(rule.step).scalars)}


def scalar_arithmetic(xp, x, *, a, b):
    return (x * (a * b),)


def division_by_a_scalar(xp, x, *, a):
    return (x / a,)


def inexact_constant(xp, x):
    return (x * 0.1,)


def branch(xp, x):
    return (x if x > 0 else -x,)


def reshaping(xp, x):
    return (xp.reshape(x, (-1,)),)


def attribute(xp, x):
    return (x.T,)


def mixed(xp, x):
    return (x + xp.astype(x, xp.float64),)


@pytest.mark.parametrize(
    ("function", "scalars", "message"),
    [
        (scalar_arithmetic, ("a", "b"), "calculates mul of scalars alone"),
        (division_by_a_scalar, ("a",), "divides an array by a scalar"),
        (inexact_constant, (), "has the constant 0.1"),
        (branch, (), "branches on the value"),
        (reshaping, (), "calls xp.reshape"),
        (attribute, (), "asks for .T"),
        (mixed, (), "calculates add of float, float64"),
    ],
)
def test_what_has_no_place_in_a_graph_is_refused_by_name(function, scalars, message):
    with pytest.raises(InvalidArgument, match=f"{function.__name__}.*{message}"):
        trace_function(function, ("x",), scalars, ("y",))


def test_a_wrong_number_of_results_is_refused():
    sgd = RULES["sgd"].step
    with pytest.raises(InvalidArgument, match="returns 1 results; expected 2"):
        trace(Kernel(sgd.function, sgd.scalars, sgd.operands, ("param", "other")))


def test_a_kernel_of_matrices_is_a_graph_and_one_of_arrays_has_no_matrix_products():
    def inverse_of(xp, factor):
        return (xp.matmul(factor, 2.0 * xp.eye(factor.shape[-1], factor) - factor) / xp.frobenius(factor),)

    graph = trace_function(inverse_of, ("factor",), (), ("inverse",), rank=MATRIX)
    assert [node.op for node in graph.nodes if node.inputs] == ["eye", "mul", "sub", "matmul", "frobenius", "div"]
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    assert np.array_equal(evaluate(graph, xp, [matrix], {})[0], inverse_of(xp, matrix)[0])
    with pytest.raises(InvalidArgument, match=r"kernel 'inverse_of' calls xp\.matmul; expected operations entry by"):
        trace_function(inverse_of, ("factor",), (), ("inverse",))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda xp, x: xp.eye(3, x), "calls xp.eye with another length; expected the length of the matrix"),
        (lambda xp, x: xp.spd_inverse(x), "calls xp.spd_inverse; expected operations entry by entry, matrix products"),
        (lambda xp, x: x[..., :2], "takes a part of an array; expected operations on whole arrays"),
    ],
)
def test_what_a_graph_of_matrices_cannot_hold_is_refused(function, said):
    with pytest.raises(InvalidArgument, match=said):
        trace_function(function, ("x",), (), ("y",), rank=MATRIX)
