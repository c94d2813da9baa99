"""A run folder in which anything may stand: whoever reads it says so in one message, or passes it over with a word."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.at_work import is_at_work
from configs.errors import RecordError, UserError
from configs.interventions import EarlierSchedule, Interventions, Rollback
from configs.load import load_config
from configs.run_checkpoints import committed
from configs.run_files import read_events, read_metrics
from configs.run_paths import RunPaths
from configs.run_state import read_generation, shown_state
from configs.run_status import read_status
from configs.schema import OptimConfig
from glm.checkpoint.folder import newest_good, write_hint
from glm.load import find_checkpoint
from launch.status import samples_seen
from launch.sweep import Variant, table
from tests.helpers.checkpoints import save
from train.generations import History, begin
from train.history.text import history
from train.metrics import metrics_line
from train.metrics_file import JsonlTracker, StoredMetrics
from train.report import __main__ as report_command
from train.report import page as report_page
from train.run_folder import RunFolder
from train.stop import StopSignal
from train.watchdog import Watchdog
from train.world import Launch

FILES = ("config.yaml", "overrides.txt", "source.txt", "status.json", "summary.json") + (
    "metrics.jsonl",
    "events.jsonl",
    "log.txt",
)
# Which no program reads: a start passes over whatever stands there.
HINT = "checkpoints/latest"
COUNTED = ("mask", "gmask", "mip", "smask")
RECORDS = ("status.json", "metrics.jsonl", "events.jsonl", "config.yaml", "generations/000001") + (
    "interventions.json",
)


def make_run(path: Path) -> Path:
    """The files of a run that was stopped after two steps."""
    folder = RunFolder(path)
    folder.create()
    with folder.held(Launch()) as generation:
        folder.write_source(["model=tiny"], "seed: 1234\n", 1)
        schedule = EarlierSchedule(8, OptimConfig(), [[0.0, 0.1]])
        known = Interventions([Rollback(1, "a spike", 2, 3, 8, 24, 1, 8, [(8, 40)])], [schedule])
        folder.interventions.write_text(known.to_json())
        folder.event("start", samples_seen=0)
        generation.continue_after(0)
        tracker = JsonlTracker(folder.metrics, 0)
        for step in (1, 2):
            values = {"step": step, "samples_seen": 8 * step, "tokens_seen": 1024 * step}
            tracker.log_metrics(
                metrics_line({**values, "train/loss": 3.5 / step, "valid/loss": 4.0}, COUNTED)
            )
        tracker.close()
        folder.summary.write_text('{"samples_seen": 16}\n')
        folder.write_status("stopped", 16, "stopped on request")
    return path


@pytest.fixture(scope="module")
def config() -> Any:
    return load_config([])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def fuzzed(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(whole, "runs/default"))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    with contextlib.suppress(UserError):
        yield


def read_by_all(run: Path, config: Any) -> None:
    """Everybody who reads a run folder reads it; raises nothing but UserError, which is caught."""
    words: list[str] = []
    readers: list[Callable[[], object]] = [
        lambda: read_status(run),
        lambda: shown_state(run),
        lambda: is_at_work(run),
        lambda: read_events(run, words.append),
        lambda: read_metrics(run, words.append),
        lambda: read_generation(run, 1),
        lambda: History.read(run).admits(1, 5),
        lambda: samples_seen(run),
        lambda: table([Variant([], {"seed": "1"}, config)]),
        lambda: report_page.render([run], words.append),
        lambda: history(run, words.append, 80),
        lambda: RunFolder(run).read_config(),
        lambda: RunFolder(run).status_or_none(),
        lambda: StopSignal(run / "stop").reason,
        lambda: StoredMetrics(run / "metrics.jsonl").up_to(2),
        lambda: StoredMetrics(run / "metrics.jsonl").up_to(2, 12345),
    ]
    for read in readers:
        with user_errors():
            read()


def replaced(path: Path, kind: str, outside: Path) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "endless link":
        path.symlink_to(path.name)
    elif kind == "link elsewhere":
        path.symlink_to(outside)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.touch()


KINDS = ("folder", "pipe", "broken link", "endless link", "link elsewhere", "device")


@pytest.mark.parametrize("kind", [*KINDS, "empty", "huge"])
@pytest.mark.parametrize("name", [*FILES, "stop", "generations/000001", HINT])
def test_whatever_stands_in_the_place_of_a_file_ends_in_a_message_or_is_passed_over(
    tmp_path: Path,
    whole: Path,
    config: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
) -> None:
    monkeypatch.setattr("train.generations._FIRST_LINE_SECONDS", 0.05)
    outside = tmp_path / "outside"
    outside.write_text("somebody's only copy")
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(whole, "runs/default"))
    replaced(run / name, kind, outside)
    read_by_all(run, config)
    assert report_command.cli([str(run)]) in (0, 2)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with user_errors():
        with RunFolder(run).held(Launch()) as generation:
            generation.continue_after(2)
        assert kind in ("empty", "huge") or name.startswith("generations") or name == HINT
        assert outside.read_text() == "somebody's only copy"
        return
    if kind != "huge":  # which is found when it is read
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert outside.read_text() == "somebody's only copy"


@pytest.mark.parametrize("name", ["checkpoints", "generations", "tokenizer", "stacks"])
@pytest.mark.parametrize("kind", ["pipe", "broken link", "empty"])
def test_something_else_in_the_place_of_a_folder_is_refused(
    tmp_path: Path, name: str, kind: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    replaced(run / name, kind, tmp_path)
    with pytest.raises(UserError, match=rf"{name} \(.*Nothing was changed"):
        RunPaths(run).check_kinds()
    read_generation(run, 1), is_at_work(run)


@pytest.mark.parametrize("kind", [*KINDS, "empty", "huge"])
@pytest.mark.parametrize("name", ["latest", ".latest.part"])
def test_the_hint_is_written_anew_and_nothing_is_lost_that_stands_in_its_place(
    tmp_path: Path, name: str, kind: str
) -> None:
    checkpoints, outside = tmp_path / "run" / "checkpoints", tmp_path / "outside"
    outside.write_text("somebody's only copy")
    saved = [save(checkpoints, step, seed=step) for step in (1, 2)]
    replaced(checkpoints / name, kind, outside)
    if kind == "folder":
        (checkpoints / name / "note.txt").write_text("somebody's only copy")
    assert find_checkpoint(checkpoints.parent) == newest_good([checkpoints], pytest.fail)
    assert committed(checkpoints) == saved[::-1]
    RunPaths(checkpoints.parent).check_kinds()
    write_hint(saved[0])
    assert outside.read_text() == "somebody's only copy"
    if kind == "folder":
        assert (checkpoints / name / "note.txt").read_text() == "somebody's only copy"
    else:
        assert (checkpoints / "latest").read_text() == "step_00000001\n"
        assert not (checkpoints / "latest").is_symlink()
    assert committed(checkpoints) == saved[::-1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ("state", "samples_seen", "time", "message", "format_version", "event", "step") + (
    "tokens_seen",
    "train/loss",
    "valid/loss",
    "machine",
    "pid",
    "launch",
    "ending",
    "continues_after",
    "optim",
    "seed",
)
SPECIAL = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"samples_seen": 1' + b"0" * 5000 + b"}",
    b'{"state": NaN}',
    b"\0" * 100,
    b"\xff\xfe\xff",
    b"&a [*a, *a]",
    b"a: ${oc.env:HOME}",
    b"null",
    b"\x1b[2J\xe2\x80\xae",
)
contents = (
    st.binary(max_size=40)
    | st.sampled_from(SPECIAL)
    | json_values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    | st.dictionaries(st.sampled_from(KEYS), json_values, max_size=5).map(
        lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
    )
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(RECORDS), content=contents, cut=st.integers(0, 200), keeps=st.booleans()
)
def test_no_content_of_a_record_is_more_than_a_message(
    fuzzed: Path, config: Any, name: str, content: bytes, cut: int, keeps: bool
) -> None:
    path = fuzzed / name
    original = path.read_bytes()
    # A line among whole ones, a change in the middle, or all of the file.
    try:
        path.write_bytes(
            original[:cut] + content + b"\n" + original[cut:] if keeps else content + b"\n"
        )
        read_by_all(fuzzed, config)
    finally:
        path.write_bytes(original)


def test_a_killed_run_is_shown_as_interrupted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    generation = begin(tmp_path, Launch())
    folder.write_status("running", 8, "training")
    assert shown_state(tmp_path) == "running"
    generation._has_ended.set()
    os.close(generation._descriptor)  # as the kernel does for a killed process
    assert shown_state(tmp_path) == "interrupted"
    status = folder.status_or_none()
    assert status is not None and status.state == "running"


def test_a_run_on_another_machine_is_judged_by_the_age_of_its_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begin(tmp_path, Launch())._has_ended.set()
    path = tmp_path / "generations" / "000001"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "machine": {"host": "elsewhere", "boot": "b"}}) + "\n")
    folder.write_status("running", 8, "training")
    assert shown_state(tmp_path) == "running"
    for time in (1.0, 2.0**33):
        os.utime(path, (time, time))
        assert shown_state(tmp_path) == "interrupted"


def test_a_status_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"format_version": 2, "state": "done"}')
    with pytest.raises(RecordError, match="format version 2; this program knows 1"):
        read_status(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link elsewhere"])
def test_the_stacks_of_a_hang_follow_no_link_and_wait_for_nobody(tmp_path: Path, kind: str) -> None:
    outside, told = tmp_path / "outside", list[str]()
    outside.write_text("somebody's only copy")
    replaced(tmp_path / "rank00000.txt", kind, outside)
    watchdog = Watchdog(tmp_path, 0, True, told.append)
    watchdog._write("it hangs")
    watchdog.close()
    assert told == ["it hangs"] and outside.read_text() == "somebody's only copy"
