"""Steps through compiled kernels and op by op give the same bits, whatever is mixed and however it is laid out."""

import logging

import pytest
import torch

from hessiod.backends import kernels
from hessiod.backends_torch import op_by_op
from hessiod.core.errors import NonFinite
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, ApolloW, DiagonalNewton, SophiaH

KINDS = {
    "sophia": lambda params, **more: SophiaH(params, lr=0.01, every=2, weight_decay=0.1, **more),
    "adahessian": lambda params, **more: AdaHessian(params, lr=0.01, every=2, weight_decay=0.1, **more),
    "diagonal-newton": lambda params, **more: DiagonalNewton(params, lr=0.01, every=2, **more),
    "adamw": lambda params, **more: AdamW(params, lr=0.01, **more),
    "sgd": lambda params, **more: SGD(params, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1, **more),
}
SUMMING = {
    "apollo": lambda params, **more: Apollo(params, lr=0.01, warmup=2, weight_decay=0.1, **more),
    "apollow": lambda params, **more: ApolloW(params, lr=0.01, warmup=2, weight_decay=0.1, **more),
}


def parameters(dtype=torch.float32):
    """Layouts of all sorts: dense in three orders, empty, 0-d, one entry, a strided view, many pieces."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = [
        values(7, 5),
        values(4, 3, 3, 3).contiguous(memory_format=torch.channels_last),
        values(6, 8).T,
        values(0),
        values(1).reshape(()),
        values(1),
        values(10, 10)[:, ::2],
        values(3 * op_by_op.PIECE + 17),
    ]
    return [torch.nn.Parameter(tensor) for tensor in tensors]


def run(kind, steps=5, dtype=torch.float32, params=None, **more):
    """Parameters and state after some steps on a smooth function of the parameters, whose curvature is not constant."""
    params = params or parameters(dtype)
    opt = kind(params, **more)
    for _ in range(steps):
        opt.zero_grad()
        loss = sum(
            (torch.cos(param.float() * (place + 1)) + param.float() ** 2).sum() for place, param in enumerate(params)
        )
        if getattr(opt, "curvature_due", False):
            opt.update_curvature(loss=loss)
        loss.backward()
        opt.step()
    slots = [value for param in params for value in opt.state[param].values() if torch.is_tensor(value)]
    return [tensor.detach() for tensor in (*params, *slots)]


@pytest.fixture
def eager(monkeypatch):
    """Calls a function with the compiled kernels off."""

    def call(function, *arguments, **more):
        with monkeypatch.context() as patch:
            patch.setenv("HESSIOD_KERNELS", "eager")
            return function(*arguments, **more)

    return call


@pytest.fixture
def calls(monkeypatch):
    """How many tensors the compiled kernels moved, call by call."""
    found, real = [], kernels.Sweep.run

    def counted(self, sizes, *rest):
        found.append(len(sizes))
        return real(self, sizes, *rest)

    monkeypatch.setattr(kernels.Sweep, "run", counted)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_both_routes_give_the_same_bits(name, dtype, eager, calls):
    compiled = run(KINDS[name], dtype=dtype)
    assert calls == [7] * 5  # all but the strided view
    for one, other in zip(compiled, eager(run, KINDS[name], dtype=dtype), strict=True):
        assert torch.equal(one, other)
    assert len(calls) == 5


@pytest.mark.parametrize("name", SUMMING)
def test_sums_that_round_differently_matter_less_than_float32_does(name, eager):
    def joined(tensors):
        return torch.cat([tensor.double().flatten() for tensor in tensors])

    exact = joined(run(SUMMING[name], params=[torch.nn.Parameter(param.double()) for param in parameters()]))
    compiled, by_ops = joined(run(SUMMING[name])), joined(eager(run, SUMMING[name]))
    assert (compiled - by_ops).norm() < (by_ops - exact).norm()


@pytest.mark.parametrize("name", [*KINDS, *SUMMING])
def test_the_number_of_threads_changes_nothing(name):
    before, kind = torch.get_num_threads(), (KINDS | SUMMING)[name]
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            params = [torch.nn.Parameter(torch.linspace(-1, 1, size)) for size in (5, 300_001, 70_000)]
            found.append(run(kind, params=params))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_maximize_climbs_by_the_same_bits(eager):
    for one, other in zip(run(KINDS["adamw"], maximize=True), eager(run, KINDS["adamw"], maximize=True), strict=True):
        assert torch.equal(one, other)


def test_groups_with_their_own_rate_and_late_parameters_take_their_own_scalars(eager, calls):
    def go():
        torch.manual_seed(0)
        first, second, late = (torch.nn.Parameter(torch.randn(9)) for _ in range(3))
        opt = AdamW([{"params": [first]}, {"params": [second, late], "lr": 0.1}], lr=0.01, missing="skip")
        for step in range(4):
            for param in (first, second, *([late] if step > 1 else [])):
                param.grad = torch.sin(param.detach())
            opt.step()
        return [first.detach(), second.detach(), late.detach()]

    found = go()
    assert calls == [1, 1, 1, 1, 1, 2, 1, 2]
    assert all(map(torch.equal, found, eager(go)))


def test_arrays_that_are_replaced_or_moved_are_found_again(calls):
    def go(replace):
        theta = torch.nn.Parameter(torch.linspace(-1, 1, 1000))
        opt = AdamW([theta], lr=0.1)
        for _ in range(4):
            theta.grad = torch.cos(theta.detach())
            opt.step()
            replace(theta, opt)
        return theta.detach().clone()

    def new_data(theta, opt):
        theta.data = theta.data.clone()

    def new_slot(theta, opt):
        opt.state[theta]["exp_avg"] = opt.state[theta]["exp_avg"].clone()

    def new_slot_data(theta, opt):
        opt.state[theta]["exp_avg"].data = opt.state[theta]["exp_avg"].data.clone()

    def reload(theta, opt):
        opt.load_state_dict(opt.state_dict())

    expected = go(lambda theta, opt: None)
    for replace in (new_data, new_slot, new_slot_data, reload):
        assert torch.equal(go(replace), expected), replace.__name__
    assert len(calls) == 20


def test_a_gradient_in_another_order_than_its_parameter_is_taken_op_by_op(calls):
    theta = torch.nn.Parameter(torch.zeros(4, 6))
    theta.grad = torch.arange(24.0).reshape(6, 4).T
    SGD([theta], lr=1.0).step()
    assert torch.equal(theta.detach(), -theta.grad)
    assert calls == []


def test_subclasses_are_taken_op_by_op(calls):
    class Marked(torch.Tensor):
        pass

    theta = torch.nn.Parameter(torch.ones(3))
    theta.grad = torch.ones(3).as_subclass(Marked)
    SGD([theta], lr=1.0).step()
    assert theta.tolist() == [0.0, 0.0, 0.0]
    assert calls == []


def test_a_refused_step_changes_nothing_and_an_unchecked_one_spreads_nan():
    def state(opt, theta):
        return [theta.detach().clone(), *[torch.as_tensor(value).clone() for value in opt.state[theta].values()]]

    for nonfinite in ("raise", "ignore"):
        theta = torch.nn.Parameter(torch.ones(100_000))
        opt = AdamW([theta], nonfinite=nonfinite)
        theta.grad = torch.ones_like(theta)
        opt.step()
        before = state(opt, theta)
        theta.grad[-1] = float("nan")
        if nonfinite == "raise":
            with pytest.raises(NonFinite, match="holds NaN or infinity; nothing was changed"):
                opt.step()
            assert all(map(torch.equal, before, state(opt, theta)))
        else:
            opt.step()
            assert torch.isnan(theta).sum() == 1


def test_torch_compile_of_a_step_runs_it_as_it_is(calls):
    def go(wrap):
        theta = torch.nn.Parameter(torch.linspace(-1, 1, 10))
        step = wrap(AdamW([theta], lr=0.1).step)
        for _ in range(3):
            theta.grad = torch.cos(theta.detach())
            step()
        return theta.detach()

    assert torch.equal(go(torch.compile), go(lambda step: step))
    assert calls == [1] * 6


def test_a_kernel_that_cannot_be_had_is_said_once(monkeypatch, caplog):
    def broken(*arguments):
        raise kernels.CompilerUnavailable("it is Monday")

    monkeypatch.setattr(kernels, "compiled", broken)
    kernels.sweep_for.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            found = run(KINDS["adamw"])
    finally:
        kernels.sweep_for.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "adamw_kernel runs without a compiled kernel: it is Monday"
    ]
    monkeypatch.undo()
    assert all(map(torch.equal, found, run(KINDS["adamw"])))
