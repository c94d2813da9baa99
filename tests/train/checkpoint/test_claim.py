"""A second copy belongs to one run: others are refused, whatever order they come in, and nothing of it is lost."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import load_config
from tests.helpers.checkpoints import forge, save
from train import identity
from train.checkpoint import become_a_run, claim, copy_folder
from train.checkpoint.second_copy import read_mark

CONFIG = load_config([])


def run_in(folder: Path) -> tuple[Path, str]:
    """A run folder and its identity."""
    folder.mkdir(exist_ok=True)
    return folder, identity.settle(folder).run_id


def clone(source: Path, target: Path) -> tuple[Path, str]:
    """The same run, copied elsewhere."""
    shutil.copytree(source, target)
    return run_in(target)


def test_the_later_of_two_runs_is_refused_and_the_other_one_is_named(tmp_path: Path) -> None:
    copy, one, other = tmp_path / "C" / "default", run_in(tmp_path / "A"), run_in(tmp_path / "B")
    assert claim(copy, *one) is None
    refusal = claim(copy, *other)
    assert refusal is not None
    for words in (f"the run {tmp_path / 'A'}", "run.name=NAME", "checkpoint.copy_to=PATH"):
        assert words in refusal
    assert f"cp -r {copy}/. {tmp_path / 'B'}" in refusal
    assert claim(copy, *one) is None


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=8))
def test_runs_with_everything_in_common_but_their_folder_never_meet(
    starts: list[tuple[int, bool]],
) -> None:
    """Starts of four runs in any order, the last one a copy of the first; some of them carry files there."""
    with TemporaryDirectory() as name:
        top = Path(name)
        runs = [run_in(top / f"run{number}") for number in range(3)]
        runs.append(clone(runs[0][0], top / "run3"))
        common = replace(CONFIG, checkpoint=replace(CONFIG.checkpoint, copy_to=str(top / "C")))
        copy = copy_folder(common)  # run.dir is not among what it depends on
        assert copy is not None
        owner = None
        for number, carries in starts:
            folder, run_id = runs[number]
            if claim(copy, folder, run_id) is None:
                owner = number if owner is None else owner
                assert number == owner
                if carries:
                    (copy / "metrics.jsonl").write_text("{}\n")
            else:
                assert owner is not None and number != owner


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    runs = [run_in(tmp_path / f"run{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        refusals = list(pool.map(lambda run: claim(tmp_path / "C" / "default", *run), runs))
    assert refusals.count(None) == 1


def test_a_run_folder_that_was_moved_keeps_its_copy(tmp_path: Path) -> None:
    copy, (folder, run_id) = tmp_path / "C" / "a", run_in(tmp_path / "A")
    assert claim(copy, folder, run_id) is None
    folder.rename(tmp_path / "B")
    assert claim(copy, tmp_path / "B", run_id) is None
    mark = read_mark(copy)
    assert mark is not None and mark.run == str(tmp_path / "B")


def test_a_copy_that_is_trained_in_is_a_run_and_no_copy_any_more(tmp_path: Path) -> None:
    copy, one = tmp_path / "C" / "a", run_in(tmp_path / "A")
    assert claim(copy, *one) is None
    shutil.copy(tmp_path / "A" / "identity.json", copy)
    become_a_run(copy)
    (copy / "generations").mkdir()
    assert "is a run folder itself" in str(claim(copy, *one))
    assert "is the run folder itself" in str(claim(copy, *run_in(copy)))


def test_what_carries_no_mark_is_taken_only_if_it_is_surely_this_run_or_nobodys(
    tmp_path: Path,
) -> None:
    folder, run_id = run_in(tmp_path / "A")
    (folder / "metrics.jsonl").write_text('{"step": 1, "speed/seconds_per_step": 0.123}\n{}\n')
    older = tmp_path / "C" / "older"  # of a program without marks
    save(older / "checkpoints", 1, seed=1)
    (older / "metrics.jsonl").write_text('{"step": 1, "speed/seconds_per_step": 0.456}\n')
    assert "does not say whose" in str(claim(older, folder, run_id))
    shutil.copy(folder / "metrics.jsonl", older)
    assert claim(older, folder, run_id) is None
    foreign = tmp_path / "C" / "foreign"
    forge(save(foreign / "checkpoints", 1, seed=1), extra={"run_id": "f" * 16})
    assert "of another run" in str(claim(foreign, folder, run_id))
    users = tmp_path / "C" / "users"
    users.mkdir()
    (users / "config.yaml").write_text("mine")
    assert "files that one would replace" in str(claim(users, folder, run_id))
    assert sorted(os.listdir(users)) == ["config.yaml"]
    (users / "config.yaml").rename(users / "notes.txt")
    assert claim(users, folder, run_id) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", None])
def test_a_mark_that_cannot_be_read_keeps_everybody_out(
    tmp_path: Path, content: str | None
) -> None:
    folder, run_id = run_in(tmp_path / "A")
    mark = tmp_path / "C" / "second_copy.json"
    mark.parent.mkdir()
    if content is None:
        mark.mkdir()
    else:
        mark.write_text(content)
    assert "second_copy.json" in str(claim(mark.parent, folder, run_id))
