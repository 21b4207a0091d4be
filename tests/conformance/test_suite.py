import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hessiod.backends import load
from hessiod.backends.contract import Route
from hessiod.backends.numpy import NumpyBackend, run
from hessiod.conformance import kernels, report, suite, trajectories
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.enclosure import enclose
from hessiod.conformance.formulas import FORMULAS
from hessiod.conformance.problems import golden
from hessiod.conformance.result import Report, sha256
from hessiod.conformance.selection import NONE_KNOWN
from hessiod.core.rules import RULES

APOLLO_STEPS = {"apollo-l2.step", "apollo-decoupled.step", "apollo-stable.step"}


def rows_of(checks):
    return list(suite.run_checks(list(checks), NONE_KNOWN))


def kernel_rows(backend, only=""):
    checks = (check for check in kernels.kernel_checks(backend) if not check.id.endswith("/drawn"))
    return rows_of(check for check in checks if only in check.id)


def failures(backend, only=""):
    return {case.id.split("/")[1] for case in kernel_rows(backend, only) if case.verdict == FAIL}


def backend_with(route_run, **flags):
    backend = NumpyBackend()
    backend.routes, backend.dtypes = (Route("eager", route_run, **flags),), ("float32",)
    return backend


@pytest.fixture(scope="module")
def numpy_report():
    return suite.run_suite(suite.choose(["numpy"]))


def test_the_numpy_backend_passes_every_kernel(numpy_report):
    numpy = load("numpy")
    rows = [row for row in numpy_report.cases if row.level == "L1"]
    assert {row.verdict for row in rows} == {PASS}
    assert [route.name for route in numpy.routes] == ["eager", "kernels"]  # generated C++ gives numpy's bits, too
    steps = [subject for subject in kernels.subjects() if subject.stepped]  # estimates are never in half precision
    assert len(rows) == (len(kernels.subjects()) + len(steps)) * 2 * 2 * 2 * 2
    agreement = [row for row in rows if row.id.endswith("agreement")]
    assert {row.worst_ulp for row in agreement if "/eager/" in row.id} == {0.0}
    inexact = {row.rule for row in agreement if row.worst_ulp}  # their sums and powers are taken in double precision
    assert inexact <= {"apollo-l2", "apollo-decoupled", "apollo-stable", "adahessian-power"}


def test_every_kernel_has_a_published_formula():
    assert {subject.name for subject in kernels.subjects()} == set(FORMULAS)


@pytest.mark.parametrize(
    ("function", "caught"),
    [
        ("maximum", {"sophia.step", "sophia-warm.step", *APOLLO_STEPS}),
        ("sqrt", {"adamw.step", "adahessian.step", "diagonal-newton-sqrt.step"}),
        ("clip", {"sophia.step", "sophia-warm.step"}),
    ],
)
def test_a_function_that_is_off_by_two_ulp_or_one_sided_is_caught(function, caught):
    import hessiod.backends.numpy.namespace as right

    broken = SimpleNamespace(**{name: getattr(right, name) for name in right.__all__})
    replacements = {
        "maximum": lambda x, y: np.where(x > y, x, y) + 2 * np.spacing(np.where(x > y, x, y)),
        "sqrt": lambda x: np.nextafter(np.nextafter(np.sqrt(x), np.inf, dtype=x.dtype), np.inf, dtype=x.dtype),
        "clip": lambda x, low, high: np.minimum(x, x.dtype.type(high)),
    }
    setattr(broken, function, replacements[function])

    def broken_run(kernel, arrays, scalars):
        typed = {name: arrays[0].dtype.type(value) for name, value in scalars.items()}
        with np.errstate(all="ignore"):
            result = kernel(broken, *arrays, **typed)
        return tuple(result) if isinstance(result, tuple) else (result,)

    assert failures(backend_with(broken_run)) == caught


@pytest.mark.parametrize(
    ("scalar", "change"),
    [
        ("keep", lambda value: 1 - value),
        ("take", lambda value: value * (1 + 1e-5)),
        ("shrink", lambda value: 1.0),
        ("rho", lambda value: value**2),
        ("eps", lambda value: value * 1.1),
        ("lr", lambda value: -value),
    ],
)
def test_a_wrong_scalar_is_caught_in_sophias_step(scalar, change):
    def broken_run(kernel, arrays, scalars):
        return run(kernel, arrays, scalars | ({scalar: change(scalars[scalar])} if scalar in scalars else {}))

    assert failures(backend_with(broken_run), only="sophia.step") == {"sophia.step"}


def test_scalar_arithmetic_in_float32_is_caught():
    def broken_run(kernel, arrays, scalars):
        single = {name: float(np.float32(1) - np.float32(1 - value)) for name, value in scalars.items()}
        return run(kernel, arrays, single)

    assert {"sophia.step", "sophia.refresh", "adamw.step"} <= failures(backend_with(broken_run))


def test_a_kernel_that_is_not_the_formula_is_caught_although_every_backend_agrees(monkeypatch):
    rule = RULES["sophia"]

    def no_decay(xp, theta, grad, m, h, *, lr, keep, take, rho, eps, shrink):
        m = keep * m + take * grad
        return theta - lr * xp.clip(m / xp.maximum(rho * h, eps), -1.0, 1.0), m

    monkeypatch.setitem(RULES, "sophia", replace(rule, step=replace(rule.step, function=no_decay)))
    rows = kernel_rows(load("numpy"), only="sophia.step")
    assert {case.id.rpartition("/")[2] for case in rows if case.verdict == FAIL} == {"formula"}
    assert any("the kernel is not the formula" in case.why for case in rows)


