"""Every file of a checkpoint: cut short, deleted, one bit flipped, or an older step's. All of it is found and named."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.run_checkpoints import step_folder
from glm.checkpoint.folder import newest_good, write_hint
from tests.helpers.checkpoints import NUM_RANKS, save

OLDER, GOOD, NEWEST = 1, 2, 3
FILES = [f"rank{rank:05d}-0000000a.safetensors" for rank in range(NUM_RANKS)] + ["manifest.json"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints, whose files have the same names and sizes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (OLDER, GOOD, NEWEST):
        write_hint(save(folder, step, seed=step))
    assert newest_good([folder], pytest.fail) == step_folder(folder, NEWEST)
    return folder


@pytest.fixture
def damaged(checkpoints: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(checkpoints, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def check(checkpoints: Path, name: str, what: object = "") -> None:
    """The one before is taken, and what is wrong is named: the file, or the folder that lost its manifest."""
    reports: list[str] = []
    good = newest_good([checkpoints], reports.append)
    assert good == step_folder(checkpoints, GOOD), (name, what)
    assert len(reports) == 1, (reports, what)
    assert name in reports[0] and step_folder(checkpoints, NEWEST).name in reports[0]


def test_the_files_are_those_that_are_damaged_here(checkpoints: Path) -> None:
    assert sorted(path.name for path in step_folder(checkpoints, NEWEST).iterdir()) == sorted(
        [*FILES]
    )


@pytest.mark.parametrize("name", FILES)
def test_a_deleted_file_is_found(damaged: Path, name: str) -> None:
    (step_folder(damaged, NEWEST) / name).unlink()
    check(damaged, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_found(damaged: Path, name: str) -> None:
    path = step_folder(damaged, NEWEST) / name
    content = path.read_bytes()
    for length in [*range(0, len(content), 41), len(content) - 1]:
        path.write_bytes(content[:length])
        check(damaged, name, length)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_grown_is_found(damaged: Path, name: str) -> None:
    path = step_folder(damaged, NEWEST) / name
    path.write_bytes(path.read_bytes() + b"\n")
    check(damaged, name)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(damaged: Path, name: str) -> None:
    path = step_folder(damaged, NEWEST) / name
    content = bytearray(path.read_bytes())
    # Every third byte, the bit taking turns; every bit of the first and of the last byte.
    flips = [(place, place % 8) for place in range(0, len(content), 3)]
    flips += [(place, bit) for place in (0, len(content) - 1) for bit in range(8)]
    for place, bit in flips:
        content[place] ^= 1 << bit
        path.write_bytes(content)
        check(damaged, name, (place, bit))
        content[place] ^= 1 << bit


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("step", [OLDER, GOOD])
def test_the_file_of_an_older_step_is_found(damaged: Path, name: str, step: int) -> None:
    shutil.copy(step_folder(damaged, step) / name, step_folder(damaged, NEWEST) / name)
    check(damaged, name if name != "manifest.json" else "", step)


def test_a_whole_older_checkpoint_under_a_newer_name_is_found(damaged: Path) -> None:
    shutil.rmtree(step_folder(damaged, NEWEST))
    shutil.copytree(step_folder(damaged, OLDER), step_folder(damaged, NEWEST))
    check(damaged, "manifest.json")


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes()[:3]),
        lambda path: path.write_bytes(b"\xf3" + path.read_bytes()[1:]),
        lambda path: path.write_text("step_00000001\n"),
        lambda path: path.write_text("step_00000099\n"),
    ],
    ids=["deleted", "cut short", "flipped", "older", "absent step"],
)
def test_the_hint_is_only_a_hint(damaged: Path, damage: Callable[[Path], object]) -> None:
    damage(damaged / "latest")
    assert newest_good([damaged], pytest.fail) == step_folder(damaged, NEWEST)
