from collections import Counter
from dataclasses import replace

import pytest

from hessiod.conformance import matrix, report
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.result import Report
from hessiod.conformance.selection import Selection
from hessiod.conformance.suite import choose, plan, run_suite
from hessiod.conformance.verify import read_report, schema


def case(identity, worst=None, budget=None, verdict=PASS, why="w"):
    level, name, backend = identity.split("/")[:3]
    rule = name.partition(".")[0]
    figures = dict(worst_ulp=worst, budget_ulp=budget)
    return Case(
        identity, level=level, rule=rule, backend=backend, device="cpu", dtype="", verdict=verdict, why=why, **figures
    )


ROWS = [
    case("L1/sgd.step/torch/eager/float32/formula", 0.5, 4.0),
    case("L1/sgd.step/torch/compiled/float32/formula", 3.5, 4.0),
    case("L1/sgd.step/torch/eager/float32/agreement", 0.0, 0.0),
    case("L1/sgd.step/onnx/eager/float32/formula", verdict=UNSUPPORTED, why="no <such> | kernel"),
    case("L1/adamw.step/torch/eager/float32/formula", 9.0, 4.0, FAIL, "setting 1, exp_avg, entry (3,)"),
    case("L5/adamw/torch/resumed"),
    case("L5/adamw/numpy/resumed", verdict=XFAIL),
    case("L3/theorem/torch/theorem", 2.0, 4.0),
]
HEADER = {
    "hessiod": "1",
    "python": "3",
    "platform": "p",
    "processor": "x",
    "backends": {"torch": {"torch": "2"}},
    "devices": {"torch": ["cpu"]},
    "selection": {"levels": [], "include": [], "exclude": [], "quick": False, "left_out": []},
    "case_set": "0" * 64,
    "partial": False,
}


def test_sections_follow_the_level_and_a_cell_shows_the_row_nearest_to_failing():
    found = {section.title: section for section in matrix.sections(ROWS)}
    assert list(found) == [
        "Level 1: kernels of the rules, against the published formulas",
        "Level 1: kernels of the rules, against the numpy backend",
        "Level 3: probes, targets, estimates and theorems",
        "Level 5: runs that move between backends",
    ]
    formulas = found["Level 1: kernels of the rules, against the published formulas"]
    assert formulas.backends == ["torch", "onnx"]
    cells = formulas.rows["sgd"]
    assert cells["torch"].worst.worst_ulp == 3.5
    assert cells["torch"].colour == "pass5"
    assert cells["onnx"].colour == UNSUPPORTED
    assert formulas.rows["adamw"]["torch"].colour == FAIL
    assert matrix.detail(ROWS[1]) == "sgd.step compiled float32 formula"


@pytest.mark.parametrize(
    ("worst", "budget", "colour"),
    [
        (0.0, 4.0, "pass0"),
        (0.5, 4.0, "pass1"),
        (1.0, 4.0, "pass2"),
        (2.0, 4.0, "pass3"),
        (3.0, 4.0, "pass4"),
        (4.0, 4.0, "pass5"),
        (None, None, "pass0"),
    ],
)
def test_the_colour_is_the_share_of_the_budget(worst, budget, colour):
    assert matrix.Cell([case("L2/quadratic/torch", worst, budget)]).colour == colour


def test_in_half_precision_the_last_rounding_takes_no_share_of_the_budget():
    row = replace(case("L1/sgd.step/torch/eager/bfloat16/formula", 0.5, 0.502), dtype="bfloat16")
    assert matrix.strain(row) == 0
    assert matrix.strain(replace(row, worst_ulp=0.501)) == pytest.approx(0.5)
    assert matrix.strain(replace(row, dtype="float32")) == pytest.approx(0.5 / 0.502)


def test_every_row_of_every_level_is_in_one_cell():
    cases = [row for check in plan(choose(["numpy"])) for row in check.rows(PASS, "")]
    found = [
        row
        for section in matrix.sections(cases)
        for cells in section.rows.values()
        for c in cells.values()
        for row in c.cases
    ]
    assert Counter(found) == Counter(cases)
    assert {row.level for row in found} >= {"L0", "L1", "L2", "L3", "L4", "L5"}


