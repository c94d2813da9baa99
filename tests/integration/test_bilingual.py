"""README's mixed Chinese and English corpus, from Debian's packages to a model: every command as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

INTRODUCTION = "A mixed Chinese and English corpus"
# Chinese, Japanese and Korean ideographs of the basic plane.
HAN = re.compile("[\u4e00-\u9fff]")


def commands() -> list[str]:
    """The lines of code under the introduction."""
    text = (ROOT / "README.md").read_text("utf-8").partition(INTRODUCTION)[2]
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("    "))
    stop = next(number for number, line in enumerate(lines) if number > start and not line)
    return [line.removeprefix("    ") for line in lines[start:stop]]


def test_recipe_is_there_and_short():
    found = commands()
    assert found[0].startswith("apt-get download ")
    assert any(line.startswith("python -m train run.name=zh-en ") for line in found)
    assert len(found) <= 12
    subprocess.run(["bash", "-n", "-c", "\n".join(found)], check=True)


@pytest.mark.slow
def test_recipe_trains_in_both_languages(tmp_path: Path):
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("no apt-get and dpkg here: not a Debian system")
    names = commands()[0].partition("&&")[0].split()[2:]
    fetched = subprocess.run(
        ["apt-get", "download", *names], cwd=tmp_path, capture_output=True, text=True
    )
    if fetched.returncode:
        pytest.skip(f"apt-get download does not work here: {fetched.stderr.strip()[-200:]}")
    python = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{python}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    script = "set -euo pipefail\n" + "\n".join(commands())
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name, least in (("en", 5_000_000), ("zh", 2_000_000)):
        text = (tmp_path / f"{name}.txt").read_text("utf-8")
        assert len(text) > least
        assert "\b" not in text
        share = len(HAN.findall(text)) / len(text)
        assert (share > 0.2) == (name == "zh")
    summary = json.loads((tmp_path / "runs" / "zh-en" / "summary.json").read_text())
    for objective in ("mask", "gmask"):
        assert summary[f"valid_loss_{objective}"] < summary[f"unigram_loss_{objective}"] - 0.5
    answers = done.stdout.rpartition("valid/loss_gmask")[2]
    assert float(answers.split()[0]) < 6
    assert re.search(r"\nOn success, .+ is returned\.\n", answers, re.DOTALL)
    chinese = "\u5982\u679c\u6ca1\u6709\u6307\u5b9a.+\uff0c\u5219\u4ece\u6807\u51c6\u8f93\u5165\u8bfb\u53d6\u3002"
    assert re.search(chinese, answers, re.DOTALL)
