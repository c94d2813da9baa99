"""The data commands as a user types them: what they print, and the one message of every mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.terminal import visible
from data_pipeline import __main__ as commands
from data_pipeline.storage.shards import open_stream
from tests.helpers.places import ROOT
from tests.helpers.texts import sentences, shard_bytes

LOOKING = ("show", "stats", "verify")


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in sentences(300)))
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = commands.cli([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_text_becomes_tokenizer_shards_and_a_readable_sample(jsonl: Path, tmp_path: Path, capsys):
    out = tmp_path / "made"
    tokenizer = out / "tokenizer.json"
    code, said, _ = run(
        capsys, "train-tokenizer", jsonl, "--output", tokenizer, "--vocab-size", 300
    )
    assert code == 0
    assert (
        said
        == f"{tokenizer}: 300 tokens. Use it: --tokenizer hf:{tokenizer}, or data.tokenizer=hf:{tokenizer}\n"
    )
    code, said, _ = run(
        capsys, "prepare", jsonl, "--output", out / "a", "--tokenizer", f"hf:{tokenizer}"
    )
    assert code == 0
    train, valid = (open_stream(str(out / name)) for name in ("a", "a.valid"))
    assert train.num_documents + valid.num_documents == 300
    described, *lines = said.splitlines()
    assert described.startswith(f"Tokenizer hf:{tokenizer}: 300 tokens; [MASK] 0, [gMASK] 1, ")
    assert lines == [
        f"{out}/a: {train.num_documents} documents, {len(train):,} tokens",
        f"{out}/a.valid: held out, {valid.num_documents} documents, {len(valid):,} tokens "
        "(those whose hash, from 0 to 1, is below 0.05)",
        f"Train on it: python -m train run.name=a 'data.paths=[{out}/a]' model.vocab_size=300",
    ]
    tokenizer.unlink()  # the shards have their own copy
    for objective, marker in (("mask", "[MASK]"), ("gmask", "[gMASK]")):
        code, said, _ = run(capsys, "show", out / "a", "--index", 3, "--objective", objective)
        assert code == 0
        assert marker in said.splitlines()[2]
    assert run(capsys, "verify", out / "a")[:2] == (
        0,
        f"{out}/a: whole, {train.num_documents} documents, {len(train):,} tokens\n"
        f"{out}/a.valid: whole, {valid.num_documents} documents, {len(valid):,} tokens\n",
    )


def test_several_inputs_become_one_shard_in_their_order(jsonl: Path, tmp_path: Path, capsys):
    (tmp_path / "more.txt").write_text("one more text at the end")
    run(
        capsys,
        *("prepare", jsonl, tmp_path / "more.txt", "--output", tmp_path / "a"),
        *("--tokenizer", "bytes", "--valid-fraction", 0),
    )
    stream = open_stream(str(tmp_path / "a"))
    stored = stream.read(0, len(stream)).tolist()
    expected = [*sentences(300), "one more text at the end"]
    assert stored == [token for text in expected for token in (*text.encode(), 260)]


def test_bad_records_stop_or_are_skipped_and_counted(jsonl: Path, tmp_path: Path, capsys):
    with jsonl.open("a") as file:
        file.write('not json\n{"body": 1}\n{"text": ""}\n')
    words = ("prepare", jsonl, "--output", tmp_path / "out" / "a", "--tokenizer", "bytes")
    code, said, error = run(capsys, *words)
    assert (code, said) == (2, "")
    assert error.startswith(f"{jsonl}:301: not a JSON record")
    assert shard_bytes(tmp_path / "out" / "a") == {}
    code, said, _ = run(capsys, *words, "--on-error", "skip")
    assert code == 0
    assert "Left out: 1 documents (1 empty)\n" in said
    assert f"Skipped: 2 records, the first: {jsonl}:301: not a JSON record" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prepare {d}/gone.jsonl --output {d}/a --tokenizer bytes", "gone.jsonl does not exist"),
        ("prepare {d}/corpus.jsonl --output {d}/a --tokenizer gpt2", "hf:FILE, sp:FILE"),
        ("prepare {d}/corpus.jsonl --output {d}/a --tokenizer hf:{d}/gone", "gone does not exist"),
        (
            "prepare {d}/corpus.jsonl --output {d}/a --tokenizer bytes --text-key x",
            'If "text" is the text, type --text-key text.',
        ),
        (
            "prepare {d}/corpus.jsonl --output {d}/a --tokenizer bytes --prompt-key q --target-key a",
            "type --prompt-key text.",
        ),
        ("prepare {d}/corpus.jsonl --output {d}/corpus.jsonl/a --tokenizer bytes", "--output"),
        (
            "prepare {d}/corpus.jsonl --output {d}/a --tokenizer bytes --valid-fraction 1",
            "--valid-fraction 0.05",
        ),
        ("train-tokenizer {d}/corpus.jsonl --output {d}/t --vocab-size 10", "262 or more"),
        ("train-tokenizer {d}/empty.txt --output {d}/t --vocab-size 300", "no text"),
        *((f"{word} {{d}}/gone", "no run or token shard named") for word in LOOKING),
        *((f"{word} {{d}}/kepd", "Did you mean {d}/kept?") for word in LOOKING),
    ],
)
def test_mistakes_end_with_one_message(
    words: str, said: str, jsonl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "kept.idx").touch()
    before = shard_bytes(tmp_path / "a")
    code, out, error = run(capsys, *words.format(d=tmp_path).split())
    assert (code, out) == (2, "")
    assert said.format(d=tmp_path) in error
    assert error.count("\n") == 1
    assert shard_bytes(tmp_path / "a") == before


def test_control_characters_of_data_and_names_are_shown_as_escapes(tmp_path: Path, capsys):
    folder = tmp_path / "red\x1b[31m"
    folder.mkdir()
    corpus = folder / "corpus\u202e.jsonl"
    good = "".join(json.dumps({"text": text}) + "\n" for text in sentences(20))
    corpus.write_text(
        '{"\x1b]0;title\x07": 1}\n'.replace("\x1b", "\\u001b").replace("\x07", "\\u0007") + good
    )
    words = ("prepare", corpus, "--output", folder / "a", "--tokenizer", "bytes")
    code, out, error = run(capsys, *words)
    assert (code, out) == (2, "")
    assert (
        r"the record has: \x1b]0;title\x07" in error
        and r"red\x1b[31m/corpus\u202e.jsonl:1" in error
    )
    said = "".join(run(capsys, *words, "--on-error", "skip")[1:])
    assert "Skipped: 1 records" in said
    said += "".join(run(capsys, "verify", folder / "a")[1:])
    (folder / "a.bin").write_bytes(b"")
    said += "".join(run(capsys, "verify", folder / "a")[1:])
    assert "a.bin" in said
    assert said == visible(said) and error == visible(error)


def test_prepared_twice_is_done_once(jsonl: Path, tmp_path: Path, capsys):
    out = tmp_path / "a"
    words = ["prepare", jsonl, "--output", out, "--tokenizer", "bytes"]

    def prepared(*more: object) -> tuple[str, int]:
        code, said, error = run(capsys, *words, *more)
        assert (code, error) == (0, "")
        return said, (tmp_path / "a.bin").stat().st_ino

    first, made = prepared()
    assert "Train on it" in first
    before = shard_bytes(out)
    said, same = prepared()
    assert (said.count("\n"), same) == (1, made)
    assert said.startswith(f"{out} was prepared from this before, and is complete (")
    assert said.endswith("there is nothing to do.\n")
    assert prepared("--workers", 1) == (said, made)  # no matter who does it

    def is_made_anew(*more: object) -> bool:
        nonlocal made
        said, now = prepared(*more)
        was, made = made, now
        return now != was and "it is replaced" in said and "Train on it" in said

    assert is_made_anew("--min-characters", 5) and is_made_anew("--valid-fraction", 0.1)
    assert is_made_anew() and shard_bytes(out) == before
    damaged = bytearray((tmp_path / "a.valid.bin").read_bytes())
    damaged[3] ^= 1
    (tmp_path / "a.valid.bin").write_bytes(damaged)
    assert is_made_anew() and shard_bytes(out) == before, "what is damaged is repaired"
    with jsonl.open("a") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    assert is_made_anew() and shard_bytes(out) != before


def test_mistake_has_no_traceback_as_a_process(tmp_path: Path):
    command = [sys.executable, "-m", "data_pipeline", "verify", str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("There is no run or token shard named ")
