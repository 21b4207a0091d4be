import pytest

from hessiod.backends import load
from hessiod.conformance.case import FAIL, PASS, UNSUPPORTED, XFAIL, Case
from hessiod.conformance.kernels import kernel_checks
from hessiod.conformance.selection import KnownFailures, Selection
from hessiod.core.errors import InvalidArgument


@pytest.fixture(scope="module")
def checks():
    return list(kernel_checks(load("numpy")))


def chosen(selection, checks):
    return [identity for check in selection.choose(checks) for identity in check.case_ids]


def test_a_selection_is_by_level_prefix_and_glob(checks):
    everything = chosen(Selection(), checks)
    assert everything == [identity for check in checks for identity in check.case_ids]
    assert chosen(Selection(include=("L1/sophia.step",)), checks) == [
        f"L1/sophia.step/numpy/{route}/{dtype}/{inputs}{kind}"
        for route in ("eager", "kernels")
        for dtype in ("float32", "float64", "bfloat16", "float16")
        for inputs in ("", "drawn/")
        for kind in ("formula", "agreement")
    ]
    excluded = ("*float64*", "*float16*", "*/drawn/*")
    assert chosen(Selection(include=("L1/sophia.step/*/agreement",), exclude=excluded), checks) == [
        f"L1/sophia.step/numpy/{route}/float32/agreement" for route in ("eager", "kernels")
    ]
    assert len(chosen(Selection(exclude=("*/agreement",)), checks)) == len(everything) / 2


def test_a_level_is_its_name_or_its_number(checks):
    assert Selection(levels=("1", "L1", "6")) == Selection(levels=("L1", "L6"))
    assert chosen(Selection(levels=("1",)), checks) == chosen(Selection(levels=("L1",)), checks)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"levels": ("L9",)}, "level: found 'L9', expected one of L0, .*, L6, or of 0, .*, 6$"),
        ({"levels": ("",)}, "level: found '', expected one of L0"),
        ({"include": ("L1/lamb",)}, "include: 'L1/lamb' matches none of"),
        ({"exclude": ("*/float8",)}, "exclude: '[*]/float8' matches none of"),
        ({"levels": ("L4",)}, "together they leave none of"),
    ],
)
def test_an_unknown_level_or_pattern_is_an_error(checks, fields, said):
    with pytest.raises(InvalidArgument, match=said):
        Selection(**fields).choose(checks)


def case(identity, verdict):
    figures = dict(worst_ulp=None, budget_ulp=None)
    return Case(identity, level="L1", rule="sgd", backend="b", device="", dtype="", verdict=verdict, why="w", **figures)


def test_known_failures_need_a_reason_and_must_fail(tmp_path):
    path = tmp_path / "known.txt"
    path.write_text("# the driver's\nL1/sgd  # flushes NaN, driver 5.2\n\n*/float64/*  # no doubles\n")
    known = KnownFailures.read(path)
    rows = [case("L1/sgd/x", FAIL), case("L1/sgd/y", PASS), case("L1/adamw/float64/z", UNSUPPORTED), case("L1/a", FAIL)]
    found = known.apply(rows)
    assert [row.verdict for row in found] == [XFAIL, FAIL, UNSUPPORTED, FAIL]
    assert found[0].why == "known: flushes NaN, driver 5.2; w"
    assert "unlist it" in found[1].why
    path.write_text("L1/sgd\n")
    with pytest.raises(InvalidArgument, match=r"line 1: 'L1/sgd' has no reason"):
        KnownFailures.read(path)
    with pytest.raises(InvalidArgument, match="cannot read"):
        KnownFailures.read(tmp_path / "nothing")
