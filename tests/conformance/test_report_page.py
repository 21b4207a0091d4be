"""The page in a browser, at the widths of a desk and of a telephone."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hessiod.conformance import report
from hessiod.conformance.case import FAIL, PASS, XFAIL
from hessiod.conformance.entry import entry
from hessiod.conformance.result import Report
from hessiod.conformance.suite import choose, header, plan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1280, 400)
HEIGHT = 4800
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; apt-get install chromium (Debian's package)")

MEASURE = """<script>
const page = document.documentElement;
const wide = [...document.querySelectorAll("body *")]
  .filter(element => element.matches(".scroll") || !element.closest(".scroll"))
  .filter(element => element.getBoundingClientRect().right > innerWidth);
parent.report({ inner: innerWidth, scroll: page.scrollWidth, wide: wide.map(element => element.outerHTML.slice(0, 80)),
  matrices: [...document.querySelectorAll("table.matrix:not(#counts)")].map(table => table.rows.length),
  entries: document.querySelectorAll("#failures ~ .failure .entry, .near .entry").length,
  cells: document.querySelectorAll("table.matrix td[class^=pass]").length,
  boxes: [...document.querySelectorAll(".scroll")].map(box => getComputedStyle(box).overflowX) });
</script>"""
FRAME = """<!doctype html><body style="margin:0; display:flex"><pre id="found" style="display:none"></pre><script>
const found = [];
function report(of) { found.push(of); document.getElementById("found").textContent = JSON.stringify(found); }
</script>%s</body>"""


WORST = entry(
    "exp_hessian_diag_sq",
    (1, 2),
    (7, 3),
    found=np.nan,
    expected=-1.23456789e-38,
    allowed=(-np.inf, 1 / 3),
    operands={name: np.full((7, 3), 1 / 7, np.float32) for name in ("param", "grad", "exp_avg", "exp_hessian_diag_sq")},
    scalars=dict.fromkeys(("lr", "keep", "take", "power", "eps", "decay", "first_correction", "second"), 1 / 11),
    hyperparameters=dict.fromkeys(("lr", "beta1", "beta2", "hessian_power", "eps", "weight_decay", "step"), 1 / 13),
)


@pytest.fixture(scope="module")
def page():
    """Every row that numpy, torch and onnx have, with a long reason, a failure and a known failure among them."""
    chosen = choose(["numpy", "torch", "onnx"])
    checks = plan(chosen)
    cases = [
        replace(row, worst_ulp=1234.5678, budget_ulp=2048.0, worst=WORST) if not check.unsupported else row
        for check in checks
        for row in check.rows("unsupported" if check.unsupported else PASS, check.unsupported or "entry (0, 1)")
    ]
    cases[70:72] = [
        replace(cases[70], verdict=FAIL, why="RuntimeError: " + "a_very_long_name_without_a_space" * 8),
        replace(cases[71], verdict=XFAIL, why="known: the driver flushes"),
    ]
    selection = {"levels": [], "include": [], "exclude": ["L9/" + "x" * 120], "quick": True, "left_out": ["L1: much"]}
    return report.as_html(Report(header(chosen, checks, selection, partial=True), cases))


@pytest.fixture(scope="module")
def framed(page, tmp_path_factory):
    """The page in frames: chromium's own window is never narrower than 500 pixels."""
    content = html.escape(page.replace("</body>", MEASURE + "</body>"))
    frames = (f'<iframe width="{w}" height="{HEIGHT}" style="border:0" srcdoc="{content}"></iframe>' for w in WIDTHS)
    path = tmp_path_factory.mktemp("page") / "frames.html"
    path.write_text(FRAME % "".join(frames), encoding="utf-8")
    return path


def chromium(path, *options):
    size = f"--window-size={sum(WIDTHS)},{HEIGHT}"
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size, profile, *options]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def test_the_matrix_is_there_and_nothing_overflows_on_a_desk_and_on_a_telephone(framed):
    shown = chromium(framed, "--dump-dom")
    text = re.search(r'<pre id="found"[^>]*>(.*?)</pre>', shown, re.DOTALL)
    found = {one["inner"]: one for one in json.loads(html.unescape(text[1]))}
    assert set(found) == set(WIDTHS)
    for width, one in found.items():
        assert one["scroll"] <= width
        assert not one["wide"]
        assert len(one["matrices"]) >= 7  # levels 0 to 5, level 1 twice
        assert min(one["matrices"]) >= 2
        assert one["cells"] > 200
        assert one["entries"] > 5  # a failure's worst entry and those of the rows nearest to their budget
        assert set(one["boxes"]) == {"auto"}


def test_the_picture_shows_the_colours_of_the_scale(framed):
    path = framed.with_name("page.png")
    chromium(framed, f"--screenshot={path}")
    with Image.open(path) as picture:
        assert picture.size == (sum(WIDTHS), HEIGHT)
        for left, width in ((0, 1280), (1280, 400)):
            part = picture.convert("RGB").crop((left, 0, left + width, HEIGHT))
            area = {colour: count for count, colour in part.getcolors(1 << 24)}
            assert area[0xC9, 0x36, 0x32] > 500  # a failure's border
            assert area[0xF3, 0xD4, 0x89] > 20_000  # cells of the matrix: the legend has hundreds
