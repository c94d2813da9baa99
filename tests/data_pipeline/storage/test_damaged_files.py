"""Whatever stands in the files of a shard: it is read as it was, or refused with one message; nothing hangs or grows."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.instructions import InstructionSet
from data_pipeline.storage.shard_info import read_info
from data_pipeline.storage.shard_part import ShardPart, hold_out_tail
from data_pipeline.storage.shards import is_shard, open_stream
from data_pipeline.storage.verify import problems
from tests.helpers.shards import write, write_with_megatron

# One change of a file: (kind, place as a share of the file, value).
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "word"]),
        st.floats(0, 1),
        st.one_of(st.integers(0, 255), st.sampled_from([2**31 - 1, 2**62, -1, -(2**40)])),
    ),
    min_size=1,
    max_size=3,
)
untimed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def edited(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    changed = bytearray(content)
    for kind, share, value in edits:
        at = int(share * max(len(changed) - 1, 0))
        if kind == "flip" and changed:
            changed[at] ^= value & 0xFF or 1
        elif kind == "cut":
            del changed[at:]
        elif kind == "insert":
            changed[at:at] = bytes([value & 0xFF])
        else:
            at = at // 2 * 2
            changed[at : at + 8] = value.to_bytes(8, "little", signed=True)
    return bytes(changed)


def use_all_of(prefix: Path) -> None:
    """Read a shard in all ways that a run and its tools do."""
    stream = open_stream(prefix)
    assert len(stream) < 10**6
    whole = ShardPart(stream, 100)
    whole.pieces(0, len(whole))
    whole.check_ends(5)
    for documents in hold_out_tail(stream, 0.3):
        part = ShardPart(stream, 100, documents)
        assert len(part.read(0, len(part))) == len(part)
    if stream.index.holds_records:
        records = InstructionSet("tasks", whole, 5)
        for number in range(min(len(records), 20)):
            assert sum(map(len, records.read(number))) <= records.num_tokens(number)


@given(EDITS, st.sampled_from([np.int8, np.uint16, np.int32]))
@example([("word", 0.25, 2**62)], np.uint16)
@untimed
def test_a_damaged_index_is_refused_in_words_or_harmless(tmp_path: Path, edits, dtype):
    write_with_megatron(tmp_path / "m", [[[1, 2], [3, 5]], [[4], [5]], [[7, 8, 9], [5]]], dtype)
    path = tmp_path / "m.idx"
    path.write_bytes(edited(path.read_bytes(), edits))
    try:
        use_all_of(tmp_path / "m")
    except DataError as error:
        assert str(tmp_path / "m") in str(error)
    for problem in problems(str(tmp_path / "m")):
        assert str(tmp_path) in problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A shard's PREFIX.json, which a test may change, and what stands in it."""
    folder = tmp_path_factory.mktemp("shard")
    write(folder / "a")
    return folder / "a.json", (folder / "a.json").read_bytes()


@given(st.data())
@untimed
def test_a_damaged_record_is_refused_in_words_or_harmless(
    record: tuple[Path, bytes], data: st.DataObject
):
    path, whole = record
    prefix = path.with_suffix("")
    stored = json.loads(whole)
    if data.draw(st.booleans()):
        stored[data.draw(st.sampled_from(sorted(stored)))] = data.draw(JSON)
        path.write_text(json.dumps(stored))
    else:
        path.write_bytes(edited(whole, data.draw(EDITS)))
    try:
        stream = open_stream(prefix)
        assert stream.fingerprint
    except DataError as error:
        assert "a.json" in str(error)
    for problem in problems(str(prefix)):
        assert str(prefix) in problem


@given(st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"format_version": ' + b"9" * 5000 + b"}")
@untimed
def test_another_file_of_that_name_is_refused_with_what_to_do(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json.*(move it away|Update it)"):
        read_info(str(tmp_path / "a"))


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _nothing(path: Path) -> None:
    path.symlink_to("gone")


def _empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("ending", ["bin", "idx", "json"])
@pytest.mark.parametrize("kind", [_folder, _pipe, _loop, _nothing, _empty])
def test_no_kind_of_file_is_waited_for_or_passed_over(
    kind: Callable[[Path], None], ending: str, tmp_path: Path
):
    write(tmp_path / "a")
    (tmp_path / f"a.{ending}").unlink()
    kind(tmp_path / f"a.{ending}")
    with pytest.raises(DataError, match=rf"a\.{ending}"):
        open_stream(tmp_path / "a")
    assert len(problems(str(tmp_path / "a"))) == 1


def test_a_name_that_no_file_can_have_is_no_shard():
    assert not is_shard("x" * 5000)
    assert not is_shard("a\0b")
    with pytest.raises(DataError, match="cannot be read"):
        open_stream("x" * 5000)


@pytest.mark.parametrize(
    ("dtype", "ids", "vocab_size", "wrong"),
    [(np.int8, [1, 2, -1, 3], 264, -1), (np.int16, [1, 300, -200, 3], 70_000, -200)],
)
def test_negative_ids_of_small_types_are_named(
    dtype: type[np.integer], ids: list[int], vocab_size: int, wrong: int, tmp_path: Path
):
    write_with_megatron(tmp_path / "m", [[ids]], dtype)
    part = ShardPart(open_stream(tmp_path / "m"), vocab_size)
    place = rf"m\.bin has token id {wrong} at token 2 \(byte {2 * np.dtype(dtype).itemsize}\)"
    with pytest.raises(DataError, match=place):
        part.read(0, 4)
    assert part.read(0, 2).tolist() == ids[:2]
    for known in (vocab_size, None):
        (problem,) = problems(str(tmp_path / "m"), known)
        assert f"token id {wrong} at token 2" in problem
