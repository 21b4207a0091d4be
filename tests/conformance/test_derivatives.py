import numpy as np
import pytest

from hessiod.backends import load
from hessiod.backends.numpy import namespace as xp
from hessiod.conformance import derivatives, suite
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED
from hessiod.conformance.golden import make_objectives
from hessiod.conformance.objectives import OBJECTIVES, golden
from hessiod.conformance.selection import NONE_KNOWN


def rows_of(backend):
    return list(suite.run_checks(list(derivatives.derivative_checks(backend)), NONE_KNOWN))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_golden_gradients_and_products_are_differences_of_golden_losses(name):
    """numpy has no autodiff: central differences, of losses for gradients and then of those."""
    known, function = golden(name), OBJECTIVES[name].function

    def loss(moved):
        return float(function(xp, moved, known.data))

    def moved(step, directions):
        return [weight + step * direction for weight, direction in zip(known.weights, directions, strict=True)]

    assert loss(known.weights) == pytest.approx(float(known.loss), rel=1e-14)
    along = [np.random.default_rng(5).normal(size=weight.shape) for weight in known.weights]
    step = 1e-5
    slope = (loss(moved(step, along)) - loss(moved(-step, along))) / (2 * step)
    assert slope == pytest.approx(
        sum(float(np.sum(g * d)) for g, d in zip(known.gradients, along, strict=True)), rel=1e-6
    )
    step = 1e-3
    ends = [
        loss([w + step * (a * d + b * v) for w, d, v in zip(known.weights, along, known.vectors, strict=True)]) * a * b
        for a in (1, -1)
        for b in (1, -1)
    ]
    bend = sum(float(np.sum(p * d)) for p, d in zip(known.products, along, strict=True))
    assert sum(ends) / (4 * step**2) == pytest.approx(bend, rel=1e-3)


def test_the_script_makes_what_is_shipped(tmp_path):
    make_objectives.make(OBJECTIVES["attention"], tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.rglob("*.pb")}
    shipped = make_objectives.Path(make_objectives.__file__).with_name("objectives") / "attention" / "test_data_set_0"
    assert made == {path.name: path.read_bytes() for path in shipped.iterdir()}


def test_torch_has_every_gradient_and_product_right_and_numpy_says_why_it_has_none():
    rows = rows_of(load("torch"))
    assert {row.verdict for row in rows} == {PASS}
    assert len(rows) == len(OBJECTIVES) * 2 * 3
    assert {(row.verdict, row.why) for row in rows_of(load("numpy"))} == {(UNSUPPORTED, "the backend has no autodiff")}


class LosesATerm:
    """Torch's autodiff with the Hessian of the last layer alone, as a framework that drops a mixed derivative."""

    def __init__(self, right):
        self.right = right

    def value_and_gradients(self, function, weights, data):
        return self.right.value_and_gradients(function, weights, data)

    def product(self, function, weights, data, vectors):
        only = [vector * (place == len(vectors) - 1) for place, vector in enumerate(vectors)]
        return self.right.product(function, weights, data, only)


def test_a_lost_term_of_a_second_derivative_is_caught_by_its_product(monkeypatch):
    torch = load("torch")
    monkeypatch.setattr(type(torch), "autodiff", LosesATerm(torch.autodiff))
    failed = {row.id for row in rows_of(torch) if row.verdict == FAIL}
    layered = [name for name, objective in OBJECTIVES.items() if len(objective.weights) > 1]
    assert failed == {f"L2/{name}/torch/{dtype}/product" for name in layered for dtype in ("float32", "float64")}
