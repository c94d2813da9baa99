"""Whole runs on texts that contain markers, in a script that the terminal lacks, and with nothing that reads the output."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.distributed import run_distributed
from tests.helpers.texts import write_jsonl
from tests.helpers.tiny import TEXT_RUN
from tests.helpers.whole_runs import metrics

TEXTS = [
    f"第{n}句话说明[MASK]的用法。 Sentence {n} ends where [gMASK] stands, and [sMASK] is another word for it."
    for n in range(120)
]


def train_printing_to(rank: int, world_size: int, output: str, folder: Path) -> int:
    """`python -m train` where standard output is a full device, or a terminal without the characters of the texts."""
    from train.main import cli

    with (folder / "errors.txt").open("a") as errors:
        os.dup2(errors.fileno(), 2)
    path = "/dev/full" if output == "full" else str(folder / "output.txt")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    encoding = "utf-8" if output == "full" else output
    sys.stdout = io.TextIOWrapper(io.FileIO(descriptor, "w"), encoding=encoding)
    words = [f"data.paths={folder / 'corpus.jsonl'}", f"data.cache_dir={folder / 'cache'}"]
    code = cli([*TEXT_RUN, "optim.total_samples=32", *words, f"run.dir={folder / 'run'}"])
    sys.stdout.flush()  # as an interpreter does at its end
    return code


@pytest.mark.parametrize("output", ["latin-1", "full"])
def test_a_run_ends_with_its_examples_whatever_takes_its_output(
    tmp_path: Path, output: str
) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    run, errors = tmp_path / "run", tmp_path / "errors.txt"
    for _ in range(2):  # the second start finds it finished
        ended = run_distributed(train_printing_to, 1, output, tmp_path)
        assert ended == [0], errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert len(metrics(run)) == 4
    log = (run / "log.txt").read_text()
    assert "cannot be shown" not in log and "[MASK], one whole word hidden" in log
    assert any(character in log for character in "第句话说明的用法"), "no example is shown"
    if output != "full":
        shown = (tmp_path / "output.txt").read_bytes()
        assert b"\\u" in shown and b"is finished" in shown
