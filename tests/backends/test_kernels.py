"""Generated C++ gives the bits of the numpy kernel, whatever the number of threads and the way tensors are listed."""

from functools import cache

import numpy as np
import pytest

from hessiod.backends.kernels.cpp import STORAGE
from hessiod.backends.kernels.library import compiled_together, first_nonfinite, inner_products
from hessiod.backends.numpy import run
from hessiod.conformance.enclosure import enclose
from hessiod.conformance.inputs import SHAPES, hard_array
from hessiod.conformance.kernels import SETTINGS
from hessiod.core import RULES
from hessiod.core.trace import trace

PROGRAMS = {f"{rule.name}": (rule.step,) for rule in RULES.values()} | {
    f"{rule.name} with refresh": (rule.refresh, rule.step) for rule in RULES.values() if rule.refresh is not None
}
POWERS = "pow"


@cache
def sweeps(param, grad=None):
    """Every program for a dtype, from one compilation."""
    working = "float64" if param == "float64" else "float32"
    found = compiled_together(tuple(PROGRAMS.values()), param, grad or param, working)
    return dict(zip(PROGRAMS, found, strict=True))


def run_sweep(sweep, tensors, scalars, threads=1):
    """Run a sweep in place over dictionaries of arrays."""
    names = sweep.program.operands
    pointers = [arrays[name].ctypes.data for arrays in tensors for name in names]
    sizes = [arrays[names[0]].size for arrays in tensors]
    sweep.run(sizes, pointers, [0] * len(tensors), [scalars], threads)


def hard_arrays(program, shape, dtype):
    return {name: hard_array(name, place, shape, np.dtype(dtype)) for place, name in enumerate(program.operands)}


def by_numpy(kernels, arrays, values, grad_scale=1.0):
    """The arrays after some kernels, one after another."""
    found = {**arrays, "grad": arrays["grad"] * arrays["grad"].dtype.type(grad_scale)}
    for kernel in kernels:
        results = run(kernel.function, [found[name] for name in kernel.operands], kernel.scalars_from(values))
        found |= dict(zip(kernel.results, results, strict=True))
    return found


def exact(kernel):
    """Whether the kernel has neither sums nor powers, which may be rounded in several ways."""
    return trace(kernel).elementwise and all(node.op != POWERS for node in trace(kernel).nodes)


def values_of(name, setting):
    return {**RULES[name.split(" ")[0]].defaults, **setting}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_gives_numpys_bits_or_lies_where_a_sum_or_a_power_may_lead(name, dtype):
    kernels, sweep = PROGRAMS[name], sweeps(dtype)[name]
    program = sweep.program
    for shape in SHAPES:
        arrays = hard_arrays(program, shape, dtype)
        for setting in SETTINGS:
            values = values_of(name, setting)
            for grad_scale in (1.0, -1.0):
                got = {operand: array.copy() for operand, array in arrays.items()}
                run_sweep(sweep, [got], program.scalars_from(values, grad_scale))
                for operand in set(program.operands) - set(program.results):
                    assert got[operand].tobytes() == arrays[operand].tobytes(), f"{operand} was written to"
                expected = by_numpy(kernels, arrays, values, grad_scale)
                if all(map(exact, kernels)):
                    for result in program.results:
                        np.testing.assert_array_equal(got[result], expected[result], err_msg=result)
                else:
                    lies_within(kernels[-1], got, by_numpy(kernels[:-1], arrays, values, grad_scale), values)


def lies_within(kernel, got, before, values):
    """A kernel's results lie in the enclosure that allows any order of sums, and powers 2 ULP off."""
    operands, scalars = [before[name] for name in kernel.operands], dict(kernel.scalars_from(values))
    bounds = enclose(kernel.function, operands, scalars, dtype=operands[0].dtype, kind="agreement", flushes=False)
    for name, bound in zip(kernel.results, bounds, strict=True):
        assert bound.contains(got[name]).all(), name


@pytest.mark.parametrize("name", ["sophia", "apollo-l2", "apollo-stable", "adahessian-power with refresh"])
def test_nothing_depends_on_threads_or_on_how_tensors_are_listed(name):
    """Sizes on both sides of a chunk, of a task and of a vector; for sums these are where partial sums begin."""
    sweep = sweeps("float32")[name]
    scalars = sweep.program.scalars_from(values_of(name, SETTINGS[1]))
    generator = np.random.default_rng(0)
    sizes = [1, 15, 16, 17, 16383, 16384, 16385, 65536, 65537, 200_001]
    start = [{operand: generator.random(size, np.float32) for operand in sweep.program.operands} for size in sizes]

    def after(threads, order):
        tensors = [{operand: array.copy() for operand, array in arrays.items()} for arrays in start]
        run_sweep(sweep, [tensors[place] for place in order], scalars, threads)
        return [arrays[result].tobytes() for arrays in tensors for result in sweep.program.results]

    forwards = list(range(len(sizes)))
    expected = after(1, forwards)
    for threads in (1, 2, 3):
        assert after(threads, forwards) == expected
        assert after(threads, forwards[::-1]) == expected


