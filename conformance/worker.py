"""One backend's checks in a process of their own: a crash or a hang there is a row, and not the end of the suite.

``python -m hessiod.conformance.worker BACKEND SEED [DEVICE]`` says that it is ready, then reads lines of JSON, each a
check's id and the data that it takes, and answers with a line of JSON. The answers go to a copy of standard output;
what frameworks print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TextIO

from hessiod.backends.registry import Listing, load, names
from hessiod.conformance.check import perform
from hessiod.conformance.suite import plan


def serve(name: str, seed: int, device: str | None, requests: TextIO, answers: TextIO) -> None:
    """Answer every request until there are no more."""
    checks = {check.id: check for check in plan([Listing(name, load(name, device))], seed, names())}
    answers.write("ready\n")
    answers.flush()
    for line in requests:
        request = json.loads(line)
        outcome = perform(checks[request["check"]], request["known"])
        message = {"cases": [asdict(case) for case in outcome.cases], "data": outcome.data}
        answers.write(json.dumps(message) + "\n")
        answers.flush()


def main() -> None:
    """Keep the answers apart from what frameworks print."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None, sys.stdin, answers)


if __name__ == "__main__":
    main()
