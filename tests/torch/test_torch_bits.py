"""The generator and the sampled targets on torch: the same bits as on numpy."""

import numpy as np
import pytest
import torch

from hessiod.backends.numpy import namespace as on_numpy
from hessiod.backends_torch import draws
from hessiod.backends_torch import namespace as on_torch
from hessiod.backends_torch.draws import words
from hessiod.core import philox
from hessiod.core.likelihood import RESIDUALS

SHAPES = [(), (0,), (1,), (3, 0, 2), (7,), (127,), (128,), (129,), (5, 51), (2, 3, 4, 5), (33, 31)]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    words = philox.philox4x32(on_torch, tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(word.item() for word in words) == answer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probes_are_bit_equal_to_numpys_for_every_shape(dtype):
    expected = philox.rademacher_probes(
        on_numpy, [np.zeros(shape, dtype) for shape in SHAPES], seed=2**40 + 3, step=11, sample=2
    )
    likes = [torch.zeros(shape, dtype=getattr(torch, dtype)) for shape in SHAPES]
    found = philox.rademacher_probes(on_torch, likes, seed=2**40 + 3, step=11, sample=2)
    for ours, theirs, like in zip(found, expected, likes, strict=True):
        assert ours.dtype == like.dtype
        assert ours.shape == like.shape
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert sum(probe.numel() for probe in found) > 1000


def test_words_from_the_generated_kernel_are_philoxs(monkeypatch):
    """Also with block numbers and seeds of more than 32 bits, with two threads, and where there is no kernel."""
    drawn = {"seed": 2**63 + 2**40 + 3, "step": 2**31 + 1, "index": 7, "sample": 5, "stream": philox.TARGET}
    numbers = np.concatenate([np.arange(70_000), 2**32 - 3 + np.arange(3)])
    for seed in (drawn["seed"], -1):
        expected = philox.words(on_numpy, numbers, **drawn | {"seed": seed})
        for choice, threads in (("compiled", 1), ("compiled", 2), ("eager", 1)):
            monkeypatch.setenv("HESSIOD_KERNELS", choice)
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            found = words(on_torch, torch.from_numpy(numbers), **drawn | {"seed": seed})
            np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniforms_are_bit_equal_to_numpys(shape):
    expected = philox.uniforms(on_numpy, np.zeros(shape), seed=1, step=2, index=3, sample=4)
    found = philox.uniforms(on_torch, torch.zeros(shape), seed=1, step=2, index=3, sample=4)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("choice", ["compiled", "eager"])
def test_uniforms_from_the_generated_kernel_are_the_whole_batchs_at_any_place(choice, monkeypatch):
    """Also from a place beyond 2^32 blocks on, with two threads, and of logits in float64."""
    monkeypatch.setenv("HESSIOD_KERNELS", choice)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for first in (0, 1, 6, 2**35 + 3):
        for shape, seed in (((), 0), ((0,), 1), ((7, 3), -1), ((300_001,), 2**63 + 5)):
            drawn = dict(seed=seed, step=2**31 + 1, sample=3, first=first)
            found = draws.uniforms(on_torch, torch.zeros(shape, dtype=torch.float64), **drawn)
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found.numpy(), philox.uniforms(on_numpy, np.zeros(shape), **drawn))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normals_agree_with_numpys_to_a_few_units_in_the_last_place(shape):
    expected = philox.normals(on_numpy, np.zeros(shape), seed=1, step=2)
    found = philox.normals(on_torch, torch.zeros(shape, dtype=torch.float64), seed=1, step=2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("likelihood", ["categorical", "bernoulli"])
def test_sampled_targets_are_numpys_targets(likelihood):
    logits = np.random.default_rng(0).normal(size=(400, 17)) * 2
    ours = RESIDUALS[likelihood](on_torch, torch.tensor(logits), 5, 6, 7).numpy()
    theirs = RESIDUALS[likelihood](on_numpy, logits, 5, 6, 7)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)  # another target would be off by 1
