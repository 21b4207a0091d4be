"""hvp, hessian_diagonal, hessian_trace, gauss_newton_diagonal: exact cases, one compilation, memory, refusals."""

from __future__ import annotations

import gc

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, nn, ops
from mindspore.graph import api
from mindspore.graph._parse import parser
from mindspore.ops._grad_experimental.grad_base import bprop_getters

from hessiod.backends.certification import Operator, Table
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.backends_mindspore.derivatives import certificate
from hessiod.backends_mindspore.derivatives.cures import DERIVATIVES, OPERATORS
from hessiod.backends_mindspore.derivatives.tracing import cured
from hessiod.core import InvalidArgument, philox
from hessiod.core.likelihood import RESIDUALS
from hessiod.mindspore import SophiaH, TrainStep, gauss_newton_diagonal, hessian_diagonal, hessian_trace, hvp


class Quadratic(nn.Cell):
    """``x' A x / 2`` for each of two parameters, plus a sum of fourth powers."""

    def __init__(self, matrix):
        super().__init__()
        self.a = Parameter(Tensor([1.0, -2.0, 0.5], ms.float32), name="a")
        self.b = Parameter(Tensor([[0.5, 1.5]], ms.float32), name="b")
        self.matrix = Tensor(matrix.astype(np.float32))

    def construct(self, scale):
        a = self.a.reshape(1, -1)
        return scale * (0.5 * (ops.matmul(a, self.matrix) * a).sum() + (self.b**4).sum())


DIAGONAL = np.diag([2.0, -3.0, 0.25])
FULL = np.array([[2.0, 1.0, -0.5], [1.0, -3.0, 2.0], [-0.5, 2.0, 0.25]])
FOURTH = 12 * np.array([[0.5, 1.5]]) ** 2
SCALE = Tensor(2.0, ms.float32)


def test_hutchinson_is_exact_for_a_diagonal_hessian(mode):
    net = Quadratic(DIAGONAL)
    a, b = hessian_diagonal(net, [net.a, net.b], SCALE)
    np.testing.assert_allclose(a.asnumpy(), 2 * np.diag(DIAGONAL), rtol=1e-6)
    np.testing.assert_allclose(b.asnumpy(), 2 * FOURTH, rtol=1e-6)


def test_diagonal_and_trace_of_a_full_hessian_from_the_same_probes():
    """The probes are core's, drawn here in numpy: the mean of ``u * (H u)``, and of ``u' H u``."""
    net, samples = Quadratic(FULL), 5
    likes = [np.zeros(3), np.zeros((1, 2))]
    draws = [philox.rademacher_probes(numpy_xp, likes, seed=2**64 - 3, step=0, sample=k) for k in range(samples)]
    found = hessian_diagonal(net, [net.a, net.b], SCALE, samples=samples, seed=2**64 - 3)
    np.testing.assert_allclose(found[0].asnumpy(), np.mean([2 * u * (FULL @ u) for u, _ in draws], 0), rtol=1e-5)
    trace = hessian_trace(net, [net.a, net.b], SCALE, samples=samples, seed=2**64 - 3)
    forms = [2 * u @ FULL @ u + (2 * FOURTH).sum() for u, _ in draws]
    assert trace.value == pytest.approx(np.mean(forms), rel=1e-6)
    assert trace.standard_error == pytest.approx(np.std(forms, ddof=1) / samples**0.5, rel=1e-5)


def test_gauss_newton_diagonal_by_hand_with_a_mask():
    net = nn.Dense(3, 4)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    mask = np.array([1, 0, 1, 1, 0, 1])
    params = net.trainable_params()
    weight, bias = gauss_newton_diagonal(net, params, Tensor(x), samples=2, seed=5, mask=Tensor(mask))
    logits = x.astype(np.float64) @ params[0].asnumpy().astype(np.float64).T + params[1].asnumpy()
    expected = []
    for sample in range(2):
        residual = RESIDUALS["categorical"](numpy_xp, logits, 5, 0, sample) * mask[:, None]
        expected.append([total**2 / mask.sum() for total in (residual.T @ x, residual.sum(0))])
    np.testing.assert_allclose(weight.asnumpy(), (expected[0][0] + expected[1][0]) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias.asnumpy(), (expected[0][1] + expected[1][1]) / 2, rtol=1e-4, atol=1e-6)


def compiled():
    """How many graphs this process has compiled."""
    return len(api.ms_compile_cache)


