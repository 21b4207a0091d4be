"""The character GPT on torch: initial weights, causality, curvature, resuming through a file."""

import numpy as np
import pytest
import torch

from hessiod.backends import load
from hessiod.backends.gpt.config import SETTINGS, GPTConfig
from hessiod.backends.gpt.corpus import python_documentation
from hessiod.backends.registry import on_device
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.weights import initial_weights
from hessiod.backends_torch.gpt import GPT
from hessiod.core import InvalidArgument

SMALL = GPTConfig(context=16, width=24, heads=2, layers=2)


def trainer(optimizer, seed=0, dtype="float32"):
    config = RunConfig(optimizer, seed=seed, batch=4, warmup=20, model=SMALL)
    return load("torch").trainer(config=config, weights=initial_weights(SMALL, seed), dtype=dtype)


def go(run, start, stop):
    corpus = python_documentation(SMALL.context)
    return [run.step(*corpus.batch(step, seed=0, rows=4)) for step in range(start, stop)]


def test_the_networks_parameters_are_the_configurations_in_order():
    assert {name: tuple(p.shape) for name, p in GPT(SMALL).named_parameters()} == SMALL.shapes
    run = trainer("adamw")
    assert list(run.state()) == [f"model/{name}" for name in SMALL.shapes]
    for name, array in initial_weights(SMALL, 0).items():
        assert run.state()[f"model/{name}"].tobytes() == array.tobytes()


def test_no_output_depends_on_later_tokens():
    model = trainer("sgd").model
    tokens = torch.arange(16).unsqueeze(0)
    changed = tokens.clone()
    changed[0, 9] = 200
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(dim=-1)[0]
    assert (difference[:9] == 0).all()
    assert (difference[9:] > 0).all()


def test_the_first_loss_is_that_of_a_uniform_guess():
    (metrics,) = go(trainer("adamw"), 0, 1)
    assert metrics.loss == pytest.approx(np.log(256), abs=0.05)
    assert metrics.lr == SETTINGS["adamw"]["lr"] / 20


@pytest.mark.parametrize("optimizer", sorted(SETTINGS))
def test_training_lowers_the_loss(optimizer):
    metrics = go(trainer(optimizer), 0, 40)
    assert np.mean([m.loss for m in metrics[-5:]]) < metrics[0].loss - 0.5
    assert metrics[-1].lr == SETTINGS[optimizer]["lr"]
    clips = [m.clip_fraction for m in metrics]
    if optimizer.startswith("sophia"):
        assert all(0 <= clip <= 1 for clip in clips)
    else:
        assert clips == [None] * 40


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("optimizer", sorted(SETTINGS))
def test_a_run_resumed_from_a_file_gives_the_same_bits(optimizer, tmp_path):
    whole = trainer(optimizer)
    metrics = go(whole, 0, 25)
    first = trainer(optimizer)
    go(first, 0, 13)
    first.save(tmp_path / "c", None)
    resumed = trainer(optimizer)
    assert resumed.load(tmp_path / "c") == 13
    assert go(resumed, 13, 25) == metrics[13:]
    for name, array in whole.state().items():
        assert resumed.state()[name].tobytes() == array.tobytes(), name


def test_the_state_is_a_copy():
    run = trainer("sophia-g")
    go(run, 0, 1)
    state = run.state()
    kept = {name: array.copy() for name, array in state.items()}
    go(run, 1, 2)
    assert all((state[name] == kept[name]).all() for name in state)


def test_a_state_from_before_the_first_step_loads(tmp_path):
    whole, fresh = trainer("sophia-g"), trainer("sophia-g", seed=1)
    fresh.optimizer.param_groups[0]["seed"] = 0
    whole.save(tmp_path / "c", None)
    assert fresh.load(tmp_path / "c") == 0
    assert go(fresh, 0, 3) == go(whole, 0, 3)


def test_the_seed_reaches_the_sampled_targets():
    first, other = (trainer("sophia-g", seed) for seed in (0, 1))
    other.model.load_state_dict(first.model.state_dict())  # the same weights, another seed
    go(first, 0, 1)
    go(other, 0, 1)
    name = "optimizer/head.weight/"
    assert (first.state()[name + "exp_avg"] == other.state()[name + "exp_avg"]).all()
    assert (first.state()[name + "hessian"] != other.state()[name + "hessian"]).any()


def test_a_checkpoint_of_another_model_is_refused_and_nothing_changes(tmp_path):
    run = trainer("sophia-g")
    go(run, 0, 1)
    kept = run.state()
    wider = RunConfig("sophia-g", batch=4, warmup=20, model=GPTConfig(context=16, width=32, heads=2, layers=2))
    load("torch").trainer(config=wider, weights=initial_weights(wider.model, 0)).save(tmp_path / "c", None)
    with pytest.raises(InvalidArgument, match=r"model/norm.bias: the file has the shape \[32\], expected \[24\]"):
        run.load(tmp_path / "c")
    assert all((array == kept[name]).all() for name, array in run.state().items())


def test_a_backend_moves_to_an_accelerator_that_torch_sees_and_says_what_there_is(monkeypatch):
    backend = load("torch")
    assert on_device(backend, "cpu") is backend
    with pytest.raises(InvalidArgument, match="device: found 'cuda:0', expected one of cpu, which torch has here"):
        on_device(backend, "cuda:0")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    moved = on_device(backend, "cuda:1")
    assert moved.devices() == ("cuda:1", "cpu", "cuda:0")
    assert [route.name for route in moved.routes] == ["eager", "compiled"]
    assert moved.processes.reason("adamw", 2) == ""
    assert moved.processes.reason("adamw", 3) == "3 processes need 3 devices of cuda; there are 2"
    assert backend.devices()[0] == "cpu"
    moved.device = "meta"  # the one device besides the host that every machine has
    assert moved.from_numpy(np.ones(3)).device.type == "meta"
