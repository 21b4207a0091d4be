"""No silent error over the whole catalogue, in both of MindSpore's modes.

The slow run, and `hessiod certify`, take everything in both. Otherwise it is a third of the cases: every operator and
every family with each verdict that the table has for their cases, and all that MindSpore has silently wrong. Modes take
turns there from case to case, as a mode changes nothing about a traced graph but who traces it.
"""

import os

import pytest

from hessiod.backends.certification import golden
from hessiod.backends.certification.table import CURED, REFUSED, RIGHT, WRONG, read, shipped
from hessiod.backends_mindspore.certification import measure
from hessiod.backends_mindspore.certification.catalogue import CELLS, FUNCTIONS, NAMES
from hessiod.conformance.certify.pool import Task, measure_all
from hessiod.conformance.certify.verdicts import ABSENT

MODES = ("product", "graph")


@pytest.fixture(scope="module")
def shown():
    (found,) = [table.document for table in map(read, shipped()) if table.framework == "mindspore"]
    return found


def subjects(case):
    """What a case says something about: its operators and its family, with its verdict."""
    return {(subject, case["verdict"]) for subject in (*case["operators"], case["family"])}


def representatives(cases):
    """The silent cases, and few more such that every subject is among them."""
    chosen = [case for case in cases if case["silent"]]
    left = set().union(*map(subjects, cases)).difference(*map(subjects, chosen))
    while left:
        chosen.append(max(cases, key=lambda case: len(left & subjects(case))))
        left -= subjects(chosen[-1])
    return chosen


def present(shown):
    return [case for case in shown["cases"] if case["verdict"] != ABSENT]


WHOLE = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=["every operator", pytest.param("every case", marks=WHOLE)])
def found(shown, request):
    if request.param == "every case":
        tasks = [Task(case["name"], mode) for case in present(shown) for mode in MODES]
    else:
        tasks = [Task(case["name"], MODES[turn % 2]) for turn, case in enumerate(representatives(present(shown)))]
    return dict(measure_all("mindspore", tasks, jobs=os.cpu_count() or 1))


def test_the_representatives_have_every_operator_and_verdict(shown):
    cases = present(shown)
    chosen = representatives(cases)
    assert len(chosen) == len({case["name"] for case in chosen}) < len(cases) / 2
    assert {subject for case in chosen for subject in subjects(case)} == {s for case in cases for s in subjects(case)}
    assert {case["name"] for case in cases if case["silent"]} <= {case["name"] for case in chosen}


def test_no_case_gives_a_wrong_number(found):
    assert {task: (m.first, m.second) for task, m in found.items() if m.wrong} == {}


def test_what_the_table_calls_right_or_cured_is_right_and_the_rest_is_refused_or_raises(found, shown):
    verdicts = {case["name"]: case["verdict"] for case in shown["cases"]}
    differing = {
        task: (verdicts[task.name], m.second, m.second_error)
        for task, m in found.items()
        if m.right != (verdicts[task.name] in (RIGHT, CURED))
    }
    assert differing == {}


def test_no_refusal_brings_the_process_down(found):
    assert [task for task, m in found.items() if m.died] == []


def test_the_shipped_table_is_about_this_catalogue_and_has_nothing_wrong(shown):
    assert [case["name"] for case in shown["cases"]] == NAMES
    assert len(NAMES) == len(FUNCTIONS) + len(CELLS)
    assert shown["header"]["golden"] == golden.file_digest()
    assert shown["header"]["version"] == measure.header()["version"]
    assert shown["counts"]["wrong"] == 0
    assert len({case["name"].partition("__")[0] for case in shown["cases"] if case["verdict"] != ABSENT}) >= 250


def test_what_mindspore_has_silently_wrong_is_cured_or_refused(shown):
    silent = {case["name"]: case["verdict"] for case in shown["cases"] if case["silent"]}
    assert {"selu", "layer_norm_small__nn", "cross_entropy_probabilities__primitive", "determinant"} <= set(silent)
    assert set(silent.values()) <= {CURED, REFUSED}
    assert WRONG not in silent.values()
