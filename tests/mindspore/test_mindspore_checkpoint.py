"""Checkpoints between torch and MindSpore: every optimizer and every standard layer, bit for bit."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

import hessiod.mindspore as ours
import hessiod.torch as theirs
from hessiod import checkpoint
from hessiod.backends.checkpoint import Container
from hessiod.core import InvalidArgument

X = np.random.default_rng(0).normal(size=(8, 2, 5)).astype(np.float32)
Y = np.arange(8) % 4
OPTIMIZERS = {
    "SophiaG": dict(every=2, rho=0.3),
    "SophiaH": dict(every=2, warm_start=True, probe="normal", samples=2, timing="official", seed=2**64 - 3),
    "AdaHessian": dict(every=2, spatial_averaging="kernel"),
    "Apollo": dict(warmup=3, sigma=0.5),
    "ApolloW": dict(warmup=0, weight_decay=0.1),
    "DiagonalNewton": dict(num_vectors=2, power=0.5, damping=0.5),
    "AdamW": dict(weight_decay=0.1),
    "SGD": dict(momentum=0.9, nesterov=True, weight_decay=0.1),
}


class Torch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        conv, norm = torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3)
        self.layers = torch.nn.Sequential(conv, norm, torch.nn.Flatten(), torch.nn.Linear(9, 4))

    def forward(self, x):
        return self.layers(x)


class Rows(nn.Cell):
    """MindSpore's BatchNorm1d takes [rows, channels] only."""

    def construct(self, x):
        return x.transpose(0, 2, 1).reshape(-1, 3)


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        conv = nn.Conv1d(2, 3, 3, has_bias=True, pad_mode="valid")
        self.layers = nn.CellList([conv, nn.BatchNorm1d(3, momentum=0.9), Rows(), nn.Dense(9, 4)])

    def construct(self, x):
        normed = self.layers[1](self.layers[2](self.layers[0](x)))
        return self.layers[3](normed.reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 9))


def torch_step(model, optimizer):
    dtype = next(model.parameters()).dtype
    logits = model(torch.tensor(X).to(dtype))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(Y))
    if getattr(optimizer, "curvature_due", False):
        optimizer.update_curvature(loss=loss, logits=logits)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def content(path):
    with Container(path) as file:
        file.verify()
        return file.content


def pair(name, **changes):
    model, cell = Torch(), Net()
    options = OPTIMIZERS[name] | changes
    there = getattr(theirs, name)(model.parameters(), lr=0.01, **options)
    here = getattr(ours, name)(cell.trainable_params(), learning_rate=0.01, **options)
    return model, there, cell, here


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_to_mindspore_to_torch_is_the_same_bit_for_bit(name, tmp_path):
    model, there, cell, here = pair(name)
    for _ in range(5):
        torch_step(model, there)
    checkpoint.save(tmp_path / "a", model, there, extra={"epoch": 1})
    loaded = checkpoint.load(tmp_path / "a", cell, here)
    assert (loaded.step, loaded.extra) == (5, {"epoch": 1})
    checkpoint.save(tmp_path / "b", cell, here)
    back, again, *_ = pair(name)
    checkpoint.load(tmp_path / "b", back, again)
    checkpoint.save(tmp_path / "c", back, again, extra={"epoch": 1})
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()  # the document too: settings and counts
    torch_step(model, there)
    torch_step(back, again)
    for one, other in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(one, other)


