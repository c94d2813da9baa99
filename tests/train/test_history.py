"""The history of a run as people read it: everything in the order of its time, the truth about rollbacks, no traceback."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from configs.folding import shown_width
from configs.interventions import EarlierSchedule, Interventions, Rollback
from configs.schema import BatchRampConfig, OptimConfig
from tests.helpers.tiny import TEXT_RUN
from train.history.__main__ import cli
from train.history.sums import Stretch
from train.history.text import history

MIDNIGHT = 1664928000  # 2022-10-05
ROLLBACK = Rollback(
    generation=2,
    reason="step 23: loss 5.214, usually 3.1, 19 MADs above it, since step 13 or later",
    onset_step=13,
    found_step=23,
    onset_samples=96,
    found_samples=184,
    checkpoint_step=12,
    checkpoint_samples=96,
    skip=[(96, 224)],
    learning_rate=0.5,
    until_samples=264,
    return_samples=80,
    time=MIDNIGHT + 70.5,
)
SCHEDULE = EarlierSchedule(
    until_samples=64,
    optim=OptimConfig(lr=1e-3, global_batch_size=8, batch_ramp=BatchRampConfig(4, 2, 32)),
    embedding_shrink=[[0.0, 0.1], [4096.0, 1.0]],
    rewarmup_samples=80,
    time=MIDNIGHT + 59.0,
)


def event(second: float, kind: str, **details: Any) -> dict[str, Any]:
    return {"time": MIDNIGHT + second, "event": kind, **details}


EVENTS = [
    event(0, "start", samples_seen=0, world_size=1, run_id="0123456789abcdef"),  # as 0.1 wrote it
    event(10, "checkpoint", path="checkpoints/step_00000004", samples_seen=32),
    event(11, "checkpoint_copy", path="step_00000004", samples_seen=32),
    event(12, "skip", step=6, reason="overflow, or a gradient or loss that is not finite"),
    event(13, "skip", step=7, reason="step 7: grad norm 812, usually 2.3, 40 MADs above it"),
    event(14, "skip", step=8, reason="step 8: grad norm 1.1e+03, usually 2.3, 44 MADs above it"),
    event(20, "checkpoint", path="checkpoints/step_00000008", samples_seen=64),
    event(21, "checkpoint_copy", path="step_00000008", samples_seen=64),
    event(30, "stop", reason="SIGTERM"),
    event(
        *(60, "resume"), samples_seen=64, world_size=8, tp=2, pp=2, dp=2, host="node7",
        commit="8fc6bf5d1c0b4a2f9e7d6c5b4a39281706f5e4d3",
    ),
    event(61, "config_change", changes=["optim.lr: 0.001 -> 0.0005", "batch size at sample 64: 8 -> 16 samples"]),
    event(62, "numerics_change", message="This program rounds otherwise."),
    event(63, "checkpoint", path="checkpoints/step_00000012", samples_seen=96),
    event(70, "spike", step=23, alarm="loss", text=ROLLBACK.reason),
    event(71, "resume", samples_seen=96, world_size=8, tp=2, pp=2, dp=2, host="node7", commit=""),
    event(80, "slow_rank", rank=3, host="node8", state="slow", samples_seen=160, excess=0.351),
    event(81, "slow_rank", rank=3, host="node8", state="over", samples_seen=240, excess=0.0),
    event(
        *(82, "weights_differ"), step=30, samples_seen=240, parameters=3,
        differences=[{"parameter": "layers.0.attention.qkv.weight", "ranks": [1, 3], "hosts": ["node7", "node8"]}],
    ),
    event(83, "hang", message="rank 5 did not end a step within 300 s"),
    event(84, "error", message="a peer is gone\nTraceback"),
    event(85, "metrics_repaired", message="metrics.jsonl is damaged: it is kept."),
    event(86, "of_tomorrow", colour="blue"),
    event(90, "done", samples_seen=320),
]  # fmt: skip

GOLDEN = """\
{run}: done; times in UTC
2022-10-05 00:00:00  start at sample 0: 1 rank
2022-10-05 00:00:21  3 steps left out, between step 6 and step 8: 2 x such as
                     step 7: grad norm 812, usually 2.3, 40 MADs above it; 1 x
                     overflow, or a gradient or loss that is not finite
