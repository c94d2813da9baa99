"""Corpora of every kind, and everything that can be wrong with one."""

import gzip
import json
import os
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation import inputs
from data_pipeline.preparation.documents import Skipped
from data_pipeline.preparation.inputs import parts_of, read_documents, read_part
from tests.helpers.killing import run_forked

TEXTS = ["first document", "zweites: größer", "第三", "a\nb"]


def jsonl(texts: list[str], key: str = "text") -> bytes:
    return b"".join(json.dumps({key: text, "id": 7}).encode() + b"\n" for text in texts)


def read(path: Path, text_key: str = "text", **options) -> list[str]:
    return [text for (text,) in read_documents(str(path), [text_key], **options)]


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        ("jsonl", bytes),
        ("jsonl.gz", gzip.compress),
        ("jsonl.zst", zstandard.compress),
    ],
)
def test_jsonl_gives_one_document_a_line(ending: str, pack, tmp_path: Path):
    path = tmp_path / f"corpus.{ending}"
    path.write_bytes(pack(jsonl(TEXTS)))
    assert read(path) == TEXTS


def test_files_that_were_joined_are_read_to_their_end(tmp_path: Path):
    for ending, pack in (("gz", gzip.compress), ("zst", zstandard.compress)):
        path = tmp_path / f"joined.jsonl.{ending}"
        path.write_bytes(pack(jsonl(TEXTS[:2])) + pack(jsonl(TEXTS[2:])))
        assert read(path) == TEXTS


def test_byte_order_mark_and_blank_lines_are_no_text(tmp_path: Path):
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + jsonl(TEXTS[:2]).replace(b"\n", b"\r\n\r\n"))
    assert read(path) == TEXTS[:2]


def test_byte_order_marks_of_joined_files_are_no_text(tmp_path: Path):
    mark = b"\xef\xbb\xbf"
    path = tmp_path / "joined.jsonl"
    path.write_bytes(mark + jsonl(TEXTS[:2]) + mark + mark + jsonl(TEXTS[2:]))
    assert read(path) == TEXTS
    (tmp_path / "joined.txt").write_bytes(mark + b"one\n" + mark + b"two")
    assert read(tmp_path / "joined.txt") == ["one\ntwo"]


def test_number_of_any_length_beside_the_text_does_no_harm(tmp_path: Path):
    path = tmp_path / "big.jsonl"
    path.write_bytes(b'{"text": "one", "id": ' + b"9" * 5000 + b"}\n" + jsonl(TEXTS))
    assert read(path) == ["one", *TEXTS]


def test_last_ending_tells_the_format(tmp_path: Path):
    for name in ("notes.jsonl.txt", "NOTES.TXT"):
        (tmp_path / name).write_text("{no record}")
        assert read(tmp_path / name) == ["{no record}"]
    for name in ("qa.txt.jsonl", "qa.JSONL"):
        (tmp_path / name).write_bytes(jsonl(TEXTS))
        assert read(tmp_path / name) == TEXTS
    (tmp_path / "qa.txt.jsonl").write_text('{"prompt": "p", "target": "t"}\n')
    path = str(tmp_path / "qa.txt.jsonl")
    assert list(read_documents(path, ["prompt", "target"])) == [("p", "t")]


def test_bytes_are_read_as_utf8(tmp_path: Path):
    path = tmp_path / "bytes.parquet"
    rows = [text.encode() for text in TEXTS]
    pyarrow.parquet.write_table(pyarrow.table({"text": [*rows, b"caf\xe9"]}), path)
    skipped = Skipped()
    assert read(path, on_error=skipped) == TEXTS
    assert 'row 5: field "text" is not UTF-8 (its byte 3 is 0xe9)' in skipped.first


def test_message_names_a_few_fields_of_many(tmp_path: Path):
    path = tmp_path / "wide.jsonl"
    path.write_text(json.dumps({f"field {number:0100}": 1 for number in range(1000)}))
    with pytest.raises(DataError, match="and 980 more") as caught:
        read(path)
    assert len(str(caught.value)) < 2500


def test_parquet_gives_one_document_a_row(tmp_path: Path):
    table = pyarrow.table({"id": [1, 2, 3, 4], "content": TEXTS})
    pyarrow.parquet.write_table(table, tmp_path / "corpus.parquet")
    assert read(tmp_path / "corpus.parquet", "content") == TEXTS


