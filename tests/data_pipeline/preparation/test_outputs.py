"""Nothing that prepare has not made is replaced or removed, wherever it lies in the way."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import DataError
from data_pipeline.__main__ import cli
from data_pipeline.preparation import make_part, prepare
from data_pipeline.preparation.prepare import prepare as prepare_text
from data_pipeline.storage.shards import is_shard
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.texts import sentences, shard_bytes, write_jsonl


def everything(folder: Path) -> dict[str, bytes]:
    return shard_bytes(folder / "any")


def run(folder: Path, *words: object) -> int:
    return cli(
        [
            *("prepare", *map(str, words or [folder / "here.jsonl"])),
            *("--output", str(folder / "a"), "--tokenizer", "bytes"),
        ]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "here.jsonl", sentences(40))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"license": "CC0"}'),
        ("a.json", "not JSON"),
        ("a.valid.json", "[]"),
        ("a.bin", "of a Megatron corpus"),
        ("a.idx", "of a Megatron corpus"),
        ("a.valid.bin", "of somebody else"),
        ("a.tokenizer", "a file"),
        ("a.tokenizer/spec.txt", "what the tokenizer must do\n1. everything"),
        ("a.json/inside", "a folder"),
        ("a.parts", "a file"),
        ("a.parts/part1.jsonl", '{"text": "mine"}'),
        ("a.parts/plan.json", '{"plan": "mine"}'),
        ("a.parts/lock", "mine"),
        ("a.parts/0000-0000000.part/inside", "a folder"),
    ],
)
def test_file_that_prepare_has_not_made_stays(
    name: str, content: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    before = everything(folder)
    assert run(folder) == 2
    said = capsys.readouterr().err
    assert f"{folder / name}".startswith(said.split()[0])
    assert "Move " in said and "--output PREFIX" in said and said.count("\n") == 1
    assert everything(folder) == before


def test_neighbours_of_the_output_stay(folder: Path):
    names = (
        *("a.jsonl", "a.bin.part", "a.valid.jsonl", "a.tokenizer.making/mine", "a.partsmore/mine"),
        "a.tokenizer/README.md",
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert run(folder) == run(folder) == 0  # the second replaces the shards of the first
    assert all((folder / name).read_text() == name for name in names)
    assert is_shard(str(folder / "a")) and not (folder / "a.parts").exists()


def test_another_tokenizer_of_the_same_name_stays(folder: Path, capsys: pytest.CaptureFixture[str]):
    make = ["train-tokenizer", str(folder / "here.jsonl"), "--vocab-size"]
    for name, size in (("ours/t.json", "300"), ("a.tokenizer/t.json", "280")):
        assert cli([*make, size, "--output", str(folder / name)]) == 0
    before = everything(folder)
    words = ["prepare", str(folder / "here.jsonl"), "--output", str(folder / "a"), "--tokenizer"]
    assert cli([*words, f"hf:{folder / 'ours' / 't.json'}"]) == 2
    assert f"{folder}/a.tokenizer/t.json was not made by prepare" in capsys.readouterr().err
    assert everything(folder) == before
    assert cli([*words, f"hf:{folder / 'a.tokenizer' / 't.json'}"]) == 0
    assert everything(folder)["a.tokenizer/t.json"] == before["a.tokenizer/t.json"]
    # A tokenizer that is named by spec.txt is ours: it goes with the shards that were made with it.
    assert cli([*words, f"hf:{folder / 'ours' / 't.json'}"]) == 0


@pytest.mark.parametrize("link", [os.symlink, os.link, shutil.move])
def test_input_is_not_replaced_by_the_output(
    link: Callable[[Path, Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(folder / "here.jsonl", folder / "a.json")
    link(folder / "a.json", folder / "x.jsonl")
    if link is shutil.move:
        os.symlink(folder / "x.jsonl", folder / "a.json")
    before = everything(folder)
    assert run(folder, folder / "x.jsonl") == 2
    assert "x.jsonl is" in (said := capsys.readouterr().err) and "would be replaced" in said
    assert everything(folder) == before


@pytest.mark.parametrize("name", ["a.parts/x.jsonl", "a.parts"])
def test_input_in_a_folder_of_the_output_is_refused(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    path = folder / name
    target = path / "x.jsonl" if path.suffix == ".parts" else path
    target.parent.mkdir()
    shutil.copy(folder / "here.jsonl", target)
    before = everything(folder)
    assert run(folder, path) == 2
    assert "which prepare makes and removes" in capsys.readouterr().err
    assert everything(folder) == before


def test_merge_and_job_arrays_refuse_the_same(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "a.bin").write_text("mine")
    assert run(folder, folder / "here.jsonl", "--part", "1/1") == 2
    (folder / "a.bin").rename(folder / "b.bin")
    assert run(folder, folder / "here.jsonl", "--part", "1/1") == 0
    (folder / "b.bin").rename(folder / "a.bin")
    before = everything(folder)
    assert cli(["merge", str(folder / "a")]) == 2
    assert "a.bin was not made by prepare" in capsys.readouterr().err
    assert everything(folder) == before
    (folder / "a.bin").unlink()
    assert cli(["merge", str(folder / "a")]) == 0


def test_shard_that_was_prepared_by_itself_is_no_held_out_one(folder: Path):
    words = ["prepare", str(folder / "here.jsonl"), "--tokenizer", "bytes", "--output"]
    assert cli([*words, str(folder / "a.valid"), "--valid-fraction", "0"]) == 0
    before = everything(folder)
    assert run(folder) == 2
    assert everything(folder) == before
    assert cli([*words, str(folder / "b")]) == cli([*words, str(folder / "b")]) == 0


def test_what_somebody_puts_there_while_prepare_works_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    original = prepare.join

    def join_later(*arguments: object) -> object:
        (folder / "a.parts" / "mine.jsonl").write_text("mine")
        return original(*arguments)

    monkeypatch.setattr(prepare, "join", join_later)
    assert run(folder) == 0
    assert [path.name for path in (folder / "a.parts").iterdir()] == ["mine.jsonl"]
    assert run(folder) == 2
    monkeypatch.setattr(
        prepare, "join", lambda *_: (folder / "b.json").write_text("mine") and original(*_)
    )
    words = [str(folder / "here.jsonl"), "--tokenizer", "bytes", "--output", str(folder / "b")]
    assert cli(["prepare", *words]) == 2
    assert (folder / "b.json").read_text() == "mine"


def test_folder_that_a_kill_or_a_full_disk_left_is_taken_again(folder: Path):
    (folder / "a.parts").mkdir()
    assert run(folder) == 0
    (folder / "a.parts").mkdir()
    (folder / "a.parts" / "lock").touch()
    assert run(folder) == 0
    assert not (folder / "a.parts").exists()


def test_input_that_changes_while_it_is_read_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    original = make_part.read_part

    def read_while_it_grows(*arguments: object) -> object:
        with (folder / "here.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(make_part, "read_part", read_while_it_grows)
        with pytest.raises(DataError, match=r"here.jsonl has changed while it was read"):
            prepare_text([str(folder / "here.jsonl")], folder / "a", ByteTokenizer(), 0.1)
    assert not is_shard(str(folder / "a"))
    assert run(folder) == 0
    info = json.loads((folder / "a.json").read_text())
    assert info["num_documents"] > 30


def test_mistyped_input_leaves_no_folder_and_no_file_is_replaced_by_a_tokenizer(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    words = [str(folder / "gone.jsonl"), "--tokenizer", "bytes"]
    assert cli(["prepare", *words, "--output", str(folder / "new" / "a")]) == 2
    assert not (folder / "new").exists()
    corpus = str(folder / "here.jsonl")
    before = everything(folder)
    assert cli(["train-tokenizer", corpus, "--output", corpus, "--vocab-size", "300"]) == 2
    assert "here.jsonl exists, and would be replaced" in capsys.readouterr().err
    assert everything(folder) == before
    assert cli(["prepare", corpus, "--tokenizer", "bytes", "--output", f"{folder}/.."]) == 2
    assert "is not a PREFIX" in capsys.readouterr().err


def test_input_named_twice_is_said(folder: Path, capsys: pytest.CaptureFixture[str]):
    corpus = folder / "here.jsonl"
    again = folder / ".." / folder.name / "here.jsonl"
    assert run(folder, corpus, again, "--workers", 1) == 0
    assert f"{corpus} is named 2 times" in capsys.readouterr().out


def test_worker_that_cannot_be_started_is_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("data_pipeline.preparation.workers.subprocess.Popen", refuse)
    inputs = [str(write_jsonl(folder / f"{name}.jsonl", sentences(4))) for name in "xy"]
    with pytest.raises(DataError, match=r"worker cannot be started .*--workers 1"):
        prepare_text(inputs, folder / "a", ByteTokenizer(), 0.1, workers=2)
