"""A checkpoint made by an attacker executes nothing, writes nothing elsewhere, and is refused with a message."""

from pathlib import Path

import pytest

from configs.run_checkpoints import committed, step_folder
from glm.checkpoint.folder import newest_good, remove, write_hint
from glm.checkpoint.manifest import DamagedCheckpointError
from glm.checkpoint.reader import load_full_tensors, verify
from tests.helpers.checkpoints import save
from tests.helpers.hostile import FORMAT_ATTACKS, Attack, trace_of


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious\n")
    return tmp_path / "outside"


@pytest.mark.parametrize("attack, words", FORMAT_ATTACKS.values(), ids=FORMAT_ATTACKS)
def test_it_is_refused(tmp_path: Path, outside: Path, attack: Attack, words: str) -> None:
    folder = save(tmp_path / "run" / "checkpoints", 4, seed=1)
    attack(folder, outside)
    before = everything_in(outside)
    with pytest.raises(DamagedCheckpointError) as error:
        verify(folder)
    assert words in str(error.value) and str(folder) in str(error.value)
    if "header" not in words:  # which nothing but `verify` reads
        with pytest.raises(DamagedCheckpointError):
            load_full_tensors(folder)
    assert not trace_of(outside).exists()
    assert everything_in(outside) == before


def test_a_linked_checkpoint_is_neither_used_nor_cleaned_away(tmp_path: Path) -> None:
    others = save(tmp_path / "others", 9, seed=1)
    own = save(tmp_path / "own", 1, seed=1)
    step_folder(tmp_path / "own", 9).symlink_to(others)
    assert committed(tmp_path / "own") == [own]
    assert newest_good([tmp_path / "own"], pytest.fail) == own
    for leftover in committed(tmp_path / "own"):
        remove(leftover)
    verify(others)


def test_writing_follows_no_link_that_lies_in_wait(tmp_path: Path, outside: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    folder = step_folder(checkpoints, 1)
    folder.mkdir(parents=True)
    for name in (
        ".latest.part",
        "step_00000001/manifest.json.part",
        "step_00000001/rank00000-0000000a.safetensors.part",
        "latest",
    ):
        path = checkpoints / name
        path.symlink_to(outside / "precious")
    write_hint(save(checkpoints, 1, seed=1))
    verify(folder)
    assert (checkpoints / "latest").read_text() == "step_00000001\n"
    assert everything_in(outside) == {"precious": b"precious\n"}
