"""Bad input to the torch optimizers: one line that names the thing and the way out, and nothing changed."""

import pytest
import torch
from torch.nn import functional as F

from hessiod.core import HessiodError, InvalidArgument, InvalidState, NonFinite
from hessiod.torch import SGD, AdaHessian, AdamW, Apollo, ApolloW, DiagonalNewton, Sophia, SophiaG, SophiaH

SOPHIAS = [Sophia, SophiaG, SophiaH]
PROBING = [SophiaH, AdaHessian, DiagonalNewton]
SECOND_ORDER = [*SOPHIAS, AdaHessian, DiagonalNewton]
EVERY_KIND = [*SECOND_ORDER, Apollo, ApolloW, AdamW, SGD]
OF_THE_WHOLE = ("every", "seed", "likelihood", "samples", "num_vectors", "probe", "fraction")
OF_THE_WHOLE += ("timing", "warm_start", "estimator")


def refusal(kind, call, *arguments, **options):
    """The message of the error that a call raises."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert isinstance(caught.value, HessiodError)
    assert "\n" not in message
    return message


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values or (1.0, 2.0)))


# Construction


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("params", [list, tuple, lambda: iter(())])
def test_an_empty_parameter_list(kind, params):
    message = refusal(InvalidArgument, kind, params())
    assert message == "params: found an empty list, expected parameters; pass model.parameters()"


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_groups_without_any_parameter(kind):
    """One may be empty, as in torch, but not all of them."""
    message = refusal(InvalidArgument, kind, [{"params": []}])
    assert message == "params: found groups without a parameter, expected one at least"
    assert len(kind([{"params": []}, {"params": [parameter()]}]).param_groups) == 2


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_what_to_do_with_nonfinite_numbers_is_one_for_all_groups(kind):
    """It used to be read from the first group alone."""
    groups = [{"params": [parameter()]}, {"params": [parameter()], "nonfinite": "skip"}]
    message = refusal(InvalidArgument, kind, groups)
    assert message.startswith("nonfinite: found 'skip' in a group, expected the optimizer's 'raise'; ")


@pytest.mark.parametrize(
    ("kinds", "name", "value", "expected"),
    [
        (EVERY_KIND, "lr", -1e-3, "lr: found -0.001, expected a number >= 0; "),
        (EVERY_KIND, "lr", float("nan"), "lr: found nan"),
        (EVERY_KIND, "lr", "fast", "lr: found 'fast'"),
        (EVERY_KIND, "weight_decay", -0.1, "weight_decay: found -0.1, expected a number >= 0; use 0 for no decay"),
        ([SophiaG, SophiaH, AdamW], "betas", (1.0, 0.9), "beta1: found 1.0, expected a number in [0, 1); "),
        ([SophiaG, SophiaH, AdamW], "betas", (0.9, -0.1), "beta2: found -0.1, expected a number in [0, 1); "),
        ([SophiaG, SophiaH, AdamW], "betas", (0.9,), "betas: found (0.9,), expected a pair of numbers in [0, 1)"),
        ([SophiaG, SophiaH, AdamW], "betas", (0.9, 0.9, 0.9), "betas: found (0.9, 0.9, 0.9), expected a pair"),
        ([SophiaG, SophiaH, AdamW], "betas", 0.9, "betas: found 0.9, expected a pair"),
        (SOPHIAS, "rho", 0.0, "rho: found 0.0, expected a number > 0; 0.01 to 0.1 is usual"),
        (SOPHIAS, "rho", -1.0, "rho: found -1.0"),
        ([*SOPHIAS, Apollo, ApolloW], "eps", 0.0, "eps: found 0.0, expected a number > 0"),
        (SECOND_ORDER, "every", 0, "every: found 0, expected a whole number of steps >= 1"),
        (SECOND_ORDER, "every", 2.5, "every: found 2.5"),
        (SECOND_ORDER, "seed", -1, "seed: found -1, expected an integer in [0, 2^64)"),
        (SECOND_ORDER, "seed", 2**64, "seed: found 18446744073709551616"),
        (
            [SophiaG],
            "likelihood",
            "poisson",
            "likelihood: found 'poisson', expected one of categorical, bernoulli, gaussian",
        ),
        (PROBING[:2], "samples", 0, "samples: found 0, expected a whole number of probes >= 1"),
        (PROBING[:2], "samples", 1.5, "samples: found 1.5"),
        ([DiagonalNewton], "num_vectors", 0, "num_vectors: found 0, expected a whole number of probes >= 1"),
        (PROBING, "probe", "uniform", "probe: found 'uniform', expected one of rademacher, normal"),
        ([Sophia, SophiaG], "fraction", 0.0, "fraction: found 0.0, expected a number in (0, 1)"),
        ([Sophia, SophiaG], "fraction", 1.5, "fraction: found 1.5"),
        (SOPHIAS, "timing", "late", "timing: found 'late', expected one of paper, official"),
        (SOPHIAS, "warm_start", 1, "warm_start: found 1, expected True or False"),
        ([Sophia], "estimator", "exact", "estimator: found 'exact', expected one of gauss-newton-bartlett, hutchinson"),
        ([Sophia], "samples", 2, "samples: the estimator 'gauss-newton-bartlett' has no such setting; leave it out"),
        ([AdaHessian], "hessian_power", 1.5, "hessian_power: found 1.5"),
        (
            [AdaHessian],
            "spatial_averaging",
            "rows",
            "spatial_averaging: found 'rows', expected 'none', 'kernel' or the",
        ),
        ([AdaHessian], "spatial_averaging", 0, "spatial_averaging: found 0, expected 'none', 'kernel' or the length"),
        ([AdaHessian], "spatial_averaging", True, "spatial_averaging: found True"),
        ([DiagonalNewton], "power", 2, "power: found 2, expected 1 or 0.5"),
        ([DiagonalNewton], "damping", 0.0, "damping: found 0.0, expected a number > 0"),
        ([Apollo, ApolloW], "sigma", 0.0, "sigma: found 0.0, expected a number > 0"),
        ([Apollo, ApolloW], "warmup", -1, "warmup: found -1, expected a number >= 0"),
        ([Apollo], "weight_decay_type", "l2", "weight_decay_type: found 'l2', expected one of L2, decoupled, stable"),
        ([SGD], "momentum", 1.0, "momentum: found 1.0, expected a number in [0, 1)"),
        ([SGD], "nesterov", True, "nesterov: found True with momentum=0.0"),
        (EVERY_KIND, "nonfinite", "warn", "nonfinite: found 'warn', expected 'raise' or 'skip' or 'ignore'"),
        (EVERY_KIND, "missing", None, "missing: found None, expected 'raise' or 'skip'"),
    ],
)
def test_a_bad_argument(kinds, name, value, expected):
    for kind in kinds:
        assert refusal(InvalidArgument, kind, [parameter()], **{name: value}).startswith(expected)
        if name not in OF_THE_WHOLE:
            assert refusal(InvalidArgument, kind, [{"params": [parameter()], name: value}]).startswith(expected)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(2, 3, dtype=torch.complex64), "torch.complex64"),
        (torch.eye(3).to_sparse(), "torch.sparse_coo"),
    ],
)
def test_a_complex_or_sparse_parameter(kind, tensor, found):
    foreign = torch.nn.Parameter(tensor)
    message = refusal(InvalidArgument, kind, [parameter(), foreign])
    assert message.startswith(f"parameter (group 0, position 1, shape {tuple(tensor.shape)}): found a ")
    assert found in message
    assert "expected a dense real floating-point parameter; leave it to another optimizer" in message

    opt = kind([parameter()])
    message = refusal(InvalidArgument, opt.add_param_group, {"params": [foreign]})
    assert found in message
    assert len(opt.param_groups) == 1


def test_an_integer_parameter():
    message = refusal(InvalidArgument, AdamW, [torch.nn.Parameter(torch.arange(3), requires_grad=False)])
    assert "found a torch.int64 tensor" in message


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_sparse_gradient(kind):
    table = torch.nn.Embedding(5, 3, sparse=True)
    opt = kind(table.parameters())
    before = table.weight.detach().clone()
    logits = table(torch.tensor([1, 4]))
    loss = F.cross_entropy(logits, torch.tensor([0, 1]))
    if kind in SECOND_ORDER:
        opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    message = refusal(InvalidArgument, opt.step)
    assert "position 0, shape (5, 3)) has a gradient with layout torch.sparse_coo, expected a dense one" in message
    assert "sparse=False" in message
    assert torch.equal(table.weight, before)
    assert not opt.state


# Steps


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_step_without_any_gradient(kind):
    assert "has no gradient; call loss.backward() first" in refusal(InvalidState, kind([parameter()]).step)
    message = refusal(InvalidState, kind([parameter()], missing="skip").step)
    assert message == "step: no parameter has a gradient; call loss.backward() first"


def prepared(kind, **settings):
    """An optimizer after one step, with gradients and, where there is any, curvature for the next."""
    a, b = parameter(1.0, 2.0), parameter(3.0)
    opt = (
        kind([("a", a), ("b", b)], every=1, **settings)
        if kind in SECOND_ORDER
        else kind([("a", a), ("b", b)], **settings)
    )
    if kind is SGD:
        opt.param_groups[0]["momentum"] = 0.9
    for last in (False, True):
        output = torch.cat([a * 2, b * a]).unsqueeze(0)
        loss = F.cross_entropy(output, torch.tensor([1]))
        if kind in SECOND_ORDER:
            opt.update_curvature(loss=loss, logits=output)
        opt.zero_grad()
        loss.backward()
        if not last:
            opt.step()
    return opt, a, b


def bits(opt, *params):
    slots = [value for param in params for value in opt.state[param].values()]
    return [torch.as_tensor(tensor).detach().clone() for tensor in (*params, *slots)], opt.steps


def assert_same_bits(before, after):
    assert before[1] == after[1]
    assert len(before[0]) == len(after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_with_everything_as_it_was(kind, bad):
    opt, a, b = prepared(kind)
    b.grad[0] = bad
    before = bits(opt, a, b)
    message = refusal(NonFinite, opt.step)
    assert message.startswith("the gradient of parameter 'b' (group 0, position 1, shape (1,)) holds NaN or infinity; ")
    assert "nonfinite='skip'" in message
    assert_same_bits(before, bits(opt, a, b))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_gradient_that_is_not_finite_can_be_passed_over(kind):
    opt, a, b = prepared(kind, nonfinite="skip")
    good = b.grad.clone()
    b.grad[0] = float("nan")
    before = bits(opt, a, b)
    opt.step()
    assert_same_bits(before, bits(opt, a, b))
    b.grad = good
    if kind in SECOND_ORDER:  # the skipped step's estimate is gone, and curvature is due still
        assert opt.curvature_due
        output = torch.cat([a * 2, b * a]).unsqueeze(0)
        opt.update_curvature(loss=F.cross_entropy(output, torch.tensor([1])), logits=output)
    opt.step()
    assert opt.steps == before[1] + 1
    assert all(torch.isfinite(param).all() for param in (a, b))


def test_the_largest_finite_gradients_are_no_infinity():
    theta = parameter(*[0.0] * 1000)
    theta.grad = torch.full((1000,), torch.finfo(torch.float32).max)
    SophiaG([theta]).step(bs=1)
    assert torch.isfinite(theta).all()


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_curvature_estimate_that_is_not_finite_stays_out_and_is_forgotten(nonfinite):
    theta = parameter(1.0, 4.0)
    opt = SophiaH([theta], nonfinite=nonfinite)
    theta.grad = torch.ones(2)
    opt.update_curvature(loss=theta.sub(torch.tensor([1.0, 0.0])).abs().pow(1.5).sum())  # infinite curvature at 1
    if nonfinite == "raise":
        assert "a curvature estimate of shape (2,) holds NaN or infinity" in refusal(NonFinite, opt.step)
    else:
        opt.step()
    assert theta.tolist() == [1.0, 4.0]
    assert theta not in opt.state
    opt.update_curvature(loss=theta.square().sum())
    opt.step()
    assert opt.state[theta]["hessian"].tolist() == pytest.approx([0.02, 0.02])


# Curvature


def forward(rows=4):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 5))
    logits = torch.tanh(torch.randn(rows, 3) @ weight)
    return weight, logits, F.cross_entropy(logits, torch.arange(rows) % 5)


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_curvature_that_is_due_and_was_not_given(kind):
    weight, _, loss = forward()
    opt = kind([weight])
    loss.backward()
    before = weight.detach().clone()
    message = refusal(InvalidState, opt.step)
    assert message.startswith("curvature is due at step 1: call update_curvature(loss=loss, logits=logits) before ")
    assert torch.equal(weight, before)
    assert not opt.state


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_a_loss_whose_graph_was_freed(kind):
    weight, logits, loss = forward()
    opt = kind([weight])
    loss.backward()
    message = refusal(InvalidState, opt.update_curvature, loss=loss, logits=logits)
    assert message.endswith("the graph of this loss has been freed; call update_curvature before loss.backward()")


def test_logits_outside_of_the_losses_graph():
    weight, logits, loss = forward()
    opt = SophiaG([weight])
    other = torch.relu(logits)
    assert refusal(InvalidArgument, opt.update_curvature, loss=loss, logits=other).startswith(
        "logits: the loss does not depend on them; pass the tensor it was computed from"
    )
    assert "without a graph" in refusal(InvalidArgument, opt.update_curvature, loss=loss, logits=logits.detach())
    assert "logits: found NoneType" in refusal(InvalidArgument, opt.update_curvature, loss=loss)


@pytest.mark.parametrize("shape", [(15,), (15, 1), ()])
def test_logits_without_a_class_axis(shape):
    theta = parameter(*[0.5] * 15)
    logits = theta.sum() if shape == () else (theta * 2).reshape(shape)
    message = refusal(InvalidArgument, SophiaG([theta]).update_curvature, loss=logits.sum(), logits=logits)
    assert message.startswith(f"logits: found the shape {shape}, expected [..., classes] with at least 2 classes")


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_a_loss_that_is_not_a_scalar_with_a_graph(kind):
    weight, logits, loss = forward()
    opt = kind([weight])
    assert (
        refusal(InvalidArgument, opt.update_curvature, loss=logits, logits=logits)
        == "loss: found a tensor of shape (4, 5), expected a scalar tensor; reduce it with .mean()"
    )
    assert "loss: found 0.5, expected a scalar" in refusal(
        InvalidArgument, opt.update_curvature, loss=0.5, logits=logits
    )
    assert "without a graph" in refusal(InvalidArgument, opt.update_curvature, loss=loss.detach(), logits=logits)
    assert "None, expected a scalar" in refusal(InvalidArgument, opt.update_curvature, closure=lambda: None)


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_a_closure_beside_a_loss_or_logits_or_nothing_at_all(kind):
    weight, logits, loss = forward()
    opt = kind([weight])
    for given in (
        dict(loss=loss, closure=lambda: loss),
        dict(loss=loss, logits=logits, closure=lambda: loss),
        dict(logits=logits, closure=lambda: loss),
        {},
    ):
        message = refusal(InvalidArgument, opt.update_curvature, **given)
        assert message == "update_curvature: expected either loss= (and logits=) or closure=, not both or none"


def test_a_batch_in_which_every_target_is_ignored():
    weight, logits, _ = forward()
    opt = SophiaG([weight])
    loss = (logits * 0).sum()
    opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    before = weight.detach().clone()
    assert "every target is ignored; skip batches that hold only padding" in refusal(InvalidState, opt.step)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_a_refused_estimate_leaves_nothing_behind(kind):
    weight, logits, loss = forward()
    opt = kind([weight])
    refusal(InvalidArgument, opt.update_curvature, loss=logits, logits=logits)
    opt.state_dict()  # refused while an estimate waits for its step
    opt.update_curvature(loss=loss, logits=logits)
    refusal(InvalidArgument, opt.update_curvature, loss=logits, logits=logits)
    loss.backward()
    opt.step()  # with the estimate that was accepted
    assert torch.equal(opt.state[weight][slot_of(opt)], hessian_alone(kind))


def slot_of(opt):
    return opt.rule_of(opt.param_groups[0]).refresh.results[0]


def hessian_alone(kind):
    weight, logits, loss = forward()
    opt = kind([weight])
    opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    opt.step()
    return opt.state[weight][slot_of(opt)]


@pytest.mark.parametrize("kind", [AdaHessian, DiagonalNewton])
def test_a_parameter_that_has_a_gradient_before_it_has_curvature(kind):
    """Without an estimate v is 0 and the step would be the gradient over eps."""
    a, late = parameter(1.0, 2.0), parameter(3.0)
    opt = kind([("a", a), ("late", late)], every=3, missing="skip")
    opt.update_curvature(loss=a.square().sum())
    a.grad = torch.ones(2)
    opt.step()
    assert not opt.curvature_due
    late.grad = torch.ones(1)
    before = bits(opt, a)
    message = refusal(InvalidState, opt.step)
    assert message.startswith(
        "parameter 'late' (group 0, position 1, shape (1,)) has no curvature yet: call update_curv"
    )
    assert_same_bits(before, bits(opt, a))
    assert late.item() == 3.0
    assert late not in opt.state
    opt.update_curvature(loss=(a.square().sum() + late.square().sum()))
    opt.step()
    assert late.item() < 3.0


@pytest.mark.parametrize("kind", SECOND_ORDER)
def test_an_unfrozen_parameter_asks_for_curvature(kind):
    a, b = parameter(1.0, 2.0), parameter(3.0)
    b.requires_grad_(False)
    opt = kind([a, b], every=5)
    for step in range(3):
        output = torch.cat([a * 2, b * a]).unsqueeze(0)
        loss = F.cross_entropy(output, torch.tensor([1]))
        assert opt.curvature_due == (step in (0, 2))
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=output)
        opt.zero_grad()
        loss.backward()
        opt.step()
        b.requires_grad_(step > 0)
    assert [opt.state[param]["refreshes"] for param in (a, b)] == [2, 1]


def test_apollo_w_refuses_apollos_other_modes_of_decay():
    opt, other = ApolloW([parameter()]), Apollo([parameter()])
    message = refusal(InvalidArgument, opt.load_state_dict, other.state_dict())
    assert message == "weight_decay_type: found 'L2', expected 'decoupled'; use Apollo for others"
    opt.load_state_dict(Apollo([parameter()], weight_decay_type="decoupled").state_dict())
