"""Make the golden values anew: ``python -m hessiod.conformance.certify.golden [FILE]``.

Each case is worked out twice in float64: from its definition over jax.numpy, and by PyTorch's own operators. The script
stops where the two differ by more than 1e-9. Where PyTorch has no second derivative, its second source is the operator
written out in elementary ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from safetensors.numpy import save
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessiod.backends.certification.case import Case
from hessiod.backends.certification.catalogue import CATALOGUE
from hessiod.backends.certification.golden import GOLDEN, digest_of
from hessiod.backends.checkpoint import write_atomically
from hessiod.backends_torch.certification.catalogue import OPERATORS
from hessiod.conformance.certify.reference.catalogue import OPERATORS as DEFINITIONS

AGREEMENT = 1e-9
"""Float64 carries 16 digits; the worst-conditioned cases (small-variance norms, singular values) keep about 11."""

Derivatives = dict[str, np.ndarray]


def ctc(x: Any, strings: Any) -> Any:
    """The forward recursion over blank-separated symbols, in logarithms."""
    logs, losses = x.log_softmax(-1), []
    for row, string in enumerate(strings.tolist()):
        states = [0, *(symbol for s in string for symbol in (s, 0))]
        alpha: list[Any] = [logs[0, row, states[0]], logs[0, row, states[1]]] + [None] * (len(states) - 2)
        for t in range(1, len(x)):
            alpha = [advanced(alpha, states, k, logs[t, row, states[k]]) for k in range(len(states))]
        losses.append(-torch.logsumexp(torch.stack(alpha[-2:]), 0))
    return torch.stack(losses)


def advanced(alpha: list[Any], states: list[int], k: int, log: Any) -> Any:
    """One state's next value: from itself, the one before, and the one before that unless a blank must part them."""
    skips = k > 1 and states[k] != 0 and states[k] != states[k - 2]
    sources = [alpha[i] for i in (k, k - 1, *([k - 2] if skips else [])) if i >= 0 and alpha[i] is not None]
    return torch.logsumexp(torch.stack(sources), 0) + log if sources else None


WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "hardsigmoid": lambda x: F.relu6(x + 3) / 6,
    "cdist": lambda x, y: ((x[:, None] - y[None]) ** 2).sum(-1).sqrt(),
    "ctc": ctc,
    "embedding_bag": lambda weight, tokens: F.embedding(tokens, weight).mean(1) ** 2,
}


def by_torch(case: Case, directions: Derivatives, weights: np.ndarray) -> tuple[Derivatives, Derivatives]:
    """Gradients and products by reverse mode over reverse mode."""
    operator = WRITTEN_OUT.get(case.name, OPERATORS[case.name])
    inputs = [torch.tensor(value, requires_grad=True) for value in case.draw().values()]
    with sdpa_kernel(SDPBackend.MATH):
        y = operator(*inputs, *map(torch.tensor, case.constants.values()))
        loss = (torch.tensor(weights) * (y + y * y / 2)).sum()
    gradients = torch.autograd.grad(loss, inputs, create_graph=True)
    pairs = zip(gradients, directions.values(), strict=True)
    total = torch.stack([(gradient * torch.tensor(direction)).sum() for gradient, direction in pairs]).sum()
    products = torch.autograd.grad(total, inputs)
    return named(case, [g.detach().numpy() for g in gradients]), named(case, [p.numpy() for p in products])


def by_jax(case: Case, directions: Derivatives, weights: np.ndarray) -> tuple[Derivatives, Derivatives]:
    """Gradients and products by forward mode over reverse mode."""
    constants = list(case.constants.values())

    def objective(inputs: list[Any]) -> Any:
        y = DEFINITIONS[case.name](*inputs, *constants)
        return (weights * (y + y * y / 2)).sum()

    point = [jax.numpy.asarray(value) for value in case.draw().values()]
    gradients, products = jax.jvp(jax.grad(objective), (point,), (list(directions.values()),))
    return named(case, gradients), named(case, products)


def named(case: Case, arrays: Any) -> Derivatives:
    """By input."""
    return {name: np.asarray(array) for name, array in zip(case.inputs, arrays, strict=True)}


def apart(one: Derivatives, other: Derivatives) -> float:
    """The norm of the difference relative to the norm, over all inputs."""
    difference = sum(float(((one[name] - other[name]) ** 2).sum()) for name in one)
    return (difference / sum(float((array**2).sum()) for array in one.values())) ** 0.5


def make(case: Case) -> tuple[dict[str, np.ndarray], float]:
    """A case's arrays, and how far apart its two sources are."""
    inputs = case.draw()
    operands = [*map(torch.tensor, inputs.values()), *map(torch.tensor, case.constants.values())]
    output = OPERATORS[case.name](*operands)
    weights = case.draw_like({"y": output.numpy()}, 2)["y"]
    directions = case.draw_like(inputs, 1)
    ours, theirs = (source(case, directions, weights) for source in (by_jax, by_torch))
    worst = max(apart(one, other) for one, other in zip(ours, theirs, strict=True))
    arrays = {f"{case.name}/weights": weights.astype(np.float32)}
    for kind, found in zip(("gradient", "product"), ours, strict=True):
        arrays |= {f"{case.name}/{kind}/{name}": array for name, array in found.items()}
    return arrays, worst


def main() -> None:
    """Work out every case and write the file, if all sources agree."""
    jax.config.update("jax_enable_x64", True)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    arrays: dict[str, np.ndarray] = {}
    worst: dict[str, float] = {}
    for case in CATALOGUE.values():
        found, worst[case.name] = make(case)
        arrays |= found
    differing = {name: figure for name, figure in worst.items() if not figure <= AGREEMENT}
    if differing:
        sys.exit(f"the two sources differ: {differing}")
    document = {
        "made_with": {"jax": jax.__version__, "torch": torch.__version__.partition("+")[0], "numpy": np.__version__},
        "agreement": float(f"{max(worst.values()):.2g}"),
        "points": {case.name: digest_of(case.draw()) for case in CATALOGUE.values()},
    }
    write_atomically(path, save(arrays, metadata={"document": json.dumps(document, sort_keys=True)}))


if __name__ == "__main__":
    main()