def test_one_compilation_a_shape_and_flat_memory_over_500_refreshes(resident):
    """Fresh vectors and inputs at each call; a leak of one weight a call would be 64 MB in the end."""
    net = nn.Dense(256, 128)
    forward, params = nn.WithLossCell(net, nn.MSELoss()), net.trainable_params()
    generator = np.random.default_rng(0)

    def refresh(rows):
        x = Tensor(generator.normal(size=(rows, 256)).astype(np.float32))
        vectors = [Tensor(generator.normal(size=param.shape).astype(np.float32)) for param in params]
        return hvp(forward, params, vectors, (x, Tensor(np.zeros((rows, 128), np.float32))))

    for _ in range(20):
        refresh(4)
    before, memory = compiled(), resident()
    for _ in range(500):
        refresh(4)
    gc.collect()
    assert compiled() == before
    assert resident() - memory < 20 * params[0].size * 4
    refresh(5)
    assert compiled() == before + 2  # the forward that is looked at, and the product


def test_training_and_evaluation_are_different_graphs():
    """Dropout of everything in training: no curvature. In evaluation the same Cell has some."""
    net = nn.SequentialCell(nn.Dense(3, 3), nn.Dropout(p=0.999), nn.Dense(3, 1))
    forward, params = nn.WithLossCell(net, nn.MSELoss()), net.trainable_params()
    inputs = Tensor(np.ones((1, 3), np.float32)), Tensor(np.zeros((1, 1), np.float32))
    vectors = [Tensor(np.ones(param.shape, np.float32)) for param in params]
    forward.set_train()
    (training, *_) = hvp(forward, params, vectors, inputs)
    forward.set_train(False)
    (evaluation, *_) = hvp(forward, params, vectors, inputs)
    assert not training.asnumpy().any()
    assert evaluation.asnumpy().any()


# What is refused, and what is left behind


class Nested(nn.Cell):
    def __init__(self, operator):
        super().__init__()
        self.blocks = nn.SequentialCell(nn.Dense(3, 3), nn.Dense(3, 3))
        self.operator = operator

    def construct(self, x):
        return self.operator(self.blocks(x)).sum()


def product(net, **options):
    params = net.trainable_params()
    vectors = [Tensor(np.ones(param.shape, np.float32)) for param in params]
    return hvp(net, params, vectors, Tensor(np.ones((2, 3), np.float32)), **options)


class Mish(nn.Cell):
    def construct(self, x):
        return ops.mish(x)


def known(monkeypatch, **verdicts):
    """A table with these verdicts on second derivatives, and right for whatever else the net has."""
    names = ("MatMul", "BiasAdd", "ReduceSum", "SumExt", "Reshape", "Mish")
    operators = {name: Operator(name, "right", verdicts.get(name, "right"), (), "it is off by 7 %") for name in names}
    operators = {name: row for name, row in operators.items() if verdicts.get(name) != "uncertified"}
    monkeypatch.setattr(certificate, "table", lambda: Table("mindspore", "2.10.0", "cpu", operators))


def test_a_refused_operator_is_named_with_its_place(monkeypatch):
    known(monkeypatch, Mish="refused")
    with pytest.raises(InvalidArgument, match=r"'operator' uses Mish, .* \(it is off by 7 %\).*SophiaG") as caught:
        product(Nested(Mish()))
    assert "\n" not in str(caught.value)


def test_a_training_step_refuses_it_too_and_changes_nothing(monkeypatch):
    known(monkeypatch, Mish="refused")
    net = nn.SequentialCell(nn.Dense(3, 3), Mish())
    step = TrainStep(net, nn.MSELoss(), SophiaH(net.trainable_params()))
    before = [param.asnumpy().tobytes() for param in net.trainable_params()]
    with pytest.raises(InvalidArgument, match="uses Mish"):
        step(Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((2, 3), np.float32)))
    assert [param.asnumpy().tobytes() for param in net.trainable_params()] == before


class Doubtful(nn.Cell):
    """An operator of the user's with a right value and the derivative of another."""

    def construct(self, x):
        return ops.mish(x)

    def bprop(self, x, out, dout):
        return (dout * ops.sigmoid(x),)


def test_an_unknown_operator_is_checked_on_the_spot(monkeypatch):
    """A smooth one with right derivatives passes; a wrong gradient does not; and the caller may decide otherwise."""
    known(monkeypatch, Mish="uncertified")
    product(Nested(Mish()))
    with pytest.raises(InvalidArgument, match=r"Mish, which is not in the certification table .* do not agree"):
        product(Nested(Doubtful()))
    product(Nested(Doubtful()), uncertified="allow")
    with pytest.raises(InvalidArgument, match="Mish, which is not in the certification table"):
        product(Nested(Mish()), uncertified="refuse")


