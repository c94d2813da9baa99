"""Running the sections: each in a process of its own that is ended in time, whatever happens in it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import SECTIONS, Section, deadlines
from benchmarks.gpu.report import FAILED, RAN, TOO_LONG, WRONG, Ended, closing_lines, table
from configs.errors import UserError

ROOT = Path(__file__).parents[2]
RECORD, LOG = "session.json", "session.log"
# A dry run tells nothing by its time, and its machine may have much else to do.
_DRY_PATIENCE = 5
# Lines of a failed section's log that are kept with its result.
_LAST_LINES = 8
# A launcher's variables would make a section one rank of several.
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    folder: Path
    wheels: Path
    sections: tuple[Section, ...]
    is_dry: bool

    @classmethod
    def of(
        cls, folder: Path, wheels: Path, only: str | None, is_dry: bool, has_wheels: bool
    ) -> "Options":
        """Check what was typed.

        Raises:
            UserError: a section or a folder that is not there.
        """
        names = [section.name for section in SECTIONS]
        chosen = names if only is None else only.split(",")
        unknown = [name for name in chosen if name not in names]
        if unknown:
            raise UserError(f"--only {','.join(unknown)}: there are {','.join(names)}")
        if has_wheels and not any(wheels.glob("*.whl")):
            raise UserError(f"--wheels {wheels}: there is no wheel (*.whl) in this folder")
        if folder.is_file():
            raise UserError(f"{folder} is a file. Name a folder: python -m benchmarks gpu FOLDER")
        sections = tuple(section for section in SECTIONS if section.name in chosen)
        return cls(folder.resolve(), wheels.resolve(), sections, is_dry)


def run_session(options: Options) -> int:
    """Run all sections, print, and write the results; returns the exit code."""
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / LOG).write_text("")
    started, ended = time.monotonic(), list[Ended]()
    patience = _DRY_PATIENCE if options.is_dry else 1
    # Packages, compiled kernels and runs, of which nothing is kept.
    with tempfile.TemporaryDirectory(prefix="gpu_session") as work:
        for section, deadline in zip(options.sections, deadlines(options.sections), strict=True):
            left = deadline * patience - (time.monotonic() - started)
            ended.append(_run(section, left, options, Path(work)))
            print(json.dumps(asdict(ended[-1])), flush=True)
            _write(options, ended, time.monotonic() - started)
    seconds = time.monotonic() - started
    print("\n".join(["", *table(ended), "", *closing_lines(ended, options.is_dry, seconds)]))
    return 0 if all(each.status == RAN for each in ended) else 1


def _run(section: Section, seconds: float, options: Options, work: Path) -> Ended:
    """Run one section for at most so many seconds."""
    log, started = work / f"{section.name}.log", time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command(section, options, work),
            cwd=ROOT,
            env=_environment(options, work),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also what the section has started, and when this program is interrupted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    with (options.folder / LOG).open("a") as whole:
        whole.write(f"== {section.name}\n{text}")
    results = _results(work / f"{section.name}.jsonl")
    wrong = [each["what"] for each in results if each.get("is_right") is False]
    status, reason = RAN, ""
    if code is None:
        status, reason = TOO_LONG, f"ended after {time.monotonic() - started:.0f} s"
    elif code != 0:
        status, reason = FAILED, "\n".join(text.splitlines()[-_LAST_LINES:])
    elif wrong:
        status, reason = WRONG, "; ".join(wrong)
    taken = round(time.monotonic() - started, 1)
    return Ended(section.name, status, reason, taken, section.seconds, results)


def command(section: Section, options: Options, work: Path) -> list[str]:
    """What runs a section."""
    words = [str(work), str(options.wheels), *(["--dry-run"] if options.is_dry else [])]
    return [sys.executable, "-m", "benchmarks.gpu", section.name, *words]


def _environment(options: Options, work: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name not in LAUNCHER}
    places = [str(work / "packages"), str(ROOT), kept.get("PYTHONPATH", "")]
    return {
        **kept,
        **({"OMP_NUM_THREADS": "1"} if options.is_dry else {}),
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "PYTHONUNBUFFERED": "1",
        # A later section finds the kernels that an earlier one has compiled.
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        "TRITON_CACHE_DIR": str(work / "triton"),
    }


def _results(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a section that may have been killed while it wrote one."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _write(options: Options, ended: Sequence[Ended], seconds: float) -> None:
    record = {
        "benchmark": "gpu",
        "is_dry_run": options.is_dry,
        "seconds": round(seconds, 1),
        "sections": [asdict(each) for each in ended],
    }
    text = json.dumps(record, indent=1)
    (options.folder / RECORD).write_text(text + "\n", encoding="utf-8")
