"""The GPU session: every section on CPU, and what the session does with one that fails, hangs or finds something wrong."""

import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

import benchmarks.gpu
import benchmarks.gpu.session as running
from benchmarks.gpu.plan import MOST_SECONDS, SECTIONS, Section, deadlines
from benchmarks.gpu.session import LOG, RECORD, Options
from tests.helpers.places import ROOT

SCRIPT = ROOT / "benchmarks/gpu_session.sh"
NAMES = [section.name for section in SECTIONS]
# Two sessions side by side take turns in waiting for what they start.
PARTS = (
    ["setup", "training", "fused", "rates", "weights"],
    ["attention", "layer", "stage", "save", "dropout"],
)
# What the sections must have looked at, on CPU as on a GPU.
CHECKED = {
    "setup": ["every library that the sections import is there"],
    "attention": ["flex = reference: 4 windows", "flex = reference: padding", "softmax in fp32"],
    "training": ["deterministic: twice the same", "losses of again"],
    "layer": ["the gradient is finite: both dropouts 0.1"],
    "fused": ["a layer calls every fused function"],
    "stage": ["every matrix has a gradient"],
    "rates": [],
    "save": ["copy 2 is the state before the step", "after kill -9 the same metrics"],
    "dropout": ["masks of hidden states: compiled as not", "a product added up in fp32"],
    "weights": ["weights in torch.bfloat16 are the CPU's up to the last bit"],
}


def started(folder: Path, names: list[str]) -> subprocess.Popen[str]:
    words = ["bash", str(SCRIPT), "", "--dry-run", "--only", ",".join(names)]
    return subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(folder / names[0])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_dry_run_runs_every_section_on_cpu(tmp_path: Path) -> None:
    assert sorted(name for part in PARTS for name in part) == sorted(NAMES)
    sessions = [started(tmp_path, part) for part in PARTS]
    printed = [session.communicate()[0] for session in sessions]
    for names, session, text in zip(PARTS, sessions, printed, strict=True):
        log = (tmp_path / names[0] / LOG).read_text()
        assert session.returncode == 0, text + log
        record = json.loads((tmp_path / names[0] / RECORD).read_text())
        assert record["is_dry_run"]
        assert [each["section"] for each in record["sections"]] == [n for n in NAMES if n in names]
        assert {each["status"] for each in record["sections"]} == {"ran"}
        for each in record["sections"]:
            right = [found["what"] for found in each["results"] if found.get("is_right")]
            assert set(CHECKED[each["section"]]) <= set(right)
            assert any(found["what"] == "line" for found in each["results"])
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert lines == record["sections"]
        assert "nothing was measured" in text and "\nMeasured:" not in text


def test_the_sections_are_over_in_time_and_each_has_its_file() -> None:
    assert deadlines()[-1] == sum(section.seconds for section in SECTIONS) <= MOST_SECONDS
    assert deadlines()[:2] == [SECTIONS[0].seconds, SECTIONS[0].seconds + SECTIONS[1].seconds]
    for name in NAMES:
        assert callable(importlib.import_module(f"benchmarks.gpu.{name}").measure)


def test_the_session_itself_needs_no_library() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import benchmarks.gpu as gpu; gpu.main(['--x'])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True
    )
    assert "--x: there are one folder" in done.stderr
    assert done.returncode == 0


# Sections that stand for real ones: Python code that is given the file of its results.
WRITE = "import sys, json; out = open(sys.argv[1], 'a'); add = lambda **v: (out.write(json.dumps(v) + '\\n'), out.flush())\n"
CODES = {
    "good": "add(what='masks', is_right=True); add(what='line', text='4 of 4')",
    "wrong": "add(what='masks', is_right=False)",
    "failed": "add(what='first', ms=1.5); raise SystemExit('no kernel image')",
    "slow": "add(what='first', ms=2.5); import subprocess, time; out.write('{\"cut')\n"
    "child = subprocess.Popen(['sleep', '600']); open(sys.argv[1] + '.pid', 'w').write(str(child.pid))\n"
    "time.sleep(600)",
    "last": "add(what='line', text='at the end')",
}


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands in for the real sections; holds the id of the process that `slow` leaves behind."""
    kept = tmp_path / "pid"

    def command(section: Section, options: Options, work: Path) -> list[str]:
        code = (WRITE + CODES[section.name]).replace("sys.argv[1] + '.pid'", repr(str(kept)))
        return [sys.executable, "-c", code, str(work / f"{section.name}.jsonl")]

    monkeypatch.setattr(running, "command", command)
    return kept


def session_of(
    folder: Path, seconds: dict[str, int], is_dry: bool = False
) -> tuple[int, list[dict[str, Any]]]:
    sections = tuple(Section(name, limit, name) for name, limit in seconds.items())
    code = running.run_session(Options(folder, folder / "none", sections, is_dry))
    return code, json.loads((folder / RECORD).read_text())["sections"]


def test_whatever_a_section_does_the_others_run_and_keep_what_they_found(
    tmp_path: Path, pids: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = 60  # of those that end by themselves
    limits = {"failed": patient, "wrong": patient, "good": patient}
    code, ended = session_of(tmp_path / "out", limits)
    assert code == 1
    assert [each["status"] for each in ended] == ["FAILED", "WRONG", "ran"]
    assert ended[0]["results"] == [{"what": "first", "ms": 1.5}]
    assert ended[0]["reason"] == "no kernel image" and ended[1]["reason"] == "masks"
    text = capsys.readouterr().out
    assert "! no kernel image" in text and "4 of 4" in text and "1 of 1 right" in text
    assert "no kernel image" in (tmp_path / "out" / LOG).read_text()


def test_a_section_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, pids: Path
) -> None:
    code, ended = session_of(tmp_path / "out", {"slow": 10, "last": 60})
    assert code == 1
    assert [each["status"] for each in ended] == ["TOO LONG", "ran"]
    assert ended[0]["results"] == [{"what": "first", "ms": 2.5}], (
        "the line that was cut is left out"
    )
    child = Path("/proc") / pids.read_text()
    deadline = time.monotonic() + 30
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline, "a process of the section goes on"
        time.sleep(0.05)


def test_only_sections_that_ran_well_end_with_0(tmp_path: Path, pids: Path) -> None:
    assert session_of(tmp_path / "out", {"good": 60, "last": 60})[0] == 0


def test_wheels_are_installed_beside_the_machine_s_own_packages(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    name = "glm_probe_of_wheels"
    with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", about)
        kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", kind)
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    words = ["--wheels", str(wheels), "--only", "setup", "--dry-run"]
    assert benchmarks.gpu.main([str(tmp_path / "out"), *words]) == 0
    (setup,) = json.loads((tmp_path / "out" / RECORD).read_text())["sections"]
    assert setup["results"][0]["wheels"] == 1
    assert setup["results"][0]["installed"] == [f"{name} 1.0"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "attn"], "--only attn: there are setup,attention"),
        (["--only"], "--only needs a value"),
        (["--fast"], "--fast: there are one folder"),
        (["one", "two"], "two: there are one folder"),
        (["--wheels", "nowhere"], "nowhere: there is no wheel"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_message(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmarks.gpu.main(words) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert not told.out
