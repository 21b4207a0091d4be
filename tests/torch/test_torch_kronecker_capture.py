"""What the hooks gather: rows of every kind of layer, and factors against per-example gradients in float64."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hessiod.backends_torch.kronecker.attention import attend
from hessiod.backends_torch.kronecker.discover import discover, layers_of
from hessiod.backends_torch.kronecker.layers import Layer
from hessiod.backends_torch.kronecker.statistics import statistics_of
from hessiod.torch import KFAC

F64 = torch.float64


def optimizer(model, **options):
    return KFAC(model, **{"fisher": "empirical", "factor_decay": 0.0, "factor_every": 1, "inverse_every": 1, **options})


def statistics(opt, model):
    return statistics_of(opt, opt._due.among(model.parameters()), 1.0)


def gathered(model, opt, x, y, loss=F.cross_entropy):
    """The statistics of one backward, before a step."""
    loss(model(x), y).backward()
    found = statistics(opt, model)
    return {layer.name: parts for layer, parts in found.items()}


CONVOLUTIONS = {
    "plain": (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "strided": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2)), (2, 3, 7, 6)),
    "dilated": (nn.Conv2d(2, 4, 3, dilation=(1, 2), padding=2, bias=False), (2, 2, 8, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, stride=2), (2, 4, 5, 6)),
    "same": (nn.Conv2d(3, 2, 4, padding="same", dilation=2), (2, 3, 9, 9)),
    "circular": (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), (2, 3, 5, 4)),
    "reflect": (nn.Conv2d(3, 2, 3, padding=2, padding_mode="reflect"), (2, 3, 5, 4)),
    "1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (2, 3, 11)),
    "3d": (nn.Conv3d(2, 4, (2, 3, 1), stride=(1, 2, 1), groups=2), (2, 2, 4, 5, 3)),
    "no batch axis": (nn.Conv2d(3, 4, 3, groups=1), (3, 6, 5)),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear, leading axes": (nn.Linear(5, 3, bias=False), (2, 3, 4, 5)),
    "linear, one row": (nn.Linear(5, 3), (5,)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rows_in_and_rows_out_multiply_to_the_weights_gradient(name):
    """``sum_rows g a'`` is what autograd gives, to the last bits: no row is missing, doubled or out of order."""
    module, shape = CONVOLUTIONS[name]
    module = copy.deepcopy(module).double()
    (layer,) = layers_of(name, module)
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    out = module(x)
    grad = torch.randn(out.shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    out.backward(grad)
    inputs, outputs = layer._input_rows(module, x), layer._output_rows(grad)
    if layer.bias:
        inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)
    expected = layer.matrix([param.grad for param in layer.params])
    torch.testing.assert_close(outputs.mT @ inputs, expected, rtol=1e-12, atol=1e-12)
    for part, param in zip(layer.columns(expected), layer.params, strict=True):
        assert torch.equal(part.reshape(param.shape), param.grad)
    assert layer.inputs(module, x).total.shape == layer.factor_shapes()["a"]
    assert layer.outputs(grad, None).shape == layer.factor_shapes()["g"]


def test_one_example_gives_its_exact_fisher_matrix():
    """For one example and one use of the weight, A (x) G is the outer product of the gradient with itself."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5)).double()
    found = gathered(model, optimizer(model), torch.randn(1, 4, dtype=F64), torch.tensor([2]))
    for name, index in (("0", 0), ("2", 2)):
        grad = torch.cat([model[index].weight.grad, model[index].bias.grad[:, None]], 1)
        vector = grad.T.reshape(-1)
        torch.testing.assert_close(torch.kron(found[name]["a"], found[name]["g"]), torch.outer(vector, vector))


def test_factors_are_means_over_examples_of_their_own_losses():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 5)).double()
    x, y = torch.randn(16, 4, dtype=F64), torch.randint(5, (16,))
    found = gathered(model, optimizer(model), x, y)
    residual = torch.softmax(model(x), 1) - F.one_hot(y, 5)
    torch.testing.assert_close(found["2"]["g"], (residual.T @ residual / 16).detach())
    inputs = torch.cat([x, torch.ones(16, 1, dtype=F64)], 1)
    torch.testing.assert_close(found["0"]["a"], inputs.T @ inputs / 16)


def test_sampled_targets_give_the_fisher_matrix_of_the_model():
    """G of the last layer has the expectation ``diag(p) - p p'``; 400 draws are within 4 standard errors."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4).double()
    x, y = torch.randn(64, 3, dtype=F64), torch.randint(4, (64,))
    total = torch.zeros(4, 4, dtype=F64)
    for seed in range(400):
        opt = optimizer(model, fisher="monte-carlo", seed=seed)
        logits = model(x)
        opt.update_curvature(loss=F.cross_entropy(logits, y), logits=logits)
        total += opt._capture.sums.statistics({opt.layers[0]: ("g",)}, 1.0)[opt.layers[0]]["g"] / 400
    p = torch.softmax(model(x), 1).detach()
    expected = torch.diag(p.mean(0)) - p.T @ p / 64
    assert (total - expected).abs().max() < 4 * 0.5 / (400 * 64) ** 0.5


