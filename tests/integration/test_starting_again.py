"""The situations in which the same command is typed again, and every kind of bad input: exit codes and messages."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.run_checkpoints import committed
from tests.helpers.distributed import Ranks
from tests.helpers.killing import KilledAtCall
from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command, compared, metrics, resumed_at, run_attempt, typed


def in_a_new_process(*overrides: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m train` as a user does, libraries and all."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-m", "train", *overrides],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def refused(outcome: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, one message with these words, no traceback."""
    assert outcome.returncode == 2, outcome.stdout + outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr
    for word in words:
        assert word in outcome.stderr, outcome.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, stopped once on its way."""
    folder = tmp_path_factory.mktemp("runs")
    overrides = command(folder, f"run.dir={folder / 'run'}")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=40")) == [75]
    status = json.loads((folder / "run" / "status.json").read_text())
    assert (status["state"], status["samples_seen"]) == ("stopped", 40)
    assert run_attempt(1, overrides) == [0]
    return folder


def test_a_stopped_run_continues_as_if_never_stopped(finished: Path) -> None:
    whole = finished / "whole"
    assert run_attempt(1, command(finished, f"run.dir={whole}")) == [0]
    assert compared(finished / "run") == compared(whole)
    kinds = [json.loads(line)["event"] for line in (finished / "run" / "events.jsonl").open()]
    assert kinds.count("start") == 1 and kinds.count("resume") == 1 and "stop" in kinds
    assert "numerics_change" not in kinds


def test_a_run_that_has_reached_its_stop_trains_no_further(tmp_path: Path) -> None:
    overrides = command(tmp_path, f"run.dir={tmp_path / 'run'}", "run.stop_after_samples=16")
    assert run_attempt(1, overrides) == [75]
    lines = compared(tmp_path / "run")
    assert run_attempt(1, overrides) == [75]
    assert compared(tmp_path / "run") == lines and len(lines) == 2


def test_a_run_goes_back_to_a_checkpoint_once_and_the_same_command_continues(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    overrides = command(tmp_path, f"run.dir={run}", "checkpoint.save_every_samples=16")
    overrides = (*overrides, "checkpoint.keep_last=9")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=64")) == [75]
    back = f"checkpoint.resume={run / 'checkpoints' / 'step_00000004'}"
    gentler = (*overrides, "optim.lr=5e-3", back)
    assert run_attempt(1, (*gentler, "run.stop_after_samples=48")) == [75]
    assert run_attempt(1, (*gentler, "run.stop_after_samples=56")) == [75]
    assert resumed_at(run) == [32, 48]
    # Another command goes back again.
    assert run_attempt(1, (*overrides, "optim.lr=2e-3", back, "run.stop_after_samples=40")) == [75]
    # As does the same one, if what was saved since is damaged.
    damaged = run / "checkpoints" / "step_00000005" / "manifest.json"
    damaged.write_text(damaged.read_text()[:-20])
    assert run_attempt(1, (*overrides, "optim.lr=2e-3", back)) == [0]
    assert resumed_at(run) == [32, 48, 32, 32]


def test_a_run_killed_while_it_shows_what_was_learnt_shows_it_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(tmp_path, f"run.dir={run}")
    assert Ranks(killed_in_the_ending, 1, overrides).wait(120) == [-9]
    lines = compared(run)
    assert not (run / "summary.json").exists()
    assert run_attempt(1, overrides) == [0]
    assert "valid_loss_mask" in json.loads((run / "summary.json").read_text())
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert compared(run) == lines


def killed_in_the_ending(rank: int, world_size: int, overrides: tuple[str, ...]) -> None:
    """An attempt whose first word about what was learnt is its last."""
    from train import run
    from train.main import cli

    KilledAtCall(1).wrap(run, "show_what_was_learnt")
    cli(list(overrides))


@pytest.mark.parametrize(
    "step", [("train.resume", "build_engine"), ("train.training", "startup_report")]
)
def test_ctrl_c_while_a_longer_run_loads_fails_nothing(
    finished: Path, tmp_path: Path, step: tuple[str, str]
) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    before = (run / "status.json").read_bytes()
    # Others make the finished run longer, but not so long.
    overrides = command(finished, f"run.dir={run}", "optim.total_samples=144")
    codes = Ranks(interrupted, 1, overrides, step).wait(120)
    kinds = [json.loads(line)["event"] for line in (run / "events.jsonl").open()]
    assert "error" not in kinds
    if step[1] == "build_engine":  # nothing is recorded yet: the run is as it was
        assert codes == [130] and kinds[-1] == "done"
        assert (run / "status.json").read_bytes() == before
        assert (run / "config.yaml").read_bytes() == (finished / "run/config.yaml").read_bytes()
        assert run_attempt(1, overrides) == [0]
    else:  # the start is recorded: it trains a step, saves and stops
        assert codes == [75] and kinds[-3:] == ["config_change", "checkpoint", "stop"]
        status = json.loads((run / "status.json").read_text())
        assert (status["state"], status["samples_seen"]) == (
            "stopped",
            json.loads(before)["samples_seen"] + 8,
        )


def interrupted(
    rank: int, world_size: int, overrides: tuple[str, ...], step: tuple[str, str]
) -> None:
    """A start to which Ctrl-C comes as it calls a function of one of its modules."""
    import importlib

    from train.main import cli

    module, name = importlib.import_module(step[0]), step[1]
    original = getattr(module, name)

    def call(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    setattr(module, name, call)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(cli(list(overrides)))


def test_a_finished_run_says_so_and_goes_on_when_asked(finished: Path) -> None:
    overrides = command(finished, f"run.dir={finished / 'run'}")
    outcome = in_a_new_process(*overrides)
    assert outcome.returncode == 0
    lines = outcome.stdout.splitlines()
    assert any("is finished: 96 samples." in line for line in lines)
    assert "  optim.total_samples=192" in lines and "  run.name=NAME" in lines
    assert f'  python -m glm.generate {finished / "run"} --text "the [MASK] of a list"' in lines
    kept = "    to keep the schedules as they were: optim.schedule_samples=96"
    assert kept in lines and all(len(line) < 80 for line in lines if "/" not in line)
    before = len(metrics(finished / "run"))
    assert run_attempt(1, (*overrides, "optim.total_samples=112", "optim.lr=5e-3")) == [0]
    assert len(metrics(finished / "run")) == before + 2
    events = [json.loads(line) for line in (finished / "run" / "events.jsonl").open()]
    changes = next(event["changes"] for event in events if event["event"] == "config_change")
    assert "optim.lr: 0.01 -> 0.005" in changes


def test_a_run_whose_time_is_up_saves_stops_and_continues(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = command(finished, f"run.dir={run}")
    # The limit is over before the first step, after which the run stops.
    assert run_attempt(1, (*overrides, "run.time_limit=00:00:01")) == [75]
    assert len(metrics(run)) == 1
    events = [json.loads(line) for line in (run / "events.jsonl").open()]
    assert [event["reason"] for event in events if event["event"] == "stop"] == ["the time limit"]
    assert run_attempt(1, overrides) == [0]
    whole = tmp_path / "whole"
    assert run_attempt(1, command(finished, f"run.dir={whole}")) == [0]
    assert compared(run) == compared(whole)


def test_a_copied_run_folder_continues_elsewhere(finished: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished / "run", tmp_path / "moved")
    text = "".join(
        path.read_text(errors="replace")
        for path in (tmp_path / "moved").rglob("*")
        if path.suffix in (".json", ".jsonl", ".txt")
        and path.name not in ("overrides.txt", "log.txt")
    )
    assert str(finished / "run") not in text
    overrides = command(finished, f"run.dir={tmp_path / 'moved'}", "optim.total_samples=128")
    assert run_attempt(1, overrides) == [0]
    assert metrics(tmp_path / "moved")[-1]["samples_seen"] == 128


def test_a_run_folder_stands_for_its_newest_checkpoint(finished: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(finished / "run", tmp_path / "run")
    newest, seen = committed(whole / "checkpoints")[0], metrics(whole)[-1]["samples_seen"]
    untouched = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    # Its weights, with which another run begins.
    first = tmp_path / "first"
    words = command(finished, f"run.dir={first}", "optim.lr=1e-12", "run.stop_after_samples=8")
    said = typed(tmp_path, *words, f"checkpoint.init_from={whole}")
    assert said.returncode == 75, said.stderr
    assert f"Starting from the weights of {newest}" in said.stdout
    assert resumed_at(first) == []
    begun = metrics(first)[0]
    assert begun["step"] == 1 and begun["samples_seen"] == 8
    assert begun["train/loss"] < metrics(whole)[0]["train/loss"] - 1.0

    # All of its state, with which a copy that has lost its checkpoints goes on as the run itself does.
    other, longer = tmp_path / "other", f"optim.total_samples={seen + 16}"
    shutil.copytree(whole, other, ignore=shutil.ignore_patterns("step_*"))
    words = command(finished, f"run.dir={other}", longer, f"checkpoint.resume={whole}")
    said = typed(tmp_path, *words)
    assert said.returncode == 0, said.stderr
    assert f"Continuing after {seen} samples from {newest}" in said.stdout
    assert resumed_at(other) == [*resumed_at(whole), seen]
    assert {path: path.read_bytes() for path in untouched} == untouched
    assert run_attempt(1, command(finished, f"run.dir={whole}", longer)) == [0]
    assert len(metrics(other)) == seen // 8 + 2
    assert compared(other) == compared(whole)


def test_a_folder_of_another_model_is_refused(finished: Path, tmp_path: Path) -> None:
    overrides = command(finished, f"run.dir={finished / 'run'}", "model.hidden_size=64")
    refused(
        typed(tmp_path, *overrides),
        "another model",
        "model.hidden_size is 32 there and 64 now",
        "run.name=",
    )


def test_never_resuming_is_refused_and_deletes_nothing(finished: Path, tmp_path: Path) -> None:
    before = sorted((finished / "run").rglob("*"))
    overrides = command(finished, f"run.dir={finished / 'run'}", "checkpoint.resume=never")
    refused(typed(tmp_path, *overrides), "checkpoint.resume is never", "Nothing was deleted")
    assert sorted((finished / "run").rglob("*")) == before


def test_a_run_in_use_is_refused_with_host_and_pid(finished: Path, tmp_path: Path) -> None:
    from train.run_folder import RunFolder
    from train.world import Launch

    overrides = command(finished, f"run.dir={finished / 'run'}", "optim.total_samples=400")
    with RunFolder(finished / "run").held(Launch()):
        refused(typed(tmp_path, *overrides), "in use by host", f"pid {os.getpid()}")


def test_changed_data_is_refused_until_accepted(finished: Path, tmp_path: Path) -> None:
    other = finished / "other.txt"
    other.write_text((finished / "corpus.txt").read_text().replace("times", "over"))
    overrides = command(finished, f"run.dir={finished / 'run'}", "optim.total_samples=400")
    overrides = (*overrides, f"data.paths={other}")
    refused(
        typed(tmp_path, *overrides),
        "not those of the checkpoint",
        "source corpus.txt (",
        "is missing",
        "data.accept_changed=true",
    )
    limit = ("data.accept_changed=true", "run.stop_after_samples=150")
    assert run_attempt(1, (*overrides, *limit)) == [75]


def test_a_source_added_without_stages_is_refused_with_the_line_that_adds_it_from_here(
    finished: Path, tmp_path: Path
) -> None:
    overrides = command(finished, f"run.dir={tmp_path / 'run'}")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=40")) == [75]
    added = tmp_path / "added.txt"
    added.write_text("A second corpus.\n" * 2000)
    paths = f"data.paths=[{finished / 'corpus.txt'},{added}]"
    outcome = typed(tmp_path, *overrides, paths)
    refused(outcome, "the weights before sample 40", "data.accept_changed=true")
    line = re.search(r"'data\.stages=\S+' data\.weights=null", outcome.stderr)
    assert line
    assert run_attempt(1, (*overrides, paths, *shlex.split(line[0]))) == [0]
    events = [json.loads(event) for event in (tmp_path / "run" / "events.jsonl").open()]
    changes = [change for event in events for change in event.get("changes", [])]
    assert any(change.startswith("new source added.txt of ") for change in changes)
    assert any(change.startswith("weights ahead: from 40 ") for change in changes)
    assert compared(tmp_path / "run")[:5] == compared(finished / "run")[:5]


def test_a_skip_range_in_the_past_is_refused_and_one_ahead_moves_only_the_data(
    finished: Path, tmp_path: Path
) -> None:
    overrides = command(finished, f"run.dir={tmp_path / 'run'}")
    assert run_attempt(1, (*overrides, "run.stop_after_samples=40")) == [75]
    refused(
        typed(tmp_path, *overrides, "data.skip_samples=[[30,50]]"),
        "begins before the current position",
        "40",
    )
    assert run_attempt(1, (*overrides, "data.skip_samples=[[48,64]]")) == [0]
    last = metrics(tmp_path / "run")[-1]
    assert (last["samples_seen"], last["data/samples_drawn"]) == (96, 112)


def test_two_unknown_keys_are_reported_at_once() -> None:
    outcome = in_a_new_process("optim.lerning_rate=1", "model.num_layer=4")
    refused(outcome, "optim.lerning_rate", "model.num_layers")


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    refused(typed(tmp_path, "parallel.tp=3"), "parallel.tp (3) must divide model.num_heads")
    ramp = (
        "optim.batch_ramp.start=4",
        "optim.batch_ramp.increment=4",
        "optim.batch_ramp.samples=100",
    )
    refused(
        typed(tmp_path, *ramp, "optim.global_batch_size=32", "optim.micro_batch_size=8"),
        "must be a multiple of optim.micro_batch_size (8)",
    )


@pytest.mark.parametrize(
    "content, words",
    [
        (None, ("does not exist",)),
        (b"", ("no text",)),
        (b'{"text": "fine"}\n{"text": 3}\n', (":2", "data.text_key")),
        (b'{"text": "fine"}\nnot json\n', (":2", "JSON")),
        (b'{"text": "fine"}\n{"text": "\xff"}\n', (":2", "UTF-8")),
    ],
    ids=["missing", "empty", "no text field", "not JSON", "not UTF-8"],
)
def test_a_corpus_that_cannot_be_read_is_refused(
    content: bytes | None, words: tuple[str, ...], tmp_path: Path
) -> None:
    corpus = tmp_path / "bad.jsonl"
    if content is not None:
        corpus.write_bytes(content)
    outcome = typed(
        tmp_path,
        f"data.paths={corpus}",
        f"run.dir={tmp_path / 'run'}",
        f"data.cache_dir={tmp_path / 'cache'}",
    )
    refused(outcome, "bad.jsonl", *words)


@pytest.mark.parametrize(
    "word, stored, message",
    [
        ("precision=fp16", "", "precision (fp16) does not run on device (auto: cpu"),
        ("precision=auto", "precision: fp16", "Try precision=bf16."),
        ("model.attention=flex", "", "model.attention (flex) has no backward pass on device (auto"),
    ],
)
def test_what_only_a_gpu_can_do_is_refused_where_there_is_none(
    word: str, stored: str, message: str, tmp_path: Path
) -> None:
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    overrides = command(tmp_path, f"run.dir={run}")
    if stored:  # as a GPU without bf16 resolves it
        assert run_attempt(1, (*overrides, "run.stop_after_samples=8")) == [75]
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("precision: fp32", stored))
    before = sorted(run.rglob("*"))
    assert run_attempt(1, (*overrides, word), errors=errors) == [2]
    assert message in errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert sorted(run.rglob("*")) == before
