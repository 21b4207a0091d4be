"""Level 1 with parameters in half precision: what it holds steps to, and that it sees each way to get them wrong."""

import numpy as np
import pytest

from hessiod.backends import half
from hessiod.backends.contract import STORED, Route
from hessiod.backends.numpy import NumpyBackend, run, run_half
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.formats import FORMATS, HALF
from hessiod.conformance.kernels import kernel_checks
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.conformance.suite import run_checks

RULES = ("adamw", "sgd-momentum")


def backend_with(half_run):
    backend = NumpyBackend()
    backend.routes = (Route("eager", run, half=half_run),)
    backend.dtypes = HALF
    return backend


def rows_of(half_run):
    every = kernel_checks(backend_with(half_run))
    checks = [check for check in every if check.rule in RULES and not check.id.endswith("/drawn")]
    return list(run_checks(checks, NONE_KNOWN))


def test_the_formats_are_those_of_other_libraries():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name, other in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32)):
        found, known = FORMATS[name], ml_dtypes.finfo(other)
        for ours, theirs in (("max", "max"), ("eps", "eps"), ("smallest_normal", "tiny")):
            assert float(getattr(found, ours)) == float(getattr(known, theirs))
        assert float(found.smallest_subnormal) == float(known.smallest_subnormal)
        draw = np.random.default_rng(7)
        values = (draw.standard_normal(20_000) * 10.0 ** draw.uniform(-46, 37, 20_000)).astype(np.float32)
        with np.errstate(all="ignore"):
            expected = values.astype(other).astype(np.float32)
        assert np.array_equal(found.rounded(values).astype(np.float32), expected)
        if found.half:
            assert np.array_equal(half.unpacked(half.packed(values, name), name), expected)


def test_a_right_step_is_off_by_half_an_ulp_of_the_parameters_dtype():
    rows = rows_of(run_half)
    assert {(row.verdict, row.dtype) for row in rows} == {(PASS, name) for name in HALF}
    for row in rows:
        if row.id.endswith("agreement"):
            assert row.worst_ulp == row.budget_ulp == 0
        else:
            assert 0.49 < row.worst_ulp <= row.budget_ulp < 0.52


def truncated(values, dtype):
    ulp = FORMATS[dtype].ulp(values)
    return (np.trunc(values.astype(np.longdouble) / ulp) * ulp).astype(np.float32)


def with_param(change):
    def broken(kernel, arrays, values, dtype):
        found = run(kernel.function, [arrays[name] for name in kernel.operands], kernel.scalars_from(values))
        return tuple(
            change(result, dtype) if name in STORED else result
            for name, result in zip(kernel.results, found, strict=True)
        )

    return broken


def narrow_state(kernel, arrays, values, dtype):
    found = run_half(kernel, arrays, values, dtype)
    return tuple(half.unpacked(half.packed(result, dtype), dtype) for result in found)


def narrow_scalars(kernel, arrays, values, dtype):
    scalars = {name: FORMATS[dtype].rounded(value).astype(float) for name, value in kernel.scalars_from(values).items()}
    found = run(kernel.function, [arrays[name] for name in kernel.operands], scalars)
    return tuple(
        FORMATS[dtype].rounded(result).astype(np.float32) if name in STORED else result
        for name, result in zip(kernel.results, found, strict=True)
    )


def forgets_the_tail(kernel, arrays, values, dtype):
    found = run_half(kernel, arrays, values, dtype)
    for name, result in zip(kernel.results, found, strict=True):
        result.reshape(-1)[2**16 :] = arrays[name].reshape(-1)[2**16 :]
    return found


def ignores_strides(kernel, arrays, values, dtype):
    packed = {
        name: array if array.flags.c_contiguous else np.resize(array.base, array.shape)
        for name, array in arrays.items()
    }
    return run_half(kernel, packed, values, dtype)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (with_param(truncated), "half an ULP"),
        (with_param(lambda result, dtype: result), "does not hold, expected it to be rounded"),
        (narrow_state, "exp_avg"),
        (narrow_scalars, "half an ULP"),
        (forgets_the_tail, "67585 entries"),
        (ignores_strides, "every second column"),
    ],
)
def test_a_step_that_is_wrong_in_half_precision_alone_is_caught(broken, said):
    rows = [row for row in rows_of(broken) if row.rule == "adamw"]
    assert {row.verdict for row in rows} == {FAIL}
    assert any(said in row.why for row in rows)


def test_a_route_without_half_precision_has_rows_that_say_so():
    rows = rows_of(None)
    assert {(row.verdict, row.why) for row in rows} == {(UNSUPPORTED, "no step in half precision takes this route")}


def test_the_worst_entry_has_its_inputs_and_gives_the_result_again():
    (row,) = (row for row in rows_of(run_half) if row.id.endswith("sgd-momentum.step/numpy/eager/bfloat16/formula"))
    worst = row.worst
    (check,) = (c for c in kernel_checks(backend_with(run_half)) if c.id == row.id.rpartition("/")[0])
    kernel = check.run.args[0].kernel
    arrays = {name: np.full(1, value, np.float32) for name, value in worst["operands"].items()}
    again = dict(zip(kernel.results, run_half(kernel, arrays, worst["hyperparameters"], "bfloat16"), strict=True))
    assert again[worst["result"]] == worst["found"]
    assert worst["allowed"][0] <= worst["found"] <= worst["allowed"][1]
    assert worst["scalars"] == dict(kernel.scalars_from(worst["hyperparameters"]))
