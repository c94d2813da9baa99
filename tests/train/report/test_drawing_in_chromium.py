"""What a browser draws of curves with gaps, of single points, of maps without values, and in colours that change."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import chromium
from tests.helpers.report_runs import BATCH, make_run
from train.report.page import render

pytestmark = pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed")

STEPS = 200


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    with chromium.page(tmp_path_factory.mktemp("browser")) as found:
        found.resize(1300, 900)
        yield found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", STEPS)


def show(page: chromium.Page, *runs: Path) -> None:
    file = runs[0] / "page.html"
    file.write_text(render(runs))
    page.prefer("light")
    page.open(file)
    page.evaluate("report.frame.drawAll()")


def series_of(page: chromium.Page, key: str) -> dict[str, Any]:
    """Each curve of a picture by its name."""
    found = page.evaluate(
        f"report.handles.get('{key}').chart.getOption().series"
        ".map(({ name, sampling, showSymbol }) => ({ name, sampling, showSymbol }))"
    )
    return {each["name"]: each for each in found}


def test_no_extreme_is_lost_beside_a_gap(page: chromium.Page, run: Path) -> None:
    """Where several points fall on a pixel, curves without a gap are sampled, those with one are drawn as a whole."""
    show(page, run)
    found = series_of(page, "losses/train")
    assert found["train/loss"].get("sampling") == "minmax"
    assert found["train/loss_gmask"].get("sampling") is None  # inf at step 7


def test_a_cut_curve_of_one_point_can_be_seen(page: chromium.Page, run: Path) -> None:
    (cut,) = (run / "rolled_back").iterdir()
    lines = cut.read_text().splitlines(keepends=True)
    for number, is_shown in ((1, True), (2, False)):
        cut.write_text("".join(lines[:number]))
        show(page, run)
        assert series_of(page, "losses/train")["train/loss (rolled back)"]["showSymbol"] is is_shown


@pytest.mark.parametrize("values", [[[0.0, -1.0]] * 3, [["nan", "inf"]] * 3, [[2.0, 2.0]] * 3])
def test_a_map_without_values_is_empty_and_has_a_scale(
    page: chromium.Page, run: Path, values: list[list[Any]]
) -> None:
    lines = [
        {"step": n, "samples_seen": BATCH * n, "layers/weight_norm": row}
        for n, row in enumerate(values, start=1)
    ]
    (run / "details.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    show(page, run)
    page.evaluate(
        "document.querySelector('[data-key=\"layers/weight_norm\"] .tools button').click()"
    )
    chart = "report.handles.get('layers/weight_norm').chart.getOption()"
    least, most = page.evaluate(f"[{chart}.visualMap[0].min, {chart}.visualMap[0].max]")
    assert least is not None and most is not None and least < most
    cells = sum(isinstance(value, float) and value > 0 for row in values for value in row)
    assert page.evaluate(f"{chart}.series[0].data.length") == cells
    assert (page.evaluate(f"{chart}.visualMap[0].text.join('')") == "") == (cells == 0)
    assert page.complaints() == []


def test_curves_ten_apart_differ_in_their_dashes(page: chromium.Page, run: Path) -> None:
    show(page, run)
    styles = page.evaluate(
        "Array.from({ length: 100 }, (_, place) => report.style(place)).map((each) => JSON.stringify([each.colour, each.dash]))"
    )
    assert len(set(styles)) == 100


def test_swatches_and_the_button_follow_the_colours(
    page: chromium.Page, run: Path, tmp_path: Path
) -> None:
    show(page, run, make_run(tmp_path / "other", STEPS))
    strokes = "[...document.querySelectorAll('.compared line')].map((line) => line.getAttribute('stroke'))"
    light = page.evaluate(strokes)
    assert len(set(light)) == 2
    button = "document.querySelector('.theme').textContent"
    assert page.evaluate(button) == "dark"
    page.prefer("dark")
    page.wait_for(f"{button} === 'light'")
    dark = page.evaluate(strokes)
    assert len(set(dark)) == 2 and not set(light) & set(dark)
    page.evaluate("document.querySelector('.theme').click()")
    assert (page.evaluate(strokes), page.evaluate(button)) == (light, "dark")


def test_each_run_has_its_events_in_the_list(
    page: chromium.Page, run: Path, tmp_path: Path
) -> None:
    lines = [{"event": "spike", "step": n % STEPS, "text": f"loss {n}"} for n in range(1_990)]
    other = make_run(tmp_path / "other", STEPS)
    for each in (run, other):
        (each / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    show(page, run, other)
    count = "document.querySelectorAll('[data-key=\"overview/timeline\"] option').length"
    assert page.evaluate(count) == 2 * 1_990 + 1