def settings_of(path):
    with Container(path) as file:
        return file.document["optimizer"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_frameworks_record_the_same(name, tmp_path):
    model, there, cell, here = pair(name)
    checkpoint.save(tmp_path / "a", model, there)
    checkpoint.save(tmp_path / "b", cell, here)
    assert settings_of(tmp_path / "a") == settings_of(tmp_path / "b")


def arrays(cell, optimizer):
    return [parameter.asnumpy().tobytes() for parameter in (*cell.get_parameters(), *optimizer.get_parameters())]


def test_a_graph_that_has_run_goes_on_from_the_file(tmp_path):
    """Written through views: a graph does not see what load_param_into_net writes."""
    model, there, cell, here = pair("SophiaG")
    cell.set_train()
    step = ours.TrainStep(cell, nn.CrossEntropyLoss(), here)
    x, y = Tensor(X), Tensor(Y.astype(np.int32))
    for _ in range(3):
        step(x, y)
    checkpoint.save(tmp_path / "a", cell, here)
    losses = [float(step(x, y).asnumpy()) for _ in range(3)]
    checkpoint.load(tmp_path / "a", cell, here)
    assert [float(step(x, y).asnumpy()) for _ in range(3)] == losses
    checkpoint.load(tmp_path / "a", model, there)
    torch_step(model, there)
    checkpoint.save(tmp_path / "b", model, there)
    checkpoint.load(tmp_path / "a", cell, here)
    step(x, y)
    checkpoint.save(tmp_path / "c", cell, here)
    with Container(tmp_path / "b") as one, Container(tmp_path / "c") as other:
        for name in (name for name in one.entries if name.endswith("exp_avg")):  # linear in the gradient
            np.testing.assert_allclose(one.read(name), other.read(name), rtol=2e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(rho=0.4), "rho 0.3, this one 0.4"),
        (dict(every=3), "every 2, this one 3"),
        (dict(seed=7), "seed 0, this one 7"),
        (dict(warm_start=True), "rule 'sophia', this one 'sophia-warm'"),
        (dict(weight_decay=0.5), "weight_decay 0.1, this one 0.5"),
    ],
)
def test_another_setting_is_refused_and_nothing_changes(changes, said, tmp_path):
    model, there, cell, _ = pair("SophiaG")
    torch_step(model, there)
    checkpoint.save(tmp_path / "a", model, there)
    other = ours.SophiaG(cell.trainable_params(), learning_rate=0.01, **(OPTIMIZERS["SophiaG"] | changes))
    before = arrays(cell, other)
    with pytest.raises(InvalidArgument, match=said):
        checkpoint.load(tmp_path / "a", cell, other)
    assert arrays(cell, other) == before
    if "warm_start" not in changes:
        checkpoint.load(tmp_path / "a", cell, other, allow=list(changes))
        assert other.steps == 1


def test_another_learning_rate_is_refused_by_name(tmp_path):
    model, there, cell, _ = pair("AdamW")
    torch_step(model, there)
    checkpoint.save(tmp_path / "a", model, there)
    listed = ours.AdamW(cell.trainable_params(), learning_rate=[0.5, 0.01, 0.25], weight_decay=0.1)
    checkpoint.load(tmp_path / "a", cell, listed)  # the rate of the second step
    fixed = ours.AdamW(cell.trainable_params(), learning_rate=0.5, weight_decay=0.1)
    with pytest.raises(InvalidArgument, match=r"lr 0.01, this one 0.5"):
        checkpoint.load(tmp_path / "a", cell, fixed)


def test_a_list_of_learning_rates_that_has_ended_is_saved(tmp_path):
    cell = nn.Dense(2, 2)
    opt = ours.AdamW(cell.trainable_params(), learning_rate=[0.1, 0.2])
    for _ in range(2):
        opt(tuple(Tensor(np.ones(p.shape, np.float32)) for p in opt.parameters))
    checkpoint.save(tmp_path / "a", cell, opt)
    assert settings_of(tmp_path / "a")["groups"][0]["lr"] == 0.2


def test_groups_are_compared_by_parameter(tmp_path):
    model, cell = torch.nn.Linear(3, 2), nn.Dense(3, 2)
    there = theirs.AdamW(
        [{"params": [model.weight], "weight_decay": 0.5}, {"params": [model.bias], "lr": 0.02}], lr=0.1
    )
    model(torch.ones(1, 3)).sum().backward()
    there.step()
    checkpoint.save(tmp_path / "a", model, there)
    groups = [{"params": [cell.weight], "weight_decay": 0.5}, {"params": [cell.bias], "lr": 0.02}]
    checkpoint.load(tmp_path / "a", cell, ours.AdamW(groups, learning_rate=0.1))
    swapped = [{"params": [cell.bias], "lr": 0.02}, {"params": [cell.weight], "weight_decay": 0.5}]
    checkpoint.load(tmp_path / "a", cell, ours.AdamW(swapped, learning_rate=0.1))
    with pytest.raises(InvalidArgument, match=r"weight_decay of 'weight' 0.5, this one 0.01"):
        checkpoint.load(tmp_path / "a", cell, ours.AdamW(cell.trainable_params(), learning_rate=0.1))


def test_what_mindspore_cannot_have_is_refused(tmp_path):
    model, there, cell, here = pair("AdamW")
    there = theirs.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, missing="skip")
    torch_step(model, there)
    model.layers[0].weight.grad = None
    model.layers[3].weight.grad = torch.ones_like(model.layers[3].weight)
    there.step()
    checkpoint.save(tmp_path / "a", model, there)
    with pytest.raises(InvalidArgument, match=r"layers\.0\.weight.* took fewer steps"):
        checkpoint.load(tmp_path / "a", cell, here)
    loop = theirs.SophiaG(model.parameters(), lr=0.01, **OPTIMIZERS["SophiaG"])
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    loop.update_hessian()
    loop.step(bs=8)
    checkpoint.save(tmp_path / "b", model, loop)
    sophia = ours.SophiaG(cell.trainable_params(), learning_rate=0.01, **OPTIMIZERS["SophiaG"])
    with pytest.raises(InvalidArgument, match="Sophia's authors"):
        checkpoint.load(tmp_path / "b", cell, sophia)


