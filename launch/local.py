"""A sweep on this machine:  python -m launch sweep --sweep optim.lr=1e-4,2e-4 --local [--jobs N]

Each run is a `python -m train` process of its own. Finished runs are passed over, stopped runs continue, and a run that
fails does not keep the others from running. Ctrl-C reaches the runs only through this process, once each time it is
pressed: the first one lets them save and stop, the second stops them at once.
"""

import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from configs import derive
from configs.errors import EXIT_DONE, EXIT_STOPPED, ConfigError, RunFolderError
from configs.load import load_config
from configs.terminal import tell
from launch.options import Request, parse
from launch.sweep import Variant, is_finished, table, variants

LOCAL, TABLE, JOBS, SWEEP = "--local", "--table", "--jobs", "--sweep"
# How often the running processes are polled, in seconds.
_POLL = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def sweep(words: list[str]) -> str | int:
    """Run a sweep here, or show its runs or their results.

    Args:
        words: overrides, `--sweep key=value,value`, and `--local`, `--jobs N` or `--table`.

    Returns:
        With --local the exit code: 0, 75 if the runs were stopped, or that of the first run that failed; otherwise
        the table, or the commands of the runs, one per line.

    Raises:
        ConfigError: a combination cannot run, or the options contradict each other.
    """
    request = parse(words, (LOCAL, TABLE), (SWEEP, JOBS))
    if found := _problems(request):
        raise ConfigError(found)
    made = variants(request.overrides, request.values[SWEEP])
    if TABLE in request.switches:
        return table(made)
    if LOCAL not in request.switches:
        return "\n".join(shlex.join(["python", "-m", "train", *run.overrides]) for run in made)
    name = derive.run_name(load_config(request.overrides))
    return run_here(made, request.number(JOBS, 1), Path("runs") / f"{name}-sweep")


def run_here(made: Sequence[Variant], jobs: int, logs: Path) -> int:
    """Run those that are not finished, and print the table of all runs.

    Args:
        made: the runs of the sweep.
        jobs: how many run at a time; a single one writes to the terminal, several write to a file each.
        logs: folder for these files.

    Returns:
        The exit code; see `sweep`.

    Raises:
        ConfigError: a run needs more than one process.
        RunFolderError: the folder cannot be made.
    """
    if found := _too_large(made):
        raise ConfigError(found)
    waiting = [(number, run) for number, run in enumerate(made) if not is_finished(run)]
    _log(f"{len(made)} runs, {len(made) - len(waiting)} of them finished.")
    session = _Session(logs if jobs > 1 else None)
    with session.signals():
        while (waiting and not session.is_stopping) or session.running:
            while waiting and not session.is_stopping and len(session.running) < jobs:
                session.start(*waiting.pop(0))
            session.collect()
            time.sleep(_POLL)
    _log("\n" + table(made))
    return session.verdict()


@dataclass
class _Session:
    """The processes of a sweep.

    Attributes:
        logs: folder for the output of each process; None: the terminal.
        running: the processes that are running, by the number of their run.
        codes: exit codes of the processes that have ended, by the number of their run.
        is_stopping: whether a signal has asked the sweep to stop.
    """

    logs: Path | None
    running: dict[int, subprocess.Popen[bytes]] = field(
        default_factory=dict[int, "subprocess.Popen[bytes]"]
    )
    codes: dict[int, int] = field(default_factory=dict[int, int])
    is_stopping: bool = False

    def start(self, number: int, run: Variant) -> None:
        """Start a run in a session of its own, where the terminal's Ctrl-C does not reach it a second time."""
        words = " ".join(f"{key}={value}" for key, value in run.values.items())
        command = [sys.executable, "-m", "train", *run.overrides]
        with contextlib.ExitStack() as stack:
            output, where = None, ""
            if self.logs is not None:
                path = self.logs / f"run_{number}.txt"
                output = stack.enter_context(_appended(path))
                where = f", output in {path}"
            _log(f"Run {number}: {words} in {run.folder}{where}")
            self.running[number] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def collect(self) -> None:
        """Note which processes have ended."""
        for number, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[number]
            self.codes[number] = code
            ending = {EXIT_DONE: "done", EXIT_STOPPED: "stopped"}.get(code, f"failed ({code})")
            _log(f"Run {number}: {ending}")

    def verdict(self) -> int:
        """Return the exit code of the sweep, and name the runs that failed on standard error."""
        failed = {
            number: code
            for number, code in sorted(self.codes.items())
            if code not in (EXIT_DONE, EXIT_STOPPED)
        }
        if self.is_stopping or EXIT_STOPPED in self.codes.values():
            tell("Stopped. The same command continues.", sys.stderr)
        elif failed:
            numbers = ", ".join(map(str, failed))
            tell(
                f"Failed: run {numbers}. The same command runs these again and passes over the others.",
                sys.stderr,
            )
        code = next(iter(failed.values()), EXIT_STOPPED if self.is_stopping else None)
        if code is None:
            return EXIT_STOPPED if EXIT_STOPPED in self.codes.values() else EXIT_DONE
        return code if code > 0 else 128 - code  # a signal's number, as shells give it

    @contextlib.contextmanager
    def signals(self) -> Generator[None, None, None]:
        """Forward stop signals to the runs."""
        previous = {number: signal.signal(number, self._forward) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.is_stopping = True
        # Closing the terminal also asks the runs to save and stop.
        sent = signal.SIGTERM if number == signal.SIGHUP else number
        for process in self.running.values():
            process.send_signal(sent)


def _appended(path: Path) -> BinaryIO:
    """Open a file for appending."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror}.") from error


def _problems(request: Request) -> list[str]:
    found = list[str]()
    if SWEEP not in request.values:
        found.append("--sweep names the values of a key. Try --sweep optim.lr=1e-4,2e-4.")
    if {LOCAL, TABLE} <= request.switches:
        found.append("--table only shows results. Leave out --local or --table.")
    if JOBS in request.values and LOCAL not in request.switches:
        found.append("--jobs sets how many runs this machine runs at a time. Add --local.")
    return found


def _too_large(made: Sequence[Variant]) -> list[str]:
    sizes = {derive.planned_world_size(run.config) for run in made} - {1}
    return [
        f"A run of {size} ranks does not run with --local, which starts one process for each run. Send the sweep with "
        "python -m launch slurm, or try cluster.nodes=1 cluster.gpus_per_node=1."
        for size in sorted(sizes)[-1:]
    ]


def _log(text: str) -> None:
    tell(text)
