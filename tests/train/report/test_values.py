"""Values that the readers of a run folder accept: none ends the report, and what is not finite is shown as such."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_pages import data_of, panel_of
from tests.helpers.report_runs import BATCH, make_run
from train.report.page import render
from train.report.read import read_run

STEPS = 40
HUGE = 10**400
STRANGE = [HUGE, -HUGE, 1e300, 2**62, "inf", "-inf", "nan", "word", True, None, [], [HUGE], {}, {"a": HUGE}]  # fmt: skip
CONFIGS = [
    "data:\n  paths: [a, b]\n  weights: [.inf, .nan]\n",
    "data:\n  paths: [a, b]\n  weights: 5\n  instructions: 5\n",
    "data:\n  paths: 5\n  instructions: {a: b}\n  stages: 7\n",
    "data:\n  paths: [a, b]\n  stages: [[0, 1, 1], ab, [.inf, .nan, 1], 5]\n  stage_ramp_samples: .inf\n",
    "data:\n  paths: [a, b]\n  stages: [[0, 1, 1], [9, .inf, .nan]]\n  stage_ramp_samples: [1]\n",
    f"optim:\n  total_samples: {HUGE}\ndata: 5\n",
    "optim:\n  total_samples: .inf\nmodel: {}\nobjective: {}\ndata: {}\n",
    "optim: [1]\n1: 2\n",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", STEPS)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: str(value)[:12])
def test_no_value_ends_the_report(run: Path, value: Any) -> None:
    """Each value of each line of every file is replaced in its turn."""
    for name in ("metrics.jsonl", "details.jsonl", "samples.jsonl", "events.jsonl"):
        lines = lines_of(run / name)
        keys = list(dict.fromkeys(key for line in lines for key in line))
        damaged = [
            {**line, keys[number % len(keys)]: value} for number, line in enumerate(2 * lines)
        ]
        write(run / name, [*lines[: len(lines) // 2], *damaged, {**lines[-1], keys[-1]: value}])
        data_of(render([run]))


def test_lists_and_objects_of_details_may_hold_anything(run: Path) -> None:
    passes = {"kind": "forward", "micro_batch": 0, "chunk": 0, "start": 0.0, "end": 1.0}
    for value in STRANGE:
        line = {
            "step": 1,
            "samples_seen": BATCH,
            "layers/gradient_norm": [1.0, value],
            "parts/weight_norm": {"embedding": value, "samples_seen": value},
            "ranks/seconds": [value, 1.0],
            "pipeline/passes": {
                "step": value,
                "stages": [[{**passes, key: value} for key in passes], [passes]],
            },
        }
        write(run / "details.jsonl", [line])
        assert data_of(render([run]))["panels"], value


@pytest.mark.parametrize("text", CONFIGS)
def test_no_configuration_ends_the_report(run: Path, text: str) -> None:
    (run / "config.yaml").write_text(text)
    assert data_of(render([run, run]))["panels"]


def test_a_weight_without_end_is_shown_in_words(run: Path) -> None:
    (run / "config.yaml").write_text(CONFIGS[0])
    assert [row[1:] for row in panel_of(render([run]), "data/sources")["rows"]] == [
        ["a", "inf"],
        ["b", "nan"],
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_the_newest_value_is_shown_as_it_is(run: Path, value: str) -> None:
    lines = lines_of(run / "metrics.jsonl")
    lines[-1] |= {"train/loss": value, "speed/seconds_per_step": value}
    write(run / "metrics.jsonl", lines)
    (facts,) = data_of(render([run]))["runs"]
    figures = {figure["key"]: figure["value"] for figure in facts["figures"]}
    assert figures["train/loss"] == value
    assert facts["seconds"] == pytest.approx(
        sum(line["speed/seconds_per_step"] for line in lines[:-1])
    )


def test_an_infinity_hides_no_finite_value_of_a_heat_map(run: Path) -> None:
    lines = [
        {"step": n, "samples_seen": BATCH * n, "layers/weight_norm": ["inf" if n % 2 else n, "nan"]}
        for n in range(1, 801)
    ]
    write(run / "details.jsonl", lines)
    panel = panel_of(render([run]), "layers/weight_norm")
    assert panel["data"]["values"] == [list(range(2, 801, 2)), [None] * 400]
    assert "Left out: 1,200 of 1,600 values, which are not finite." in panel["note"]


def test_what_was_just_cut_off_lies_on_the_axis(run: Path) -> None:
    """The run went back, and has not come as far again."""
    lines = lines_of(run / "metrics.jsonl")
    write(run / "metrics.jsonl", lines[:5])
    (cut,) = (run / "rolled_back").iterdir()
    write(cut, lines[5:30])
    write(run / "events.jsonl", [{"event": "start", "samples_seen": 0}])
    assert data_of(render([run]))["axis"]["max"] == 30 * BATCH


@pytest.mark.parametrize(("told", "end"), [(35, 35), (10**9, 5)])
def test_events_lengthen_the_axis_as_far_as_the_run_goes(run: Path, told: int, end: int) -> None:
    write(run / "metrics.jsonl", lines_of(run / "metrics.jsonl")[:5])
    for path in (run / "rolled_back").iterdir():
        path.unlink()
    event = {"event": "resume", "samples_seen": 0, "repeated_samples": [0, BATCH * told]}
    write(run / "events.jsonl", [event])
    assert data_of(render([run]))["axis"]["max"] == end * BATCH


def test_damaged_lines_that_were_cut_off_are_remarked_on(run: Path) -> None:
    (cut,) = (run / "rolled_back").iterdir()
    cut.write_text(cut.read_text() + "damaged\n")
    (remark,) = read_run(run).remarks
    assert cut.name in remark and "What cannot be read is left out." in remark


def test_generations_that_cannot_be_read_are_remarked_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[int]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("train.report.read.generation_numbers", refuse)
    (remark,) = data_of(render([run]))["remarks"]
    assert remark == f"{run} cannot be read: Permission denied."


def test_no_name_reaches_the_page_raw(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a\u202e\x1b[31m{number}", STEPS) for number in range(2)]
    for run in runs:
        lines = lines_of(run / "details.jsonl")
        write(
            run / "details.jsonl", [{**line, "train/loss_source/\u202e\x1b": 1} for line in lines]
        )
    for chosen in (runs[:1], runs):
        text = json.dumps(data_of(render(chosen)), ensure_ascii=False)
        assert "\u202e" not in text and "\\u001b" not in text
        assert "\\\\u202e\\\\x1b" in text