def test_an_order_that_would_number_other_probes_is_refused(tmp_path):
    lstm, cell = torch.nn.LSTM(2, 3), nn.LSTM(2, 3)
    two, four = torch.nn.LSTM(2, 3, num_layers=2), nn.LSTM(2, 3, num_layers=2)
    for torch_lstm, ms_lstm, same in ((lstm, cell, True), (two, four, False)):
        there = theirs.SophiaH(torch_lstm.parameters(), lr=0.01)
        checkpoint.save(tmp_path / "a", torch_lstm, there)
        here = ours.SophiaH(ms_lstm.trainable_params(), learning_rate=0.01)
        if same:
            checkpoint.load(tmp_path / "a", ms_lstm, here)
            continue
        with pytest.raises(InvalidArgument, match="another order"):
            checkpoint.load(tmp_path / "a", ms_lstm, here)
        names = dict(ms_lstm.parameters_and_names())
        ordered = [names[name] for name, _ in torch_lstm.named_parameters()]
        checkpoint.load(tmp_path / "a", ms_lstm, ours.SophiaH(ordered, learning_rate=0.01))


def test_bfloat16_parameters_travel_where_an_optimizer_of_them_is_refused(tmp_path):
    model = torch.nn.Linear(9, 4).to(torch.bfloat16)
    checkpoint.save(tmp_path / "a", model)
    cell = nn.Dense(9, 4)
    for parameter in cell.get_parameters():
        parameter.set_dtype(ms.bfloat16)
    with pytest.raises(InvalidArgument, match="bfloat16"):
        ours.AdamW(cell.trainable_params(), learning_rate=0.01)
    checkpoint.load(tmp_path / "a", cell)
    checkpoint.save(tmp_path / "b", cell)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_half_precision_parameters_travel_with_their_float32_state(tmp_path):
    model = torch.nn.Linear(9, 4).to(torch.float16)
    there = theirs.AdamW(model.parameters(), lr=0.01)
    model(torch.ones(2, 9).to(torch.float16)).sum().backward()
    there.step()
    checkpoint.save(tmp_path / "a", model, there)
    cell = nn.Dense(9, 4)
    for parameter in cell.get_parameters():
        parameter.set_dtype(ms.float16)
    here = ours.AdamW(cell.trainable_params(), learning_rate=0.01)
    checkpoint.load(tmp_path / "a", cell, here)
    checkpoint.save(tmp_path / "b", cell, here)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    wide = nn.Dense(9, 4)
    with pytest.raises(InvalidArgument, match=r"model/weight: the file has .*F16, expected F32"):
        checkpoint.load(tmp_path / "a", wide)
    assert "optimizer" in settings_of(tmp_path / "a")


