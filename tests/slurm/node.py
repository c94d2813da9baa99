"""One node of the test cluster: namespaces that die as a machine dies, and the faults that one can cause in it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# The first process of a node. It reaps what its children leave behind, as init does.
_INIT = """
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
slurmd -f "$2/slurm.conf" -N "$1"
while :; do sleep 3600 & wait $! || true; done
"""


def wait_until(
    condition: Callable[[], bool],
    timeout_seconds: float,
    what: str,
    explain: Callable[[], str] = str,
) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time; with `explain()`.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds} s for {what}\n{explain()}")
        time.sleep(0.1)


class TiedProcess:
    """A process that is killed when this one dies, however it dies.

    Args:
        words: the command.
        log: where its output goes.
    """

    def __init__(self, words: list[str], log: Path = Path(os.devnull)) -> None:
        with log.open("a") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id on the host."""
        return self._process.pid

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Network:
    """A bridge on the host and a subnet behind it, 10.231.<number>.0/24."""

    number: int

    @classmethod
    def claim(cls) -> "Network":
        """Take the first number that no other cluster on this host has."""
        for number in range(1, 250):
            network = cls(number)
            made = ["ip", "link", "add", network.bridge, "type", "bridge"]
            if subprocess.run(made, capture_output=True).returncode == 0:
                _ip("addr", "add", f"{network.address(1)}/24", "dev", network.bridge)
                _ip("link", "set", network.bridge, "up")
                return network
        raise AssertionError("no network could be made: see ip link")

    @property
    def bridge(self) -> str:
        """Name of the bridge; also begins the names of all that belongs to it."""
        return f"glm{self.number}"

    @property
    def prefix(self) -> str:
        """The first three numbers of all addresses."""
        return f"10.231.{self.number}"

    def address(self, host: int) -> str:
        """IPv4 address of a member."""
        return f"{self.prefix}.{host}"

    def cable(self, host: int) -> str:
        """Name of the bridge's end of a member's cable."""
        return f"{self.bridge}v{host}"

    def add(self, name: str, host: int) -> str:
        """Make a member's namespace, connected to the bridge; returns the namespace's name."""
        namespace, cable = f"{self.bridge}-{name}", self.cable(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", cable, "master", self.bridge, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return namespace

    def remove(self, name: str, host: int) -> None:
        """Remove a member, if it is there."""
        for words in (("link", "del", self.cable(host)), ("netns", "del", f"{self.bridge}-{name}")):
            subprocess.run(["ip", *words], capture_output=True)

    def release(self) -> None:
        """Remove the controller's namespace and the bridge."""
        self.remove("controller", 2)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)


class Node:
    """A node and its faults.

    Args:
        name: its hostname.
        host: last number of its address.
        network: where it is a member.
        folder: of the cluster.
    """

    def __init__(self, name: str, host: int, network: Network, folder: Path) -> None:
        self.name = name
        self._host = host
        self._network = network
        self._folder = folder
        self._machine: TiedProcess | None = None

    def start(self) -> None:
        """Boot it."""
        namespace = self._network.add(self.name, self._host)
        own = ["--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
        inside = ["ip", "netns", "exec", namespace, "unshare", *own]
        init = ["bash", "-c", _INIT, "init", self.name, str(self._folder)]
        self._machine = TiedProcess([*inside, *init], self._folder / "log" / f"{self.name}.out")

    def kill(self) -> None:
        """Power off: every process of the node is gone at once."""
        if self._machine is None:
            return
        children = _children(self._machine.pid)
        self._machine.kill()
        for child in children:
            wait_until(lambda pid=child: _has_ended(pid), 20, f"{self.name} dead")
        self._machine = None
        self._network.remove(self.name, self._host)

    def kill_daemon(self) -> None:
        """Kill slurmd alone; the ranks keep running."""
        for child in _children(self._init()):
            if Path(f"/proc/{child}/comm").read_text().strip() == "slurmd":
                os.kill(child, signal.SIGKILL)

    def start_daemon(self) -> None:
        """Start slurmd again."""
        enter = ["nsenter", "-t", str(self._init()), "-m", "-u", "-i", "-n", "-p"]
        daemon = ["slurmd", "-f", str(self._folder / "slurm.conf"), "-N", self.name]
        subprocess.run([*enter, *daemon], check=True, capture_output=True, timeout=30)

    def cut(self) -> None:
        """Unplug the network; the ranks keep running and reach nothing."""
        _ip("link", "set", self._network.cable(self._host), "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self._network.cable(self._host), "up")

    def _init(self) -> int:
        assert self._machine is not None, f"{self.name} is dead"
        return _children(self._machine.pid)[0]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _has_ended(pid: int) -> bool:
    """True for a zombie too, which the first process of this machine may leave for seconds."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return children
