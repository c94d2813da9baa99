"""The workers that tests are spread over."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT
from tests.helpers.workers import group_of, turn_of, workers_for


def test_folders_are_spread_and_single_files_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert workers_for(["tests"]) == workers_for(["tests/glm", "tests/test_workers.py"]) == 3
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    assert workers_for(["tests"]) == workers_for(["tests/glm", "tests/slurm/"]) == 4
    assert workers_for(["tests/glm", "tests/test_workers.py", "tests/data_pipeline"]) == 3
    assert workers_for(["tests/test_workers.py"]) == 0
    assert workers_for(["tests/test_workers.py::test_of_a_file", "tests/other.py"]) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(192)))
    assert workers_for(["tests"]) == 8


def test_a_file_stays_together_and_so_do_all_that_share_clusters() -> None:
    file = "tests/glm/test_words.py"
    assert group_of(f"{file}::test_a") == group_of(f"{file}::test_b[x/y::z]") == file
    clusters = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/slurm").glob("test_*")]
    assert len(clusters) > 2
    assert {group_of(f"{path}::test") for path in clusters} == {"tests/slurm/"}


def test_what_takes_longest_begins_first() -> None:
    ids = ["tests/glm/test_words.py::a", "tests/integration/test_hang.py::b", "tests/slurm/t.py::c"]
    assert sorted(ids, key=turn_of) == ids[::-1]


def test_every_folder_that_begins_early_is_there() -> None:
    from tests.helpers.workers import _LONGEST_FIRST

    assert [start for start in _LONGEST_FIRST if not (ROOT / start).exists()] == []


_WRITES_DOWN_ITS_WORKER = """
import os, pathlib
def test_here():
    pathlib.Path(__file__).with_suffix(".txt").write_text(os.environ.get("PYTEST_XDIST_WORKER", "none"))
def test_still_here():
    test = pathlib.Path(__file__).with_suffix(".txt").read_text()
    assert test == os.environ.get("PYTEST_XDIST_WORKER", "none")
"""


@pytest.mark.parametrize(
    "options", [[], ["-n0"], ["-s"], ["-p", "no:xdist"]], ids=["plain", "-n0", "-s", "no xdist"]
)
def test_a_folder_is_spread_in_whole_files_unless_that_is_refused(
    options: list[str], tmp_path: Path
) -> None:
    hooks = "pytest_cmdline_main, pytest_collection_modifyitems, pytest_xdist_make_scheduler"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hooks}")
    num_workers = workers_for([str(tmp_path)])
    for number in range(num_workers + 1):
        (tmp_path / f"test_{number}.py").write_text(_WRITES_DOWN_ITS_WORKER)
    words = ["-m", "pytest", "-q", "-c", "pyproject.toml", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words, "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    workers = {path.read_text() for path in tmp_path.glob("test_*.txt")}
    assert workers == ({"none"} if options else {f"gw{each}" for each in range(num_workers)})
