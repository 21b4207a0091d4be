"""What a Hessian-vector product costs on MindSpore, in jitted gradients of the same net."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from hessiod.backends_mindspore.derivatives.cells import Gradient
from hessiod.bench.row import Row
from hessiod.bench.settings import Settings
from hessiod.bench.timing import interleaved
from hessiod.mindspore import hvp


def images(rows: int) -> tuple[Tensor, Tensor]:
    """A batch of small images and labels."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 3, 32, 32)).astype(np.float32)
    return Tensor(x), Tensor((np.arange(rows) % 10).astype(np.int32))


def perceptron() -> tuple[nn.Cell, tuple[Tensor, Tensor]]:
    """Three dense layers with GELU."""
    layers = nn.Flatten(), nn.Dense(3072, 512), nn.GELU(), nn.Dense(512, 512), nn.GELU(), nn.Dense(512, 10)
    return nn.SequentialCell(*layers), images(64)


def convolutions() -> tuple[nn.Cell, tuple[Tensor, Tensor]]:
    """Two convolutions with batch normalisation in training, ReLU and maximum pools."""
    first = nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2, 2)
    second = nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2, 2)
    return nn.SequentialCell(*first, *second, nn.Flatten(), nn.Dense(4096, 10)), images(16)


class Block(nn.Cell):
    """A transformer block with nn.LayerNorm and nn.GELU, an embedding before it and a head behind it."""

    def __init__(self, vocabulary: int = 256, width: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.norm1, self.norm2 = nn.LayerNorm((width,)), nn.LayerNorm((width,))
        self.attend, self.merge = nn.Dense(width, 3 * width), nn.Dense(width, width)
        self.expand, self.gelu, self.contract = nn.Dense(width, 4 * width), nn.GELU(), nn.Dense(4 * width, width)
        self.head, self.width, self.vocabulary = nn.Dense(width, vocabulary), width, vocabulary

    def construct(self, tokens):
        """Logits ``[rows * context, vocabulary]``."""
        x = self.tokens(tokens)
        query, key, value = ops.split(self.attend(self.norm1(x)), self.width, -1)
        weights = ops.softmax(ops.matmul(query, key.swapaxes(-1, -2)) * self.width**-0.5, -1)
        x = x + self.merge(ops.matmul(weights, value))
        x = x + self.contract(self.gelu(self.expand(self.norm2(x))))
        return self.head(x).reshape(-1, self.vocabulary)


def transformer() -> tuple[nn.Cell, tuple[Tensor, Tensor]]:
    """The block on 8 rows of 64 tokens."""
    tokens = np.random.default_rng(0).integers(256, size=(8, 65)).astype(np.int32)
    return Block(), (Tensor(tokens[:, :-1].copy()), Tensor(tokens[:, 1:].ravel().copy()))


NETS = {"perceptron, GELU": perceptron, "convolutions, BatchNorm": convolutions, "transformer block": transformer}


def rows(settings: Settings) -> Iterator[Row]:
    """For each net: the product in jitted gradients without cures, once compiled, and the seconds until then."""
    for name, make in NETS.items():
        net, inputs = make()
        forward = nn.WithLossCell(net, nn.CrossEntropyLoss()).set_train()
        yield measured(name, forward, net.trainable_params(), inputs)


def measured(name: str, forward: nn.Cell, params: Any, inputs: tuple[Tensor, Tensor]) -> Row:
    """One net's row."""
    vectors = [Tensor(np.ones(param.shape, np.float32)) for param in params]
    plain = Gradient(forward, ParameterTuple(params))

    def gradient() -> None:
        plain(*inputs)[0].asnumpy()

    def product() -> None:
        hvp(forward, params, vectors, inputs, uncertified="allow")[0].asnumpy()

    gradient()
    start = perf_counter()
    product()
    compiling = perf_counter() - start
    times = interleaved({"product": product, "gradient": gradient})
    millis = {key: 1000 * times.median(key) for key in ("product", "gradient")}
    detail = f"{millis['product']:.1f} ms, a gradient {millis['gradient']:.1f} ms; first call {compiling:.1f} s"
    ratio = times.ratio("product", "gradient")
    return Row("curvature, MindSpore", f"hvp, {name}", "a jitted gradient", ratio, "x", 2.5, detail=detail)