def test_failures_come_first_and_the_unsupported_are_folded_with_their_reasons():
    page = report.as_html(Report(HEADER, ROWS))
    assert page.index('id="failures"') < page.index('id="counts"') < page.index('id="unsupported"')
    assert "no &lt;such&gt; | kernel" in page
    assert "setting 1, exp_avg, entry (3,)" in page
    assert "http" not in page


def test_a_partial_and_a_quick_report_say_so_at_the_top():
    selection = HEADER["selection"] | {"quick": True, "left_out": ["L1: slow routes: 88 rows"]}
    page = report.as_html(Report(HEADER | {"partial": True, "selection": selection}, ROWS))
    assert page.index('id="partial"') < page.index('id="quick"') < page.index('id="failures"')
    assert "<li>L1: slow routes: 88 rows</li>" in page
    text = report.as_markdown(Report(HEADER | {"selection": selection}, ROWS))
    assert "**quick run: 5 passed" in text
    assert "- left out of this quick run: L1: slow routes: 88 rows" in text


def test_markdown_has_counts_by_level_failures_in_full_and_folds_the_rest():
    text = report.as_markdown(Report(HEADER, ROWS))
    assert "| L1 | 1 unsupported | 3 passed, 1 failed |" in text.replace("|  ", "| ").replace("| L1 | | ", "| L1 | ")
    failed, folded = text.index("## Failed"), text.index("<details>")
    assert failed < text.index("| L1/adamw.step/torch/eager/float32/formula | 9 | 4 | setting 1") < folded
    assert folded < text.index("| sgd | 3.5 / 4 |")
    assert "| adamw | same bits |" in text
    assert "no &lt;such&gt; \\| kernel" in text
    assert text.count("<details>") == text.count("</details>") == 3


def test_counts_are_by_level_and_backend():
    assert matrix.tally(ROWS)["L1"]["torch"] == {PASS: 3, FAIL: 1}
    assert matrix.counted(Counter({PASS: 3, FAIL: 1, UNSUPPORTED: 2})) == "3 passed, 1 failed, 2 unsupported"
    assert [row.id for row in matrix.nearest(ROWS)][:2] == [ROWS[1].id, ROWS[-1].id]


@pytest.fixture(scope="module")
def quick_report():
    return run_suite(choose(["torch"]), selection=Selection(levels=("L1",), include=("L1/sgd", "L1/adamw"), quick=True))


def test_a_quick_run_leaves_out_what_is_slow_and_says_what(quick_report, tmp_path):
    assert {row.id.split("/")[3] for row in quick_report.cases} == {"eager"}
    assert quick_report.passed
    selection = quick_report.header["selection"]
    checks = [check for check in plan(choose(["torch"])) if check.id.startswith(("L1/sgd", "L1/adamw"))]
    slow = Counter(check.slow for check in checks for _ in check.kinds if check.slow)
    assert selection["left_out"] == [f"{what}: {count} rows" for what, count in slow.items()]
    assert {"L1: routes that compile for seconds", "L1: drawn inputs in all dtypes but a backend's first"} <= set(slow)
    again = read_report(report.write_reports(quick_report, tmp_path)[0])
    assert again == quick_report
    assert Selection.read(again.header["selection"]).document(plan(choose(["torch"]))) == selection


def test_a_quick_run_keeps_a_check_of_every_level_on_every_backend_but_starts_no_processes():
    planned = plan(choose(["torch", "mindspore"]))
    quick = Selection(quick=True).choose(planned)
    levels = {(check.level, check.backend) for check in planned if check.level != "L6"}
    assert {(check.level, check.backend) for check in quick} == levels
    kept = {check.id for check in quick}
    assert all(identity in kept for check in quick for identity in check.after)
    assert 0 < len(quick) < len(planned)


def test_a_whole_run_left_nothing_out_and_an_older_report_is_whole():
    assert Selection().document(plan(choose(["torch"])))["left_out"] == []
    assert not Selection.read({"levels": [], "include": [], "exclude": []}).quick
    assert schema()["properties"]["header"]["properties"]["selection"]["properties"]["quick"]["type"] == "boolean"