def test_a_squared_error_has_the_identity_for_g():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2).double(), torch.randn(4096, 3, dtype=F64)
    opt = optimizer(model, fisher="monte-carlo", likelihood="gaussian", reduction="batchmean")
    out = model(x)
    opt.update_curvature(loss=out.square().sum() / 2 / 4096, logits=out)
    g = opt._capture.sums.statistics({opt.layers[0]: ("g",)}, 1.0)[opt.layers[0]]["g"]
    assert (g - torch.eye(2)).abs().max() < 4 * 2**0.5 / 4096**0.5


NORMS = {
    "batch": (nn.BatchNorm2d(3), (5, 3, 4, 2)),
    "batch of rows": (nn.BatchNorm1d(3), (5, 3)),
    "layer": (nn.LayerNorm(6), (5, 4, 6)),
    "layer, two axes": (nn.LayerNorm((4, 6)), (5, 4, 6)),
    "layer, no shift": (nn.LayerNorm(6, bias=False), (5, 6)),
    "group": (nn.GroupNorm(2, 6), (5, 6, 3)),
    "rms": (nn.RMSNorm(6), (5, 4, 6)),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_unit_wise_blocks_are_outer_products_of_per_example_gradients(name, training):
    """The output's gradient is fixed, so that an example's share is its rows' even where the batch is normalised."""
    module, shape = copy.deepcopy(NORMS[name][0]).double().train(training), NORMS[name][1]
    torch.manual_seed(0)
    for param in module.parameters():
        nn.init.normal_(param)
    (layer,) = layers_of(name, module)
    x, grad = torch.randn(shape, dtype=F64), torch.randn(shape, dtype=F64)
    found = layer.outputs(grad, layer.inputs(module, x).context)
    expected = torch.zeros_like(found)
    for n in range(shape[0]):
        mask = torch.zeros_like(grad)
        mask[n] = grad[n]
        parts = [part.reshape(-1) for part in torch.autograd.grad(module(x), layer.params, mask)]
        scale, shift = parts if len(parts) == 2 else (parts[0], torch.zeros_like(parts[0]))
        expected += torch.stack([scale * scale, scale * shift, shift * shift])
    kept = slice(None) if len(layer.slots) == 2 else slice(1)
    torch.testing.assert_close(found[kept], expected[kept], rtol=1e-10, atol=1e-10)


def test_embeddings_count_tokens_and_leave_padding_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3, padding_idx=0), nn.Flatten(), nn.Linear(12, 2)).double()
    x, y = torch.tensor([[1, 2, 2, 0], [5, 1, 0, 0]]), torch.tensor([0, 1])
    opt = optimizer(model)
    found = gathered(model, opt, x, y)["0"]
    assert found["a"].tolist() == [0, 2 / 5, 2 / 5, 0, 0, 1 / 5]
    hidden = model[0](x).detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model[2](hidden.flatten(1)), y), hidden)
    rows = grad[x != 0] * 2
    torch.testing.assert_close(found["g"], rows.T @ rows / 2)