2022-10-05 00:00:21  2 checkpoints, the last step_00000008 at sample 64
2022-10-05 00:00:21  2 second copies, the last step_00000008 at sample 64
2022-10-05 00:00:30  stopped: SIGTERM
2022-10-05 00:00:59  schedules change at sample 64; until there: learning rate
                     0.001 (cosine), batch 8 after a ramp, embedding shrink 0.1
                     at 0, 1 at 4,096; the new learning rate warms up over 80
                     samples
2022-10-05 00:01:00  resume at sample 64: 8 ranks (tp 2 x pp 2 x dp 2), rank 0
                     on node7, commit 8fc6bf5d1c0b
2022-10-05 00:01:01  changed: optim.lr: 0.001 -> 0.0005; batch size at sample
                     64: 8 -> 16 samples
2022-10-05 00:01:02  numerics: This program rounds otherwise.
2022-10-05 00:01:03  1 checkpoint, the last step_00000012 at sample 96
2022-10-05 00:01:10  spike: step 23: loss 5.214, usually 3.1, 19 MADs above it,
                     since step 13 or later
2022-10-05 00:01:10  rollback 1: from step 23 (sample 184) back to the
                     checkpoint of step 12 (sample 96), leaving out samples [96,
                     224) of the data stream, learning rate x 0.5 until sample
                     264. Reason: step 23: loss 5.214, usually 3.1, 19 MADs
                     above it, since step 13 or later.
2022-10-05 00:01:11  resume at sample 96: 8 ranks (tp 2 x pp 2 x dp 2), rank 0
                     on node7
2022-10-05 00:01:20  slow rank: rank 3 on node8 takes 35 % longer than it
                     should, at sample 160
2022-10-05 00:01:21  slow rank: rank 3 on node8 is no longer slow, at sample 240
2022-10-05 00:01:22  weights differ in step 30: layers.0.attention.qkv.weight
                     (rank 1 on node7, rank 3 on node8), and 2 other parameters
