"""Faults of a node's GPUs that the NVIDIA driver and the kernel's log report."""

import datetime
import re
import shutil
import subprocess
from dataclasses import dataclass, field

_QUERY = ("index", "ecc.errors.uncorrected.volatile.total", "retired_pages.pending")
# Row remapping replaced page retirement: A100 and later answer [N/A] to the query above, older GPUs to this one.
_ROWS_QUERY = ("gpu_bus_id", "remapped_rows.pending", "remapped_rows.failure")
# Exit codes of nvidia-smi that report a GPU fault; other codes report a wrong query or installation.
_GPU_FAULTS = {
    8: "a GPU's power cable is not attached",
    10: "a GPU's interrupts do not arrive",
    14: "a GPU's infoROM is corrupted",
    15: "a GPU has fallen off the bus",
}
# Time, hours and minutes of the time zone (with or without a colon), GPU, XID number.
_XID = re.compile(r"^(\d[\dT:.,-]+)([+-]\d\d):?(\d\d) .*NVRM: Xid \(([^)]*)\): (\d+)", re.MULTILINE)
# XIDs that an application can cause itself (out-of-bounds access, a killed process); they do not indicate a bad board.
_OWN_FAULT = {"13", "31", "43", "45"}
# The log is kept until the next boot, so a GPU that has been reset since an old message must be able to join.
XID_HOURS = 24
_SECONDS = 30


@dataclass(frozen=True)
class DriverReport:
    """The faults found on a node."""

    problems: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    """What could not be checked; this does not make a node bad."""


def driver_report() -> DriverReport:
    """Ask nvidia-smi and the kernel's log."""
    problems: list[str] = []
    notes: list[str] = []
    code, answer = _smi(f"--query-gpu={','.join(_QUERY)}")
    if code in _GPU_FAULTS:
        problems.append(f"nvidia-smi: {_GPU_FAULTS[code]}")
    elif code != 0:
        notes.append("memory errors: not readable")
    _, rows = _smi(f"--query-remapped-rows={','.join(_ROWS_QUERY)}")
    problems += memory_errors(answer) + row_errors(rows)
    code, log = _run("dmesg", "--time-format", "iso")  # only for root on many systems
    if code == 0:
        problems += xid_errors(log, datetime.datetime.now(datetime.timezone.utc))
    else:
        notes.append("XID: not readable")
    return DriverReport(problems, notes)


def memory_errors(text: str) -> list[str]:
    """Read nvidia-smi's answer: a line per GPU, fields in the order of the query."""
    found: list[str] = []
    for index, uncorrected, pending in _lines(text, len(_QUERY)):
        if uncorrected.isdigit() and int(uncorrected) > 0:
            found.append(f"GPU {index}: {uncorrected} uncorrected memory errors")
        if _is_yes(pending):
            found.append(f"GPU {index}: memory pages are pending retirement; reset it")
    return found


def row_errors(text: str) -> list[str]:
    """Read nvidia-smi's answer on remapped rows."""
    found: list[str] = []
    for bus_id, pending, failure in _lines(text, len(_ROWS_QUERY)):
        if _is_yes(failure):
            found.append(f"GPU {bus_id}: memory rows could not be remapped; replace it")
        elif _is_yes(pending):
            found.append(f"GPU {bus_id}: memory rows are pending remapping; reset it")
    return found


def xid_errors(text: str, now: datetime.datetime) -> list[str]:
    """XID messages of the kernel's log, each kind once per GPU, none older than XID_HOURS.

    Args:
        text: output of `dmesg --time-format iso`.
        now: the present time, with a time zone.
    """
    oldest = now - datetime.timedelta(hours=XID_HOURS)
    seen: dict[tuple[str, str], None] = {}
    for time, hours, minutes, device, number in _XID.findall(text):
        logged = datetime.datetime.fromisoformat(f"{time.replace(',', '.')}{hours}:{minutes}")
        if logged >= oldest and number not in _OWN_FAULT:
            seen[number, device] = None
    return [f"XID {number} on {device}" for number, device in seen]


def driver_version() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    _, text = _smi("--query-gpu=driver_version")
    return text.splitlines()[0].strip() if text.strip() else None


def _lines(text: str, num_fields: int) -> list[list[str]]:
    split = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    return [fields for fields in split if len(fields) == num_fields]


def _is_yes(answer: str) -> bool:
    return answer.lower() in ("yes", "1")


def _smi(query: str) -> tuple[int | None, str]:
    return _run("nvidia-smi", query, "--format=csv,noheader")


def _run(*command: str) -> tuple[int | None, str]:
    """The exit code and, if it is 0, the output; None if the program is not installed or does not end in time."""
    if shutil.which(command[0]) is None:
        return None, ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None, ""
    return done.returncode, done.stdout if done.returncode == 0 else ""
