"""Several workers at the same time: what they take, what has to wait, and the same report as one after another."""

import threading
import time

import pytest

from hessiod.conformance.case import PASS, UNSUPPORTED
from hessiod.conformance.check import Check, Outcome
from hessiod.conformance.check import perform as perform_here
from hessiod.conformance.isolation import Isolation
from hessiod.conformance.selection import Selection
from hessiod.conformance.side_by_side import Lanes, side_by_side
from hessiod.conformance.suite import choose, run_suite


def check(identity, backend, **fields):
    fields = dict(level="L3", rule="r", device="cpu", dtype="", kinds=("k",)) | fields
    return Check(identity, backend=backend, **fields)


class Watch:
    """Performs checks slowly enough to overlap, and notes which did, and in which thread."""

    def __init__(self):
        self.running, self.most, self.order, self.threads = 0, 0, [], {}
        self.lock = threading.Lock()

    def perform(self, check, known):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.order.append(check.id)
            self.threads[check.id] = threading.get_ident()
        time.sleep(0.05)
        with self.lock:
            self.running -= 1
        return Outcome(check.rows(PASS, str(sorted(known.keys() & check.after))), [1.0])


def taken(lanes, home):
    """What a lane takes, by name."""
    found = lanes.take(home)
    return found and (found[0], "".join(check.id for check in found[1]))


def test_a_lane_takes_its_backends_checks_in_order_then_a_free_backend_then_the_last_where_most_is_left():
    lanes = Lanes(
        [check(f"{backend}{number}", backend) for number in "123456" for backend in "ab"] + [check("c1", "c")]
    )
    assert [taken(lanes, "") for _ in range(2)] == [("a", "a1"), ("b", "b1")]
    assert [taken(lanes, "b") for _ in range(5)] == [("b", f"b{number}") for number in "23456"]
    assert taken(lanes, "b") == ("c", "c1")
    assert [taken(lanes, "c") for _ in range(2)] == [("c", "a6"), ("c", "a5")]
    assert [taken(lanes, "a") for _ in range(3)] == [("a", f"a{number}") for number in "234"]
    lanes.close()
    assert taken(lanes, "a") is None


def test_checks_that_share_what_they_compile_or_start_are_taken_together():
    names = ("L0/abs/a", "L0/sqrt/a", "L1/sgd.step/a/eager", "L1/sgd.step/a/jit", "L1/adamw.step/a", "L4/x/a", "L4/y/a")
    names += ("L5/x/a", "L5/z/a", "L6/x/a", "L6/y/a")
    lanes = Lanes([check(name, "a", level=name[:2]) for name in names])
    parts = []
    while lanes.waiting["a"]:
        parts.append(len(lanes.take("a")[1]))
    assert parts == [2, 2, 1, 2, 1, 1, 2]


def test_two_lanes_work_on_one_backend_if_there_is_no_other():
    watch = Watch()
    found = [done.id for done, _ in side_by_side([check(f"{n}/a", "a") for n in range(6)], watch.perform, 2)]
    assert sorted(found) == [f"{n}/a" for n in range(6)]
    assert watch.most == 2


def test_a_check_waits_for_all_whose_data_it_takes_and_one_that_only_compares_runs_here():
    watch, after = Watch(), ("run/a", "run/b", "left out")
    checks = [
        check("compared", "a", after=after, compares=True),
        check("moved", "b", after=after),
        *(check(f"run/{name}", name) for name in ("a", "b")),
    ]
    found = {done.id: outcome for done, outcome in side_by_side(checks, watch.perform, 2)}
    assert set(watch.order[-2:]) == {"compared", "moved"}
    assert found["compared"].cases[0].why == found["moved"].cases[0].why == "['run/a', 'run/b']"
    assert watch.threads["compared"] == threading.get_ident()
    assert watch.threads["moved"] in (watch.threads["run/a"], watch.threads["run/b"])


def test_a_check_that_waited_goes_on_in_its_own_backends_lane():
    watch, after = Watch(), ("run/a", "run/b")
    runs = [check("run/b", "b"), check("run/a", "a"), *(check(f"{number}/a", "a") for number in range(4))]
    moved = [check("b-a", "a", after=after), check("a-b", "b", after=after)]

    def perform(check, known):
        time.sleep(0.3 if check.id == "run/a" else 0.0)
        return watch.perform(check, known)

    assert len(list(side_by_side([*runs, *moved], perform, 2))) == 8
    assert watch.threads["b-a"] == watch.threads["run/a"]


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
