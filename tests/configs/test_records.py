"""Files read from a disk: every wrong kind, size, encoding, type and depth is one message."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import RecordError
from configs.records import Count, Seconds, ShortText, convert, decode, read_file, read_record


@dataclass(frozen=True)
class Status:
    state: ShortText
    samples_seen: Count
    time: Seconds = 0.0


def test_a_record_is_read_with_its_defaults_and_unknown_keys_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text('{"state": "running", "samples_seen": 8, "of a later version": [1]}')
    assert read_record(path, Status) == Status("running", 8, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", '"text"', "[]", "{}", "{", '{"state": 1, "samples_seen": 8}',
        '{"state": "running", "samples_seen": -1}', '{"state": "running", "samples_seen": 8.5}',
        '{"state": "running", "samples_seen": true}', '{"state": "running", "samples_seen": 1e400}',
        '{"state": "running", "samples_seen": ' + "9" * 5000 + "}",
        '{"state": "running", "samples_seen": 8, "time": NaN}',
        '{"state": "running", "samples_seen": 8, "time": -1}',
        '{"state": "running", "samples_seen": 8, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)  # fmt: skip
def test_what_is_no_such_record_is_one_message_that_names_the_file(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"status\.json"):
        read_record(path, Status)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(b'{"state": "\xff\xfe", "samples_seen": 8}')
    with pytest.raises(RecordError):
        read_record(path, Status)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["state", "samples_seen", "time", "x"]), inner, max_size=4),
))  # fmt: skip
def test_any_json_is_a_record_or_a_message(value: object) -> None:
    text = json.dumps(value)
    try:
        assert isinstance(decode(text, Status, "here"), Status)
    except RecordError as error:
        assert "here" in str(error)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_a_message(content: bytes) -> None:
    with pytest.raises(RecordError):
        decode(content, Status, "here")


def test_a_value_that_is_already_decoded_is_checked_too() -> None:
    assert convert({"state": "done", "samples_seen": 3}, Status, "here").samples_seen == 3
    with pytest.raises(RecordError, match="here"):
        convert({"state": "done", "samples_seen": "3"}, Status, "here")


def test_another_kind_of_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in (("pipe", "a pipe"), ("folder", "a folder"), ("loop", "cannot be read")):
        with pytest.raises(RecordError, match=words):
            read_file(tmp_path / name)
    with pytest.raises(RecordError, match="a device"):
        read_file(Path("/dev/zero"))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(101)
    with pytest.raises(RecordError, match="101 bytes"):
        read_file(tmp_path / "large", largest=100)


def test_a_missing_file_is_for_the_caller_to_judge(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")
