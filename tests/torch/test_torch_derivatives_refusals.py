"""What has no second derivative, or has lost it, is refused by its name and place, with what is left."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hessiod.core.errors import InvalidArgument, InvalidState
from hessiod.torch import gauss_newton_diagonal, hessian_diagonal, hessian_trace, hvp


class Net(nn.Module):
    """A layer of each kind between two others."""

    def __init__(self, middle, width=4):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, width), middle, nn.Linear(width, 2)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return torch.cdist(x, self.centres)


class Bag(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.table = nn.EmbeddingBag(5, 4, **settings)

    def forward(self, x):
        return x + self.table(torch.tensor([[0, 2, 3]] * len(x)))


class Recomputed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=True)


X = torch.linspace(-1, 1, 18).view(6, 3).sin()


def mse(model):
    return (model(X).cos() - 0.3).square().mean()


def ones(params):
    return [torch.ones_like(param) for param in params]


def message_of(model, closure=None, method="auto", kind=InvalidState):
    params = list(model.parameters())
    with pytest.raises(kind) as caught:
        hvp(closure or (lambda: mse(model)), params, ones(params), method)
    assert "\n" not in str(caught.value)
    assert all(param.grad is None for param in params)
    return str(caught.value)


@pytest.mark.parametrize(
    ("middle", "operator", "place"),
    [
        (Distances, "CdistBackward0", "in Net.middle (Distances)"),
        (Bag, "EmbeddingBagBackward0", "in Net.middle.table (EmbeddingBag)"),
        (nn.Hardsigmoid, "HardsigmoidBackward0", "in Net.middle (Hardsigmoid)"),
    ],
)
def test_operators_without_a_second_derivative(middle, operator, place):
    torch.manual_seed(0)
    model = Net(middle())
    found = message_of(model)
    assert operator in found
    assert place in found
    assert 'method="finite-difference"' in found
    assert "gauss_newton_diagonal" in found
    params = list(model.parameters())
    estimate = gauss_newton_diagonal(lambda: model(X), params)  # what the message offers
    assert all(bool((part >= 0).all()) for part in estimate)


def test_ctc_outside_of_a_module_is_named_too():
    w = nn.Linear(3, 5)
    x, targets, six, two = (
        torch.randn(6, 2, 3),
        torch.tensor([[1, 2], [3, 1]]),
        torch.tensor([6, 6]),
        torch.tensor([2, 2]),
    )
    found = message_of(w, lambda: F.ctc_loss(w(x).log_softmax(-1), targets, six, two))
    assert "CtcLossBackward0 outside of all modules" in found


def test_the_method_that_fails_is_said_where_a_named_one_is_asked_for():
    model = nn.LSTM(3, 4)
    found = message_of(model, lambda: model(X[None])[0].square().sum(), "forward")
    assert "mkldnn_rnn_layer" in found or "forward" in found


def test_differences_help_where_the_message_says_so():
    torch.manual_seed(0)
    for middle in (Distances, Bag, lambda: Bag(mode="sum", sparse=True), Recomputed):
        model = Net(middle()).double()
        params = list(model.parameters())

        def closure(model=model):
            return (model(X.double()).cos() - 0.3).square().mean()

        v = [torch.sin(torch.arange(p.numel(), dtype=p.dtype)).view(p.shape) for p in params]
        found = torch.cat([h.flatten() for h in hvp(closure, params, v, "finite-difference")])
        expected = torch.cat([h.flatten() for h in slope_of_gradients(closure, params, v)])
        assert (found - expected).norm() < 1e-3 * expected.norm()


def slope_of_gradients(closure, params, vectors, step=1e-4):
    """By a fourth-order formula at another step, written independently of the package."""
    total = [torch.zeros_like(p) for p in params]
    for shift, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
        with torch.no_grad():
            for p, v in zip(params, vectors, strict=True):
                p += shift * step * v
        closure().backward()
        for t, p in zip(total, params, strict=True):
            t += weight / step * p.grad.to_dense()
            p.grad = None
        with torch.no_grad():
            for p, v in zip(params, vectors, strict=True):
                p -= shift * step * v
    return total


def test_reentrant_checkpointing_is_refused_with_its_cure():
    found = message_of(Net(Recomputed()))
    assert "reentrant checkpointing in Net.middle (Recomputed)" in found
    assert "use_reentrant=False" in found


# Lost paths


def test_a_parameter_that_the_graph_has_lost_is_not_taken_for_one_without_curvature():
    model = Net(nn.Tanh())
    closure = lambda: (F.linear(torch.tanh(model.first(X)), model.last.weight.detach()) ** 2).mean()  # noqa: E731
    params = [model.first.weight, model.last.weight, model.last.bias]
    with pytest.raises(InvalidState, match=r"the loss changes with params\[1\], and its graph has no path there"):
        hvp(closure, params, ones(params))


def test_a_lost_parameter_is_called_by_its_name_in_the_model():
    class Cut(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.data, self.bias)

    assert "params[2] (middle.weight)" in message_of(Net(Cut(4, 4)))


def test_parameters_without_curvature_get_zeros():
    used, linear, unused = (torch.tensor([1.0, 2.0], requires_grad=True) for _ in range(3))
    params = [used, linear, unused]
    found = hvp(lambda: (used**3).sum() + (linear * 3).sum(), params, ones(params))
    assert [part.tolist() for part in found] == [[6.0, 12.0], [0.0, 0.0], [0.0, 0.0]]
    only = hvp(lambda: (linear * 3).sum(), [linear], [torch.ones(2)])
    assert only[0].tolist() == [0.0, 0.0]
    assert hessian_trace(lambda: (linear * 3).sum(), [linear], samples=3) == (0.0, 0.0, 3)


class OnceOnly(torch.autograd.Function):
    """x^3, whose backward hides from autograd that it depends on x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return grad * 3 * ctx.saved_tensors[0].detach() ** 2


