"""The certification cases as a user of PyTorch writes them, and how they are measured."""
