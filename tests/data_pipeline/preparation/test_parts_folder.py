"""PREFIX.parts as a disk may give it back: damaged, replaced, or with something else in its place."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.preparation import inputs, prepare
from data_pipeline.preparation.job_array import Share
from data_pipeline.preparation.make_part import Settings
from data_pipeline.preparation.progress import Silent
from data_pipeline.tokenizer import ByteTokenizer
from tests.helpers.texts import sentences, shard_bytes, write_jsonl


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def make(folder: Path, **options: Notes) -> dict[str, bytes]:
    prepare.prepare(
        [str(folder.parent / "here.jsonl")], folder / "a", ByteTokenizer(), 0.2, **options
    )
    return shard_bytes(folder / "a")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Shards, and the finished parts of them: whole/a.*, array/a.parts."""
    folder = tmp_path_factory.mktemp("parts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "PART_BYTES", 1000)
        jsonl = write_jsonl(folder / "here.jsonl", sentences(30))
        (folder / "whole").mkdir()
        make(folder / "whole")
        (folder / "array").mkdir()
        work = ([str(jsonl)], folder / "array" / "a", ByteTokenizer(), 0.2, Settings())
        for index in (1, 2):
            prepare.prepare_share(*work, Share(index, 2))
        yield folder


def copied(made: Path) -> Path:
    shutil.rmtree(made / "again", ignore_errors=True)
    return shutil.copytree(made / "array", made / "again")


NAMES = (
    "plan.json",
    "0000-end.json",
    "0000-0000000.part",
    "0000-0000002.part",
    "lock",
    "1-of-2.lock",
)


@given(st.sampled_from(NAMES), st.binary(max_size=12), st.integers(0, 2**12), st.booleans())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_is_a_message_or_makes_the_part_again(
    made: Path, name: str, data: bytes, place: int, is_whole: bool
):
    """Never another shard, a traceback, or less documents."""
    whole = shard_bytes(made / "whole" / "a")
    folder = copied(made)
    path = folder / "a.parts" / name
    before = path.read_bytes()
    place %= len(before) + 1
    path.write_bytes(data if is_whole else before[:place] + data + before[place + len(data) :])
    for work in (prepare.merge, lambda prefix: make(prefix.parent)):
        try:
            work(folder / "a")
        except DataError as error:
            assert "\n" not in str(error).strip()
            continue
        assert shard_bytes(folder / "a") == whole
        break
    else:
        assert name == "lock"  # which says whose the folder is


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "empty"])
def test_other_kinds_of_files_are_refused_or_made_again(kind: str, made: Path):
    whole = shard_bytes(made / "whole" / "a")
    for name in NAMES:
        folder = copied(made)
        path = folder / "a.parts" / name
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(folder / "nowhere")
        else:
            path.touch()
        if kind != "empty" or name == "lock":
            with pytest.raises(DataError, match=r"Move .*a\.parts"):
                make(folder)
            with pytest.raises(DataError, match=r"a\.parts"):
                prepare.merge(folder / "a")
        else:
            assert make(folder) == whole


def test_damaged_part_is_made_again_with_a_word(made: Path):
    folder, notes = copied(made), Notes()
    path = folder / "a.parts" / "0000-0000001.part"
    path.write_bytes(path.read_bytes()[:-9])
    assert make(folder, meter=notes) == shard_bytes(made / "whole" / "a")
    assert notes.said == [f"Part 1 of {made / 'here.jsonl'} is damaged: it is made again"]


@pytest.mark.parametrize("place", [0, -300])
def test_damaged_tokens_and_entries_are_never_joined(place: int, made: Path):
    """What lies before the record: bits that a disk has lost in the meantime."""
    folder = copied(made)
    path = folder / "a.parts" / "0000-0000001.part"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0000-0000001.part is missing or damaged. Prepare again"):
        make(folder)
    assert not (folder / "a.idx").exists()
    assert make(folder) == shard_bytes(made / "whole" / "a")


def test_part_that_the_record_of_the_end_leaves_out_is_missed(made: Path):
    folder = copied(made)
    path = folder / "a.parts" / "0000-end.json"
    path.write_text(path.read_text().replace('"num_parts": ', '"num_parts": 0'))
    with pytest.raises(DataError, match="no task has read .* to its end"):
        prepare.merge(folder / "a")
