"""What the NVIDIA driver knows of a node's GPUs: uncorrected memory errors, rows to be remapped, XID messages."""

import re
import shutil
import subprocess

_QUERY = (
    "index",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
    "driver_version",
)
_XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
# XIDs that an application causes itself (out-of-bounds access, a killed process) say nothing about the board.
_OWN_FAULT = {"13", "31", "43", "45"}
_SECONDS = 30


def device_errors() -> list[str]:
    """Ask nvidia-smi and the kernel's log; empty where there is neither."""
    return smi_errors(
        _run("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader")
    ) + (xid_errors(_run("dmesg")))


def smi_errors(text: str) -> list[str]:
    """Read the query's answer: a line per GPU, fields in the order of the query."""
    found = []
    for line in text.splitlines():
        fields = [word.strip() for word in line.split(",")]
        if len(fields) != len(_QUERY):
            continue
        index, uncorrected, pending, _ = fields
        if uncorrected.isdigit() and int(uncorrected) > 0:
            found.append(f"GPU {index}: {uncorrected} uncorrected memory errors")
        if pending.lower() == "yes":
            found.append(f"GPU {index}: memory pages wait to be retired; reset it")
    return found


def xid_errors(text: str) -> list[str]:
    """XID messages of the kernel's log, each kind once per GPU."""
    seen = dict.fromkeys(_XID.findall(text))
    return [f"XID {number} on {device}" for device, number in seen if number not in _OWN_FAULT]


def driver_version() -> str | None:
    """Version of the NVIDIA driver; None where there is none."""
    text = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return text.splitlines()[0].strip() if text.strip() else None


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
