"""From documents to shards: what is held out, and what is left after a kill or on a full disk."""

import errno
import os
import random
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation import join, parts
from data_pipeline.preparation.join import Prepared
from data_pipeline.preparation.make_part import place
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.train_tokenizer import train_tokenizer
from data_pipeline.storage import shard_writer
from data_pipeline.storage.shards import is_shard, open_stream
from data_pipeline.storage.verify import problems
from data_pipeline.tokenizer import ByteTokenizer, load_tokenizer
from tests.helpers.killing import KilledAtCall, run_forked
from tests.helpers.texts import sentences, shard_bytes, write_jsonl


def run(folder: Path, texts: Sequence[str], valid_fraction: float = 0.1, **options) -> Prepared:
    folder.mkdir(exist_ok=True)
    jsonl = write_jsonl(folder.parent / "here.jsonl", texts)
    # Shards keep what their text was by size and time: one text has one time here, as a file that is left alone.
    os.utime(jsonl, (0, zlib.crc32(jsonl.read_bytes())))
    return prepare([str(jsonl)], folder / "a", ByteTokenizer(), valid_fraction, **options)


def stored(prefix: Path) -> list[str]:
    """The documents of a shard of bytes."""
    stream = open_stream(str(prefix))
    text = load_tokenizer("bytes").decode(stream.read(0, len(stream)).tolist())
    assert text.endswith("<eos>") or not text
    return text.split("<eos>")[:-1]


def test_every_document_is_on_one_side_whole_and_in_order(tmp_path: Path):
    texts = sentences(300)
    done = run(tmp_path, texts)
    train, valid = stored(tmp_path / "a"), stored(tmp_path / "a.valid")
    assert [text for text in texts if text in set(train)] == train
    assert [text for text in texts if text in set(valid)] == valid
    assert sorted(train + valid) == sorted(texts)
    assert done.valid is not None
    assert (done.train.num_documents, done.valid.num_documents) == (len(train), len(valid))
    assert problems(str(tmp_path / "a")) == problems(str(tmp_path / "a.valid")) == []


def test_held_out_share_is_as_asked(tmp_path: Path):
    done = run(tmp_path, sentences(2000), 0.1)
    assert done.valid is not None
    # 200 expected with a standard deviation of 13.4; the texts are fixed.
    assert 150 < done.valid.num_documents < 250


@given(st.randoms(use_true_random=False), st.integers(2, 60))
@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_held_out_documents_do_not_depend_on_the_order(
    tmp_path: Path, shuffler: random.Random, count: int
):
    texts = sentences(count)
    run(tmp_path / "ordered", texts)
    shuffled = texts * 2  # and the same text twice never lands on both sides
    shuffler.shuffle(shuffled)
    run(tmp_path / "shuffled", shuffled)
    held_out = set(stored(tmp_path / "ordered" / "a.valid"))
    assert held_out == set(stored(tmp_path / "shuffled" / "a.valid"))
    assert held_out.isdisjoint(stored(tmp_path / "shuffled" / "a"))
    assert 0 < len(held_out) < count


def test_held_out_key_never_changes():
    # Written down once: another key would mix the held-out documents of old shards into new ones.
    assert place("the cat sat on a red mat") / 2**64 == 0.40813050153569574


def test_larger_share_holds_out_the_same_documents_and_more(tmp_path: Path):
    texts = sentences(1200)
    run(tmp_path / "few", texts, 0.02)
    run(tmp_path / "many", texts, 0.2)
    few, many = (set(stored(tmp_path / name / "a.valid")) for name in ("few", "many"))
    assert few < many


def test_nothing_is_held_out_of_a_share_of_zero(tmp_path: Path):
    run(tmp_path, sentences(20), 0.5)
    done = run(tmp_path, sentences(20), 0.0)
    assert done.valid is None
    assert stored(tmp_path / "a") == sentences(20)
    # What an earlier preparation held out is now trained on: it must not pass for held out.
    assert not is_shard(str(tmp_path / "a.valid"))


def test_empty_documents_are_left_out_and_counted(tmp_path: Path):
    done = run(tmp_path, ["", *sentences(5), " \n\t", "\u3000"], 0.0)
    assert stored(tmp_path / "a") == sentences(5)
    assert done.left_out == {"empty": 3}


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_corpus_without_text_is_refused(texts: list[str], tmp_path: Path):
    with pytest.raises(
        DataError,
        match=rf"here.jsonl has no text \(({len(texts)} documents left out: empty|0 documents)",
    ):
        run(tmp_path / "out", texts)
    assert not is_shard(str(tmp_path / "out" / "a"))


@pytest.mark.parametrize("texts", [["one"], ["same", "same"]])
def test_single_document_cannot_be_split(texts: list[str], tmp_path: Path):
    with pytest.raises(DataError, match="only one document.*data.valid_paths"):
        run(tmp_path, texts)
    assert run(tmp_path, texts, 0.0).train.num_documents == len(texts)


