import json
from dataclasses import replace

import pytest

from hessiod.conformance.case import FAIL, PASS
from hessiod.conformance.compare import compare
from hessiod.conformance.golden import digest
from hessiod.conformance.report import write_reports
from hessiod.conformance.result import Report, sha256
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
