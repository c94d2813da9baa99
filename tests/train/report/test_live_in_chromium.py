"""The live page in a browser: what is new is shown, what the reader has chosen stays, and there is one question at a time."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import chromium
from tests.helpers.report_runs import BATCH, make_run
from tests.helpers.report_server import serving
from train.report.serve import ReportServer

pytestmark = pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed")

BEFORE, AFTER = 400, 5_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("longer") / "run", AFTER)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", BEFORE)


@pytest.fixture
def server(run: Path) -> Iterator[ReportServer]:
    with serving(run) as found:
        yield found


@pytest.fixture
def page(browser: chromium.Page, server: ReportServer) -> chromium.Page:
    """The page, all drawn, which asks only when a test makes it."""
    browser.resize(1300, 900)
    browser.prefer("light")
    browser.visit(f"http://127.0.0.1:{server.port}/")
    browser.wait_for("document.querySelector('.live') !== null")
    browser.evaluate("window.setTimeout = () => 0; report.live.ask()")
    browser.evaluate("report.frame.drawAll()")
    return browser


def grow(run: Path, longer: Path, server: ReportServer, page: chromium.Page, *names: str) -> None:
    for name in names:
        shutil.copy(longer / name, run / name)
    server.report._not_before = -1.0
    page.evaluate("report.live.ask()")


def text(page: chromium.Page, selector: str) -> Any:
    return page.evaluate(f"document.querySelector('{selector}').textContent")


def test_what_is_new_is_shown_everywhere(
    page: chromium.Page, run: Path, longer: Path, server: ReportServer
) -> None:
    page.evaluate("document.querySelector('.theme').focus()")
    page.evaluate("window.oldHead = document.querySelector('header.head'); 0")
    page.evaluate("document.getElementById('smoothing').value = 5")
    page.evaluate("document.getElementById('smoothing').dispatchEvent(new Event('input'))")
    note = '[data-key="optimisation/lr"] .note'
    assert text(page, note) == ""
    assert page.evaluate(f"getComputedStyle(document.querySelector('{note}')).display") == "none"
    options = "document.querySelectorAll('[data-key=\"overview/timeline\"] option').length"
    events = page.evaluate(options)
    assert "Apache ECharts" in text(page, "footer") and "loads nothing" not in text(page, "footer")

    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "stop", "time": 1.0, "reason": "SIGTERM"}\n')
    grow(run, longer, server, page, "metrics.jsonl")

    # The head is new, and its button has the focus still.
    assert page.evaluate("document.querySelector('header.head') !== window.oldHead")
    assert text(page, ".facts").startswith(f"{BATCH * AFTER:,}")
    assert page.evaluate("document.activeElement === document.querySelector('.theme')")
    assert f"of {AFTER:,} points per curve" in text(page, note)
    assert page.evaluate(options) == events + 1
    assert text(page, '[data-key="overview/timeline"] option') == f"{events} events"
    smoothed = f"exponential moving average over {round(0.02 * BATCH * AFTER):,} samples"
    assert text(page, ".controls .smoothing .quiet") == smoothed
    # Nobody asked for the longer range: it is not read out. A range that somebody asks for is.
    assert text(page, ".range").endswith(f"to {BATCH * AFTER:,}")
    live = "document.querySelector('.range').getAttribute('aria-live')"
    assert page.evaluate(live) == "off"
    page.evaluate("report.zoom.scale(0.5)")
    assert page.evaluate(live) == "polite"
    assert page.complaints() == []


def test_what_has_not_changed_is_left_alone_and_what_was_chosen_stays(
    page: chromium.Page, run: Path, longer: Path, server: ReportServer
) -> None:
    page.evaluate("window.pre = document.querySelector('[data-key=\"configuration/text\"] pre'); 0")
    slider = "document.querySelector('[data-key=\"blanks\"] input')"
    page.evaluate(f"{slider}.value = 1; {slider}.dispatchEvent(new Event('input'))")
    chosen = text(page, '[data-key="blanks"] output')
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    newest = lines[-1].replace(f'"samples_seen": {BATCH * 351}', f'"samples_seen": {BATCH * 399}')
    assert newest != lines[-1]
    (run / "samples.jsonl").write_text("".join([*lines, newest]))
    grow(run, longer, server, page)
    assert page.evaluate(f"{slider}.max") == str(len(lines))
    assert text(page, '[data-key="blanks"] output') == chosen == f"sample {BATCH * 51}"
    kept = "document.querySelector('[data-key=\"configuration/text\"] pre') === window.pre"
    assert page.evaluate(kept)
    # The newest evaluation is followed by one who looks at the newest.
    page.evaluate(f"{slider}.value = {slider}.max; {slider}.dispatchEvent(new Event('input'))")
    assert text(page, '[data-key="blanks"] output') == f"sample {BATCH * 399:,}"
    (run / "samples.jsonl").write_text("".join(lines))
    grow(run, longer, server, page)
    assert text(page, '[data-key="blanks"] output') == f"sample {BATCH * 351:,}"


def test_there_is_one_question_at_a_time_and_one_timer(page: chromium.Page) -> None:
    page.evaluate(
        "window.timers = new Set(); window.asked = 0; window.made = 0;"
        " window.setTimeout = () => { window.timers.add(window.made += 1); return window.made; };"
        " window.clearTimeout = (timer) => window.timers.delete(timer);"
        " window.fetch = () => { window.asked += 1; return new Promise((done) => { window.answer = () =>"
        " done(new Response(null, { status: 304 })); }); }; 0"
    )
    shown = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(f"{shown}; {shown}; {shown}")
    assert page.evaluate("window.asked") == 1
    for asked in (2, 3):
        page.evaluate("window.answer()")
        page.wait_for("window.timers.size > 0")
        page.evaluate(f"{shown}; {shown}")
        page.wait_for(f"window.asked === {asked}")
    page.evaluate("window.answer()")
    page.wait_for("window.made === 3")
    assert page.evaluate("window.timers.size") == 1
