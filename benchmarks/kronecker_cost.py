"""What Kronecker methods cost: the cost model for ResNet-50 and GPT-2 up to 1,024 ranks, and inverses timed here.

    python benchmarks/kronecker_cost.py

Bytes, memory and multiply-adds come from :mod:`hessiod.core.kronecker.owners`, whose bytes the tests measure on two and
four processes. Times are one thread's CPU time on this machine.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from hessiod.backends_torch import namespace as xp
from hessiod.backends_torch.kronecker.matrices import cholesky_inverse
from hessiod.core.kronecker.inverses import BLOCK, block_inverses
from hessiod.core.kronecker.owners import LayerSize, assign, inverse_cost, rank_bytes, step_bytes

RANKS = (1, 2, 4, 16, 64, 256, 1024)


def resnet50() -> list[LayerSize]:
    """Its 53 convolutions and the classifier."""
    layers, inputs = [LayerSize(64, 3 * 49)], 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            layers += [LayerSize(width, inputs), LayerSize(width, width * 9), LayerSize(4 * width, width)]
            if block == 0:
                layers.append(LayerSize(4 * width, inputs))
            inputs = 4 * width
    return [*layers, LayerSize(1000, 2049)]


def gpt2(width: int = 768, depth: int = 12) -> list[LayerSize]:
    """Its linear layers with biases; embeddings have a diagonal A and are left out."""
    attention = [LayerSize(width, width + 1)] * 4
    return [*attention, LayerSize(4 * width, width + 1), LayerSize(width, 4 * width + 1)] * depth


def cost_table(layers: list[LayerSize]) -> str:
    """Ranks against what one step sends, what a rank holds, and what the busiest rank inverts."""
    lines = ["| ranks | MB a rank, owner | MB a rank, every | busiest rank's inverses, Gmadd |", "|---|---|---|---|"]
    costs = [inverse_cost(layer.out, layer.size) for layer in layers]
    for ranks in RANKS:
        owners = assign(costs, ranks)
        busiest = max(sum(c for c, owner in zip(costs, owners, strict=True) if owner == rank) for rank in set(owners))
        memory = [max(rank_bytes(layers, ranks, placement)) / 1e6 for placement in ("owner", "every")]
        lines.append(f"| {ranks} | {memory[0]:.0f} | {memory[1]:.0f} | {busiest / 1e9:.1f} |")
    sent = [step_bytes(layers, share) / 1e6 for share in (0.0, 1.0)]
    return f"A step sends {sent[0]:.0f} MB, and {sent[1]:.0f} MB with all statistics.\n\n" + "\n".join(lines)


def timed(function) -> float:
    """Milliseconds of CPU time, the median of three."""
    seconds = []
    for _ in range(3):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return 1e3 * median(seconds)


def inverse_times(size: int) -> tuple[float, float]:
    """Milliseconds of inverting one matrix, whole and in THOR's blocks."""
    rows = torch.randn(2 * size, size, generator=torch.Generator().manual_seed(0))
    factor, damping = rows.mT @ rows / len(rows), torch.full((1, 1), 0.1)

    def invert(block):
        return timed(lambda: block_inverses(xp, factor, damping, inverse=cholesky_inverse, block=block))

    return invert(None), invert(BLOCK)


def main() -> None:
    """Print both tables and the times, in Markdown."""
    torch.set_num_threads(1)
    for name, layers in (("ResNet-50", resnet50()), ("GPT-2, 124 M", gpt2())):
        print(f"### {name}\n\n{cost_table(layers)}\n")
    print("| d | whole, ms | blocks of 128, ms | ratio |\n|---|---|---|---|")
    for size in (256, 1024, 2048):
        whole, blocks = inverse_times(size)
        print(f"| {size} | {whole:.1f} | {blocks:.1f} | {whole / blocks:.0f} |")


if __name__ == "__main__":
    main()
