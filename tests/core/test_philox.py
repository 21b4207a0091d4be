"""Philox4x32-10 against published known answers, an independent scalar implementation, and statistics."""

import numpy as np
import pytest

from hessiod.backends.numpy import namespace as xp
from hessiod.core import philox

# philox 4x32 10 of Random123's kat_vectors: counter, key, answer
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def integers(text):
    return [int(word, 16) for word in text.split()]


def reference(counter, key):
    """Ten rounds in unbounded Python integers, as in section 4.3 of Salmon et al."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(right >> 32) ^ c[1] ^ k[0], right & 0xFFFFFFFF, (left >> 32) ^ c[3] ^ k[1], left & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def signs_of(words):
    """128 signs from four words, least bit first: 0 is +1."""
    return [1 - 2 * ((word >> bit) & 1) for word in words for bit in range(32)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers_of_random123(counter, key, answer):
    assert reference(integers(counter), integers(key)) == integers(answer)
    words = philox.philox4x32(xp, tuple(np.array([word]) for word in integers(counter)), tuple(integers(key)))
    assert [int(word[0]) for word in words] == integers(answer)


def test_many_blocks_at_once_equal_the_scalar_reference():
    generator = np.random.default_rng(1)
    counters = generator.integers(0, 2**32, (200, 4))
    words = philox.philox4x32(xp, tuple(counters.T), (0x9E3779B9, 0xFFFFFFFF))
    expected = [reference(map(int, counter), (0x9E3779B9, 0xFFFFFFFF)) for counter in counters]
    np.testing.assert_array_equal(np.stack(words, axis=-1), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1])
def test_the_counter_is_block_index_step_stream_and_sample_under_the_seed(seed):
    words = philox.words(xp, np.array([7]), seed=seed, step=11, index=13, sample=17, stream=3)
    assert words[0].tolist() == reference((7, 13, 11, 3 + 256 * 17), (seed % 2**32, seed // 2**32))


def test_a_block_yields_128_signs_least_bit_first():
    (signs,) = philox.rademacher_probes(xp, [np.zeros(300)], seed=5, step=2)
    blocks = [signs_of(reference((block, 0, 2, 0), (5, 0))) for block in range(3)]
    np.testing.assert_array_equal(signs, np.ravel(blocks)[:300])


def test_probes_of_a_list_are_numbered_by_place_step_and_sample():
    shapes = [(3, 5), (), (0, 4), (129,), (2, 64)]
    likes = [np.zeros(shape, np.float32) for shape in shapes]
    found = philox.rademacher_probes(xp, likes, seed=9, step=4, sample=6)
    for place, (shape, probe) in enumerate(zip(shapes, found, strict=True)):
        blocks = [signs_of(reference((block, place, 4, 256 * 6), (9, 0))) for block in range(2)]
        assert probe.shape == shape
        assert probe.dtype == np.float32
        np.testing.assert_array_equal(probe.ravel(), np.ravel(blocks)[: probe.size])


def test_uniforms_are_the_top_24_bits_of_each_word():
    found = philox.uniforms(xp, np.empty((3, 3)), seed=1, step=2, index=3, sample=4)
    words = [word for block in range(3) for word in reference((block, 3, 2, 1 + 256 * 4), (1, 0))]
    np.testing.assert_array_equal(found.ravel(), [(word >> 8) / 2**24 for word in words][:9])
    assert found.dtype == np.float32


def test_normals_are_box_and_muller_of_word_pairs():
    found = philox.normals(xp, np.empty(10), seed=1, step=2, index=3, sample=4)
    expected = []
    for block in range(3):
        a, b, c, d = reference((block, 3, 2, 1 + 256 * 4), (1, 0))
        for radius, angle in ((a, b), (c, d)):
            size, turn = np.sqrt(-2 * np.log((radius + 1) / 2**32)), 2 * np.pi * angle / 2**32
            expected += [size * np.cos(turn), size * np.sin(turn)]
    np.testing.assert_allclose(found, expected[:10], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("draw", [philox.uniforms, philox.normals])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (5,), (2, 3)])
def test_draws_have_the_shape_asked_for(draw, shape):
    assert draw(xp, np.empty(shape), seed=0, step=1).shape == shape


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_normals_are_finite_at_the_extreme_words(monkeypatch, word):
    monkeypatch.setattr(philox, "words", lambda xp, block, **counter: np.full((len(block), 4), word))
    assert np.isfinite(philox.normals(xp, np.empty(4), seed=0, step=0)).all()


def test_moments_are_those_of_the_distributions():
    size = 200_000
    like = np.empty(size)
    (signs,) = philox.rademacher_probes(xp, [like], seed=3, step=1)
    uniforms = philox.uniforms(xp, like, seed=3, step=1).astype(np.float64)
    normals = philox.normals(xp, like, seed=3, step=1)
    bound = 5 / size**0.5  # five standard errors
    assert abs(signs.mean()) < bound
    assert abs(uniforms.mean() - 0.5) < bound * (1 / 12) ** 0.5
    assert abs((uniforms**2).mean() - 1 / 3) < bound * (4 / 45) ** 0.5
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert abs(normals.mean()) < bound
    assert abs((normals**2).mean() - 1) < bound * 2**0.5
    assert abs((normals**4).mean() - 3) < bound * 96**0.5


def test_streams_seeds_steps_parameters_and_samples_are_independent():
    size = 50_000
    base = dict(seed=3, step=1, index=0, sample=0, stream=philox.TARGET)
    changes = [{}, dict(seed=4), dict(seed=3 + 2**32), dict(step=2), dict(index=1), dict(sample=1)]
    changes += [dict(stream=stream) for stream in (philox.PROBE, philox.WEIGHT, philox.BATCH)]
    draws = np.stack([philox.uniforms(xp, np.empty(size), **(base | change)) for change in changes]).astype(np.float64)
    draws = np.concatenate([draws, np.roll(draws[:1], 1, axis=1)])  # neighbours, too
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 5 / size**0.5


def test_the_streams_differ():
    assert len({philox.PROBE, philox.TARGET, philox.WEIGHT, philox.BATCH}) == 4


@pytest.mark.parametrize("probes", [philox.rademacher_probes, philox.normal_probes])
def test_a_parameters_probe_depends_on_its_own_index_alone(probes):
    """With the second of three left out, the others' stay."""
    likes = [np.zeros(shape, np.float32) for shape in ((3, 50), (7,), (2, 2))]
    whole = probes(xp, likes, seed=4, step=9, sample=1)
    some = probes(xp, [likes[0], likes[2]], seed=4, step=9, sample=1, indices=[0, 2])
    assert [array.tobytes() for array in some] == [whole[0].tobytes(), whole[2].tobytes()]
    assert probes(xp, [likes[2]], seed=4, step=9, sample=1)[0].tobytes() != whole[2].tobytes()
