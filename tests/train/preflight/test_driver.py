"""Reading nvidia-smi and the kernel's log."""

import datetime
import os
from pathlib import Path

import pytest

from train.preflight.driver import (
    DriverReport,
    driver_report,
    memory_errors,
    row_errors,
    xid_errors,
)

NOW = datetime.datetime(2024, 5, 17, 12, 0, tzinfo=datetime.timezone.utc)


def test_memory_errors_and_pending_pages_are_found() -> None:
    text = "0, 0, No\n1, 3, No\n2, 0, Yes\n3, [N/A], [N/A]\n"
    assert memory_errors(text) == [
        "GPU 1: 3 uncorrected memory errors",
        "GPU 2: memory pages are pending retirement; reset it",
    ]


def test_rows_to_be_remapped_are_found() -> None:
    text = (
        "00000000:07:00.0, No, No\n"
        "00000000:0B:00.0, Yes, No\n"
        "00000000:48:00.0, No, Yes\n"
        "00000000:4C:00.0, 1, 0\n"
        "00000000:88:00.0, [N/A], [N/A]\n"
    )
    assert row_errors(text) == [
        "GPU 00000000:0B:00.0: memory rows are pending remapping; reset it",
        "GPU 00000000:48:00.0: memory rows could not be remapped; replace it",
        "GPU 00000000:4C:00.0: memory rows are pending remapping; reset it",
    ]


def test_no_driver_means_no_errors() -> None:
    message = "NVIDIA-SMI has failed because it couldn't communicate\n"
    for read in (memory_errors, row_errors):
        assert read("") == read(message) == []


def test_xid_messages_are_told_once_and_those_of_programs_are_not() -> None:
    log = (
        "2024-05-17T11:00:00,000001+00:00 NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
        "2024-05-17T11:00:01,000002+00:00 NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
        "2024-05-17T11:00:02,000003+00:00 NVRM: Xid (PCI:0000:5e:00): 31, pid=99, MMU fault\n"
        "2024-05-17T11:00:03,000004+00:00 usb 1-1: new device\n"
        "2024-05-17T14:00:04,000005+0200 [ T1234] NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, Contained error\n"
    )
    assert xid_errors(log, NOW) == ["XID 79 on PCI:0000:3b:00", "XID 94 on PCI:0000:01:00 GPU-I:05"]


def test_old_xid_messages_do_not_keep_a_mended_gpu_out() -> None:
    line = "{} NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
    assert xid_errors(line.format("2024-05-16T11:59:59,000000+00:00"), NOW) == []
    # The same moment as 12:00:01 UTC, a day ago.
    assert xid_errors(line.format("2024-05-16T14:00:01,000000+02:00"), NOW) != []


def stand_ins(folder: Path, smi: str, dmesg: str) -> None:
    for name, body in (("nvidia-smi", smi), ("dmesg", dmesg)):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)


READABLE = "echo '2024-05-17T11:00:03,000004+00:00 usb 1-1: new device'"
DENIED = "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1"
A100 = """case "$1" in
--query-gpu=index,*) echo '0, 0, [N/A]' ;;
--query-remapped-rows=gpu_bus_id,*) echo '00000000:07:00.0, Yes, No' ;;
esac"""
V100 = """case "$1" in
--query-gpu=index,*) echo '0, 0, Yes' ;;
*) echo 'Option "--query-remapped-rows" is not recognized.'; exit 2 ;;
esac"""


@pytest.mark.parametrize(
    ("smi", "dmesg", "problems", "notes"),
    [
        (A100, READABLE, ["GPU 00000000:07:00.0: memory rows are pending remapping; reset it"], []),
        (V100, READABLE, ["GPU 0: memory pages are pending retirement; reset it"], []),
        ("exit 15", READABLE, ["nvidia-smi: a GPU has fallen off the bus"], []),
        ("exit 2", READABLE, [], ["memory errors: not readable"]),
        ("echo '0, 0, No'", DENIED, [], ["XID: not readable"]),
    ],
)
def test_what_is_wrong_and_what_could_not_be_looked_at(
    smi: str,
    dmesg: str,
    problems: list[str],
    notes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_ins(tmp_path, smi, dmesg)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert driver_report() == DriverReport(problems, notes)
