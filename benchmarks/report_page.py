"""The report of a long run: size of the page, time to write it, and time to its first paint:  python -m benchmarks report_page

The run is made of numbers: 200,000 steps with all metrics, more than 30 curves with a value in every step, and all that
is measured at intervals. The browser is a headless Chromium with an empty profile for each of five openings.
"""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import Record
from tests.helpers.chromium import page
from tests.helpers.report_pages import data_of
from tests.helpers.report_runs import make_run
from train.report.page import render

STEPS, OPENINGS = 200_000, 5
# Milliseconds since navigation began: when something was painted, and when the pictures in sight were drawn.
_PAINTED = "performance.getEntriesByType('paint').find((each) => each.name === 'first-contentful-paint')?.startTime ?? null"
_DRAWN = (
    "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
)


def run() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        print(Record("report_page").heading())
        measure(Path(folder))


def measure(folder: Path) -> None:
    """Write a long run and its page into a folder, and open it."""
    long = make_run(folder / "long", STEPS, is_full=True)
    begin = time.perf_counter()
    text = render([long])
    seconds = time.perf_counter() - begin
    path = folder / "page.html"
    path.write_text(text)
    panels = data_of(text)["panels"]
    curves = [
        each for panel in panels if panel["kind"] == "lines" for each in panel["data"]["series"]
    ]
    whole = [each for each in curves if each["total"] == STEPS]
    print(
        f"{STEPS:,} steps; {len(curves)} curves, {len(whole)} of them of every step, with at most "
        f"{max(len(each['x']) for each in curves):,} points; {len(panels)} panels"
    )
    print(f"page: {path.stat().st_size / 1e6:.2f} MB, written in {seconds:.1f} s")
    painted, drawn = [], []
    for number in range(OPENINGS):
        with page(folder / f"profile{number}") as opened:
            opened.resize(1400, 1000)
            opened.visit(path.as_uri())
            opened.wait_for("report.handles.size > 0")
            drawn.append(opened.evaluate(_DRAWN) / 1e3)
            opened.wait_for(f"({_PAINTED}) !== null")
            painted.append(opened.evaluate(_PAINTED) / 1e3)
    for name, found in (
        ("first contentful paint", painted),
        ("pictures in sight drawn, at most", drawn),
    ):
        times = ", ".join(f"{each:.2f}" for each in sorted(found))
        print(f"{name}: {statistics.median(found):.2f} s (median of {times})")
