"""A process that ends fast ends as it would have: code, output, threads, hooks and profiles."""

import os
import pstats
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.places import ROOT

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
END = "from train.fast_exit import end_fast\n"


def run(folder: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose output goes through pipes; `sys.exit(1)` at its end is what must not happen."""
    script = folder / "program.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{program}\nsys.exit(1)\n")
    return subprocess.run(
        [sys.executable, *options, script],
        cwd=folder,
        env=BUFFERED,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 2, 75])
def test_the_code_and_all_output_arrive(tmp_path: Path, code: int) -> None:
    lines = "for n in range(50_000): print(n)\nprint('last', end='')\n"
    done = run(tmp_path, f"{lines}print('words', file=sys.stderr, end='')\n{END}end_fast({code})")
    assert done.returncode == code
    assert done.stdout == "".join(f"{n}\n" for n in range(50_000)) + "last"
    assert done.stderr == "words"


def test_hooks_run_last_first_once_each_and_their_output_arrives(tmp_path: Path) -> None:
    program = """
import atexit
atexit.register(print, "first")
atexit.register(lambda: 1 / 0)
atexit.register(print, "second")
"""
    done = run(tmp_path, f"{program}{END}end_fast(75)")
    assert done.returncode == 75
    assert done.stdout.split() == ["second", "first"]
    assert done.stderr.count("ZeroDivisionError") == 1


def test_threads_that_are_no_daemons_are_waited_for(tmp_path: Path) -> None:
    program = """
import threading, time
def work():
    time.sleep(0.3)
    print("written", file=open("out.txt", "w"), flush=True)
threading.Thread(target=work).start()
"""
    assert run(tmp_path, f"{program}{END}end_fast(0)").returncode == 0
    assert (tmp_path / "out.txt").read_text() == "written\n"


def test_objects_are_not_taken_apart(tmp_path: Path) -> None:
    program = """
class Slow:
    def __del__(self): print("deleted")
kept = Slow()
"""
    assert run(tmp_path, f"{program}{END}end_fast(0)").stdout == ""
    assert run(tmp_path, program).stdout == "deleted\n"  # what is left out otherwise happens


def test_a_profile_around_the_program_is_written(tmp_path: Path) -> None:
    program = f"def work(): return sum(range(10))\nwork()\n{END}end_fast(2)"
    done = run(tmp_path, program, "-m", "cProfile", "-o", "profile.bin")
    # cProfile takes an exit of the program for its own.
    assert done.returncode == 2, done.stderr
    stats: dict = vars(pstats.Stats(str(tmp_path / "profile.bin")))["stats"]
    assert any(name == "work" for _, _, name in stats)


def test_an_output_that_nobody_reads_changes_no_code(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nprint('x')\n{END}end_fast(75)"
    )
    process = subprocess.Popen([sys.executable, script], env=BUFFERED, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 75
