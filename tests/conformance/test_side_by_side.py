"""Several backends at the same time: what may overlap, what has to wait, and the same report as one after another."""

import threading
import time

import pytest

from hessiod.conformance.case import PASS, UNSUPPORTED
from hessiod.conformance.check import Check, Outcome
from hessiod.conformance.check import perform as perform_here
from hessiod.conformance.isolation import Isolation
from hessiod.conformance.selection import Selection
from hessiod.conformance.side_by_side import side_by_side
from hessiod.conformance.suite import choose, run_suite


def check(identity, backend, after=()):
    fields = dict(level="L4", rule="r", device="cpu", dtype="", kinds=("k",), after=after)
    return Check(identity, backend=backend, **fields)


class Watch:
    """Performs checks slowly enough to overlap, and notes which did."""

    def __init__(self):
        self.running, self.together, self.order = [], [], []
        self.lock = threading.Lock()

    def perform(self, check, known):
        with self.lock:
            self.running.append(check.backend)
            self.together.append(sorted(self.running))
            self.order.append(check.id)
        time.sleep(0.05)
        with self.lock:
            self.running.remove(check.backend)
        return Outcome(check.rows(PASS, str(sorted(known))), (1.0,))


def test_two_backends_run_at_a_time_each_of_them_one_check_after_another():
    watch = Watch()
    checks = [check(f"{level}/{backend}", backend) for level in "123" for backend in ("a", "b", "c")]
    found = [done.id for done, _ in side_by_side(checks, watch.perform, 2)]
    assert sorted(found) == sorted(one.id for one in checks)
    assert max(map(len, watch.together)) == 2
    assert all(len(set(running)) == len(running) for running in watch.together)
    for backend in ("a", "b", "c"):
        assert [one for one in watch.order if one.endswith(backend)] == [f"{level}/{backend}" for level in "123"]


def test_a_comparison_waits_for_all_that_it_compares_and_gets_their_data():
    watch = Watch()
    checks = [
        check("compared", "a", after=("run/a", "run/b", "left out")),
        *(check(f"run/{name}", name) for name in ("a", "b")),
    ]
    found = {done.id: outcome for done, outcome in side_by_side(checks, watch.perform, 2)}
    assert watch.order[-1] == "compared"
    assert found["compared"].cases[0].why == "['run/a', 'run/b']"


def test_an_error_of_the_suite_itself_comes_through_and_leaving_early_stops_the_rest():
    def broken(check, known):
        raise ZeroDivisionError("of the suite")

    with pytest.raises(ZeroDivisionError, match="of the suite"):
        list(side_by_side([check("1/a", "a"), check("1/b", "b")], broken, 2))

    stopped = threading.Event()

    def slow(check, known):
        if check.backend == "b":
            stopped.wait(30)
        return Outcome(check.rows(PASS, ""))

    checks = [check("1/a", "a"), check("1/b", "b"), check("2/b", "b")]
    running = side_by_side(checks, slow, 2, stopped.set)
    assert next(running)[0].id == "1/a"
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 10
    assert threading.active_count() < 10


def test_the_report_is_that_of_one_backend_after_another():
    chosen, selection = choose(["numpy", "onnx"]), Selection(include=("L1/sgd.step", "L4/gpt.sgd"))
    alone = run_suite(chosen, selection=selection, perform=perform_here, seed=5)
    with Isolation(limit=60.0, seed=5) as isolation:
        together = run_suite(chosen, selection=selection, seed=5, run=isolation.run)
    assert together == alone
    assert {case.verdict for case in alone.cases} == {PASS, UNSUPPORTED}