def test_each_tensor_takes_the_scalars_of_its_row():
    sweep = sweeps("float64")["sgd"]
    params = [np.zeros(3), np.zeros(2), np.zeros(1)]
    grads = [np.ones_like(param) for param in params]
    rows = [sweep.program.scalars_from({"lr": lr, "weight_decay": 0.0}) for lr in (1.0, 2.0)]
    pointers = [array.ctypes.data for pair in zip(params, grads, strict=True) for array in pair]
    sweep.run([3, 2, 1], pointers, [1, 0, 1], rows, threads=2)
    assert [param.tolist() for param in params] == [[-2.0] * 3, [-1.0] * 2, [-2.0]]


def halves():
    """Every float16, and the same bits as bfloat16, in float32."""
    bits = np.arange(2**16, dtype=np.uint32)
    return bits.astype(np.uint16).view(np.float16).astype(np.float32), (bits << 16).view(np.float32)


def rounded_to_bfloat16(values):
    """To nearest, ties to even, by comparing with both neighbours."""
    low = (values.view(np.uint32) >> 16 << 16).astype(np.uint32)
    high = low + np.uint32(1 << 16)
    with np.errstate(invalid="ignore"):
        below, above = (np.abs(bits.view(np.float32).astype(np.float64) - values) for bits in (low, high))
    even = np.where((low >> 16) % 2 == 0, low, high)
    return (np.where(below < above, low, np.where(above < below, high, even)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly_and_rounded_once_to_nearest(storage):
    """A step of SGD with rate -1: the parameter becomes param + grad, in float32, then rounded."""
    sweep = sweeps(storage)["sgd"]
    every = halves()[storage == "bfloat16"]
    finite = np.isfinite(every)
    param_bits = np.arange(2**16, dtype=np.uint16)[finite]
    param = every[finite]
    shifts = np.random.default_rng(0).permutation(len(param))
    with np.errstate(over="ignore"):
        total = param + param[shifts]
        within = np.isfinite(total) & (np.abs(total) < (65504.0 if storage == "float16" else 3e38))
        expected = total.astype(np.float16).view(np.uint16) if storage == "float16" else rounded_to_bfloat16(total)
    got, grad = param_bits.copy(), param_bits[shifts].copy()
    scalars = sweep.program.scalars_from({"lr": -1.0, "weight_decay": 0.0})
    sweep.run([len(got)], [got.ctypes.data, grad.ctypes.data], [0], [scalars], threads=1)
    np.testing.assert_array_equal(got[within], expected[within])
    assert within.mean() > 0.9


def test_float16_overflows_to_infinity_where_rounding_leads_there():
    sweep = sweeps("float16", "float32")["sgd"]
    got = np.zeros(4, np.float16)
    grad = np.array([65519.0, 65520.0, -1e30, 5e-8], np.float32)
    scalars = sweep.program.scalars_from({"lr": -1.0, "weight_decay": 0.0})
    sweep.run([4], [got.ctypes.data, grad.ctypes.data], [0], [scalars], threads=1)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got, grad.astype(np.float16))
    assert got.tolist()[:3] == [65504.0, float("inf"), float("-inf")]


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_tensor_with_nan_or_infinity_is_found(storage, threads):
    bits = {"float32": np.uint32, "float64": np.uint64}.get(storage, np.uint16)
    infinity = {"float32": 0x7F800000, "float64": 0x7FF0000000000000, "bfloat16": 0x7F80, "float16": 0x7C00}[storage]
    sign = 1 << (8 * np.dtype(bits).itemsize - 1)

    def look(tensors):
        sizes, pointers = [tensor.size for tensor in tensors], [tensor.ctypes.data for tensor in tensors]
        return first_nonfinite(sizes, pointers, [storage] * len(tensors), threads)

    tensors = [np.full(size, infinity - 1, bits) for size in (5, 0, 70_000, 3)]  # the largest finite number
    assert look(tensors) is None
    for special in (infinity, infinity + 1, infinity | sign, (infinity + 1) | sign):
        for place, entry in ((3, 2), (2, 69_999), (2, 50_000), (2, 40_000), (2, 20_000), (0, 0)):
            tensors[place][entry] = special
            assert look(tensors) == place
        for place in (0, 2, 3):
            tensors[place][:] = infinity - 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inner_products_are_those_of_doubles_on_any_number_of_threads(dtype):
    """Ends of lanes, of chunks and of tasks; float32 products are exact in doubles, sums are within n ULP of theirs."""
    generator, sizes = np.random.default_rng(0), [0, 1, 15, 16, 17, 3 * 16384 + 5, 2**17 + 1]
    pairs = [generator.standard_normal((2, size)).astype(dtype) for size in sizes]
    pointers = [[pair[row].ctypes.data for pair in pairs] for row in (0, 1)]
    one, two = (inner_products(sizes, *pointers, [dtype] * len(sizes), threads) for threads in (1, 2))
    assert one == two
    for found, (x, y) in zip(one, pairs, strict=True):
        products = x.astype(np.longdouble) * y
        assert abs(found - products.sum()) <= 2.0**-52 * len(x) * np.abs(products).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_inner_product_is_finite_only_if_both_arrays_are(dtype, bad):
    for place in (0, 20):
        x, y = np.zeros((2, 40), dtype)
        x[place] = bad
        for pair in ((x, y), (y, x)):
            (found,) = inner_products([40], *[[array.ctypes.data] for array in pair], [np.dtype(dtype).name], 1)
            assert not np.isfinite(found)