@pytest.mark.parametrize(
    "case", ["self", "cross", "sizes", "batch first", "no weights", "masks", "causal", "unbatched"]
)
def test_attention_in_the_open_is_torchs_attention(case):
    torch.manual_seed(0)
    first = case in ("batch first", "masks")
    sizes = dict(kdim=5, vdim=7) if case == "sizes" else {}
    module = nn.MultiheadAttention(8, 2, batch_first=first, **sizes).double()
    lengths = (4, 3) if case in ("cross", "sizes", "masks") else (4, 4)
    shapes = [(length, 2, size) for length, size in zip((4, lengths[1], lengths[1]), (8, 5, 7), strict=True)]
    q, k, v = (torch.randn(shape, dtype=F64) for shape in shapes)
    if case != "sizes":
        k, v = torch.randn(lengths[1], 2, 8, dtype=F64), torch.randn(lengths[1], 2, 8, dtype=F64)
    if case in ("self", "causal"):
        k = v = q
    if first:
        q, k, v = (x.transpose(0, 1).contiguous() for x in (q, k, v))
    if case == "unbatched":
        q, k, v = q[:, 0], k[:, 0], v[:, 0]
    options = dict(need_weights=case != "no weights")
    if case == "masks":
        padding = torch.tensor([[False, False, True], [False, False, False]])
        options |= dict(key_padding_mask=padding, attn_mask=torch.randn(4, 4, 3, dtype=F64), average_attn_weights=False)
    if case == "causal":
        options |= dict(attn_mask=nn.Transformer.generate_square_subsequent_mask(4, dtype=F64), is_causal=True)
    expected, weights = module(q, k, v, **options)
    rows = {}

    def observe(label, x, output):
        rows[label] = x
        return output

    found, ours = attend(module, observe)(q, k, v, **options)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    assert (ours is None) == (weights is None)
    if weights is not None:
        torch.testing.assert_close(ours, weights, rtol=1e-12, atol=1e-13)
    assert set(rows) == {"query", "key", "value", "out"}
    assert case not in ("self", "causal") or rows["query"] is rows["key"] is rows["value"]


class Attends(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **sizes)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_the_projections_of_attention_are_four_layers():
    """One example of one token: each projection's A (x) G is the outer product of its gradient."""
    torch.manual_seed(0)
    model = Attends().double()
    opt = optimizer(model)
    found = gathered(model, opt, torch.randn(1, 1, 6, dtype=F64), torch.tensor([1]))
    assert set(found) == {f"attention.{part}" for part in ("query", "key", "value", "out_proj")} | {"head"}
    for layer in opt.layers:
        grad = layer.matrix([param.grad[rows] for param, rows in layer.slots]).T.reshape(-1)
        a, g = found[layer.name]["a"], found[layer.name]["g"]
        torch.testing.assert_close(torch.kron(a, g), torch.outer(grad, grad), rtol=1e-9, atol=1e-15)
    assert "forward" not in vars(model.attention)


def test_a_layer_used_twice_adds_up_its_uses():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.Tanh(), layer).double()
    opt = optimizer(twice)
    x, y = torch.randn(8, 4, dtype=F64), torch.randint(4, (8,))
    found = gathered(twice, opt, x, y)["0"]
    hidden = twice[1](layer(x)).detach()
    rows = torch.cat([torch.cat([part, torch.ones(8, 1, dtype=F64)], 1) for part in (x, hidden)])
    torch.testing.assert_close(found["a"], rows.T @ rows / 16)
    assert len(opt.layers) == 1
    opt.step()


def test_a_graph_that_is_kept_over_a_step_brings_the_same_statistics_again():
    """What a step makes of the sums, factors and their averages, does not change them."""
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(8, 4)
    opt = optimizer(model, factor_every=1)
    loss = F.cross_entropy(model(x), torch.randint(3, (8,)))
    found = []
    for _ in range(3):
        loss.backward(retain_graph=True)
        found.append({name: part.clone() for name, part in statistics(opt, model)[opt.layers[0]].items()})
        opt.step()
        opt.zero_grad()
    for later in found[1:]:
        assert all(torch.equal(part, later[name]) for name, part in found[0].items())


def test_two_modules_with_the_same_weights_are_one_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight, model[1].bias = model[0].weight, model[0].bias
    layers = discover(model, set(model.parameters()), ()).layers
    assert [layer.modules for layer in layers] == [[model[0], model[1]]]


def test_a_weight_that_two_layers_use_differently_is_left_to_the_fallback():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False))
    model[2].weight = model[0].weight
    found = discover(model, set(model.parameters()), ())
    assert [layer.name for layer in found.layers] == ["1"]
    assert found.reasons == {"0.weight": "shared by 0 and 2, which use it differently"}


def mlp(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=inplace), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 4)])
@pytest.mark.parametrize("fisher", ["empirical", "monte-carlo"])
def test_in_place_activations_do_not_change_the_factors(shape, fisher):
    """Linear over leading axes returns a view, on which an in-place operation would rewrite the graph."""
    x = torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(shape[:-1], dtype=torch.long)
    both = []
    for inplace in (False, True):
        model = mlp(inplace)
        opt = optimizer(model, fisher=fisher)
        logits = model(x)
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        if fisher == "monte-carlo":
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        both.append(statistics(opt, model))
    for ours, theirs in zip(*[found.values() for found in both], strict=True):
        for name, part in ours.items():
            assert torch.equal(part, theirs[name])