def test_data_set_in_a_folder_gives_one_document_a_row(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(jsonl(TEXTS))
    assert read(folder) == TEXTS


def test_plain_text_is_cut_at_blank_lines(tmp_path: Path):
    paragraph = "x" * 900 + "\n\n"
    (tmp_path / "book.txt").write_text(paragraph * 7)
    lengths = [len(text) for text in read(tmp_path / "book.txt")]
    assert lengths == [3 * 900 + 4, 3 * 900 + 4, 900]


def test_plain_text_without_blank_lines_is_cut_at_lines(tmp_path: Path):
    line = "y" * 99 + "\n"
    (tmp_path / "log.txt").write_text(line * 200)
    texts = read(tmp_path / "log.txt")
    assert "\n".join(texts) + "\n" == line * 200
    assert [len(text) for text in texts] == [7999, 7999, 3999]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{not json}", "not a JSON record"),
        (b'{"text": "cut', "not a JSON record"),
        (b"[" * 100_000, "not a JSON record"),
        (
            b'{"body": "x", "id": 1}',
            'no text in field "text" .the record has: body, id.*type data.text_key=body. ',
        ),
        (b'{"title": "x", "body": "longer"}', 'If "body" is the text, type data.text_key=body'),
        (b'{"my body": "x"}', "Name the field with data.text_key=NAME"),
        (b'{"id": 5}', "Name the field with data.text_key=NAME"),
        (b'{"text": null, "body": "x"}', "its value is null.*type data.text_key=body"),
        (b'{"text": 5}', 'no text in field "text": its value is the number 5.*--on-error skip'),
        (b'{"text": null}', 'no text in field "text": its value is null.*--on-error skip'),
        (b'{"text": true}', 'no text in field "text": its value is true'),
        (b'{"text": ["a", "b"]}', 'no text in field "text": its value is a list of 2'),
        (b'{"text": {"en": "a"}}', 'no text in field "text": its value is an object .en.'),
        (b'{"text": ' + b"9" * 5000 + b"}", "the number inf"),
        (b'["a", "list"]', 'a list of 2 instead of a record, so there is no field "text"'),
        (b'{"text": "caf\xe9"}', "not UTF-8 .byte 13 of the line is 0xe9.*iconv"),
        (b'{"text": "\\ud83d"}', "half a character"),
    ],
)
def test_bad_line_is_named_or_skipped_and_counted(line: bytes, said: str, tmp_path: Path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(jsonl(TEXTS[:2]) + line + b"\n" + jsonl(TEXTS[2:]))
    with pytest.raises(DataError, match=rf"corpus\.jsonl:3: .*{said}"):
        read(path)
    skipped = Skipped()
    assert read(path, on_error=skipped) == TEXTS
    assert skipped.count == 1
    assert skipped.first.startswith(f"{path}:3: ")


def test_text_that_is_not_utf8_is_named_by_line(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good\n\ncaf\xe9\nmore\n")
    with pytest.raises(DataError, match=r"latin\.txt:3: not UTF-8 .byte 3 of the line is 0xe9"):
        read(path)
    assert read(path, on_error=Skipped()) == ["good\n\nmore"]


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstandard.compress)])
def test_damaged_archives_end_the_reading_and_name_the_line(ending: str, pack, tmp_path: Path):
    packed = pack(jsonl([f"{number} {TEXTS[1]}" for number in range(5000)]))
    path = tmp_path / f"corpus.jsonl.{ending}"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=rf"corpus\.jsonl\.{ending}: cannot be read after line \d+"):
        read(path, on_error=Skipped())
    path.write_bytes(b"this is no archive")
    with pytest.raises(DataError, match=rf"corpus\.jsonl\.{ending}: cannot be read after line 0"):
        read(path)


def test_bad_parquet_is_named(tmp_path: Path):
    path = tmp_path / "corpus.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"corpus\.parquet: cannot be read"):
        read(path)
    pyarrow.parquet.write_table(pyarrow.table({"a": [1], "b": ["x"]}), path)
    with pytest.raises(DataError, match=r'no column "text" .it has: a, b.* data.text_key=b\.'):
        read(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", None, "y"]}), path)
    with pytest.raises(DataError, match=r"corpus\.parquet, row 2: no text"):
        read(path)
    skipped = Skipped()
    assert read(path, on_error=skipped) == ["x", "y"]
    assert skipped.count == 1


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=rf"{tmp_path}/gone.jsonl does not exist"):
        read(tmp_path / "gone.jsonl")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path / "folder.txt")


def test_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="is a pipe or a device"):
        read(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match="is not a path"):
        read(Path("nul\0.jsonl"))


