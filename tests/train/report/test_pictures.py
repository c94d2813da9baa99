"""The pictures and the live page in a browser: drawn without a complaint, with what the data say, in every size and colour."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.load import composed, to_stored_yaml
from tests.helpers import chromium
from train.report.page import render
from train.report.serve import open_server

pytestmark = pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed")

KEYS = ["goodput", "mask/mask", "mask/gmask", "ranks", "schedule"]
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three attempts on 8 ranks of two nodes with hostile names, and a measured schedule of two stages."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_stored_yaml(composed(["model=tiny"])))
    layout = {"world_size": 8, "tp": 2, "pp": 2, "dp": 2, "nodes": [[HOSTILE, 0, 3], ["b", 3, 5]]}
    again = {"repeated_steps": [5, 6], "repeated_samples": [32, 48], "repeated_seconds": 40.0}
    events: list[dict[str, Any]] = [
        {"event": "start", "time": 1e9, "samples_seen": 0, "attempt_start": 1e9 - 50, **layout},
        {"event": "error", "time": 1e9 + 200, "message": HOSTILE},
        {"event": "resume", "time": 1e9 + 500, "samples_seen": 32, "attempt_start": 1e9 + 450}
        | {**layout, **again},
        {"event": "slow_rank", "time": 1e9 + 600, "rank": 5, "host": "b", "state": "slow"}
        | {"excess": 0.3},
        {"event": "stop", "time": 1e9 + 700, "reason": HOSTILE},
    ]
    passes = [
        [
            {"kind": kind, "micro_batch": m, "chunk": 0, "start": s + 2 * m, "end": s + 2 * m + 1}
            for kind, s in (("forward", 0.5 * stage), ("backward", 5 - 0.5 * stage))
            for m in range(2)
        ]
        for stage in range(2)
    ]
    details = {
        "step": 9,
        "samples_seen": 72,
        "ranks/seconds": [20.0 + rank for rank in range(8)],
        "pipeline/passes": {"stages": passes, "step": 9},
    }
    write(folder / "metrics.jsonl", [line(step) for step in range(1, 10)])
    write(folder / "events.jsonl", events)
    write(folder / "details.jsonl", [details])
    return folder


def line(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "samples_seen": 8 * step,
        "tokens_seen": 8 * step,
        "train/loss": 5.0 / step,
        "speed/seconds_per_step": 20.0,
    }


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def show(page: chromium.Page, run: Path) -> None:
    file = run / "page.html"
    file.write_text(render([run]))
    page.open(file)
    page.evaluate("report.frame.drawAll()")


def drawn(page: chromium.Page, key: str, kind: str, fill: str = "each.style.fill") -> int:
    """How many shapes of a kind, and of a colour, a picture has."""
    shapes = f"report.handles.get('{key}').chart.getZr().storage.getDisplayList(true)"
    is_one = f"each.type === '{kind}' && each.style.fill === {fill}"
    return page.evaluate(f"{shapes}.filter((each) => {is_one}).length")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1400, 900, False), (390, 844, True)])
def test_every_picture_is_drawn_without_a_complaint(
    page: chromium.Page, run: Path, size: tuple[int, int, bool], scheme: str
) -> None:
    page.prefer(scheme)
    page.resize(size[0], size[1], is_phone=size[2])
    show(page, run)
    keys = page.evaluate("[...report.handles.keys()]")
    assert set(KEYS) <= set(keys)
    # One rectangle for each of 8 ranks, each of 8 passes, each block of time; polygons are stairs and triangles.
    assert drawn(page, "ranks", "rect") >= 8
    assert drawn(page, "ranks", "polygon", "report.theme().fault") == 1  # the slow rank
    assert drawn(page, "schedule", "rect") >= 8
    assert drawn(page, "goodput", "rect") >= 7
    assert drawn(page, "mask/gmask", "polygon") == 1
    assert drawn(page, "mask/mask", "polygon") > 4
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0], "the page scrolls sideways"
    assert page.complaints() == []
    assert len(page.requests()) == 1


def test_pictures_have_tables_with_the_same_figures(page: chromium.Page, run: Path) -> None:
    show(page, run)
    page.evaluate(
        "for (const each of document.querySelectorAll('details.behind')) each.open = true"
    )
    page.wait_for(
        "[...document.querySelectorAll('details.behind')].every((each) => each.childElementCount > 1)"
    )
    texts = {
        key: page.evaluate(f"document.querySelector('[data-key=\"{key}\"] table').textContent")
        for key in KEYS
    }
    assert "5 (+30 %)" in texts["ranks"]
    assert "<img src=x onerror=alert(1)>" in texts["ranks"]  # as text
    assert "<img src=x" in texts["goodput"]
    assert page.evaluate("document.querySelectorAll('#report img').length") == 0
    assert page.complaints() == []


def test_the_pointer_shows_texts_of_the_run_as_text(page: chromium.Page, run: Path) -> None:
    page.resize(1400, 900)
    show(page, run)
    for key in KEYS:
        tip = f"report.handles.get('{key}').chart.dispatchAction({{ type: 'showTip', seriesIndex: 0, dataIndex: at }})"
        page.evaluate(f"for (let at = 0; at < 8; at += 1) {tip}")
    page.evaluate(
        "report.handles.get('ranks').chart.dispatchAction({ type: 'showTip', seriesIndex: 0, dataIndex: 1 })"
    )
    page.wait_for("document.querySelector('[data-key=\"ranks\"] .tip') !== null")
    shown = page.evaluate("document.querySelector('[data-key=\"ranks\"] .tip').textContent")
    assert "rank 1" in shown and "<img src=x onerror=alert(1)>" in shown
    assert page.evaluate("document.querySelectorAll('#report img').length") == 0
    assert page.complaints() == []


def test_keys_zoom_a_picture_by_itself(page: chromium.Page, run: Path) -> None:
    page.resize(1400, 900)
    show(page, run)
    page.evaluate("document.querySelector('[data-key=\"schedule\"] .plot').focus()")
    page.press("+")
    zoom = "(({ start, end }) => [start, end])(report.handles.get('schedule').chart.getOption().dataZoom[0])"
    assert page.evaluate(zoom) == [25, 75]
    assert page.evaluate("report.state.range") is None  # the curves over the run stay
    page.press("ArrowRight")
    assert page.evaluate(zoom) == [37.5, 87.5]
    page.evaluate("report.frame.retheme()")
    assert page.evaluate(zoom) == [37.5, 87.5]
    page.press("0")
    assert page.evaluate(zoom) == [0, 100]


def test_a_live_page_follows_its_run_and_stays_where_the_reader_is(
    page: chromium.Page, run: Path
) -> None:
    page.resize(1400, 900)
    with open_server([run], 0, lambda _: None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            page.visit(f"http://127.0.0.1:{server.port}/")
            page.wait_for("document.querySelector('.live') !== null")
            page.evaluate("report.frame.drawAll(); report.zoom.set(16, 48)")
            page.evaluate(
                "document.querySelector('[data-key=\"goodput\"] details.behind').open = true"
            )
            page.evaluate("window.kept = report.handles.get('losses/train').chart; 0")
            before = page.evaluate(
                "report.state.data.panels.find((each) => each.key === 'goodput').title"
            )

            write(run / "metrics.jsonl", [line(step) for step in range(1, 31)])
            server.report._not_before = -1.0
            page.evaluate("report.live.ask()")
            assert page.evaluate("report.state.data.runs[0].step") == 30
            assert page.evaluate("document.querySelector('.facts').textContent").startswith("240")
            assert page.evaluate("report.zoom.current()") == [16, 48]
            assert page.evaluate("report.handles.get('losses/train').chart === window.kept")
            points = "report.handles.get('losses/train').chart.getOption().series[0].data.length"
            assert page.evaluate(points) == 30
            after = page.evaluate("document.querySelector('[data-key=\"goodput\"] h3').textContent")
            assert after != before and after.startswith("Goodput")
            rows = (
                "document.querySelectorAll('[data-key=\"goodput\"] details.behind tbody tr').length"
            )
            assert page.evaluate(rows) == 3

            # A panel that was not there before: the page is built anew, at the same range.
            held_out = {**line(31), "valid/loss": 1.0}
            write(run / "metrics.jsonl", [*(line(step) for step in range(1, 31)), held_out])
            server.report._not_before = -1.0
            page.evaluate("report.live.ask()")
            assert page.evaluate("report.state.data.runs[0].step") == 31
            assert page.evaluate("report.zoom.current()") == [16, 48]
            assert page.complaints() == []
        finally:
            server.shutdown()
            thread.join(30)
    page.evaluate("report.live.ask()")
    told = page.evaluate("document.querySelector('.live').textContent")
    assert told.startswith("The server does not answer")
