"""A warning at the start of a run if other machines can reach its launcher: PyTorch's runs code that it is sent.

torchrun's own rendezvous keeps its state as a pickle in a store that listens on every address of the machine: whoever
reaches the port can run code as its user.
"""

import contextlib
import ipaddress
import sys
from collections.abc import Iterator
from pathlib import Path

from train.world import World, is_on_one_node, launcher_pid

_LISTENING = "0A"


def exposure_warning(world: World) -> str | None:
    """What to type instead, if torchrun listens where other machines reach it; None otherwise, or where that is unknown."""
    pid = launcher_pid(world)
    addresses = [] if pid is None else outside_addresses(pid)
    if not addresses:
        return None
    where = ", ".join(addresses)
    risk = "whoever reaches it can run code as you"
    if is_on_one_node(world):
        return (
            f"torchrun listens at {where}: {risk}. To listen on this machine only: "
            f"python -m train.torchrun --nproc-per-node {world.size} -m train ..."
        )
    return f"torchrun listens at {where}: {risk}. Use it only on a network of machines that you trust, or SLURM."


def outside_addresses(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Addresses other than loopback at which a process listens, as HOST:PORT.

    Args:
        pid: of a process of this user.
        proc: where the proc file system is mounted.
    """
    try:
        sockets = set(_open_files(proc / str(pid) / "fd"))
        tables = [
            (proc / str(pid) / "net" / name).read_text().splitlines()[1:]
            for name in ("tcp", "tcp6")
        ]
    except (OSError, ValueError):
        return []  # not Linux, or no permission
    found = {
        address
        for address, inode in _listeners([line for table in tables for line in table])
        if f"socket:[{inode}]" in sockets and not address[0].is_loopback
    }
    return [
        f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"
        for host, port in sorted(found, key=lambda entry: (entry[1], str(entry[0])))
    ]


def _open_files(folder: Path) -> Iterator[str]:
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield link.readlink().name


_Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def _listeners(lines: list[str]) -> Iterator[tuple[_Address, str]]:
    """(Address, inode) of each listening socket in the kernel's tables."""
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING:
            host, _, port = fields[1].partition(":")
            yield (_host(host), int(port, 16)), fields[9]


def _host(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel writes it: words of four bytes, each in the byte order of the machine."""
    raw = bytes.fromhex(text)
    step = -1 if sys.byteorder == "little" else 1
    words = b"".join(raw[at : at + 4][::step] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(words)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