class Hidden(nn.Module):
    def forward(self, x):
        return OnceOnly.apply(x)


@pytest.mark.parametrize("around", [nn.Identity, nn.Tanh])
def test_a_backward_that_drops_its_own_dependence_is_found_by_differences(around):
    """Alone it gives zeros; among others a product that is partly right."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), around(), Hidden(), nn.Linear(4, 1))
    found = message_of(model, lambda: model(X).mean())
    assert "is not the derivative of the gradient" in found
    assert "OnceOnlyBackward in Sequential.2 (Hidden)" in found


def test_a_custom_function_that_is_right_passes_on_the_spot_check():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            return grad * 3 * ctx.saved_tensors[0] ** 2

    w = torch.tensor([1.0, 2.0], requires_grad=True)
    assert hvp(lambda: Cube.apply(w).sum(), [w], [torch.ones(2)])[0].tolist() == [6.0, 12.0]


# Precision


def test_differences_are_refused_in_half_precision():
    model = Net(nn.Tanh()).to(torch.bfloat16)
    found = message_of(model, lambda: model(X.bfloat16()).square().mean(), "finite-difference", InvalidArgument)
    assert "params[0] (first.weight) in torch.bfloat16" in found
    model = Net(nn.Tanh())

    def closure():
        with torch.autocast("cpu", torch.bfloat16):
            return mse(model)

    found = message_of(model, closure, "finite-difference", InvalidArgument)
    assert "torch.bfloat16 arithmetic in Net." in found
    assert "without autocast" in found


# Arguments

W = torch.ones(2, requires_grad=True)
BAD = {
    "closure: found int": lambda: hvp(3, [W], [W]),
    "closure: returned a tensor of shape (2,)": lambda: hvp(lambda: W * 2, [W], [W]),
    "closure: returned 1.0": lambda: hvp(lambda: 1.0, [W], [W]),
    "closure: returned a loss without a graph": lambda: hvp(lambda: torch.ones(()), [W], [W]),
    "params: found none": lambda: hvp(lambda: W.sum(), [], []),
    "params: found one twice": lambda: hvp(lambda: W.sum(), [W, W], [W, W]),
    "params[0]: found torch.float32 that is a leaf, requires_grad=False": lambda: hvp(
        lambda: W.sum(), [torch.ones(2)], [W]
    ),
    "params[1]: found torch.float32 that is the result of an operation": lambda: hvp(
        lambda: W.sum(), [W, W * 2], [W, W]
    ),
    "vectors: found 2, expected one for each of 1": lambda: hvp(lambda: W.sum(), [W], [W, W]),
    "vectors[0]: found (3,) torch.float32 on cpu, expected (2,)": lambda: hvp(lambda: W.sum(), [W], [torch.ones(3)]),
    "method: found 'magic'": lambda: hvp(lambda: W.sum(), [W], [W], "magic"),
    "samples: found 0": lambda: hessian_diagonal(lambda: W.sum(), [W], samples=0),
    "probe: found 'cauchy'": lambda: hessian_trace(lambda: W.sum(), [W], probe="cauchy"),
    "likelihood: found 'poisson'": lambda: gauss_newton_diagonal(lambda: W, [W], likelihood="poisson"),
    "closure: found the shape (2,)": lambda: gauss_newton_diagonal(lambda: W * 2, [W]),
    "closure: its output does not depend": lambda: gauss_newton_diagonal(
        lambda: torch.ones(2, 2, requires_grad=True) * 2, [W]
    ),
    "mask: found the shape (3,), expected (2,)": lambda: gauss_newton_diagonal(
        lambda: W * 2, [W], likelihood="gaussian", mask=torch.ones(3)
    ),
    "mask: found 1, expected one for each of 2 closures": lambda: gauss_newton_diagonal(
        [lambda: W * 2] * 2, [W], likelihood="gaussian", mask=[None]
    ),
}


@pytest.mark.parametrize("start", BAD)
def test_arguments_are_refused_by_name(start):
    with pytest.raises(InvalidArgument) as caught:
        BAD[start]()
    assert str(caught.value).startswith(start)


def test_an_error_of_the_users_own_code_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        hvp(lambda: 1 / 0, [W], [W.detach()])
    with pytest.raises(RuntimeError, match="size of tensor"):
        hvp(lambda: (W + torch.ones(3)).sum(), [W], [W.detach()])


def test_a_mask_without_targets_is_refused():
    with pytest.raises(InvalidState, match="every target is ignored"):
        gauss_newton_diagonal(lambda: W * 2, [W], likelihood="gaussian", mask=torch.zeros(2))
