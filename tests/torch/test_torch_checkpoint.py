"""Checkpoints of torch models: what is refused, that nothing is half-loaded, and what a run is like afterwards."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hessiod import checkpoint
from hessiod.backends.checkpoint import Container
from hessiod.core import InvalidArgument, InvalidState
from hessiod.torch import SGD, AdaHessian, AdamW, SophiaG, SophiaH

X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 4))


def step(model, optimizer):
    logits = model(X)
    loss = torch.nn.functional.cross_entropy(logits, Y)
    if getattr(optimizer, "curvature_due", False):
        optimizer.update_curvature(loss=loss, logits=logits)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def trained(steps=3):
    model = network()
    optimizer = SophiaG(model.parameters(), lr=0.05, every=2)
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def sha256(model, optimizer):
    """Of every bit and every setting."""
    found = hashlib.sha256()
    states = [model.state_dict(), *optimizer.state_dict()["state"].values()]
    for name, value in (pair for state in states for pair in sorted(state.items())):
        bits = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        found.update(name.encode() + bits)
    found.update(repr(optimizer.state_dict()["param_groups"]).encode())
    return found.hexdigest()


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(tmp_path / "c", *trained())
    return tmp_path / "c"


def rewritten(path, change):
    """A file whose header is changed and whose digest fits again: not damaged, but wrong."""
    from hessiod.backends.checkpoint.arrays import Array
    from hessiod.backends.checkpoint.container import write_container

    with Container(path) as file:
        document = copy.deepcopy(file.document)
        arrays = {name: (entry.dtype, file.read(name).copy()) for name, entry in file.entries.items()}
    change(document, arrays)
    rows = ((name, dtype, values) for name, (dtype, values) in arrays.items())
    made = [Array(name, dtype, values.shape, lambda v=values: v, lambda v: None) for name, dtype, values in rows]
    write_container(path, made, document)


def lacking(document, arrays):
    del arrays["model/0.weight"], arrays["optimizer/2.bias/hessian"]


def more(document, arrays):
    arrays["model/9.weight"] = ("F32", np.ones(2, np.float32))


def reshaped(document, arrays):
    arrays["model/0.weight"] = ("F32", arrays["model/0.weight"][1].T.copy())


def doubled(document, arrays):
    arrays["optimizer/0.bias/exp_avg"] = ("F64", arrays["optimizer/0.bias/exp_avg"][1].astype(np.float64))


def of_another_rule(document, arrays):
    document["optimizer"]["groups"][0]["rule"] = "adamw"


def of_another_class(document, arrays):
    document["optimizer"]["optimizer"] = "SophiaH"


def without_record(document, arrays):
    document["optimizer"] = None


def nonsense(document, arrays):
    document["optimizer"]["step"] = "three"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacking, [r"model/0.weight: it is not in the file", "optimizer/2.bias/hessian: it is not in the file"]),
        (more, ["model/9.weight: it is only in the file"]),
        (reshaped, [r"model/0.weight: the file has the shape [6, 5], expected [5, 6]"]),
        (doubled, ["optimizer/0.bias/exp_avg: the file has F64, expected F32"]),
        (of_another_rule, ["rule 'adamw', this one 'sophia'"]),
        (of_another_class, ["it is SophiaH, this one SophiaG"]),
        (without_record, ["holds none"]),
        (nonsense, ["not written by hessiod"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_every_difference_and_nothing_changes(change, said, saved):
    rewritten(saved, change)
    model, optimizer = trained(steps=1)
    before = sha256(model, optimizer)
    with pytest.raises(InvalidArgument) as caught:
        checkpoint.load(saved, model, optimizer)
    for words in said:
        assert words in str(caught.value)
    assert sha256(model, optimizer) == before


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def foreign(path):
    path.unlink()
    save_file({"0.weight": np.zeros((5, 6), np.float32)}, path)


def pickled(path):
    torch.save({"model": network().state_dict()}, path)


def newer(path):
    save_file({"w": np.zeros(1)}, path, metadata={"format": "hessiod-9"})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "cannot read"),
        (flipped, "is damaged"),
        (foreign, "has the format None"),
        (pickled, "torch.save writes"),
        (newer, "upgrade"),
    ],
)
def test_a_bad_file_changes_nothing(damage, said, saved):
    damage(saved)
    model, optimizer = trained(steps=1)
    before = sha256(model, optimizer)
    with pytest.raises(InvalidArgument, match=said):
        checkpoint.load(saved, model, optimizer)
    assert sha256(model, optimizer) == before


def test_a_run_goes_on_bit_for_bit_and_the_learning_rate_is_the_files(saved):
    model, optimizer = trained()
    other = network()
    resumed = SophiaG(other.parameters(), lr=0.7, every=2)
    assert checkpoint.load(saved, other, resumed).step == 3
    assert sha256(other, resumed) == sha256(model, optimizer)
    assert [step(other, resumed) for _ in range(4)] == [step(model, optimizer) for _ in range(4)]


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_a_wrapped_model_has_the_names_of_the_model_inside(wrap, saved):
    model, optimizer = trained(steps=1)
    checkpoint.load(saved, wrap(model), optimizer)
    assert optimizer.steps == 3


def test_the_counts_of_parameters_that_were_passed_over_come_back(tmp_path):
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.1, missing="skip")
    step(model, optimizer)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    optimizer.step()
    checkpoint.save(tmp_path / "c", model, optimizer)
    other = network()
    resumed = AdamW(other.parameters(), lr=0.1, missing="skip")
    checkpoint.load(tmp_path / "c", other, resumed)
    assert [resumed.state[param]["step"] for param in other.parameters()] == [2, 1, 1, 1, 1, 1]
    assert sha256(other, resumed) == sha256(model, optimizer)


def test_a_frozen_parameter_needs_no_state(tmp_path):
    model, other = network(), network()
    for net in (model, other):
        net[0].weight.requires_grad_(False)
    optimizer, resumed = (AdaHessian(net.parameters(), lr=0.1) for net in (model, other))
    step(model, optimizer)
    checkpoint.save(tmp_path / "c", model, optimizer)
    checkpoint.load(tmp_path / "c", other, resumed)
    assert sha256(other, resumed) == sha256(model, optimizer)


def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(saved):
    before = saved.read_bytes()
    model, optimizer = trained()
    with pytest.raises(InvalidArgument, match="extra"):
        checkpoint.save(saved, model, optimizer, extra={"a": (1, 2)})
    with pytest.raises(InvalidArgument, match="not the model's"):
        checkpoint.save(saved, network(), optimizer)
    with pytest.raises(InvalidArgument, match=r"expected one of hessiod\.torch"):
        checkpoint.save(saved, model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InvalidArgument, match="meta"):
        checkpoint.save(saved, torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(InvalidArgument, match="not initialised"):
        checkpoint.save(saved, torch.nn.LazyLinear(2))
    with pytest.raises(InvalidArgument, match=r"expected a torch\.nn\.Module"):
        checkpoint.save(saved, {"w": 1})
    logits = model(X)
    hutchinson = SophiaH(model.parameters(), lr=0.1)
    hutchinson.update_curvature(loss=torch.nn.functional.cross_entropy(logits, Y))
    with pytest.raises(InvalidState, match="yet to come"):
        checkpoint.save(saved, model, hutchinson)
    assert saved.read_bytes() == before


def test_the_document_is_json_that_says_where_it_is_from(saved):
    with Container(saved) as file:
        document = json.loads(json.dumps(file.document))
    assert document["written"]["framework"] == "torch"
    assert document["written"]["versions"]["torch"] == torch.__version__
    assert document["optimizer"]["probes"] == {"seed": 0, "counter": 3}
    assert document["schedule"] == {"step": 3}


def test_sgd_without_state_moves_too(tmp_path):
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    step(model, optimizer)
    checkpoint.save(tmp_path / "c", model, optimizer)
    other = network()
    resumed = SGD(other.parameters(), lr=0.1)
    checkpoint.load(tmp_path / "c", other, resumed)
    assert step(other, resumed) == step(model, optimizer)
