"""Reading nvidia-smi and the kernel's log."""

from train.preflight.driver import smi_errors, xid_errors


def test_memory_errors_and_pending_pages_are_found() -> None:
    text = "0, 0, No, 550.54\n1, 3, No, 550.54\n2, 0, Yes, 550.54\n3, [N/A], [N/A], 550.54\n"
    assert smi_errors(text) == [
        "GPU 1: 3 uncorrected memory errors",
        "GPU 2: memory pages wait to be retired; reset it",
    ]


def test_no_driver_means_no_errors() -> None:
    assert smi_errors("") == []
    assert smi_errors("NVIDIA-SMI has failed because it couldn't communicate\n") == []


def test_xid_messages_are_told_once_and_those_of_programs_are_not() -> None:
    log = (
        "[1.0] NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
        "[2.0] NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.\n"
        "[3.0] NVRM: Xid (PCI:0000:5e:00): 31, pid=99, MMU fault\n"
        "[4.0] usb 1-1: new device\n"
    )
    assert xid_errors(log) == ["XID 79 on PCI:0000:3b:00"]
