"""Second derivatives through F.scaled_dot_product_attention, whose fused kernels have none."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hessiod.core import InvalidState
from hessiod.torch import SophiaG, SophiaH

HEADS, TIME, SIZE = 2, 5, 4


def written_out(q, k, v):
    scores = q @ k.transpose(-2, -1) * SIZE**-0.5
    future = torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1) @ v


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def problem(attention):
    """Weights, and a function from them to (loss, logits) of a causal attention layer over a fixed batch."""
    generator = torch.Generator().manual_seed(0)
    project = torch.nn.Parameter(torch.randn(6, 3 * HEADS * SIZE, generator=generator, dtype=torch.float64))
    read = torch.nn.Parameter(torch.randn(HEADS * SIZE, 7, generator=generator, dtype=torch.float64))
    x = torch.randn(3, TIME, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(7, (3, TIME), generator=generator)

    def forward():
        q, k, v = (x @ project).view(3, TIME, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
        mixed = attention(q, k, v).transpose(1, 2).reshape(3, TIME, HEADS * SIZE)
        logits = mixed @ read
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), logits

    return [project, read], forward


def estimate(kind, attention, closure):
    params, forward = problem(attention)
    opt = kind(params, lr=0.0, betas=(0.0, 0.0))
    if closure:
        opt.update_curvature(closure=forward)
    else:
        loss, logits = forward()
        opt.update_curvature(loss=loss, logits=logits)
    forward()[0].backward()
    opt.step()
    return np.concatenate([opt.state[param]["hessian"].numpy().ravel() for param in params])


def test_sophia_h_says_that_a_fused_loss_cannot_be_differentiated_twice_and_what_to_do():
    params, forward = problem(fused)
    opt = SophiaH(params)
    loss, logits = forward()
    with pytest.raises(InvalidState) as caught:
        opt.update_curvature(loss=loss, logits=logits)
    message = str(caught.value)
    assert message.startswith(
        "update_curvature: torch cannot differentiate this model twice (derivative for aten::_scaled_dot"
    )
    assert "pass closure=" in message
    assert "SophiaG" in message
    assert "\n" not in message
    opt.update_curvature(closure=forward)  # nothing was left behind


def test_sophia_h_says_that_a_compiled_model_cannot_be_differentiated_twice_and_what_to_do():
    params, forward = problem(written_out)
    compiled = torch.compile(forward, backend="aot_eager")
    opt = SophiaH(params)
    with pytest.raises(InvalidState, match="cannot differentiate a compiled model twice; pass closure="):
        opt.update_curvature(loss=compiled()[0])
    opt.update_curvature(closure=compiled)


def test_a_closure_gives_sophia_h_the_curvature_of_attention_written_out():
    expected = estimate(SophiaH, written_out, closure=False)
    np.testing.assert_allclose(estimate(SophiaH, fused, closure=True), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(expected).min() > 1e-6


@pytest.mark.parametrize("closure", [False, True])
def test_sophia_g_needs_one_derivative_and_runs_through_fused_kernels(closure):
    expected = estimate(SophiaG, written_out, closure=False)
    np.testing.assert_allclose(estimate(SophiaG, fused, closure=closure), expected, rtol=1e-9, atol=1e-13)