def test_tied_parameters_are_written_once_under_torchs_name(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.table.weight

    class TiedCell(nn.Cell):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(5, 3), nn.Dense(3, 5, has_bias=False)
            self.head.weight = self.table.embedding_table

    model, cell = Tied(), TiedCell()
    checkpoint.save(tmp_path / "a", model)
    checkpoint.load(tmp_path / "a", cell)
    assert (cell.table.embedding_table.asnumpy() == model.head.weight.detach().numpy()).all()
    checkpoint.save(tmp_path / "b", cell)
    assert content(tmp_path / "a") == content(tmp_path / "b")


LAYERS = {
    "dense": (lambda: torch.nn.Linear(3, 4), lambda: nn.Dense(3, 4), [(2, 3)]),
    "bilinear": (lambda: torch.nn.Bilinear(2, 3, 4), lambda: nn.BiDense(2, 3, 4), [(5, 2), (5, 3)]),
    "conv1d": (
        lambda: torch.nn.Conv1d(4, 6, 3, groups=2),
        lambda: nn.Conv1d(4, 6, 3, group=2, has_bias=True, pad_mode="valid"),
        [(2, 4, 9)],
    ),
    "conv2d": (
        lambda: torch.nn.Conv2d(4, 6, (3, 2)),
        lambda: nn.Conv2d(4, 6, (3, 2), has_bias=True, pad_mode="valid"),
        [(2, 4, 9, 9)],
    ),
    "conv3d": (
        lambda: torch.nn.Conv3d(2, 3, 3),
        lambda: nn.Conv3d(2, 3, 3, has_bias=True, pad_mode="valid"),
        [(1, 2, 5, 5, 5)],
    ),
    "conv1d-transpose": (
        lambda: torch.nn.ConvTranspose1d(4, 6, 3),
        lambda: nn.Conv1dTranspose(4, 6, 3, has_bias=True, pad_mode="valid"),
        [(2, 4, 9)],
    ),
    "conv2d-transpose": (
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, groups=2),
        lambda: nn.Conv2dTranspose(4, 6, 3, group=2, has_bias=True, pad_mode="valid"),
        [(2, 4, 9, 9)],
    ),
    "conv3d-transpose": (
        lambda: torch.nn.ConvTranspose3d(2, 3, 3),
        lambda: nn.Conv3dTranspose(2, 3, 3, has_bias=True, pad_mode="valid"),
        [(1, 2, 5, 5, 5)],
    ),
    "lstm": (
        lambda: torch.nn.LSTM(3, 4, 2, bidirectional=True),
        lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
        [(5, 2, 3)],
    ),
    "gru": (
        lambda: torch.nn.GRU(3, 4, 2, bidirectional=True),
        lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True),
        [(5, 2, 3)],
    ),
    "rnn": (lambda: torch.nn.RNN(3, 4), lambda: nn.RNN(3, 4), [(5, 2, 3)]),
    "gru-cell": (lambda: torch.nn.GRUCell(3, 4), lambda: nn.GRUCell(3, 4), [(2, 3), (2, 4)]),
    "embedding": (lambda: torch.nn.Embedding(7, 3), lambda: nn.Embedding(7, 3), None),
    "batch-norm1d": (lambda: torch.nn.BatchNorm1d(4), lambda: nn.BatchNorm1d(4), [(5, 4)]),
    "batch-norm2d": (lambda: torch.nn.BatchNorm2d(4), lambda: nn.BatchNorm2d(4), [(5, 4, 3, 3)]),
    "batch-norm3d": (lambda: torch.nn.BatchNorm3d(4), lambda: nn.BatchNorm3d(4), [(5, 4, 2, 3, 3)]),
    "layer-norm": (
        lambda: torch.nn.LayerNorm((3, 4)),
        lambda: nn.LayerNorm((3, 4), begin_norm_axis=1, begin_params_axis=1, epsilon=1e-5),
        [(5, 3, 4)],
    ),
    "group-norm": (lambda: torch.nn.GroupNorm(2, 4), lambda: nn.GroupNorm(2, 4), [(2, 4, 3, 3)]),
    "prelu": (lambda: torch.nn.PReLU(), lambda: nn.PReLU(), [(2, 4, 3)]),
    "attention": (lambda: torch.nn.MultiheadAttention(8, 2), lambda: nn.MultiheadAttention(8, 2), [(5, 2, 8)] * 3),
    "attention-of-others": (
        lambda: torch.nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True),
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True),
        [(5, 2, 8), (5, 2, 4), (5, 2, 6)],
    ),
    "encoder-layer": (
        lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        [(5, 2, 8)],
    ),
    "decoder-layer": (
        lambda: torch.nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0),
        lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0),
        [(5, 2, 8), (4, 2, 8)],
    ),
    "mint-linear": (lambda: torch.nn.Linear(3, 4), lambda: ms.mint.nn.Linear(3, 4), [(2, 3)]),
}


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_torchs_output_with_torchs_weights(name, tmp_path):
    make, make_cell, shapes = LAYERS[name]
    torch.manual_seed(0)
    model, cell = make().eval(), make_cell().set_train(False)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():  # small ones: MindSpore's tanh is 1e-4 off near 5
                tensor.copy_(torch.rand(tensor.shape) + 0.5 if "running" in key else torch.rand(tensor.shape) - 0.5)
    checkpoint.save(tmp_path / "a", model)
    checkpoint.load(tmp_path / "a", cell)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape).astype(np.float32) for shape in shapes or ()] or [np.arange(6, dtype=np.int32)]
    expected = first(model(*map(torch.tensor, inputs))).detach().numpy()
    np.testing.assert_allclose(first(cell(*map(Tensor, inputs))).asnumpy(), expected, rtol=2e-5, atol=2e-5)
    checkpoint.save(tmp_path / "b", cell)
    assert content(tmp_path / "a") == content(tmp_path / "b")