def test_share_that_holds_nothing_out_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no document was held out"):
        run(tmp_path, sentences(1100), 1e-9)
    assert not is_shard(str(tmp_path / "a"))
    assert run(tmp_path, sentences(1100), 0.05).valid is not None


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path):
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(800))
    train_tokenizer(sentences(100), tmp_path / "tokenizer.json", 300)
    tokenizer = load_tokenizer(f"hf:{tmp_path / 'tokenizer.json'}")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prepare([str(jsonl)], tmp_path / name / "a", tokenizer, 0.1)
    assert shard_bytes(tmp_path / "one" / "a") == shard_bytes(tmp_path / "two" / "a")
    assert set(shard_bytes(tmp_path / "one" / "a")) == {
        *("a.bin", "a.idx", "a.json", "a.valid.bin", "a.valid.idx", "a.valid.json"),
        *("a.tokenizer/tokenizer.json", "a.tokenizer/spec.txt"),
    }
    info = open_stream(str(tmp_path / "one" / "a")).info
    assert info is not None
    assert info.tokenizer == "hf:a.tokenizer/tokenizer.json"


@pytest.mark.parametrize("has_old_shard", [False, True])
def test_kill_at_any_moment_leaves_a_whole_shard_or_none(has_old_shard: bool, tmp_path: Path):
    run(tmp_path / "old", sentences(4, seed=1))
    run(tmp_path / "new", sentences(3))
    old, new = (shard_bytes(tmp_path / name / "a") for name in ("old", "new"))

    def prepare_and_die(folder: Path, moment: int) -> int:
        def work() -> None:
            killer = KilledAtCall(moment)
            for name in ("replace", "fsync"):
                killer.wrap(os, name)
            for name in ("unlink", "write_text", "mkdir"):
                killer.wrap(Path, name)
            for owner in (parts.PartWriter, shard_writer.ShardWriter):
                killer.wrap(owner, "append")
            killer.wrap(shutil, "rmtree")
            run(folder, sentences(3))

        return run_forked(work)

    code, moment = -9, 0
    while code == -9:
        moment += 1
        folder = tmp_path / f"killed-{moment}"
        folder.mkdir()
        if has_old_shard:
            run(folder, sentences(4, seed=1))
        code = prepare_and_die(folder, moment)
        left = shard_bytes(folder / "a")
        for prefix in ("a", "a.valid"):
            assert not is_shard(str(folder / prefix)) or problems(str(folder / prefix)) == []
        if is_shard(str(folder / "a")):  # then what is held out belongs to it
            names = ("a.bin", "a.idx", "a.json", "a.valid.bin", "a.valid.idx", "a.valid.json")
            assert [left[name] for name in names] in [
                [whole[name] for name in names] for whole in (old, new)
            ]
        run(folder, sentences(3))
        assert shard_bytes(folder / "a") == new, moment
    assert code == 0
    assert moment > 20


def test_full_disk_spares_what_was_there_and_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(tmp_path, sentences(8, seed=1))
    before = shard_bytes(tmp_path / "a")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for owner, name in (
        (parts.PartWriter, "append"),
        (os, "fsync"),
        (shard_writer.ShardWriter, "append"),
        (shard_writer.ShardWriter, "finish"),
        (join, "keep_tokenizer"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(
                DataError, match=r"/a cannot be written \(No space left on device\)"
            ):
                run(tmp_path, sentences(12))
        left = shard_bytes(tmp_path / "a")
        assert {name: left[name] for name in before} == before
        assert not [name for name in left if name.endswith((".bin.part", ".idx.part", ".making"))]
    run(tmp_path, sentences(12))
    assert stored(tmp_path / "a.valid")
    assert set(shard_bytes(tmp_path / "a")) == set(before)


@pytest.mark.parametrize("change", ["gone", "other"])
def test_lost_or_changed_tokenizer_file_spares_what_was_there(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    jsonl, file = write_jsonl(tmp_path / "here.jsonl", sentences(50)), tmp_path / "t" / "t.json"
    file.parent.mkdir()
    train_tokenizer(sentences(200), file, 300)
    (tmp_path / "out").mkdir()
    work = ([str(jsonl)], tmp_path / "out" / "a", load_tokenizer(f"hf:{file}"), 0.1)
    prepare(*work)
    before = shard_bytes(tmp_path / "out" / "a")
    finish = shard_writer.ShardWriter.finish

    def finish_and_change(self: shard_writer.ShardWriter, *counts: Any):
        if change == "gone":
            file.unlink(missing_ok=True)
        else:
            train_tokenizer(sentences(200, seed=1), file, 300)
        return finish(self, *counts)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.ShardWriter, "finish", finish_and_change)
        said = {"gone": "does not exist", "other": "has changed since"}[change]
        with pytest.raises(DataError, match=said):
            prepare(*work)
    left = shard_bytes(tmp_path / "out" / "a")
    assert {name: left[name] for name in before} == before
    assert not Path(f"{work[1]}.tokenizer.making").exists()


def test_bad_record_in_the_middle_of_the_input_spares_what_was_there(tmp_path: Path):
    run(tmp_path / "out", sentences(8, seed=1))
    before = shard_bytes(tmp_path / "out" / "a")
    jsonl = write_jsonl(tmp_path / "here.jsonl", sentences(2000))
    with jsonl.open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"here.jsonl:2001: not a JSON record"):
        prepare([str(jsonl)], tmp_path / "out" / "a", ByteTokenizer(), 0.1)
    assert shard_bytes(tmp_path / "out" / "a") == before
