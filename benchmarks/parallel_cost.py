"""The tables of docs/distributed.md: python benchmarks/parallel_cost.py. Formulas, no measurement."""

from hessiod.backends.parallel_cost import gpt, pass_bytes, refresh_bytes, state_bytes
from hessiod.core.rules import RULES

KINDS = {  # slots and estimator
    "sgd, momentum": (1, "none"),
    "adamw": (len(RULES["adamw"].slots), "none"),
    "apollo": (2, "none"),
    "apollow": (3, "none"),
    "sophia-g": (2, "gauss-newton-bartlett"),
    "sophia-h": (2, "hutchinson"),
    "adahessian": (2, "hutchinson"),
    "diagonal-newton": (1, "hutchinson"),
}
DEVICES = (8, 32, 128, 512, 1024)


def main() -> None:
    """Print both tables."""
    shapes = gpt()
    print("GB of state on the busiest device, float32\n")
    print("| rule | DDP | " + " | ".join(f"FSDP2, {n}" for n in DEVICES) + " |")
    print("|---" * (2 + len(DEVICES)) + "|")
    for name, (slots, _) in KINDS.items():
        sizes = [state_bytes(shapes, slots, 1, False), *(state_bytes(shapes, slots, n, True) for n in DEVICES)]
        print(f"| {name} | " + " | ".join(f"{size / 1e9:.3g}" for size in sizes) + " |")
    print("\nGB that enter collectives, float32\n")
    print("| devices | way | a step | a refresh, Gauss-Newton-Bartlett | a refresh, Hutchinson, one probe |")
    print("|---|---|---|---|---|")
    for devices in DEVICES:
        for way, sharded in (("DDP", False), ("FSDP2", True)):
            refreshes = [
                refresh_bytes(shapes, devices, sharded, name) for name in ("gauss-newton-bartlett", "hutchinson")
            ]
            sizes = [pass_bytes(shapes, devices, sharded), *refreshes]
            print(f"| {devices} | {way} | " + " | ".join(f"{size / 1e9:.4g}" for size in sizes) + " |")


if __name__ == "__main__":
    main()
