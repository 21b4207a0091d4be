"""Data that is on every machine: Python's own documentation as bytes, and scikit-learn's digits."""

from __future__ import annotations

from pydoc_data.topics import topics

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset


class Text(Dataset):
    """Blocks of ``length`` bytes, as Hugging Face's causal models want them; ``padding`` bytes of each are ignored."""

    def __init__(self, length: int = 64, padding: int = 0) -> None:
        text = "\n".join(topics[name] for name in sorted(topics)).encode()
        self.blocks = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()[: len(text) // length * length]
        self.blocks, self.padding = self.blocks.view(-1, length), padding

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        labels = self.blocks[index].clone()
        labels[len(labels) - self.padding * (index % 2) :] = -100
        return {"input_ids": self.blocks[index], "labels": labels}


def digits() -> TensorDataset:
    """1,797 images ``[1, 8, 8]`` with entries in [0, 1], and their classes."""
    found = load_digits()
    return TensorDataset(torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target))
