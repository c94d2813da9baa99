"""The same shards whatever the parts, the workers, the interruptions and the tasks of a job array."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation import inputs, make_part, parts, prepare
from data_pipeline.preparation.job_array import Share
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.plan import PreparationPlan
from data_pipeline.storage import shard_writer
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.killing import KilledAtCall, run_forked
from tests.helpers.places import ROOT
from tests.helpers.texts import sentences, shard_bytes, write_jsonl


def make(sources: Sequence[Path], folder: Path, **options) -> dict[str, bytes]:
    """Prepare into a folder; returns the bytes of the shards."""
    folder.mkdir(exist_ok=True)
    fraction = options.pop("valid_fraction", 0.2)
    chosen = options.pop("settings", Settings())
    names = [str(path) for path in sources]
    prepare.prepare(names, folder / "a", ByteTokenizer(), fraction, chosen, **options)
    return shard_bytes(folder / "a")


def make_shares(sources: Sequence[Path], folder: Path, order: Sequence[int], chosen: Settings):
    folder.mkdir(exist_ok=True)
    names = [str(path) for path in sources]
    for index in order:
        share = Share(index, len(order))
        prepare.prepare_share(names, folder / "a", ByteTokenizer(), 0.2, chosen, share)


@pytest.fixture
def corpora(tmp_path: Path) -> list[Path]:
    """One of each kind of file, with documents that repeat over all of them."""
    texts = sentences(60)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[20:50])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    table = pyarrow.table({"text": texts[30:60]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet", row_group_size=6)
    (tmp_path / "d.txt").write_text("\n\n".join(texts))
    names = ("b.jsonl.gz", "c.parquet", "d.txt")
    return [write_jsonl(tmp_path / "a.jsonl", texts[:40]), *(tmp_path / name for name in names)]


@pytest.mark.parametrize("deduplicate", [False, True])
def test_workers_and_shares_do_not_change_a_byte(
    deduplicate: bool, corpora: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inputs, "PART_BYTES", 700)
    chosen = Settings(deduplicate=deduplicate)
    alone = make(corpora, tmp_path / "alone", settings=chosen)
    assert make(corpora, tmp_path / "three", settings=chosen, workers=3) == alone
    make_shares(corpora, tmp_path / "array", (3, 1, 2), chosen)
    assert not [name for name in shard_bytes(tmp_path / "array" / "a") if name.endswith("idx")]
    prepare.merge(tmp_path / "array" / "a")
    assert shard_bytes(tmp_path / "array" / "a") == alone


@given(
    st.lists(st.text(max_size=40), min_size=4, max_size=25),
    st.integers(1, 400),
    st.lists(st.integers(1, 40), max_size=3),
    st.permutations([1, 2, 3]),
    st.booleans(),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_kills_and_shares_do_not_change_a_byte(
    tmp_path: Path,
    texts: list[str],
    part_bytes: int,
    moments: list[int],
    order: list[int],
    deduplicate: bool,
):
    texts = [*texts, "always", "some text"]  # so that there is something on both sides
    jsonl = write_jsonl(tmp_path / "here.jsonl", texts)
    chosen = Settings(deduplicate=deduplicate)
    for folder in ("whole", "killed", "array"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    whole = make([jsonl], tmp_path / "whole", settings=chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", part_bytes)
        for moment in moments:
            killed_at(moment, lambda: make([jsonl], tmp_path / "killed", settings=chosen))
        assert make([jsonl], tmp_path / "killed", settings=chosen) == whole
        make_shares([jsonl], tmp_path / "array", order, chosen)
        prepare.merge(tmp_path / "array" / "a")
        assert shard_bytes(tmp_path / "array" / "a") == whole


def killed_at(moment: int, work) -> int:
    def wrapped() -> None:
        killer = KilledAtCall(moment)
        for owner, name in (
            (parts.PartWriter, "append"),
            (parts.PartWriter, "finish"),
            (os, "replace"),
            (os, "fsync"),
            (shard_writer.ShardWriter, "append"),
            (shutil, "rmtree"),
        ):
            killer.wrap(owner, name)
        work()

    return run_forked(wrapped)


def test_finished_parts_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "PART_BYTES", 500)
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(40))
    assert killed_at(30, lambda: make([jsonl], tmp_path / "out")) == -9
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.part")}
    assert len(kept) > 3
    made: list[int] = []
    original = make_part.read_part
    monkeypatch.setattr(
        make_part,
        "read_part",
        lambda part, *rest: made.append(part.number) or original(part, *rest),
    )
    whole = make([jsonl], tmp_path / "out")
    names = {int(path.stem.partition("-")[2]) for path in kept}
    assert names.isdisjoint(made)
    assert len(made) + len(kept) == len(list(inputs.parts_of(str(jsonl), ["text"])))
    assert make([jsonl], tmp_path / "again") == whole


@pytest.mark.parametrize("change", ["input", "tokenizer", "settings", "damage", "part"])
def test_part_of_anything_else_is_made_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inputs, "PART_BYTES", 500)
    texts = sentences(40)
    jsonl = write_jsonl(tmp_path / "here.jsonl", texts)
    assert killed_at(40, lambda: make([jsonl], tmp_path / "out")) == -9
    chosen = Settings()
    if change == "input":
        texts[0] = texts[0].replace("0:", "9:")  # of the same length
        write_jsonl(jsonl, texts)
    elif change == "tokenizer":
        monkeypatch.setattr(ByteTokenizer, "fingerprint", "bytes-2")
    elif change == "settings":
        chosen = Settings(deduplicate=True)
    elif change == "part":
        monkeypatch.setattr(inputs, "PART_BYTES", 800)
        monkeypatch.setattr("data_pipeline.preparation.plan.PART_BYTES", 800)
    else:
        for path in (tmp_path / "out").rglob("*.part"):
            path.write_bytes(path.read_bytes()[:-20])
    expected = make([jsonl], tmp_path / "fresh", settings=chosen)
    assert make([jsonl], tmp_path / "out", settings=chosen) == expected


def test_leave_to_skip_bad_records_does_not_make_good_parts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inputs, "PART_BYTES", 500)
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(40))
    lines = jsonl.read_text().splitlines(keepends=True)
    jsonl.write_text("".join([*lines[:30], "{broken\n", *lines[30:]]))
    with pytest.raises(DataError, match=r"here.jsonl:31: not a JSON record"):
        make([jsonl], tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.part"))) > 3
    made: list[int] = []
    original = make_part.read_part
    monkeypatch.setattr(
        make_part,
        "read_part",
        lambda part, *rest: made.append(part.number) or original(part, *rest),
    )
    skipping = Settings(skip_bad_records=True)
    make([jsonl], tmp_path / "out", settings=skipping)
    assert 0 not in made
    done = prepare.prepare([str(jsonl)], tmp_path / "b", ByteTokenizer(), 0.2, skipping)
    assert (done.num_bad_records, done.first_bad_record.partition(" ")[0]) == (1, f"{jsonl}:31:")


def test_first_mistake_in_the_order_of_the_input_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inputs, "PART_BYTES", 200)
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(40))
    lines = jsonl.read_text().splitlines(keepends=True)
    lines[12] = lines[14] = lines[30] = "{broken\n"
    jsonl.write_text("".join(lines))
    for workers in (1, 3):
        with pytest.raises(DataError, match=r"here.jsonl:13: not a JSON record"):
            make([jsonl], tmp_path / "out", workers=workers)


def test_merge_says_which_tasks_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"no parts to merge.*--part 1/8"):
        prepare.merge(tmp_path / "a")
    monkeypatch.setattr(inputs, "PART_BYTES", 300)
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(40))
    for index in (1, 3):
        share = Share(index, 4)
        prepare.prepare_share([str(jsonl)], tmp_path / "a", ByteTokenizer(), 0.2, Settings(), share)
    with pytest.raises(
        DataError, match=r"parts of .*here.jsonl are missing.*--part 2/4, --part 4/4"
    ):
        prepare.merge(tmp_path / "a")
    (tmp_path / "a.parts" / "0000-0000002.part").write_bytes(b"half")
    with pytest.raises(DataError, match=r"--part 2/4, --part 3/4, --part 4/4"):
        prepare.merge(tmp_path / "a")


_SMALL_PARTS = """
import os, sys
from data_pipeline.preparation import inputs, workers
from data_pipeline.storage.shard_writer import ShardWriter
from tests.helpers.killing import KilledAtCall
inputs.PART_BYTES = 4000
call, number = sys.argv.pop(1).split(":")
owner = {"answer": workers._Worker, "append": ShardWriter, "replace": os}[call]
KilledAtCall(int(number)).wrap(owner, call)
from data_pipeline.__main__ import cli
sys.exit(cli(sys.argv[1:]))
"""
_NEVER = "answer:0"
# While parts are made, of which there are more than a hundred; while they are joined; while the shards are published.
_KILLS = ("answer:1", "answer:2", "answer:20", "answer:40", "append:1", "append:60", "append:200")
_KILLS += ("replace:1", "replace:4", "replace:7")


def test_killed_ten_times_the_same_command_gives_the_same_shards(tmp_path: Path):
    """The command as typed, with real workers, which die with it."""
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(4000))
    words = ["prepare", str(jsonl), "--tokenizer", "bytes", "--workers", "2", "--dedup"]

    def ended(folder: str, kill: str) -> int:
        output = ["--output", str(tmp_path / folder / "a")]
        process = subprocess.Popen(
            [sys.executable, "-c", _SMALL_PARTS, kill, *words, *output],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        # Its workers write to the same pipe: this comes to an end once they are gone, too.
        process.communicate(timeout=120)
        return process.returncode

    assert ended("whole", _NEVER) == 0
    for kill in _KILLS:
        assert ended("killed", kill) == -signal.SIGKILL, kill
    assert ended("killed", _NEVER) == 0
    assert shard_bytes(tmp_path / "killed" / "a") == shard_bytes(tmp_path / "whole" / "a")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"inputs": []}', "is damaged"),
        ('{"format_version": 1, "settings": {}}', "is damaged"),
        ('{"format_version": 99}', "has format version 99; this program reads up to 1"),
    ],
)
def test_plan_that_cannot_be_read_is_a_message(content: str, said: str, tmp_path: Path):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(DataError, match=said):
        PreparationPlan.read(tmp_path / "plan.json", tmp_path / "a")