2022-10-05 00:01:23  hang: rank 5 did not end a step within 300 s
2022-10-05 00:01:24  error: a peer is gone\\x0aTraceback
2022-10-05 00:01:25  metrics: metrics.jsonl is damaged: it is kept.
2022-10-05 00:01:26  of_tomorrow: colour blue
2022-10-05 00:01:30  done at sample 320"""


def write(run: Path, events: list[dict[str, Any]], known: Interventions | None) -> Path:
    run.mkdir(exist_ok=True)
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in events))
    (run / "status.json").write_text('{"state": "done", "samples_seen": 320}')
    if known is not None:
        (run / "interventions.json").write_text(known.to_json())
    return run


def read(run: Path, width: int | None = 80) -> tuple[str, list[str]]:
    notices = list[str]()
    return history(run, notices.append, width), notices


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(Path("run"), EVENTS, Interventions([ROLLBACK], [SCHEDULE]))


def test_the_history_of_a_run_on_80_columns(run: Path) -> None:
    assert read(run) == (GOLDEN.format(run="run"), [])
    assert all(shown_width(line) <= 80 for line in read(run)[0].splitlines())


def test_lines_of_a_file_are_not_folded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["run"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 22
    assert " ".join(out.split()) == " ".join(GOLDEN.format(run="run").split())


def test_a_rollback_is_told_once_whether_its_event_is_there_or_not(run: Path) -> None:
    decided = {**asdict(ROLLBACK), "event": "rollback"}
    write(run, [*EVENTS[:14], decided, *EVENTS[14:]], None)
    assert read(run)[0] == GOLDEN.format(run="run")
    (run / "interventions.json").unlink()
    text, notices = read(run, None)
    assert "rollback that interventions.json does not have: from step 23" in text
    assert "rollback 1" not in text and "schedules change" not in text and not notices


def test_what_is_written_out_of_order_is_put_in_order(run: Path) -> None:
    write(run, [EVENTS[-1], *EVENTS[:-1]], None)
    assert read(run)[0] == GOLDEN.format(run="run")


def test_a_schedule_without_a_time_comes_first(run: Path) -> None:
    undated = {**asdict(SCHEDULE), "time": 0.0, "rewarmup_samples": 0}
    (run / "interventions.json").write_text(json.dumps({"schedules": [undated]}))
    second = read(run, None)[0].splitlines()[1]
    assert second.startswith(f"{'-' * 19}  schedules change at sample 64; until there: ")
    assert "warms up" not in second


def test_damaged_lines_are_left_out_with_one_notice_for_each_kind_of_damage(run: Path) -> None:
    path = run / "events.jsonl"
    damaged = [b"{torn\n", b"[]\n", b'{"event": 3}\n']
    damaged += [b'{"event": "stop", "reason": 7}\n', b'{"event": "skip", "step": -1}\n']
    path.write_bytes(b"".join(damaged) + path.read_bytes() + b'{"event": "stop", "rea')
    text, notices = read(run)
    assert text == GOLDEN.format(run="run")
    assert len(notices) == 2
    assert "line 1 is damaged" in notices[0] and "So are 2 other lines." in notices[0]
    assert ": stop is damaged" in notices[1] and "And 1 other event." in notices[1]


def test_damaged_interventions_are_a_notice_and_events_tell_the_rollbacks(run: Path) -> None:
    (run / "interventions.json").write_text('{"rollbacks": [{}]}')
    text, (notice,) = read(run, None)
    assert "interventions.json is damaged" in notice
    assert "resume at sample 96" in text and "rollback 1" not in text


def test_a_damaged_status_is_a_notice(run: Path) -> None:
    (run / "status.json").write_text("{")
    text, notices = read(run)
    assert text.startswith("run: unknown; times in UTC\n")
    assert len(notices) == 1 and "status.json is damaged" in notices[0]


@pytest.mark.parametrize("name", ["missing", "empty", "a file"])
def test_a_folder_that_is_no_run_is_answered_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").touch()
    assert cli([name]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    advice = "python -m train.history runs/default"
    assert ("Not a directory" if name == "a file" else advice) in err
    os.makedirs("runs/mine/checkpoints")
    Path("runs/mine/config.yaml").touch()
    assert cli(["runs"]) == 2
    assert "Did you mean runs/mine?" in capsys.readouterr().err


def test_events_that_are_no_file_end_with_one_message(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "events.jsonl").unlink()
    os.mkfifo(run / "events.jsonl")
    assert cli(["run"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "events.jsonl" in err


def test_reasons_are_summed_up_by_kind() -> None:
    from train.history.kinds import Skip

    reasons = ["a 1", "a 2", "b", "c", "d", "e", "e"]
    skips = [Skip(step, reason) for step, reason in enumerate(reasons, start=1)]
    (text,) = Stretch(skips).words()
    assert text == (
        "7 steps left out, between step 1 and step 7: 2 x such as a 1; 2 x e; 1 x b; 2 for other reasons"
    )
    assert Stretch([skips[2]]).words() == ["1 step left out, step 3: 1 x b"]


def test_starts_and_resumes_say_on_what_they_train(tmp_path: Path) -> None:
    from tests.helpers.whole_runs import command, run_attempt

    run = tmp_path / "run"
    words = (*command(tmp_path), f"run.dir={run}", "optim.total_samples=32", "parallel.tp=2")
    assert TEXT_RUN[0] in words
    assert run_attempt(2, (*words, "run.stop_after_samples=16")) == [75, 75]
    assert run_attempt(2, (*words, "optim.lr=5e-3")) == [0, 0]
    text, notices = read(run, None)
    assert not notices
    begun = [line[21:] for line in text.splitlines() if "ranks" in line]
    assert begun[0].startswith("start at sample 0: 2 ranks (tp 2 x pp 1 x dp 1), rank 0 on ")
    assert begun[1].startswith("resume at sample 16: 2 ranks (tp 2 x pp 1 x dp 1), rank 0 on ")
    assert "schedules change at sample 16; until there: learning rate 0.01 (cosine)" in text
    assert "changed: optim.lr: 0.01 -> 0.005" in text
    assert text.splitlines()[-1][21:] == "done at sample 32"
