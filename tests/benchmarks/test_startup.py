"""The benchmark of starts measures the files of the commit that it names, not those that are installed."""

from pathlib import Path

import pytest

from benchmarks.startup import FIGURES, start
from benchmarks.trees import python, summary

# Stands for a tree: it trains at once, takes a while to end, and ends as a stopped run does.
TRAIN = """
import pathlib, sys, time

def cli():
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    run = pathlib.Path(words["run.dir"])
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text("{}\\n")
    time.sleep(0.3)
    return CODE
"""
COMMAND = """
import sys, time
from train.main import cli
code = cli()
time.sleep(0.2)
sys.exit(code)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("train", "glm"):
        (tmp_path / "tree" / package).mkdir(parents=True)
        (tmp_path / "tree" / package / "__init__.py").write_text("")
    (tmp_path / "tree/train/main.py").write_text(TRAIN.replace("CODE", "75"))
    (tmp_path / "tree/train/__main__.py").write_text(COMMAND)
    return tmp_path / "tree"


def test_the_packages_are_those_of_the_tree(tree: Path) -> None:
    found = python(tree, "-c", "import glm; print(glm.__file__)").strip()
    assert found == str(tree / "glm/__init__.py")


def test_a_start_is_measured_to_its_first_line_and_its_end_from_the_program_s_return(
    tree: Path, tmp_path: Path
) -> None:
    measured = start(tree, tmp_path / "runs", "0")
    first_step, ending, cpu = measured
    assert len(measured) == len(FIGURES)
    # The sleeps are lower bounds, however busy the machine is.
    assert first_step > 0 and ending >= 0.2 and cpu > 0


def test_a_run_that_fails_is_no_measurement(tree: Path, tmp_path: Path) -> None:
    (tree / "train/main.py").write_text(TRAIN.replace("CODE", "1"))
    with pytest.raises(SystemExit, match="ended with 1 instead of 75"):
        start(tree, tmp_path / "runs", "0")


def test_a_summary_is_the_median_and_the_range() -> None:
    assert summary([3.0, 1.0, 2.5]).split() == ["2.500", "(1.000", "..", "3.000)"]
