"""The report of a run while it trains, for a browser on the same machine: python -m train.report runs/default --serve.

The server answers on the loopback interface alone, to GET and HEAD of its own two addresses: `/` is the page, `/data` what
is inside of it, which the page asks for every few seconds. `/favicon.ico`, which browsers ask for, is empty. A page from
elsewhere cannot read either, by whatever name it reaches this machine: the Host header must be a name of the loopback
interface.
"""

import contextlib
import errno
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from configs.errors import RunFolderError, UserError
from configs.version import DISTRIBUTION
from train.report.live import LiveReport, Snapshot

DEFAULT_PORT = 8130
"""Tried first where no port is asked for, so that a tunnel can be typed once."""
_LOOPBACK = "127.0.0.1"
_NAMES = (_LOOPBACK, "localhost", "[::1]")
_MOST_CONNECTIONS = 64
REQUEST_SECONDS, ANSWER_SECONDS = 10.0, 300.0
"""How long a client may take to send its request, and to take the answer."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


class ReportServer(ThreadingHTTPServer):
    """Serves a live report; `serve_forever` runs it, `shutdown` from another thread ends it.

    Args:
        report: what is served.
        port: to listen on; 0: any free one.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    block_on_close = False
    # A port whose last server has just ended can be had at once; one that is listened on cannot.
    allow_reuse_address = True

    def __init__(self, report: LiveReport, port: int) -> None:
        self.report = report
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((_LOOPBACK, port), _Handler)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def hosts(self) -> tuple[str, ...]:
        """The Host headers that it answers to."""
        return tuple(f"{name}:{self.port}" for name in _NAMES)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own, unless there are too many."""
        with self._lock:
            is_full = len(self._deadlines) >= _MOST_CONNECTIONS
            if not is_full:
                self._deadlines[request] = time.monotonic() + REQUEST_SECONDS
        if is_full:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def is_answering(self, request: Any) -> None:
        """Take that the request of a connection has arrived: from now on the client may take its time to read."""
        with self._lock:
            if request in self._deadlines:
                self._deadlines[request] = time.monotonic() + ANSWER_SECONDS

    def service_actions(self) -> None:
        """Cut off connections that take too long; called about twice a second."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, deadline in self._deadlines.items() if deadline < now]
        for request in late:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone away; anything else is a fault of this program, and is shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = _LOOPBACK, self.port


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: ReportServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = ANSWER_SECONDS

    def parse_request(self) -> bool:
        """Take the request line and the headers; False if it is refused, which is then answered."""
        if not super().parse_request():
            return False
        self.server.is_answering(self.request)
        if self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.")
            return False
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            port = self.server.port
            self.send_error(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server answers to http://localhost:{port}/ alone. From another computer: "
                f"ssh -L {port}:localhost:{port} HOST",
            )
            return False
        return True

    def do_GET(self) -> None:
        """Answer with the page or its data."""
        path = self.path.partition("?")[0]
        if path == "/favicon.ico":  # every browser asks for it by itself
            self._send(HTTPStatus.NO_CONTENT, None, b"", _NOTHING)
            return
        if path not in ("/", "/data"):
            self.send_error(HTTPStatus.NOT_FOUND, "There is nothing here but / and /data.")
            return
        try:
            found = self.server.report.snapshot()
        except (UserError, OSError) as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        if path == "/":
            allowed = f"{found.policy}; frame-ancestors 'none'"
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", found.page, allowed)
        else:
            self._send_data(found)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the content."""
        self.do_GET()

    def version_string(self) -> str:
        """Name the program, and no version of it."""
        return DISTRIBUTION

    def _send_data(self, found: Snapshot) -> None:
        tag = f'"{found.tag}"'
        if tag in (self.headers.get("If-None-Match") or ""):
            self._send(HTTPStatus.NOT_MODIFIED, None, b"", _NOTHING, tag)
        else:
            self._send(HTTPStatus.OK, "application/json", found.data, _NOTHING, tag)

    def _send(
        self,
        status: HTTPStatus,
        kind: str | None,
        body: bytes,
        allowed: str,
        tag: str | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", allowed)
        if tag is not None:
            self.send_header("ETag", tag)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if kind is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request with a sentence as plain text."""
        status = HTTPStatus(code)
        self.close_connection = True
        text = f"{message or status.phrase}\n".encode(errors="replace")
        self._send(status, "text/plain; charset=utf-8", text, _NOTHING)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests off the terminal: they are the browser's, every few seconds."""


def open_server(
    folders: Sequence[Path], port: int | None, report: Callable[[str], None]
) -> ReportServer:
    """Read the runs once, and listen.

    Args:
        folders: run folders.
        port: to listen on; None: the usual one, or any other if that is taken.
        report: told about files that cannot be read.

    Raises:
        UserError: a run cannot be read, or the port cannot be had.
        OSError: the file system failed.
    """
    live = LiveReport(folders, report)
    live.snapshot()
    try:
        return ReportServer(live, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None and error.errno in (errno.EADDRINUSE, errno.EACCES):
            return ReportServer(live, 0)
        raise RunFolderError(
            f"Port {port} of {_LOOPBACK} cannot be listened on: {error.strerror}. Choose another with --port N, or leave "
            "--port out."
        ) from error


def serve(server: ReportServer, tell: Callable[[str], None]) -> None:
    """Say where the report is, and answer until Ctrl-C.

    Args:
        server: listens already; is closed.
        tell: gets the lines for the terminal.
    """
    port = server.port
    tell(f"http://{_LOOPBACK}:{port}/")
    tell("The page follows the run. Ctrl-C ends it.")
    tell(
        f"From another computer: ssh -L {port}:localhost:{port} HOST, then open http://localhost:{port}/ there."
    )
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()
