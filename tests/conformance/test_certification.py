import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hessiod.backends.certification import golden
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.backends.certification.measurement import Measurement, compare, relative_error
from hessiod.backends.certification.table import CURED, REFUSED, RIGHT, WRONG, read, shipped
from hessiod.backends_torch.certification import measure as torch_measure
from hessiod.conformance.certify import pool, report, run
from hessiod.conformance.certify.verdicts import ABSENT, Row, operator_table
from hessiod.core.errors import InvalidArgument, InvalidState

DOCS = Path(__file__).parents[2] / "docs"


def document(framework):
    (found,) = [table.document for table in map(read, shipped()) if table.framework == framework]
    return found


def test_every_case_has_golden_values_at_its_point_which_is_a_float32_point():
    assert len(CATALOGUE) >= 250
    for case in CATALOGUE.values():
        found = golden.golden(case)
        for name, value in found.inputs.items():
            assert (value.astype(np.float32) == value).all()
            assert found.gradients[name].shape == found.products[name].shape == value.shape
            assert np.isfinite(found.products[name]).all()
        assert any(np.abs(product).max() > 1e-5 for product in found.products.values()), case.name


def test_a_case_at_another_point_is_refused():
    case = CATALOGUE["gelu"]
    moved = replace(case, inputs={name: lambda seed, place: np.ones((3, 4)) for name in case.inputs})
    with pytest.raises(InvalidState, match=r"'gelu'.*certify\.golden"):
        golden.golden(moved)


@pytest.mark.parametrize(
    "name",
    [
        "gelu_tanh",
        "conv2d_stride_pad",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("layer_norm_small", "cross_entropy_smoothing")),
    ],
)
def test_the_golden_values_are_what_two_sources_agree_on(name):
    jax = pytest.importorskip("jax")
    from hessiod.conformance.certify import golden as maker

    with jax.experimental.enable_x64():
        arrays, apart = maker.make(CATALOGUE[name])
    assert apart < maker.AGREEMENT
    stored = golden.read()[0]
    for key, array in arrays.items():
        assert relative_error([array], [stored[key].astype(np.float64)]) < 1e-12, key


@pytest.fixture(scope="module")
def torch_rows():
    rows = []
    for name in torch_measure.NAMES:
        row = run.new_row(torch_measure, name, torch_measure.ENGINE_ROUTES)
        row.routes = {route: torch_measure.measure(name, route) for route in torch_measure.ROUTES}
        rows.append(row)
    return rows


def test_torch_has_no_silent_error_over_the_whole_catalogue(torch_rows):
    assert [row.name for row in torch_rows if row.verdict == WRONG] == []
    assert sum(row.verdict in (RIGHT, CURED) for row in torch_rows) >= 260
    assert all(row.verdict in (RIGHT, CURED, REFUSED) for row in torch_rows)


def test_the_shipped_table_for_torch_says_what_was_just_measured(torch_rows):
    found = {row.name: row.verdict for row in torch_rows}
    assert found == {case["name"]: case["verdict"] for case in document("torch")["cases"]}
    now = {name: (entry["first"], entry["second"]) for name, entry in operator_table(torch_rows).items()}
    assert now == {name: (e["first"], e["second"]) for name, e in document("torch")["operators"].items()}


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_a_shipped_table_rests_on_these_golden_values_and_has_nothing_wrong(framework):
    shown = document(framework)
    assert shown["header"]["golden"] == golden.file_digest()
    assert shown["counts"]["wrong"] == 0
    present = {case["name"].partition("__")[0] for case in shown["cases"] if case["verdict"] != ABSENT}
    assert len(present) >= 150
    for verdict in (RIGHT, CURED, REFUSED, WRONG, ABSENT):
        assert shown["counts"][verdict] == sum(case["verdict"] == verdict for case in shown["cases"])


def test_the_page_shows_the_shipped_tables():
    assert (DOCS / "certification.md").read_text() == report.page()


def row(name, *operators, plain, engine=None):
    found = Row(name, "family", True, ("engine",))
    for route, second in (("plain", plain), ("engine", plain if engine is None else engine)):
        error = "" if isinstance(second, float) else second
        value = second if isinstance(second, float) else None
        found.routes[route] = Measurement(1e-7, value, second_error=error, operators=operators)
    return found


