"""CurvatureHook in plain loops: the same bits as a loop that calls update_curvature itself."""

import gc
import weakref

import pytest
import torch
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hessiod.core import InvalidArgument, InvalidState
from hessiod.torch import KFAC, SPNGD, THOR, AdaHessian, AdamW, CurvatureHook, DiagonalNewton, SophiaG, SophiaH

GAUSS_NEWTON = {
    "sophia-g": lambda model: SophiaG(model.parameters(), lr=1e-2, every=3),
    "kfac": lambda model: KFAC(model, lr=0.1, factor_every=2, inverse_every=2),
    "kfac-empirical": lambda model: KFAC(model, lr=0.1, factor_every=2, inverse_every=2, fisher="empirical"),
    "spngd": lambda model: SPNGD(model, lr=0.1),
    "thor": lambda model: THOR(model, lr=0.1),
}
HUTCHINSON = {
    "sophia-h": lambda model: SophiaH(model.parameters(), lr=1e-2, every=3),
    "adahessian": lambda model: AdaHessian(model.parameters(), lr=1e-2, every=2),
    "diagonal-newton": lambda model: DiagonalNewton(model.parameters(), lr=1e-2, damping=0.1, every=3),
}
each_gauss_newton = pytest.mark.parametrize("make", GAUSS_NEWTON.values(), ids=GAUSS_NEWTON)
each_hutchinson = pytest.mark.parametrize("make", HUTCHINSON.values(), ids=HUTCHINSON)
each = pytest.mark.parametrize("make", (GAUSS_NEWTON | HUTCHINSON).values(), ids=GAUSS_NEWTON | HUTCHINSON)


class Net(torch.nn.Module):
    """A perceptron with dropout that works out its loss, as Hugging Face's models do."""

    def __init__(self, recompute=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Dropout(0.1))
        self.head = torch.nn.Linear(16, 3)
        self.recompute = recompute

    def forward(self, x, labels=None):
        if self.recompute is None:
            hidden = self.body(x)
        else:
            hidden = checkpoint(self.body, x.requires_grad_(self.recompute), use_reentrant=self.recompute)
        logits = self.head(hidden)
        return {"loss": None if labels is None else F.cross_entropy(logits.float(), labels), "logits": logits}


def batch(number):
    generator = torch.Generator().manual_seed(number)
    x, y = torch.randn(16, 5, generator=generator), torch.randint(3, (16,), generator=generator)
    y[: number % 5] = -100  # ignored targets, another number in each batch
    return x, y


def train(model, opt, steps, parts=1, by_hand=False, spoil=(), scaler=None, autocast=None, call=None):
    torch.manual_seed(1)  # dropout's
    for step in range(steps):
        for part in range(parts):
            x, y = batch(step * parts + part)
            with torch.autocast("cpu", autocast, enabled=autocast is not None):
                if by_hand and opt.curvature_due and by_hand == "closure":
                    opt.update_curvature(closure=lambda x=x, y=y: model(x, y)["loss"])
                out = (model if call is None else call)(x, y)
            if by_hand == "graph" and opt.curvature_due:
                opt.update_curvature(loss=out["loss"], logits=out["logits"])
            loss = out["loss"] / parts
            (loss if scaler is None else scaler.scale(loss)).backward()
        if step in spoil:
            model.head.weight.grad[0, 0] = float("inf")
        if scaler is None:
            opt.step()
        else:
            scaler.step(opt)
            scaler.update()
        opt.zero_grad()
    return model, opt


def tensors(run):
    model, opt = run
    params = list(model.parameters())
    return params + [torch.as_tensor(v) for p in params for v in opt.state[p].values() if isinstance(v, torch.Tensor)]


def assert_equal(run, other):
    pairs = list(zip(tensors(run), tensors(other), strict=True))
    assert len(pairs) > 4
    for a, b in pairs:
        assert torch.equal(a, b)


def hooked(make, steps, model=None, **options):
    model = model or Net()
    opt = make(model)
    with CurvatureHook(model, opt):
        return train(model, opt, steps, **options)


@pytest.mark.parametrize("parts", [1, 3])
@each_gauss_newton
def test_gauss_newton_is_that_of_a_loop_that_gives_it_by_hand_bit_for_bit(make, parts):
    model = Net()
    assert_equal(hooked(make, 5, parts=parts), train(model, make(model), 5, parts=parts, by_hand="graph"))


