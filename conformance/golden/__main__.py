"""Make the golden trajectories: ``python -m hessiod.conformance.golden [FOLDER]``."""

import json
import sys
from pathlib import Path

from hessiod.backends import load
from hessiod.backends.checkpoint import write_atomically
from hessiod.conformance.problems import PROBLEMS


def main() -> None:
    """Train in float64 with torch and write the losses."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    torch = load("torch")
    for problem in PROBLEMS:
        found = {name: problem.losses(torch, name, dtype="float64").tolist() for name in problem.steps}
        document = {"made_with": dict(torch.versions()), "dtype": "float64", "losses": found}
        write_atomically(folder / problem.golden_file, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
