"""Lines of every length, entered anywhere: none is lost, cut in a character, or held in memory without bound."""

import gzip
import io
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation import archives, inputs, lines
from data_pipeline.preparation.documents import Skipped
from data_pipeline.preparation.inputs import parts_of, read_documents
from data_pipeline.preparation.zstd_reader import ZstdReader

ENDINGS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
SMALL = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, **options) -> list[str]:
    return [text for (text,) in read_documents(str(path), ["text"], **options)]


@given(
    st.lists(st.integers(0, 120), max_size=12), st.integers(1, 150), st.sampled_from(list(ENDINGS))
)
@SMALL
def test_record_that_is_too_long_is_passed_over_and_no_other(
    tmp_path: Path, sizes: list[int], part_bytes: int, ending: str
):
    records = [json.dumps({"text": f"{n}:" + "x" * size}) for n, size in enumerate(sizes)]
    path = tmp_path / f"corpus.jsonl{ending}"
    path.write_bytes(ENDINGS[ending]("\n".join(records).encode()))
    skipped = Skipped()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", part_bytes)
        for owner in (lines, archives):
            patch.setattr(owner, "LONGEST_RECORD", 70)
            patch.setattr(owner, "_PIECE_BYTES", 16)
        found = read(path, on_error=skipped)
    # The end of the line is one more byte.
    assert found == [json.loads(each)["text"] for each in records if len(each) <= 70]
    too_long = [number for number, each in enumerate(records, start=1) if len(each) > 70]
    assert skipped.count == len(too_long)
    if too_long:
        assert skipped.first.startswith(f"{path}:{too_long[0]}: a line of more than")


@given(
    st.text(alphabet="ab \n.第é🦊", max_size=400),
    st.integers(1, 150),
    st.integers(6, 40),
)
@SMALL
def test_plain_text_is_whole_in_every_part_and_archive(
    tmp_path: Path, text: str, part_bytes: int, border: int
):
    found: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", border + part_bytes)
        for owner in (lines, archives):
            patch.setattr(owner, "BORDER_BYTES", border)
            patch.setattr(owner, "_PIECE_BYTES", 16)
        for ending, pack in ENDINGS.items():
            path = tmp_path / f"corpus.txt{ending}"
            path.write_bytes(pack(text.encode()))
            found.append(read(path))
    assert found[0] == found[1] == found[2]
    assert "".join("".join(found[0]).split()) == "".join(text.split())


@pytest.mark.parametrize("ending", ENDINGS)
def test_long_line_of_a_text_becomes_documents_at_ends_of_sentences(ending: str, tmp_path: Path):
    path = tmp_path / f"export.txt{ending}"
    sentence = "One sentence of several words, e.g. this. "
    path.write_bytes(ENDINGS[ending]((sentence * 600).encode()))
    found = read(path)
    assert all(text.startswith("One") and text.endswith("this.") for text in found)
    assert all(2000 <= len(text) <= 8000 for text in found[:-1])
    assert " ".join(found) == (sentence * 600).strip()
    path.write_bytes(ENDINGS[ending](("第一句话没有空格。" * 2000).encode()))
    assert len(found := read(path)) > 2
    assert all(text.endswith("。") for text in found)
    path.write_bytes(ENDINGS[ending](b"a" * 20_000))
    assert [len(text) for text in read(path)] == [8000, 8000, 4000]


def test_hole_in_a_file_is_said_and_passed_over(tmp_path: Path):
    for name in ("text.txt", "records.jsonl"):
        path = tmp_path / name
        good = '{"text": "good"}\n'
        with path.open("w") as file:
            file.write(good)
            file.seek(100_000)
            file.write("\n" + good)
        with pytest.raises(DataError, match=rf"{name}:2: zeros from byte 0 of the line on: a hole"):
            read(path)
        skipped = Skipped()
        assert "good" in "".join(read(path, on_error=skipped))
        assert skipped.count == 1


def test_archive_of_one_line_of_much_text_takes_little_memory(tmp_path: Path):
    """Unpacked in pieces of at most 64 MiB, whatever a few packed bytes stand for; so the progress is true as well."""
    packer = zstandard.ZstdCompressor().compressobj()
    piece = b"a" * 2**24
    packed = b"".join(packer.compress(piece) for _ in range(8)) + packer.flush()
    reader = ZstdReader(io.BytesIO(packed))
    reader.readinto(bytearray(2**20))
    assert len(reader._ready) <= 64 * 2**20
    assert reader.num_taken < 0.6 * len(packed)
    (tmp_path / "line.jsonl.zst").write_bytes(packed)
    with pytest.MonkeyPatch.context() as patch:
        for owner in (lines, archives):
            patch.setattr(owner, "LONGEST_RECORD", 2**20)
        parts = list(parts_of(str(tmp_path / "line.jsonl.zst"), ["text"]))
        assert sum(len(part.content or b"") for part in parts) < 40 * 2**20
        assert sum(part.read_bytes for part in parts) == len(packed)
        with pytest.raises(DataError, match=r"line.jsonl.zst:1: a line of more than 1 MiB"):
            read(tmp_path / "line.jsonl.zst")


def test_archive_of_many_lines_is_not_read_before_it_is_used(tmp_path: Path):
    content = b'{"text": "a"}\n' * 2**20
    path = tmp_path / "short.jsonl.zst"
    path.write_bytes(zstandard.compress(content * 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", 2**20)
        parts = parts_of(str(path), ["text"])
        taken = [next(parts).read_bytes for _ in range(10)]
    assert sum(taken) < path.stat().st_size * 0.75


def test_archive_with_a_long_window_is_read():
    """As `zstd --long=28` and more make it; the library refuses it unless it is told."""
    options = zstandard.ZstdCompressionParameters(window_log=28, strategy=1, hash_log=6)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    packed = packer.compress(b"some text") + packer.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 2**28
    assert ZstdReader(io.BytesIO(packed)).read(100) == b"some text"
