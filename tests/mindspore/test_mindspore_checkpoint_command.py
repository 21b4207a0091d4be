"""``hessiod checkpoint``: inspect, verify, map and convert, with both frameworks' own files."""

import os

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from typer.testing import CliRunner

import hessiod.mindspore as ours
import hessiod.torch as theirs
from hessiod import checkpoint
from hessiod.backends.checkpoint import Container
from hessiod.cli.checkpoint import SUFFIXES
from hessiod.cli.checkpoint import checkpoint as app
from hessiod.core import InvalidArgument

MODELS = """
import torch, mindspore as ms
from mindspore import nn
import hessiod.torch, hessiod.mindspore

def in_torch():
    modules = [torch.nn.Embedding(7, 4), torch.nn.Conv1d(4, 3, 3), torch.nn.BatchNorm1d(3), torch.nn.LayerNorm(5)]
    model = torch.nn.Sequential(*modules, torch.nn.TransformerEncoderLayer(8, 2, 16), torch.nn.BatchNorm3d(2))
    return model, hessiod.torch.AdamW(model.parameters(), lr=0.1)

def in_mindspore():
    cells = [nn.Embedding(7, 4), nn.Conv1d(4, 3, 3, has_bias=True), nn.BatchNorm1d(3), nn.LayerNorm((5,))]
    net = nn.SequentialCell(*cells, nn.TransformerEncoderLayer(8, 2, 16), nn.BatchNorm3d(2))
    return net, hessiod.mindspore.AdamW(net.trainable_params(), learning_rate=0.1)

def kfac_in_torch():
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 3))
    return model, hessiod.torch.KFAC(model, lr=0.1)

def kfac_in_mindspore():
    net = nn.SequentialCell(nn.Dense(4, 5), nn.LayerNorm((5,)), nn.Dense(5, 3))
    return net, hessiod.mindspore.KFAC(net, learning_rate=0.1)

def model_alone():
    return in_torch()[0]

def net_alone():
    return in_mindspore()[0]

def wider():
    return torch.nn.Sequential(torch.nn.Embedding(8, 4), torch.nn.Linear(2, 2))
"""


@pytest.fixture(scope="module")
def models():
    namespace: dict = {}
    exec(MODELS, namespace)
    return namespace


@pytest.fixture
def saved(models, tmp_path):
    """A checkpoint of torch after one step, and the models' source beside it."""
    (tmp_path / "hessiod_test_models.py").write_text(MODELS)
    torch.manual_seed(0)
    model, optimizer = models["in_torch"]()
    for param in model.parameters():
        param.grad = torch.randn(param.shape)
    optimizer.step()
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, model, optimizer, extra={"epoch": 2})
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if code == 2:
        assert isinstance(result.exception, InvalidArgument)
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def option(name):
    return "--model", f"hessiod_test_models:{name}"


def content(path):
    with Container(path) as file:
        file.verify()
        return file.content


def test_inspect_prints_what_a_file_holds(saved):
    output = run("inspect", saved)
    for words in (
        "hessiod-2",
        "AdamW after step 1",
        "'beta1': 0.9",
        "optimizer/0.weight/exp_avg",
        content(saved),
        "epoch",
    ):
        assert words in output


def test_verify_finds_damage(saved):
    assert "whole" in run("verify", saved)
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    saved.write_bytes(data)
    assert "is damaged" in run("verify", saved, code=2)


@pytest.mark.parametrize("name", ["in_torch", "in_mindspore", "net_alone"])
def test_map_prints_the_pairs_and_loads_nothing(saved, name):
    output = run("map", saved, *option(name))
    assert "0 do not" in output
    if name != "in_torch":
        assert "0.embedding_table" in output
        assert "1.weight [3, 4, 1, 3]" in output
        assert "4.dense1.weight" in output
        assert "5.bn2d.gamma" in output


def test_map_lists_every_array_without_a_partner(saved):
    output = run("map", saved, *option("wider"), code=1)
    assert "model/0.weight: the file has the shape [7, 4], expected [8, 4]" in output
    assert "model/2.running_mean: it is only in the file" in output
    assert "model/1.weight: the file has the shape [3, 4, 3], expected [2, 2]" in output


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_to_a_frameworks_own_file_and_back_is_the_same_bit_for_bit(saved, framework, tmp_path):
    there, back = tmp_path / f"there{SUFFIXES[framework]}", tmp_path / "back.safetensors"
    run("convert", saved, "--to", framework, "--out", there, *option(f"in_{framework}"))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".there")]
    if framework == "torch":
        assert set(torch.load(there, weights_only=True)) == {"model", "optimizer"}
    run("convert", there, "--to", "hessiod", "--out", back, *option(f"in_{framework}"))
    if framework == "mindspore":  # its own files have no num_batches_tracked
        with Container(saved) as one, Container(back) as other:
            assert one.entries.keys() == other.entries.keys()
            for name in one.entries:
                same = one.read(name).tobytes() == other.read(name).tobytes()
                assert same or name.endswith("num_batches_tracked"), name
    else:
        assert content(saved) == content(back)


