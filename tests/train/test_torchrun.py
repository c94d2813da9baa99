"""What stands on the screen when ranks under `python -m train.torchrun` end: the message that says why, last."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.places import ROOT


def started(num_ranks: int, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Start ranks as a user does."""
    command = [sys.executable, "-m", "train.torchrun", "--nproc-per-node", str(num_ranks), *words]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_what_all_ranks_find_is_reported_once_and_nothing_else_is(tmp_path: Path) -> None:
    # The other three are held up by nothing: whichever ends first, torchrun ends the others.
    done = started(4, "-m", "train", "parallel.tp=3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "parallel.tp (3) must divide model.num_heads (4) and the padded vocabulary (1024). "
        "Try parallel.tp=4.\n"
    )


def test_other_ranks_let_rank_0_report_it_first(tmp_path: Path) -> None:
    """Rank 0 comes seconds after the others, as on a busy machine."""
    late = tmp_path / "late.py"
    late.write_text(
        "import os, sys, time\n"
        "time.sleep(6 if os.environ['RANK'] == '0' else 0)\n"
        "from train.main import cli\n"
        "sys.exit(cli())\n"
    )
    done = started(2, str(late), "optim.clip=-1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "optim.clip (-1.0) must not be negative. Try optim.clip=0.\n"


def test_a_rank_that_was_killed_is_named(tmp_path: Path) -> None:
    script = tmp_path / "rank.sh"
    script.write_text("[ $RANK = 1 ] && kill -9 $$\nsleep 60\n")
    done = started(2, "--no-python", "bash", str(script), cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.endswith("Rank 1 was killed by SIGKILL, so it could not report why.\n")
    assert "Traceback" not in done.stderr