@pytest.mark.parametrize("parts", [1, 3])
@each_hutchinson
def test_hutchinson_is_that_of_a_closure_before_the_forward_bit_for_bit(make, parts):
    model = Net()
    assert_equal(hooked(make, 5, parts=parts), train(model, make(model), 5, parts=parts, by_hand="closure"))


@pytest.mark.parametrize("recompute", [False, True], ids=["non-reentrant", "reentrant"])
def test_gradient_checkpointing_changes_nothing(recompute):
    make = GAUSS_NEWTON["sophia-g"]
    assert_equal(hooked(make, 4, Net(recompute)), hooked(make, 4))


@pytest.mark.parametrize("make", [GAUSS_NEWTON["sophia-g"], HUTCHINSON["sophia-h"]], ids=["sophia-g", "sophia-h"])
@pytest.mark.parametrize("inside", [False, True], ids=["around", "inside"])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model(make, inside, backend):
    """The hook on the compiled module, or on the one that it was compiled from, where it breaks the graph."""
    model = Net().eval()
    opt, compiled = make(model), torch.compile(model, backend=backend)
    with CurvatureHook(model if inside else compiled, opt):
        found = train(model, opt, 4, call=compiled)
    other = hooked(make, 4, Net().eval())
    for a, b in zip(tensors(found), tensors(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert opt.state[model.head.weight]["refreshes"] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_hutchinson
def test_hutchinson_under_autocast_is_that_of_what_autocast_computes(make, dtype):
    """Also in float16 on the CPU, where derivatives that are themselves taken under autocast fail."""
    found, exact = hooked(make, 1, autocast=dtype), hooked(make, 1)
    for a, b in zip(found[0].parameters(), exact[0].parameters(), strict=True):
        slot = next(key for key in found[1].state[a] if "hessian" in key)
        mine, theirs = found[1].state[a][slot], exact[1].state[b][slot]
        assert 0 < (mine - theirs).norm() <= 0.05 * theirs.norm()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_model_with_its_loss_outside(backend):
    model = Net().eval()
    opt, compiled = SophiaG(model.parameters(), lr=1e-2, every=3), torch.compile(model, backend=backend)

    def call(x, y):
        logits = compiled(x)["logits"]
        return {"loss": F.cross_entropy(logits, y)}

    with CurvatureHook(compiled, opt):
        found = train(model, opt, 4, call=call)
    for a, b in zip(tensors(found), tensors(hooked(GAUSS_NEWTON["sophia-g"], 4, Net().eval())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@each_gauss_newton
def test_a_scaled_loss_and_a_skipped_step_under_float16_autocast(make):
    """The scaler's own loop: nothing has to be told to the hook."""
    scaler = GradScaler("cpu", init_scale=1024.0)
    model = Net()
    opt = make(model)
    with CurvatureHook(model, opt):
        train(model, opt, 3, scaler=scaler, autocast=torch.float16, spoil=[0, 2])
    assert opt.steps == 1
    assert scaler.get_scale() == 256.0
    assert all(torch.isfinite(tensor).all() for tensor in tensors((model, opt)))


@each
def test_a_trainers_scaler_that_calls_step_only_where_gradients_are_finite(make):
    scaler, model = GradScaler("cpu", init_scale=1024.0), Net()
    opt = make(model)
    hook = CurvatureHook(model, opt, scaler=scaler)
    torch.manual_seed(1)
    for number in range(3):
        x, y = batch(number)
        scaler.scale(model(x, y)["loss"]).backward()
        if number == 0:
            model.head.weight.grad[0, 0] = float("inf")
        scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
        hook.skip()
        assert opt.steps == number
        assert opt.curvature_due or number
        opt.zero_grad()
    other = Net()
    same = make(other)
    torch.manual_seed(1)
    with CurvatureHook(other, same):
        for number in range(3):
            x, y = batch(number)
            other(x, y)["loss"].backward()
            if number:
                same.step()
            else:
                same._settled()
            same.zero_grad()
    assert_equal((model, opt), (other, same))
    hook.remove()
    assert opt._step_supports_amp_scaling


def test_first_order_rules_need_nothing():
    model = Net()
    opt = AdamW(model.parameters())
    with CurvatureHook(model, opt):
        assert not model._forward_hooks
        assert not model._forward_pre_hooks
        train(model, opt, 1)


def test_forwards_without_gradients_and_forwards_without_a_backward_leave_nothing():
    model = Net()
    opt = GAUSS_NEWTON["sophia-g"](model)
    with CurvatureHook(model, opt) as hook:
        with torch.no_grad():
            model(*batch(0))
        assert not hook._waiting
        lost = weakref.ref(model(*batch(0))["logits"])
        assert opt._pending is None
        train(model, opt, 1)
        gc.collect()
        assert not hook._waiting
        assert lost() is None


def test_removing_it_restores_model_and_optimizer():
    model = Net()
    opt = KFAC(model)
    before = dict(vars(opt)), len(model._forward_hooks)
    CurvatureHook(model, opt, scaler=GradScaler("cpu")).remove()
    assert (dict(vars(opt)), len(model._forward_hooks)) == before


@pytest.mark.parametrize("make", [GAUSS_NEWTON["sophia-g"], HUTCHINSON["sophia-h"]])
def test_a_new_hook_takes_the_place_of_the_old(make, given):
    model = Net()
    opt = make(model)
    CurvatureHook(model, opt)
    second = CurvatureHook(model, opt)
    train(model, opt, 4)
    assert given == [1, 4]
    second.remove()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert "_hook" not in vars(opt)


def test_an_optimizer_of_somebody_else_is_refused():
    model = Net()
    with pytest.raises(InvalidArgument, match=r"optimizer: found Adam, expected one of hessiod.torch, such as SophiaG"):
        CurvatureHook(model, torch.optim.Adam(model.parameters()))


def test_a_model_whose_output_holds_no_logits():
    model = Net()
    hook = CurvatureHook(model, SophiaG(model.parameters()), logits=lambda out: None)
    message = "the output of Net holds no logits with a graph; pass logits="
    with hook, pytest.raises(InvalidState, match=message):
        model(*batch(0))


def test_a_model_whose_output_holds_no_loss():
    model = Net()
    message = r"needs the loss, and the output of Net holds none; .*or use SophiaG"
    with CurvatureHook(model, SophiaH(model.parameters())), pytest.raises(InvalidState, match=message):
        model(batch(0)[0])


@pytest.mark.parametrize("make", [GAUSS_NEWTON["sophia-g"], GAUSS_NEWTON["kfac"], HUTCHINSON["sophia-h"]])
def test_a_hook_on_a_module_that_the_loop_does_not_call(make):
    model = Net()
    opt = make(model)
    with CurvatureHook(torch.nn.Linear(1, 1), opt):
        model(*batch(0))["loss"].backward()
        with pytest.raises(
            InvalidState, match="due at step 1: the hook on Linear saw no training forward that led to a"
        ):
            opt.step()


def test_parts_of_a_mean_add_up_to_the_curvature_of_the_whole():
    """Losses divided by the number of targets in all parts, of parts of different lengths."""
    data, theta = torch.randn(10, generator=torch.Generator().manual_seed(0)), torch.nn.Parameter(torch.ones(1))
    found = []
    for parts in ([data], [data[:3], data[3:9], data[9:]]):
        opt = SophiaH([theta], lr=0.0, betas=(0.0, 0.0))
        for part in parts:
            opt.update_curvature(loss=(part * theta**2).sum() / len(data), summed=True)
        theta.grad = torch.zeros(1)
        opt.step()
        found.append(opt.state[theta]["hessian"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[0] == pytest.approx(2 * data.mean().item(), rel=1e-6)
    opt.update_curvature(loss=theta.square().sum(), summed=True)
    with pytest.raises(InvalidArgument, match="summed: found False after True, expected the same for all calls"):
        opt.update_curvature(loss=theta.square().sum())


def test_layers_of_a_compiled_model_are_refused():
    model = Net().eval()
    opt, compiled = KFAC(model), torch.compile(model, backend="aot_eager")
    message = "found KFAC with a compiled OptimizedModule, .*; train the model as it was written"
    with CurvatureHook(compiled, opt), pytest.raises(InvalidState, match=message):
        compiled(*batch(0))


def test_layers_under_reentrant_checkpointing_are_refused():
    model = Net(recompute=True)
    message = r"found KFAC with reentrant checkpointing in Net, .*; use checkpoint\(..., use_reentrant=False\)"
    with CurvatureHook(model, KFAC(model)), pytest.raises(InvalidState, match=message):
        model(*batch(0))