def test_weights_alone_go_to_mindspore_by_the_layers_that_the_file_lists(saved, models, tmp_path):
    run("convert", saved, "--to", "mindspore", "--out", tmp_path / "w.ckpt", "--weights-only")
    net = models["net_alone"]()
    left, extra = ms.load_param_into_net(net, ms.load_checkpoint(str(tmp_path / "w.ckpt")))
    assert (left, extra) == ([], [])
    checkpoint.save(tmp_path / "again", net)
    with Container(saved) as one, Container(tmp_path / "again") as other:
        for name in other.entries:
            assert one.read(name).tobytes() == other.read(name).tobytes(), name


def test_weights_alone_of_torch_go_and_come_without_a_model(saved, tmp_path):
    run("convert", saved, "--to", "torch", "--out", tmp_path / "w.pt", "--weights-only")
    run("convert", tmp_path / "w.pt", "--to", "hessiod", "--out", tmp_path / "back.safetensors")
    with Container(saved) as one, Container(tmp_path / "back.safetensors") as other:
        assert {name for name in one.entries if name.startswith("model/")} == set(other.entries)
        assert all(one.read(name).tobytes() == other.read(name).tobytes() for name in other.entries)


class Exploding:
    def __reduce__(self):
        return (os.abort, ())


def test_what_cannot_be_converted_is_refused(saved, tmp_path):
    torch.save(Exploding(), tmp_path / "bad.pt")
    assert "nothing else is ever unpickled" in run("convert", tmp_path / "bad.pt", "--to", "hessiod", code=2)
    assert "holds an optimizer" in run("convert", saved, "--to", "torch", code=2)
    assert "holds an optimizer" in run("convert", saved, "--to", "mindspore", code=2)
    assert "expected one of torch, mindspore, hessiod" in run("convert", saved, "--to", "jax", code=2)
    assert "is the file itself" in run("convert", saved, "--to", "hessiod", code=2)
    assert "module:callable" in run("map", saved, "--model", "nothing:here", code=2)
    assert "found one of torch" in run("convert", saved, "--to", "mindspore", *option("in_torch"), code=2)
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    assert "--model" in run("convert", tmp_path / "junk.ckpt", "--to", "hessiod", code=2)
    assert "cannot read" in run("convert", tmp_path / "junk.ckpt", "--to", "hessiod", *option("net_alone"), code=2)
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()) == [".ckpt", ".pt", ".py", ".safetensors"]


def test_mindspores_own_checkpoint_resumes_bit_for_bit(tmp_path):
    """save_checkpoint of net and optimizer; loaded before the first step, which a graph that has run would not see."""
    x, y = (
        Tensor(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)),
        Tensor(np.arange(8, dtype=np.int32) % 4),
    )

    def start():
        ms.set_seed(0)
        net = nn.SequentialCell(nn.Dense(3, 5), nn.Tanh(), nn.Dense(5, 4))
        opt = ours.SophiaG(net.trainable_params(), learning_rate=0.05, every=2)
        return net, opt, ours.TrainStep(net, nn.CrossEntropyLoss(), opt)

    _, opt, step = start()
    for _ in range(3):
        step(x, y)
    ms.save_checkpoint(opt, str(tmp_path / "opt.ckpt"))
    expected = [float(step(x, y).asnumpy()) for _ in range(3)]
    _, opt, step = start()
    left, extra = ms.load_param_into_net(opt, ms.load_checkpoint(str(tmp_path / "opt.ckpt")))
    assert (left, extra) == ([], [])
    assert [float(step(x, y).asnumpy()) for _ in range(3)] == expected


def test_torchs_names_are_the_ones_that_a_user_gives(tmp_path):
    model, net = torch.nn.Sequential(torch.nn.Linear(2, 3)), nn.Dense(2, 3)
    there = theirs.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    there.step()
    checkpoint.save(tmp_path / "a", model, there)
    here = ours.SGD(net.trainable_params(), learning_rate=0.1, momentum=0.9)
    with pytest.raises(InvalidArgument, match="it has other parameters than the file's"):
        checkpoint.load(tmp_path / "a", net, here)
    with pytest.raises(InvalidArgument, match=r"the model has no 'w'; its names are weight, bias"):
        checkpoint.load(tmp_path / "a", net, here, names={"w": "0.weight"})
    checkpoint.load(tmp_path / "a", net, here, names={"weight": "0.weight", "bias": "0.bias"})
    checkpoint.save(tmp_path / "b", net, here, names=lambda name: f"0.{name}")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_kfacs_factors_go_through_both_frameworks_own_files_and_come_back(saved, models, tmp_path):
    torch.manual_seed(0)
    model, optimizer = models["kfac_in_torch"]()
    logits = model(torch.randn(8, 4))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(8) % 3)
    optimizer.update_curvature(loss=loss, logits=logits)
    loss.backward()
    optimizer.step()
    path = tmp_path / "kfac.safetensors"
    checkpoint.save(path, model, optimizer)
    assert "0.weight: {'damping': 0.001, 'refreshes': 1}" in run("inspect", path)
    for name in ("torch", "mindspore"):
        other, back = tmp_path / f"kfac{SUFFIXES[name]}", tmp_path / f"{name}.safetensors"
        run("convert", path, "--to", name, "--out", other, *option(f"kfac_in_{name}"))
        run("convert", other, "--to", "hessiod", "--out", back, *option(f"kfac_in_{name}"))
        assert content(back) == content(path)
