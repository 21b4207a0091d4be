"""Cut the digits that level 4 trains on: ``python -m hessiod.conformance.golden.digits``; needs scikit-learn."""

from pathlib import Path

from sklearn.datasets import load_digits

from hessiod.backends.checkpoint import write_atomically
from hessiod.backends.digits.data import as_text

COUNT = 512
HEADER = f"""\
# The first {COUNT} images of scikit-learn's load_digits: 8x8 pixels of 17 levels, 0 to G, after the label.
# They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine
# Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0
# (https://creativecommons.org/licenses/by/4.0/). The pixels are unchanged; only the notation is another.
"""


def main() -> None:
    """Write ``digits.txt`` beside this file."""
    levels, labels = load_digits(return_X_y=True)
    text = HEADER + as_text(levels[:COUNT], labels[:COUNT])
    write_atomically(Path(__file__).with_name("digits.txt"), text.encode())


if __name__ == "__main__":
    main()
