"""The lines of docs/extending.md that train from Python, as they stand there, on a small run."""

import os
import re
import sys
from pathlib import Path

from tests.helpers.distributed import Ranks
from tests.helpers.places import ROOT
from tests.helpers.whole_runs import command

_RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")


def as_documented(rank: int, world_size: int, overrides: tuple[str, ...], out: Path) -> None:
    """Run the lines with some more overrides; what they print goes to a file."""
    import train.main

    page = (ROOT / "docs" / "extending.md").read_text("utf-8")
    section = page[page.index("## Training from Python") :]
    (lines,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for name in _RENDEZVOUS:
        os.environ.pop(name, None)
    cli = train.main.cli

    def on_a_small_run(words: list[str]) -> int:
        small = {word.partition("=")[0]: word for word in [*words, *overrides]}
        return cli(list(small.values()))

    train.main.cli = on_a_small_run
    for stream in (1, 2):
        with out.open("a") as file:
            os.dup2(file.fileno(), stream)
    found: dict[str, object] = {}
    exec(lines, found)
    sys.stdout.flush()
    os._exit(int(str(found["code"])))


def test_training_from_python_hands_over_every_line(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    words = command(tmp_path, f"run.dir={tmp_path / 'run'}")
    ranks = Ranks(as_documented, 1, words, out)
    try:
        (code,) = ranks.wait(120)
    finally:
        ranks.kill_all()
    printed = out.read_text()
    assert code == 0, printed
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "INFO Loading PyTorch ..." in printed and "INFO model " in printed
    assert "step " not in printed.replace("steps", "")  # the handler prints their loss alone
    losses = re.findall(r"^INFO (\d\.\d{6,})$", printed, re.MULTILINE)
    assert len(losses) == 4 == len(re.findall(r"^step ", log, re.MULTILINE))
    (shown,) = re.findall(r"^step     12 .*?loss (\S+)", log, re.MULTILINE)
    assert f"{float(losses[-1]):.4f}" == shown


def test_an_error_is_a_record_too(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    words = command(tmp_path, f"run.dir={tmp_path / 'run'}", "optim.lr=-1")
    ranks = Ranks(as_documented, 1, words, out)
    try:
        (code,) = ranks.wait(120)
    finally:
        ranks.kill_all()
    assert code == 2 and out.read_text().startswith("ERROR optim.lr")
