"""The character GPT in MindSpore against torch's in float64, and its runs: against torch's, cut and resumed."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor
from torch.nn import functional as F

from hessiod.backends.gpt.config import GPTConfig
from hessiod.backends.gpt.corpus import python_documentation
from hessiod.backends.numpy import namespace as numpy_xp
from hessiod.backends.training.run import RunConfig
from hessiod.backends.training.weights import initial_weights
from hessiod.backends_mindspore.gpt import GPT, CrossEntropy
from hessiod.backends_mindspore.parallel import Alone
from hessiod.backends_mindspore.trainer import MindSporeTrainer
from hessiod.backends_torch.gpt import GPT as TorchGPT
from hessiod.backends_torch.trainer import TorchTrainer
from hessiod.core import philox
from hessiod.mindspore import SophiaH

MODEL = GPTConfig(context=16, width=32, heads=2, layers=1)
CORPUS = python_documentation(MODEL.context)


def batch(step):
    return CORPUS.batch(step, seed=5, rows=4)


def error(ours, theirs):
    """The norm of the difference, relative to the norm."""
    return np.linalg.norm(np.asarray(ours, np.float64) - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="module")
def weights():
    """Initial weights, moved away from the symmetric start, with norms that are not the identity."""
    generator = np.random.default_rng(0)
    return {
        name: (array + 0.1 * generator.normal(size=array.shape)).astype(np.float32)
        for name, array in initial_weights(MODEL, 0).items()
    }


def test_logits_loss_gradient_and_hessian_vector_product_against_float64(weights):
    inputs, targets = batch(0)
    net = GPT(MODEL)
    params = {param.name: param for param in net.trainable_params()}
    assert {name: param.shape for name, param in params.items()} == dict(MODEL.shapes)
    for name, array in weights.items():
        params[name].asnumpy()[...] = array
    ordered = [params[name] for name in MODEL.shapes]
    # One graph gives the loss, its gradient and u * (H u); multiplied by u once more, u * u = 1 leaves H u.
    graph = ms.jit(SophiaH(ordered, seed=9).estimate_with(net, CrossEntropy(), Alone()))
    one = Tensor(1, ms.int64)
    loss, gradients, estimates, _ = graph(one, one * 0, Tensor(1.0, ms.float32), (Tensor(inputs), Tensor(targets)))
    logits = net(Tensor(inputs))

    twin = TorchGPT(MODEL)
    twin.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    twin.double()
    their_params = [dict(twin.named_parameters())[name] for name in MODEL.shapes]
    their_logits = twin(torch.tensor(inputs))
    their_loss = F.cross_entropy(their_logits.flatten(0, 1), torch.tensor(targets).long().flatten())
    their_gradients = torch.autograd.grad(their_loss, their_params, create_graph=True)
    probes = philox.rademacher_probes(numpy_xp, [np.zeros(shape) for shape in MODEL.shapes.values()], seed=9, step=1)
    slope = sum((g * torch.tensor(u)).sum() for g, u in zip(their_gradients, probes, strict=True))
    products = torch.autograd.grad(slope, their_params)

    assert error(logits.asnumpy(), their_logits.detach().numpy()) < 1e-5
    assert error(loss.asnumpy(), np.float64(their_loss.item())) < 1e-6
    for place, name in enumerate(MODEL.shapes):
        assert error(gradients[place].asnumpy(), their_gradients[place].detach().numpy()) < 1e-5, name
        product = estimates[place].asnumpy() * probes[place]
        assert error(product, products[place].numpy()) < 1e-5, name


def trainer(optimizer, kind=MindSporeTrainer, **hyperparameters):
    config = RunConfig(optimizer, seed=5, warmup=25, hyperparameters=hyperparameters, model=MODEL)
    return kind(config, initial_weights(MODEL, 5))


def moved(state):
    """How far all weights together are from the start. Biases start at zero: one alone is nothing but an update."""
    start = initial_weights(MODEL, 5)
    return np.concatenate([(state[f"model/{name}"].astype(np.float64) - start[name]).ravel() for name in start])


@pytest.mark.parametrize("optimizer", ["sophia-g", "sophia-h"])
def test_run_follows_torch(optimizer):
    """Identical weights, batches, sampled targets and probes: after one step the same state, and the same losses."""
    ours, theirs = trainer(optimizer), trainer(optimizer, TorchTrainer)
    for step in range(15):
        found, expected = ours.step(*batch(step)), theirs.step(*batch(step))
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.lr == expected.lr
        if step == 0:
            state, other = ours.state(), theirs.state()
            assert state.keys() == other.keys()
            assert error(moved(state), moved(other)) < 1e-5
            for name in other:
                if name.startswith("optimizer/"):
                    assert error(state[name], other[name]) < 1e-5, name


def test_cut_and_resumed_run_is_the_same_bit_for_bit(tmp_path):
    """Warm-up and the steps between two estimates span the cut. The fresh trainer has run before it loads."""
    whole = trainer("sophia-g", every=7)
    for step in range(26):
        whole.step(*batch(step))
        if step == 12:
            kept = whole.state()
            whole.save(tmp_path / "c", None)
    fresh = trainer("sophia-g", every=7)
    fresh.step(*batch(33))
    assert fresh.load(tmp_path / "c") == 13
    assert fresh.state().keys() == kept.keys()
    assert all(array.tobytes() == kept[name].tobytes() for name, array in fresh.state().items())
    for step in range(13, 26):
        fresh.step(*batch(step))
    expected = whole.state()
    for name, array in fresh.state().items():
        assert array.tobytes() == expected[name].tobytes(), name
    assert fresh.optimizer.steps == whole.optimizer.steps == 26
    assert int(fresh.optimizer.refreshes.asnumpy()) == int(whole.optimizer.refreshes.asnumpy()) == 4
    slots = {name.rsplit("/", 1)[-1] for name in expected if name.startswith("optimizer/")}
    assert slots == {"exp_avg", "hessian"}
