"""Generated C++ gives the bits of the numpy kernel, whatever the number of threads and the way tensors are listed."""

import numpy as np
import pytest

from hessiod.backends.kernels.library import compiled
from hessiod.backends.numpy import run
from hessiod.conformance.enclosure import enclose
from hessiod.conformance.inputs import SHAPES, hard_array
from hessiod.conformance.kernels import SETTINGS
from hessiod.core import RULES
from hessiod.core.trace import trace

RULE_NAMES = list(RULES)
BITS_OF = {"float32": np.uint32, "float64": np.uint64}


def run_sweep(sweep, tensors, scalars, threads=1):
    """Run a sweep in place over dictionaries of arrays."""
    names = sweep.program.operands
    pointers = [arrays[name].ctypes.data for arrays in tensors for name in names]
    sizes = [arrays[names[0]].size for arrays in tensors]
    sweep.run(sizes, pointers, [0] * len(tensors), [scalars], threads)


def settings(rule):
    return [{**rule.defaults, **setting} for setting in SETTINGS]


def by_numpy(kernels, arrays, values, grad_scale):
    """The arrays after some kernels, one after another."""
    found = {**arrays, "grad": arrays["grad"] * arrays["grad"].dtype.type(grad_scale)}
    for kernel in kernels:
        results = run(kernel.function, [found[name] for name in kernel.operands], kernel.scalars_from(values))
        found |= dict(zip(kernel.results, results, strict=True))
    return found


def programs(rule):
    return [(rule.step,)] + ([(rule.refresh, rule.step)] if rule.refresh else [])


def exact(kernels):
    return all(
        trace(kernel).elementwise and kernel.function.__name__ != "adahessian_power_kernel" for kernel in kernels
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULE_NAMES)
def test_every_program_gives_numpys_bits_or_lies_where_a_sum_or_a_power_may_lead(name, dtype):
    rule = RULES[name]
    for kernels in programs(rule):
        sweep = compiled(kernels, dtype, dtype, dtype)
        program = sweep.program
        for shape in SHAPES:
            arrays = {
                operand: hard_array(operand, place, shape, np.dtype(dtype))
                for place, operand in enumerate(program.operands)
            }
            for values in settings(rule):
                for grad_scale in (1.0, -1.0):
                    scalars = program.scalars_from(values, grad_scale)
                    got = {operand: array.copy() for operand, array in arrays.items()}
                    run_sweep(sweep, [got], scalars)
                    expected = by_numpy(kernels, arrays, values, grad_scale)
                    for operand in set(program.operands) - set(program.results):
                        assert got[operand].tobytes() == arrays[operand].tobytes(), f"{operand} was written to"
                    if exact(kernels):
                        for result in program.results:
                            np.testing.assert_array_equal(got[result], expected[result], err_msg=result)
                    else:
                        lies_within(
                            kernels[-1], got, arrays, by_numpy(kernels[:-1], arrays, values, grad_scale), scalars
                        )


def lies_within(kernel, got, arrays, before, scalars):
    """The last kernel's results lie in the enclosure that allows any order of sums and powers 2 ULP off."""
    operands = [before[name] for name in kernel.operands]
    place = len([name for name in scalars if name.startswith("keep")])  # the last kernel's number
    del place
    own = {name.rsplit("_", 1)[0]: value for name, value in scalars.items() if name != "grad_scale"}
    dtype = operands[0].dtype
    bounds = enclose(kernel.function, operands, own, dtype=dtype, kind="agreement", flushes=False)
    for name, bound in zip(kernel.results, bounds, strict=True):
        assert bound.contains(got[name]).all(), name
