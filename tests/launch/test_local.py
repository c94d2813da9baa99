"""Sweeps on this machine: each run once, unfinished ones again, and one clean end for a Ctrl-C.

A stand-in for Python plays the runs: they write a status, and wait for a signal where they are told to.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from launch.__main__ import cli

SWEEP = ("sweep", "optim.total_samples=80", "--sweep", "seed=1,2,3")
# Called as `PYTHON -m train key=value ... run.name=NAME`.
STAND_IN = """\
#!/bin/bash
run=runs/${!#}; run=${run/run.name=/}
mkdir -p "$run"
echo "$$ ${@:3}" >> "$run/calls"
say() { printf '{"state": "%s", "samples_seen": %s}' $1 $2 > "$run/status.json"; }
if [[ -e wait ]]; then
    trap 'echo INT >> "$run/signals"; say stopped 16; exit 75' INT
    trap 'echo TERM >> "$run/signals"; say stopped 16; exit 75' TERM
    echo > ready
    while :; do sleep 0.05; done
fi
if [[ -e fail && $run == *seed=2 ]]; then say failed 8; exit 3; fi
echo "output of $run"
say done 80
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "python"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def run_of(seed: int) -> Path:
    return Path("runs") / f"default-seed={seed}"


def calls(seed: int) -> int:
    path = run_of(seed) / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_each_run_trains_once_and_the_table_says_what_came_out(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli([*SWEEP, "--local"]) == 0
    out = capfd.readouterr().out
    assert [calls(seed) for seed in (1, 2, 3)] == [1, 1, 1]
    words = (run_of(2) / "calls").read_text().split()[1:]
    assert words == ["optim.total_samples=80", "seed=2", "run.name=default-seed=2"]
    assert "Run 1: seed=2 in runs/default-seed=2\n" in out
    assert "output of runs/default-seed=3\n" in out
    assert "2    3     done   80 " in out

    assert cli([*SWEEP, "--local"]) == 0
    assert "3 runs, 3 of them finished.\n" in capfd.readouterr().out
    assert calls(1) == 1
    # A longer run has something left to do.
    assert cli([SWEEP[0], "optim.total_samples=160", *SWEEP[2:], "--local"]) == 0
    assert calls(1) == 2


def test_a_run_that_fails_keeps_no_other_from_running(capfd: pytest.CaptureFixture[str]) -> None:
    Path("fail").touch()
    assert cli([*SWEEP, "--local"]) == 3
    out, err = capfd.readouterr()
    assert err == "Failed: run 1. The same command runs these again and passes over the others.\n"
    assert "1    2     failed  8 " in out
    assert calls(3) == 1
    Path("fail").unlink()
    assert cli([*SWEEP, "--local"]) == 0
    assert [calls(seed) for seed in (1, 2, 3)] == [1, 2, 1]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "INT"), (signal.SIGHUP, "TERM")])
def test_a_request_to_stop_reaches_each_run_once_and_starts_no_other(
    number: signal.Signals, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("wait").touch()
    os.mkfifo("ready")
    ready = os.open("ready", os.O_RDWR)  # it has no end, whoever comes and goes

    def interrupt() -> None:
        for _ in range(2):
            os.read(ready, 1)  # a run is there
        os.kill(os.getpid(), number)

    before = signal.getsignal(
        signal.SIGINT
    )  # ignored where the tests were started in the background
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert cli([*SWEEP, "--local", "--jobs", "2"]) == 75
    thread.join()
    os.close(ready)
    assert [(run_of(seed) / "signals").read_text() for seed in (1, 2)] == [f"{name}\n"] * 2
    assert calls(3) == 0
    out, err = capfd.readouterr()
    assert "Stopped. The same command continues.\n" in err
    assert "2    3     not started" in out
    # Each run has a process group of its own: the terminal's Ctrl-C goes to this process alone.
    assert signal.getsignal(signal.SIGINT) is before


def test_several_at_a_time_write_each_to_a_file_that_is_never_replaced() -> None:
    log = Path("runs/default-sweep/run_0.txt")
    log.parent.mkdir(parents=True)
    log.write_text("of the day before\n")
    assert cli([*SWEEP, "--local", "--jobs=3"]) == 0
    assert log.read_text() == "of the day before\noutput of runs/default-seed=1\n"


def test_without_local_the_commands_are_shown_and_nothing_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli([*SWEEP]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "python -m train optim.total_samples=80 seed=1 run.name=default-seed=1"
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sweep", "--local"], "--sweep names the values of a key."),
        ([*SWEEP, "--local", "--table"], "--table only shows"),
        ([*SWEEP, "--jobs=2"], "--jobs sets how many"),
        ([*SWEEP, "--local", "--jobs=0"], "--jobs (0) must be a whole number"),
        ([*SWEEP, "--local", "cluster.gpus_per_node=2"], "A run of 2 ranks does not run with --local"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_message(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(words) == 2
    assert capsys.readouterr().err.startswith(problem)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": 5}', '{"state": "done", "samples_seen": "x"}']
)
def test_a_status_that_cannot_be_read_is_shown_as_such(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, file in ((1, "status.json"), (2, "metrics.jsonl"), (3, "status.json")):
        run_of(seed).mkdir(parents=True)
        (run_of(seed) / "status.json").write_text(json.dumps({"state": "done", "samples_seen": 80}))
        (run_of(seed) / file).unlink(missing_ok=True)
        if seed == 3:
            (run_of(seed) / file).mkdir()
        else:
            (run_of(seed) / file).write_text(content + "\n")
    assert cli([*SWEEP, "--table"]) == 0
    out = capsys.readouterr().out
    assert "2    3     unreadable" in out
    assert "0    1     unreadable" in out