@pytest.mark.parametrize("flushes", [False, True])
def test_a_denormal_scalar_may_be_read_as_zero_only_where_denormals_are_flushed(flushes):
    big, decay = np.full(3, -1e16, np.float32), {"decay": 5.9e-39}
    (result,) = enclose(
        lambda xp, x, *, decay: (decay * x,), [big], decay, dtype=big.dtype, kind="agreement", flushes=flushes
    )
    assert result.contains(big * np.float32(5.9e-39)).all()
    assert result.contains(np.zeros_like(big)).all() == flushes


def test_flushed_denormals_pass_only_where_the_route_says_so():
    def flushing_run(kernel, arrays, scalars):
        results = run(kernel, arrays, scalars)
        return tuple(np.where(np.abs(r) < np.finfo(r.dtype).smallest_normal, r.dtype.type(0), r) for r in results)

    assert failures(backend_with(flushing_run), only="sgd")
    assert not failures(backend_with(flushing_run, flushes=True))


def test_a_backend_that_raises_or_returns_the_wrong_dtype_or_shape_gives_rows_that_say_so():
    def raises(kernel, arrays, scalars):
        raise RuntimeError("no such kernel\nsecond line")

    def widens(kernel, arrays, scalars):
        return tuple(result.astype(np.longdouble) for result in run(kernel, arrays, scalars))

    def reshapes(kernel, arrays, scalars):
        return tuple(result.reshape(-1, 1) for result in run(kernel, arrays, scalars))

    for broken, said in (
        (raises, "RuntimeError: no such kernel"),
        (widens, "found float128(2048,), expected float32(2048,)"),
        (reshapes, "expected float"),
    ):
        rows = kernel_rows(backend_with(broken), only="step")
        assert {row.verdict for row in rows} == {FAIL}
        assert all(said in row.why for row in rows)


def test_an_enclosure_without_denormals_is_one_number_and_with_rounding_holds_any_fused_evaluation():
    kernel, dtype = RULES["sgd"].step.function, np.dtype(np.float32)
    rng = np.random.default_rng(0)
    theta, grad = rng.normal(size=(2, 1000)).astype(dtype)
    scalars = {"lr": 0.1, "decay": 0.01}
    (exact,) = enclose(kernel, [theta, grad], scalars, dtype=dtype, kind="agreement", flushes=False)
    assert (exact.low == exact.high).all()
    assert (exact.low == run(kernel, [theta, grad], scalars)[0]).all()
    (may,) = enclose(kernel, [theta, grad], scalars, dtype=dtype, kind="rounding", flushes=False)
    lr, decay = np.float64(np.float32(0.1)), np.float64(np.float32(0.01))
    fused = (theta - lr * (grad + decay * theta)).astype(dtype)  # one rounding at the very end
    assert may.contains(fused).all()
    assert not may.contains(np.nextafter(np.nextafter(may.high.astype(dtype), np.inf), np.inf)).any()


def test_trajectories_that_drift_or_raise_fail_and_a_backend_without_optimizers_is_unsupported(monkeypatch):
    class Drifting:
        name, optimizers = "drifting", {"adamw": None, "sgd": None}

        def devices(self):
            return ("cpu",)

        def trainer(self, config, weights):
            if config.optimizer == "sgd":
                raise RuntimeError("no memory")
            losses = iter(golden()["gpt.adamw"] * (1 + 2e-4))
            return SimpleNamespace(step=lambda inputs, targets: SimpleNamespace(loss=next(losses)))

    rows = {case.id: case for case in rows_of(trajectories.trajectory_checks([Drifting()]))}
    assert rows["L4/gpt.adamw/drifting/golden/50"].verdict == FAIL
    assert "2.0e-04" in rows["L4/gpt.adamw/drifting/golden/50"].why
    assert rows["L4/gpt.sgd/drifting/golden/50"].why == "RuntimeError: no memory"
    assert rows["L4/gpt.sophia-g/drifting/golden/50"].verdict == UNSUPPORTED


def test_the_report_is_valid_json_with_a_digest_that_any_change_breaks(numpy_report, tmp_path):
    paths = report.write_reports(numpy_report, tmp_path)
    document = json.loads(paths[0].read_text())
    assert set(document) == {"header", "cases", "digest"}
    fields = {"id", "level", "rule", "backend", "device", "dtype", "worst_ulp", "budget_ulp", "verdict", "why"}
    assert all(set(case) - {"worst"} == fields for case in document["cases"])
    assert document["digest"] == sha256({"header": document["header"], "cases": document["cases"]})
    document["cases"][0]["worst_ulp"] += 1
    assert document["digest"] != sha256({"header": document["header"], "cases": document["cases"]})
    assert len({case["id"] for case in document["cases"]}) == len(document["cases"])


def test_a_failed_row_makes_the_report_fail_and_nothing_but_unsupported_rows_do_too(numpy_report):
    assert numpy_report.passed
    row = numpy_report.cases[0]
    assert not Report(numpy_report.header, [*numpy_report.cases, replace(row, verdict=FAIL)]).passed
    assert not Report(numpy_report.header, [replace(row, verdict=UNSUPPORTED)]).passed


def test_a_row_says_bit_for_bit_only_where_nothing_else_is_allowed(monkeypatch):
    torch = load("torch")
    monkeypatch.setattr(torch, "routes", torch.routes[:1])  # the eager one: compiling is for the suite itself
    rows = [row for row in kernel_rows(torch, only="step/torch/eager/float32") if row.id.endswith("agreement")]
    said = {row.rule: row.why.startswith("bit for bit") for row in rows if ".step" in row.id}
    assert said["sophia"]
    assert said["adamw"]
    assert not said["adahessian-power"]
    assert all(row.worst_ulp == 0 for row in rows if row.why.startswith("bit for bit"))
