"""No silent error over the whole catalogue, in both of MindSpore's modes.

Modes take turns from case to case, as a mode changes nothing about a traced graph but who traces it. The slow run, and
`hessiod certify`, take everything in both.
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


@pytest.fixture(scope="module", params=["in turns", pytest.param("both", marks=pytest.mark.slow)])
def found(shown, request):
    absent = {case["name"] for case in shown["cases"] if case["verdict"] == ABSENT}
    names = [name for name in NAMES if name not in absent]
    if request.param == "both":
        tasks = [Task(name, mode) for name in names for mode in MODES]
    else:
        tasks = [Task(name, MODES[turn % 2]) for turn, name in enumerate(names)]
    return dict(measure_all("mindspore", tasks, jobs=os.cpu_count() or 1))


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
