"""Drills: no tracker of another program stops a run, or keeps its command from ending; what was wrong is said once."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import ROOT
from tests.helpers.wandb_files import as_sent, attempts
from tests.helpers.whole_runs import command, metrics

STEPS = 12
# Far longer than any end may take, so that a command that hangs is told from a slow machine.
PATIENCE_SECONDS = 240
CHILDREN = (
    "import sys; from tests.helpers.remote_drills import main; main(sys.argv[1], sys.argv[2:])"
)


@pytest.fixture
def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for each in taken:
            each.close()


def train(
    folder: Path, fault: str, *overrides: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    words = command(folder, f"run.dir={folder / 'run'}", f"optim.total_samples={8 * STEPS}")
    before = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-c", CHILDREN, fault, *words, *overrides],
        cwd=ROOT,
        env={**before, "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def check(done: subprocess.CompletedProcess[str], run: Path, *said: str) -> None:
    """Check that the run is whole, and that of a tracker these sentences were said, and no other."""
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in metrics(run)] == list(range(1, STEPS + 1))
    assert "Traceback" not in done.stdout + done.stderr
    assert "wandb: " not in done.stderr
    log = (run / "log.txt").read_text().splitlines()
    found = [line for line in log if re.match(r"wandb|TensorBoard", line)]
    assert len(found) == len(said), found
    for line, pattern in zip(found, said, strict=True):
        assert re.fullmatch(pattern, line), line


OFFLINE = r"wandb records offline\. Send it later with: bash .*"
NOT_WAITED_FOR = (
    r"wandb has not taken everything 3 seconds after the end, and is not waited for; .*"
)


def test_wandb_is_absent(tmp_path: Path) -> None:
    done = train(tmp_path, "absent", "log.wandb=offline")
    check(
        done,
        tmp_path / "run",
        OFFLINE,
        r"wandb failed \(No module named 'wandb'\); training goes on .*",
    )


def test_wandb_is_killed(tmp_path: Path) -> None:
    done = train(tmp_path, "killed", "log.wandb=offline")
    check(done, tmp_path / "run", OFFLINE, r"wandb failed \(.+\); training goes on without it\.")


def test_wandb_hangs(tmp_path: Path) -> None:
    done = train(tmp_path, "stopped", "log.wandb=offline")
    check(done, tmp_path / "run", OFFLINE, NOT_WAITED_FOR)


@pytest.mark.parametrize("server", ["closed_port", "silent_server"])
def test_the_server_is_down_or_never_answers(
    server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(server)
    account = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40}
    done = train(tmp_path, "nothing", "log.wandb=online", **account)
    check(done, tmp_path / "run", NOT_WAITED_FOR)


def test_where_the_server_is_down_the_record_goes_on_offline(
    tmp_path: Path, closed_port: str
) -> None:
    account = {"WANDB_BASE_URL": closed_port, "WANDB_API_KEY": "0" * 40}
    done = train(tmp_path, "unreachable", "log.wandb=online", **account)
    run = tmp_path / "run"
    check(done, run, r"wandb cannot be reached \(.+\)\. wandb records offline\. .*sync\.sh")
    (recorded,) = attempts(run)
    assert recorded.metrics == [as_sent(line) for line in metrics(run)]


def test_tensorboards_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file in its place")
    done = train(tmp_path, "nothing", "log.tensorboard=true")
    check(done, tmp_path / "run", r"TensorBoard failed \(.*File exists.*\); training goes on .*")


def test_there_is_no_room_for_tensorboard(tmp_path: Path) -> None:
    done = train(tmp_path, "full_disk", "log.tensorboard=true")
    check(done, tmp_path / "run", r"TensorBoard failed \(.*No space left.*\); training goes on .*")
