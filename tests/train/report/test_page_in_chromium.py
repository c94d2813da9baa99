"""The page in a real browser: silent, without a network, all curves drawn, zoomed and read by mouse, keys and touch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import Page, installed, page
from tests.helpers.report_pages import data_of
from tests.helpers.report_runs import BATCH, make_run
from train.report.page import render

pytestmark = pytest.mark.skipif(
    installed() is None, reason="no Chromium or Chrome on PATH, which opens the page"
)

HOSTILE = (
    "<script>window.hit=1</script><img src=x onerror=window.hit=1>\"'`${1}\x1b[31m\u202e-->]]>"
)
STEPS = 6_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one long run."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "long", steps=STEPS)
    path = folder / "page.html"
    path.write_text(render([folder]))
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a short run, whose name and texts have long words."""
    folder = make_run(tmp_path_factory.mktemp("short") / ("a-long-name" * 8), 200, "word" * 40)
    path = folder / "page.html"
    path.write_text(render([folder]))
    return path


@pytest.fixture
def opened(browser: Page, written: Path) -> Page:
    """That page, open in a window of a desk."""
    browser.resize(1300, 900)
    browser.prefer("light")
    browser.open(written)
    return browser


def draw(browser: Page, *keys: str) -> None:
    """Draw some pictures, whether they are in sight or not; without a key all of them."""
    chosen = [f'[data-key="{key}"]' for key in keys] or [".panel"]
    browser.evaluate(
        f"document.querySelectorAll({json.dumps(', '.join(chosen))}).forEach(report.frame.draw)"
    )


def series_of(browser: Page, key: str) -> list[dict[str, Any]]:
    """Name and points of each curve that a chart holds."""
    return browser.evaluate(
        f"report.handles.get({json.dumps(key)}).chart.getOption().series"
        ".filter((each) => each.type === 'line' && each.name !== 'events')"
        ".map((each) => ({ name: each.name, data: each.data }))"
    )


def shown_range(browser: Page, key: str) -> tuple[float, float]:
    """What part of the axis a chart shows."""
    first, last = browser.evaluate(
        f"(() => {{ const zoom = report.handles.get({json.dumps(key)}).chart.getOption().dataZoom[0];"
        " return [zoom.startValue, zoom.endValue]; })()"
    )
    return first, last


def middle_of(browser: Page, key: str) -> tuple[float, float]:
    """The middle of a picture, scrolled into view."""
    selector = json.dumps(f'[data-key="{key}"] .plot')
    browser.evaluate(
        f"document.querySelector({selector}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
    )
    box = browser.evaluate(f"document.querySelector({selector}).getBoundingClientRect().toJSON()")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_page_is_silent_and_asks_for_nothing(opened: Page, written: Path) -> None:
    draw(opened)
    assert opened.complaints() == []
    assert opened.requests() == [written.resolve().as_uri()]


def test_a_violation_of_the_policy_would_be_seen(opened: Page) -> None:
    """What the test before relies on: neither foreign scripts nor pictures nor handlers get past the policy."""
    opened.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.com/x.png'}))"
    )
    opened.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'}))"
    )
    opened.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">x</p>')"
    )
    complaints = " ".join(opened.complaints())
    assert complaints.count("Content Security Policy") >= 3
    assert opened.evaluate("window.hit") is None
    blocked = [
        each["params"] for each in opened.events if each["method"] == "Network.loadingFailed"
    ]
    assert [each["blockedReason"] for each in blocked] == ["csp"]


def test_every_panel_is_drawn_once_it_is_in_sight(browser: Page, written: Path) -> None:
    browser.resize(1300, 900)
    browser.open(written)
    browser.wait_for("report.handles.size > 0")
    panels = data_of(written.read_text())["panels"]
    at_first = browser.evaluate("report.handles.size")
    assert 0 < at_first < len(panels) // 2
    for panel in panels:
        middle_of(browser, panel["key"]) if panel["kind"] in ("lines", "heatmap") else None
        browser.evaluate(
            f"document.querySelector('[data-key=\"{panel['key']}\"]').scrollIntoView({{behavior: 'instant'}})"
        )
        browser.wait_for(f"report.handles.has({json.dumps(panel['key'])})")
    assert browser.evaluate("report.handles.size") == len(panels)
    assert browser.complaints() == []