class Hidden(nn.Cell):
    """Operators in a list, where the tracer's question does not come by."""

    def __init__(self):
        super().__init__()
        self.dense, self.operators = nn.Dense(3, 3), [ops.SeLU()]

    def construct(self, x):
        x = self.dense(x)
        for operator in self.operators:
            x = operator(x)
        return x.sum()


class Normalized(nn.Cell):
    """A loss whose batch norm has a variance of one and this weight."""

    def __init__(self, weight):
        super().__init__()
        self.a, self.weight = Parameter(Tensor([[0.0, 6.0], [6.0, -1.0], [1.0, 18.0]], ms.float32), name="a"), weight

    def construct(self, signs):
        mean, variance = ops.zeros((2,)), ops.ones((2,))
        weight = ops.ones((2,)) * 1.0 if self.weight is None else self.weight
        return (signs * ops.batch_norm(self.a, mean, variance, weight, mean, training=True)).sum()


def test_a_batch_norm_that_overwrites_its_weight_is_refused():
    signs = Tensor([[1.0, 3.0], [0.0, 2.0], [-1.0, 1.0]], ms.float32)
    apart, shared = Normalized(Tensor([1.0, 1.0])), Normalized(None)
    (found,) = hvp(apart, [apart.a], [signs], (signs,))
    a, s = (torch.tensor(value.asnumpy(), dtype=torch.float64) for value in (apart.a, signs))
    expected = torch.autograd.functional.hvp(
        lambda a: (s * torch.nn.functional.batch_norm(a, None, None, training=True)).sum(), a, s
    )[1]
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=1e-5 * abs(expected).max())
    with pytest.raises(InvalidArgument, match=r"uses BatchNorm, .*its weight lies where it writes"):
        hvp(shared, [shared.a], [signs], (signs,))


def test_an_operator_that_the_cure_does_not_reach_is_refused():
    with pytest.raises(InvalidArgument, match=r"uses SeLU, .*the cure did not reach it"):
        product(Hidden())


def test_no_second_derivative_at_all_is_refused_by_name():
    """Affine sampling has none, and nobody has written one."""

    class Sampled(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(3, 3)

        def construct(self, x):
            grid = ops.tanh(self.dense(x)).reshape(1, 1, 3, 2)
            return ops.grid_sample(grid.reshape(1, 1, 2, 3), grid).sum()

    with pytest.raises(InvalidArgument, match="uses GridSampler2D, whose second derivative"):
        product(Sampled())


def test_an_error_while_tracing_leaves_nothing_behind():
    own, registered = parser.convert_object_map, dict(bprop_getters.data)
    error = KeyError("while tracing")
    with pytest.raises(KeyError), cured():
        raise error
    assert parser.convert_object_map is own
    assert bprop_getters.data == registered


def test_the_private_names_that_the_engine_stands_on_are_there():
    """The parser's dictionary, asked for an operator; and no derivative of ours hides one that MindSpore has."""
    assert isinstance(parser.convert_object_map, dict)
    with cured():
        assert ops.SeLU in parser.convert_object_map
        assert parser.convert_object_map.get(ops.SeLU) is OPERATORS["SeLU"]
    assert not set(DERIVATIVES) & set(bprop_getters.data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(samples=0), "samples: found 0"),
        (dict(seed=-1), "seed: found -1"),
        (dict(probe="uniform"), "probe: found 'uniform'"),
        (dict(uncertified="perhaps"), "uncertified: found 'perhaps'"),
    ],
)
def test_bad_options_are_refused(options, said):
    net = Quadratic(FULL)
    with pytest.raises(InvalidArgument, match=said):
        hessian_diagonal(net, [net.a], SCALE, **options)


def test_bad_vectors_params_likelihoods_and_masks_are_refused():
    net, x = nn.Dense(3, 2), Tensor(np.ones((1, 3), np.float32))
    params = net.trainable_params()
    with pytest.raises(InvalidArgument, match="vectors: found 1, expected 2"):
        hvp(net, params, [x], x)
    with pytest.raises(InvalidArgument, match=r"for parameter 'weight', expected a Tensor \(\(2, 3\)"):
        hvp(net, params, [x, x], x)
    with pytest.raises(InvalidArgument, match="params: found an empty list"):
        hvp(net, [], [], x)
    with pytest.raises(InvalidArgument, match="likelihood: found 'poisson'"):
        gauss_newton_diagonal(net, params, x, likelihood="poisson")
    with pytest.raises(InvalidArgument, match="mask: found no target"):
        gauss_newton_diagonal(net, params, x, mask=Tensor([0]))
