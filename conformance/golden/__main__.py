"""Make the golden trajectories: ``python -m hessiod.conformance.golden [FILE]``."""

import json
import sys
from pathlib import Path

from hessiod.backends import load
from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance.trajectories import STEPS, losses


def main() -> None:
    """Train in float64 with torch and write the losses."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("gpt.json")
    torch = load("torch")
    found = {name: losses(torch, name, steps, dtype="float64").tolist() for name, steps in STEPS.items()}
    document = {"made_with": dict(torch.versions()), "dtype": "float64", "losses": found}
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