def test_every_curve_is_there_with_its_points_and_extremes(opened: Page, written: Path) -> None:
    draw(opened)
    run = [json.loads(line) for line in (written.parent / "metrics.jsonl").read_text().splitlines()]
    looked_at = 0
    for panel in data_of(written.read_text())["panels"]:
        if panel["kind"] != "lines":
            continue
        drawn = series_of(opened, panel["key"])
        assert [len(each["data"]) for each in drawn] == [
            len(each["x"]) for each in panel["data"]["series"]
        ]
        for shown, series in zip(drawn, panel["data"]["series"], strict=True):
            if series["cut"] or series["label"] not in run[0]:
                continue
            values = [line[series["label"]] for line in run]
            finite = [value for value in values if isinstance(value, (int, float))]
            ys = [y for _, y in shown["data"] if y is not None]
            assert (min(ys), max(ys)) == pytest.approx((min(finite), max(finite)), rel=1e-6)
            assert series["total"] == sum(value is not None for value in values)
            if series["total"] == STEPS:
                most = max(len(each["x"]) for each in panel["data"]["series"])
                assert f"At most {most:,} of {STEPS:,} points per curve" in panel["note"]
                assert len(series["x"]) <= most < STEPS
            looked_at += 1
    assert looked_at > 20
    said = opened.evaluate(
        "document.querySelector('[data-key=\"losses/train\"] .note').textContent"
    )
    assert f"of {STEPS:,} points per curve" in said


def test_the_timeline_can_be_clicked_and_jumped_along(opened: Page, written: Path) -> None:
    data = data_of(written.read_text())
    place, event = next(
        (at, each) for at, each in enumerate(data["events"]) if each["kind"] == "spike"
    )
    draw(opened, "overview/timeline", "losses/train")
    middle_of(opened, "overview/timeline")
    x, y = opened.evaluate(
        "(() => { const { chart } = report.handles.get('overview/timeline');"
        f" const point = chart.getOption().series[1].data[{place}].value;"
        " const [x, y] = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [point[0], point[1]]);"
        " const box = chart.getDom().getBoundingClientRect(); return [box.x + x, box.y + y]; })()"
    )
    opened.click(x, y)
    detail = "document.querySelector('[data-key=\"overview/timeline\"] .detail')"
    opened.wait_for(f"{detail}.textContent.includes('spike')")
    assert event["text"] in opened.evaluate(f"{detail}.textContent")
    opened.evaluate(f"{detail}.querySelector('button').click()")
    first, last = shown_range(opened, "losses/train")
    assert first < event["at"] < last
    assert last - first < 0.1 * BATCH * STEPS


def test_the_wheel_zooms_all_pictures_where_the_pointer_is(opened: Page) -> None:
    others = ("optimisation/lr", "layers/gradient_norm", "overview/timeline")
    draw(opened, "losses/train", *others)
    x, y = middle_of(opened, "losses/train")
    opened.mouse("mouseMoved", x, y)
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240, modifiers=2)  # 2: Ctrl
    opened.wait_for("report.state.range !== null")
    first, last = shown_range(opened, "losses/train")
    assert 0 < first < BATCH * STEPS / 2 < last < BATCH * STEPS
    for key in others:
        assert shown_range(opened, key) == pytest.approx((first, last))
    # Without a key the wheel scrolls the page.
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    assert shown_range(opened, "losses/train") == pytest.approx((first, last))


def test_dragging_zooms_to_what_is_marked_and_a_double_click_back(opened: Page) -> None:
    draw(opened, "losses/train", "optimisation/lr")
    x, y = middle_of(opened, "losses/train")
    opened.mouse("mouseMoved", x - 100, y)
    opened.mouse("mousePressed", x - 100, y, button="left", buttons=1, clickCount=1)
    for step in range(1, 11):
        opened.mouse("mouseMoved", x - 100 + 20 * step, y, button="left", buttons=1)
    opened.mouse("mouseReleased", x + 100, y, button="left", clickCount=1)
    opened.wait_for("report.state.range !== null")
    first, last = shown_range(opened, "optimisation/lr")
    assert 0 < first < last < BATCH * STEPS
    for count in (1, 2):
        opened.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=count)
        opened.mouse("mouseReleased", x, y, button="left", clickCount=count)
    opened.wait_for("report.state.range === null")


def test_keys_zoom_and_move_all_pictures(opened: Page) -> None:
    whole = (0, BATCH * STEPS)
    draw(opened, "losses/valid", "losses/train", "throughput/tokens")
    opened.evaluate("document.querySelector('[data-key=\"losses/valid\"] .plot').focus()")
    opened.press("+")
    half = (whole[1] / 4, whole[1] * 3 / 4)
    for key in ("losses/valid", "losses/train", "throughput/tokens"):
        assert shown_range(opened, key) == pytest.approx(half)
    opened.press("ArrowRight")
    moved = tuple(place + whole[1] / 8 for place in half)
    assert shown_range(opened, "losses/train") == pytest.approx(moved)
    opened.press("-")
    opened.press("-")
    assert shown_range(opened, "losses/train") == pytest.approx(whole)
    opened.press("+")
    opened.press("0")
    assert shown_range(opened, "losses/train") == pytest.approx(whole)
    said = opened.evaluate("document.querySelector('.range').textContent")
    assert said == f"whole run: samples 0 to {whole[1]:,}"