@pytest.mark.parametrize(("reentrant", "fisher"), [(False, "empirical"), (True, "empirical"), (False, "monte-carlo")])
def test_checkpointed_layers_are_seen_once(reentrant, fisher):
    x, y = torch.randn(5, 4, dtype=F64), torch.zeros(5, dtype=torch.long)
    both = []
    for checkpointed in (False, True):
        model = mlp()
        opt = optimizer(model, fisher=fisher)
        hidden = x.clone().requires_grad_()
        run = model[:2]
        hidden = checkpoint(run, hidden, use_reentrant=reentrant) if checkpointed else run(hidden)
        logits = model[2](hidden)
        loss = F.cross_entropy(logits, y)
        opt._capture.sums.targets = 5.0  # the model itself was not called
        if fisher == "monte-carlo":
            opt.update_curvature(loss=loss, logits=logits)
        loss.backward()
        both.append(statistics(opt, model))
    for ours, theirs in zip(*[found.values() for found in both], strict=True):
        for name, part in ours.items():
            assert torch.equal(part, theirs[name])


def test_an_input_that_is_changed_in_place_later_is_seen_as_it_was():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = x.clone()
            with torch.autocast("cpu", torch.bfloat16):
                hidden = self.first(x)
            x.mul_(100)
            return self.second(hidden.float())

    model, x = Changes(), torch.randn(8, 4)
    found = gathered(model, optimizer(model), x, torch.zeros(8, dtype=torch.long))["first"]
    rows = torch.cat([x, torch.ones(8, 1)], 1)
    torch.testing.assert_close(found["a"], rows.T @ rows / 8)
    assert found["g"].dtype == torch.float32


def test_nothing_is_gathered_without_gradients_or_when_it_is_not_due():
    model = mlp()
    opt = optimizer(model, fisher="monte-carlo", factor_every=5)
    x, y = torch.randn(5, 4, dtype=F64), torch.zeros(5, dtype=torch.long)
    with torch.no_grad():
        model(x)
    assert not opt._capture.records
    logits = model(x)
    assert len(opt._capture.records) == 2
    loss = F.cross_entropy(logits, y)
    opt.update_curvature(loss=loss, logits=logits)
    loss.backward()
    opt.step()
    F.cross_entropy(model(x), y).backward()
    assert not opt._capture.records
    assert not opt.curvature_due


@pytest.mark.parametrize("whole", [True, False], ids=["the model", "its parts one by one"])
def test_layers_are_hooked_only_when_their_statistics_are_due(whole):
    """And when a setting that is changed between a step and the next forward makes them due."""
    model = mlp()
    opt = optimizer(model, factor_every=3)
    x, y = torch.randn(5, 4, dtype=F64), torch.zeros(5, dtype=torch.long)
    hooked = []
    for step in range(1, 7):
        if whole and step == 6:
            opt.param_groups[0]["factor_every"] = 5
        out = model(x) if whole else x
        for part in () if whole else model:
            out = part(out)
        hooked.append([len(layer.modules[0]._forward_hooks) for layer in opt.layers])
        loss = F.cross_entropy(out, y)
        if opt.curvature_due:
            opt.update_curvature(loss=loss, logits=out)
        loss.backward()
        opt.step()
        opt.zero_grad()
    due = [1, 4, 6] if whole else [1, 4]
    assert hooked == [[int(step in due)] * 2 for step in range(1, 7)]
    assert opt.layer_state(opt.layers[0])["refreshes"] == len(due)


def test_copies_and_pickles_of_the_model_do_not_feed_the_optimizer():
    model = mlp()
    opt = optimizer(model)
    x, y = torch.randn(5, 4, dtype=F64), torch.zeros(5, dtype=torch.long)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        F.cross_entropy(other(x), y).backward()
        assert not opt._capture.sums.outputs
    del opt
    F.cross_entropy(model(x), y).backward()  # its hooks are inert now


def test_frozen_biases_are_no_column():
    model = mlp()
    model[0].bias.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    found = discover(model, set(model.parameters()), ())
    assert [(layer.name, layer.factor_shapes()["a"]) for layer in found.layers] == [("0", (4, 4))]
    assert found.reasons == {"2.bias": "its weight is frozen"}


def test_layer_kinds_are_exact_classes():
    """A subclass may compute anything in its forward."""

    class Special(nn.Linear):
        pass

    assert layers_of("x", Special(2, 2)) == "Special has no Kronecker-factored form here"
    assert isinstance(layers_of("x", nn.Linear(2, 2))[0], Layer)
