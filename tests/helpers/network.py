"""Two hosts on a network of their own, made of namespaces: one that runs something, and a stranger who looks at it."""

import contextlib
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

_HOST_ADDRESS, _STRANGER_ADDRESS = "10.213.7.1", "10.213.7.2"
_CONNECT = """
import socket, sys
for port in sys.argv[2:]:
    with socket.socket() as client:
        client.settimeout(2)
        if client.connect_ex((sys.argv[1], int(port))) == 0:
            print(port)
"""
_SERVE = """
import socket
server = socket.create_server(("", 0))
print(server.getsockname()[1], flush=True)
input()
"""


@dataclass(frozen=True)
class Network:
    """Two namespaces that reach each other.

    Attributes:
        host: the command that runs the words after it on the one host.
        stranger: the same on the other.
    """

    host: tuple[str, ...]
    stranger: tuple[str, ...]

    def listening(self) -> list[int]:
        """Ports on which anything on the host listens, at whatever address."""
        shown = _run(*self.host, "ss", "-ltnH").splitlines()
        return sorted({int(line.split()[3].rpartition(":")[2]) for line in shown})

    def reached(self, ports: list[int]) -> list[int]:
        """Those of the host's ports to which the stranger can connect; an open one of our own is a control."""
        server = subprocess.Popen(
            [*self.host, sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout
            control = int(server.stdout.readline())
            words = [sys.executable, "-c", _CONNECT, _HOST_ADDRESS, *map(str, [control, *ports])]
            found = [int(port) for port in _run(*self.stranger, *words).split()]
        finally:
            server.kill()
            server.communicate()
        assert found[:1] == [control], "the stranger reaches nothing at all"
        return found[1:]


@contextlib.contextmanager
def neighbours() -> Iterator[Network | None]:
    """The two hosts, until the end of the block; None where namespaces cannot be made."""
    if shutil.which("ip") is None or shutil.which("ss") is None:
        yield None
        return
    mark = uuid.uuid4().hex[:6]
    host, stranger = f"host-{mark}", f"stranger-{mark}"
    ends = (host, f"a{mark}", _HOST_ADDRESS), (stranger, f"b{mark}", _STRANGER_ADDRESS)
    with contextlib.ExitStack() as ending:
        try:
            for name, _, _ in ends:
                _run("ip", "netns", "add", name)
                ending.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            _run("ip", "link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1])
            for name, link, address in ends:
                _run("ip", "link", "set", link, "netns", name)
                _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
                for each in (link, "lo"):
                    _run("ip", "-n", name, "link", "set", each, "up")
        except (subprocess.CalledProcessError, OSError):
            yield None
            return
        inside = ("ip", "netns", "exec")
        yield Network((*inside, host), (*inside, stranger))


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
