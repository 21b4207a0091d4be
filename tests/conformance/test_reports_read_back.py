import json
from dataclasses import replace

import numpy as np
import pytest

from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.compare import compare
from hessiod.conformance.entry import number
from hessiod.conformance.golden import digest
from hessiod.conformance.report import write_reports
from hessiod.conformance.result import FORMAT, Report, sha256
from hessiod.conformance.selection import Selection
from hessiod.conformance.suite import choose, run_suite
from hessiod.conformance.verify import check_case_set, read_report
from hessiod.core.errors import InvalidArgument


@pytest.fixture(scope="module")
def report():
    return run_suite(choose(["numpy"]), selection=Selection(include=("L1/sophia", "L1/adamw")))


@pytest.fixture
def path(report, tmp_path):
    return write_reports(report, tmp_path)[0]


def ids(report):
    return [case.id for case in report.cases]


def test_a_written_report_reads_back_as_it_was(report, path):
    assert read_report(path) == report
    check_case_set(report, digest(), ids(report))
    check_case_set(report, digest(), None)


def resigned(document):
    return document | {"digest": sha256({"header": document["header"], "cases": document["cases"]})}


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda d: d["cases"][0].update(worst_ulp=0.25), "it was changed after it was written"),
        (lambda d: d["header"].update(platform="elsewhere"), "it was changed after it was written"),
        (lambda d: d["cases"][0].update(verdict="fine"), r"\$.cases\[0\].verdict: 'fine' is not one of"),
        (lambda d: d["cases"][0].pop("why"), r"\$.cases\[0\]: 'why' is a required property"),
        (lambda d: d.pop("header"), "'header' is a required property"),
        (lambda d: d["cases"].append(d["cases"][0]), "stands twice"),
    ],
)
def test_a_tampered_report_is_refused_with_the_place(path, tamper, said):
    document = json.loads(path.read_text())
    tamper(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidArgument, match=said):
        read_report(path)


def test_a_report_of_the_first_format_is_still_read_verified_and_compared(report, path):
    document = json.loads(path.read_text())
    for name in ("format", "seed", "hypothesis"):
        del document["header"][name]
    for row in document["cases"]:
        row.pop("worst", None)
    path.write_text(json.dumps(resigned(document)))
    older = read_report(path)
    assert [case.worst for case in older.cases] == [None] * len(report.cases)
    check_case_set(older, digest(), ids(report))
    found = compare(older, report)
    assert not found.worse
    assert found.versions["format"] == (None, FORMAT)
    assert write_reports(older, path.parent)[0] == path
    assert read_report(path) == older


def test_a_report_of_a_later_format_is_refused_with_the_way_out(path):
    document = json.loads(path.read_text())
    document["header"] |= {"format": FORMAT + 1, "hessiod": "9.0"}
    document["news"] = {}
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidArgument, match=r"format 3 and is of hessiod 9.0, this release reads up to 2; update"):
        read_report(path)


def test_a_worst_entry_that_is_not_finite_is_valid_json_and_shown_everywhere(report, tmp_path):
    row = next(case for case in report.cases if case.worst)
    entry = row.worst | {"found": number(np.float32("nan")), "allowed": [number(-np.inf), 1.0]}
    broken = Report(report.header, [replace(row, verdict=FAIL, worst=entry)])
    paths = write_reports(broken, tmp_path)
    text = paths[0].read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read_report(paths[0]) == broken
    assert "found nan" in paths[1].read_text()
    page = paths[2].read_text()
    assert "found <b>nan</b>" in page
    assert "allowed -inf to 1" in page
    assert all(name in page for name in entry["operands"])
    tampered = json.loads(text)
    tampered["cases"][0]["worst"]["operands"] = {"param": "large"}
    paths[0].write_text(json.dumps(resigned(tampered)))
    with pytest.raises(InvalidArgument, match=r"\$.cases\[0\].worst.operands.param: 'large' is not valid"):
        read_report(paths[0])


def test_what_is_no_json_or_not_there_is_refused(path, tmp_path):
    path.write_text("{")
    with pytest.raises(InvalidArgument, match="is not JSON"):
        read_report(path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_report(tmp_path / "none.json")


def test_rows_left_out_other_golden_data_and_partial_runs_are_refused_although_the_digest_fits(report, path):
    document = json.loads(path.read_text())
    document["cases"].pop()
    path.write_text(json.dumps(resigned(document)))
    with pytest.raises(InvalidArgument, match="case set"):
        check_case_set(read_report(path), digest(), None)
    with pytest.raises(InvalidArgument, match="another release"):
        check_case_set(report, "0" * 64, None)
    with pytest.raises(InvalidArgument, match=r"lacks 1 rows .* such as L1/new"):
        check_case_set(report, digest(), [*ids(report), "L1/new"])
    with pytest.raises(InvalidArgument, match="partial"):
        check_case_set(Report(report.header | {"partial": True}, report.cases), digest(), None)


def test_a_comparison_names_every_difference(report):
    assert compare(report, report).same
    first, second, third, *rest = report.cases
    changed = [replace(first, verdict=FAIL), replace(second, worst_ulp=7.0), *rest, replace(third, id="L1/new")]
    header = report.header | {"backends": {"numpy": {"numpy": "3.0"}}}
    found = compare(report, Report(header, changed))
    assert found.versions == {"backends.numpy.numpy": (report.header["backends"]["numpy"]["numpy"], "3.0")}
    assert [(a.verdict, b.verdict) for a, b in found.worse] == [(PASS, FAIL)]
    assert [b.worst_ulp for _, b in found.figures] == [7.0]
    assert [case.id for case in found.only_before] == [third.id]
    assert [case.id for case in found.only_after] == ["L1/new"]
    assert not found.same