def test_input_that_another_user_keeps_to_himself_is_named(tmp_path: Path):
    """A file, a folder on the way to it, and a folder of a data set."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "corpus.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / "secret.jsonl").write_bytes(jsonl(TEXTS))
    paths = [tmp_path / name for name in ("closed/corpus.jsonl", "secret.jsonl", "closed")]

    def work() -> None:
        for path in (tmp_path / "closed", tmp_path / "secret.jsonl"):
            path.chmod(0)
        if os.getuid() == 0:  # whom no mode keeps out
            os.setgroups([])
            os.setresgid(12345, 12345, 12345)
            os.setresuid(12345, 12345, 12345)
        for path in paths:
            with pytest.raises(DataError, match=rf"{path} cannot be read \(Permission denied\)"):
                read(path)

    assert run_forked(work) == 0
    (tmp_path / "closed").chmod(0o700)


def test_file_of_another_kind_names_the_known_ones(tmp_path: Path):
    (tmp_path / "corpus.csv").write_text("text\nhello\n")
    for name in ("corpus.csv", "gone"):
        with pytest.raises(DataError, match=r"neither a file with one of the endings .jsonl"):
            read(tmp_path / name)


def test_data_set_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the hub is far away\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r'"wikitext" cannot be loaded \(the hub is far away\)'):
        read(Path("wikitext"))


def test_data_set_on_the_hub_is_streamed_with_its_configuration(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def load(*arguments: object, **options: object) -> list[dict[str, object]]:
        calls.append((arguments, options))
        return [{"text": "one"}, {"text": 2}, {"text": "three"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match='wikitext:raw, row 2: no text in field "text"'):
        read(Path("wikitext:raw"))
    assert read(Path("wikitext:raw"), on_error=Skipped()) == ["one", "three"]
    assert calls[0] == (("wikitext", "raw"), {"split": "train", "streaming": True})


ENDINGS = {
    "jsonl": bytes,
    "jsonl.gz": gzip.compress,
    "jsonl.zst": zstandard.compress,
}


@given(
    st.lists(st.text(max_size=30), max_size=30),
    st.integers(1, 200),
    st.sampled_from(sorted(ENDINGS)),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_hold_every_line_once_and_in_order(
    tmp_path: Path, texts: list[str], part_bytes: int, ending: str, has_last_newline: bool
):
    """The same lines in the same parts, whether the file is entered in the middle or unpacked from its beginning."""
    content = b"".join(
        json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts
    )
    content = content if has_last_newline else content.removesuffix(b"\n")
    path = tmp_path / f"corpus.{ending}"
    path.write_bytes(ENDINGS[ending](content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", part_bytes)
        found = {
            part.number: [text for (text,) in read_part(part, ["text"])]
            for part in parts_of(str(path), ["text"])
        }
    assert list(found) == list(range(len(found)))
    assert [text for number in found for text in found[number]] == texts
    start = 0
    for line, text in zip(content.splitlines(keepends=True), texts, strict=True):
        assert text in found[start // part_bytes]
        start += len(line)


@pytest.mark.parametrize("ending", sorted(ENDINGS))
@pytest.mark.parametrize("bad", [1, 7, 40, 99, 100])
def test_line_numbers_are_those_of_the_file_in_every_part(
    ending: str, bad: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inputs, "PART_BYTES", 64)
    lines = [json.dumps({"text": f"number {number}"}).encode() for number in range(1, 101)]
    lines[bad - 1] = b"{broken"
    path = tmp_path / f"corpus.{ending}"
    path.write_bytes(ENDINGS[ending](b"\n".join(lines) + b"\n"))
    with pytest.raises(DataError, match=rf"corpus\.{ending}:{bad}: not a JSON record"):
        read(path)


def test_rows_are_numbered_over_all_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "PART_BYTES", 1)
    texts = [f"text {number}" for number in range(50)]
    path = tmp_path / "corpus.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=7)
    parts = list(parts_of(str(path), ["text"]))
    assert [part.start for part in parts] == list(range(8))
    assert sum(part.read_bytes for part in parts) == path.stat().st_size
    assert read(path) == texts
    texts[36] = None
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=7)
    with pytest.raises(DataError, match=r"corpus\.parquet, row 37: no text"):
        read(path)


def test_rows_of_a_data_set_are_numbered_over_all_parts(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inputs, "PART_BYTES", 10)
    rows = [{"text": f"text {number}"} for number in range(30)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    assert len(list(parts_of("a-set", ["text"]))) == 15
    assert read(Path("a-set")) == [row["text"] for row in rows]
    rows[22] = {"text": None}
    with pytest.raises(DataError, match="a-set, row 23: no text"):
        read(Path("a-set"))


def test_plain_texts_documents_end_with_their_part(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(inputs, "PART_BYTES", 5000)
    line = "y" * 99 + "\n"
    content = (line * 120).encode()
    (tmp_path / "log.txt").write_bytes(content)
    (tmp_path / "log.txt.gz").write_bytes(gzip.compress(content))
    assert [len(text) for text in read(tmp_path / "log.txt")] == [4999, 4999, 1999]
    assert read(tmp_path / "log.txt") == read(tmp_path / "log.txt.gz")


def test_a_document_may_have_several_texts(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "target": "t"}\n{"prompt": "only"}\n')
    skipped = Skipped()
    assert list(read_documents(str(path), ["prompt", "target"], skipped)) == [("p", "t")]
    assert skipped.first.startswith(f'{path}:2: no text in field "target"')