def test_all_pictures_can_be_reached_by_keys_and_have_words(opened: Page) -> None:
    assert opened.evaluate(
        "[...document.querySelectorAll('.plot')].every((plot) => plot.tabIndex === 0"
        " && document.getElementById(plot.getAttribute('aria-labelledby')).textContent)"
    )
    opened.evaluate(
        "document.querySelectorAll('.behind').forEach((details) => { details.open = true; })"
    )
    opened.wait_for(
        "[...document.querySelectorAll('.behind')].every((each) => each.querySelector('caption'))"
    )
    text = opened.evaluate(
        "document.querySelector('[data-key=\"losses/train\"] .behind').textContent"
    )
    assert "train/loss_mask" in text and f"{STEPS:,}" in text
    outline = opened.evaluate(
        "(() => { const plot = document.querySelector('.plot'); plot.focus({focusVisible: true});"
        " return getComputedStyle(plot).outlineStyle; })()"
    )
    assert outline != "none"


def test_smoothing_and_logarithm_are_switched(opened: Page) -> None:
    key = "optimisation/gradient_norm"
    draw(opened, key)
    plain = series_of(opened, key)
    opened.evaluate(
        "(() => { const slider = document.getElementById('smoothing'); slider.value = 5;"
        " slider.dispatchEvent(new Event('input')); })()"
    )
    smooth = {each["name"]: each["data"] for each in series_of(opened, key)}
    assert smooth["optim/grad_norm (raw)"] == plain[0]["data"]
    ys = [y for _, y in smooth["optim/grad_norm"]]
    # Its means are those of all steps, not of the extremes that the raw curve is made of.
    assert max(ys) < 1 and sum(ys) / len(ys) == pytest.approx(0.4 + 5 / 97, abs=0.03)
    said = opened.evaluate("document.querySelector('.controls .smoothing .quiet').textContent")
    assert said == f"exponential moving average over {round(0.02 * BATCH * STEPS):,} samples"
    opened.evaluate(f"document.querySelector('[data-key=\"{key}\"] .tools button').click()")
    kind = opened.evaluate(f"report.handles.get('{key}').chart.getOption().yAxis[0].type")
    assert kind == "log"


def test_a_curve_can_be_hidden(opened: Page) -> None:
    draw(opened, "losses/valid")
    names = [each["name"] for each in series_of(opened, "losses/valid")]
    opened.evaluate("document.querySelector('[data-key=\"losses/valid\"] .key').click()")
    assert [each["name"] for each in series_of(opened, "losses/valid")] == [
        name
        for name in names
        if not name.startswith("valid/loss") or name.startswith("valid/loss_")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "is_phone"), [(1300, False), (360, True)])
def test_nothing_is_wider_than_the_window(
    browser: Page, short: Path, scheme: str, width: int, is_phone: bool
) -> None:
    browser.resize(width, 780, is_phone=is_phone)
    browser.prefer(scheme)
    browser.open(short)
    draw(browser)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(16, 21, 29)") == (scheme == "dark")
    browser.evaluate("document.querySelector('.theme').click()")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert browser.complaints() == []


def test_text_of_data_stays_text(browser: Page, tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / f"<img src=x onerror=hit()> & {n}", text=HOSTILE) for n in range(2)
    ]
    for runs in (folders[:1], folders):
        path = tmp_path / "page.html"
        path.write_text(render(runs))
        browser.resize(1300, 900)
        browser.open(path)
        draw(browser)
        browser.evaluate(
            "document.querySelectorAll('.behind').forEach((details) => { details.open = true; })"
        )
        browser.evaluate(
            "(() => { const select = document.querySelector('.tools select');"
            " for (let at = 0; at < select.options.length - 1; at += 1) {"
            " select.value = at; select.dispatchEvent(new Event('change')); } })()"
        )
        # The tooltip of an event, whose text is the hostile one.
        browser.evaluate(
            "report.handles.get('overview/timeline').chart.dispatchAction("
            "{ type: 'showTip', seriesIndex: 1, dataIndex: 2 })"
        )
        curves = "losses/train" if len(runs) == 1 else "losses/train/0"
        browser.evaluate(
            f"report.handles.get('{curves}').chart.dispatchAction({{ type: 'showTip', x: 200, y: 100 }})"
        )
        tips = "[...document.querySelectorAll('.tip')].map((tip) => tip.textContent)"
        browser.wait_for(f"{tips}.length === 2 && {tips}.some((text) => text.includes('onerror'))")
        assert browser.complaints() == []
        assert browser.evaluate("window.hit") is None
        assert (
            browser.evaluate("document.querySelectorAll('img, iframe, #report script').length") == 0
        )
        assert "onerror=window.hit=1" in browser.evaluate(
            "document.getElementById('report').textContent"
        )
        shown = browser.evaluate("document.getElementById('report').innerText")
        assert "\x1b" not in shown and "\u202e" not in shown and "\\x1b[31m" in shown