def test_verdicts():
    assert row("a", plain=1e-6).verdict == RIGHT
    assert row("a", plain=0.4, engine=1e-6).verdict == CURED
    assert row("a", plain="RuntimeError", engine=1e-6).verdict == CURED
    assert row("a", plain="RuntimeError").verdict == REFUSED
    assert row("a", plain=0.4, engine="InvalidArgument").verdict == REFUSED
    assert row("a", plain=1e-6, engine=0.4).verdict == WRONG
    assert row("a", plain=float("inf")).verdict == WRONG
    absent = row("a", plain="no kernel")
    for found in absent.routes.values():
        found.first, found.first_error = None, "no kernel"
    assert absent.verdict == ABSENT
    crashing = row("a", plain="the process died: SIGSEGV")
    crashing.plain.first_error = crashing.plain.second_error
    assert crashing.verdict == REFUSED


def test_the_operator_that_few_right_cases_have_is_blamed():
    rows = [
        row("sum", "Sum", "Mul", plain=1e-7),
        *[row(f"mul_{number}", "Mul", "Sum", plain=1e-7) for number in range(9)],
        row("norm", "Norm", "Sum", "Mul", plain=1e-6),
        row("norm_small", "Norm", "Sum", "Mul", plain=0.1, engine=1e-6),
        row("det", "Det", "Sum", plain=1.9),
        row("pool", "Pool", "Mul", plain="raises"),
        row("gelu", "Gelu", "Mul", plain="raises", engine=1e-6),
    ]
    verdicts = {name: entry["second"] for name, entry in operator_table(rows).items()}
    assert verdicts == {"Sum": RIGHT, "Mul": RIGHT, "Norm": CURED, "Det": REFUSED, "Pool": REFUSED, "Gelu": CURED}
    assert operator_table(rows)["Det"]["why"] == "its second derivative is off by 1.9"


def test_what_is_raised_is_part_of_a_measurement():
    def refuse():
        raise InvalidArgument("Det: its second derivative is wrong")

    truth = [np.ones(2)]
    found = compare(lambda: [np.ones(2) * (1 + 1e-6)], refuse, truth, truth)
    assert found.first == pytest.approx(1e-6)
    assert found.second is None
    assert found.refused
    assert not found.wrong
    assert "second derivative is wrong" in found.second_error
    nan = compare(lambda: truth, lambda: [np.array([1, np.nan])], truth, truth)
    assert nan.wrong


FAKE = """
import os, time
from hessiod.backends.certification.measurement import Measurement
from hessiod.backends.certification.table import FOLDER

def measure(name, route, check=True):
    if name == "crash":
        os.kill(os.getpid(), 11)
    if name == "hang":
        time.sleep(60)
    return Measurement(0.0, float(os.getpid()), first_error=os.environ.get(FOLDER, ""))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_certifier.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(pool.MODULES, "fake", "fake_certifier")
    monkeypatch.setattr(pool, "SECONDS", 5.0)
    yield
    sys.modules.pop("fake_certifier", None)


def test_a_crash_or_a_hang_costs_one_case_and_the_rest_goes_on(fake):
    names = ["one", "crash", "two", "hang", "three"]
    found = dict(pool.measure_all("fake", [pool.Task(name, "plain") for name in names], jobs=1, environment={"A": "b"}))
    found = {task.name: measurement for task, measurement in found.items()}
    assert list(found) == names
    assert "SIGSEGV" in found["crash"].second_error
    assert "gave no answer within 5 seconds" in found["hang"].second_error
    assert len({found[name].second for name in ("one", "two", "three")}) == 3  # a new process after each


def test_a_backend_without_derivatives_is_refused_by_name():
    with pytest.raises(InvalidArgument, match=r"'numpy'.*torch, mindspore"):
        run.certifier("numpy")


def test_a_table_survives_its_file(tmp_path):
    found = run.finished(run.assembled(torch_measure, [row("a", "Mul", plain=1e-7)]), [row("a", "Mul", plain=1e-7)])
    paths = report.write_table(found, tmp_path)
    assert [path.name for path in paths] == [f"torch-{found['header']['version']}.{kind}" for kind in ("json", "md")]
    assert json.loads(paths[0].read_text()) == found
    assert read(paths[0]).verdict("Mul") == RIGHT
