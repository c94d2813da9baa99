"""The server of --serve: its own two addresses on the loopback interface, to its own names, and nothing else."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.places import ROOT
from tests.helpers.report_pages import data_of
from tests.helpers.report_server import serving
from train.report import serve
from train.report.__main__ import cli
from train.report.serve import ReportServer, open_server

HOSTILE = "<script>alert(1)<\\x2fscript>\x1b[31m'\"&"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "a'<b>\x1b[31m"
    folder.mkdir()
    grow(folder, 1, 3)
    (folder / "status.json").write_text('{"state": "done"}')
    (folder / "events.jsonl").write_text(
        json.dumps({"event": HOSTILE, "time": 1.0, "message": HOSTILE}) + "\n"
    )
    return folder


def grow(folder: Path, first: int, last: int) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            line = {"step": step, "samples_seen": 8 * step, "tokens_seen": step, "train/loss": 1.0}
            file.write(json.dumps(line) + "\n")


@pytest.fixture
def server(run: Path) -> Iterator[ReportServer]:
    with serving(run) as found:
        yield found


class Answer:
    """An answer as it came."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


def ask(
    server: ReportServer, path: str = "/", method: str = "GET", **headers: str | None
) -> Answer:
    """Send a request; `Host` is the server's own unless it is given, and left out for None."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": f"127.0.0.1:{server.port}", **headers}.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        found = connection.getresponse()
        return Answer(found.status, dict(found.getheaders()), found.read())


def raw(server: ReportServer, request: bytes) -> bytes:
    """Send bytes, and read all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        parts = list[bytes]()
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def test_the_page_and_its_data_are_the_same_reading(server: ReportServer) -> None:
    page, data = ask(server), ask(server, "/data")
    assert (page.status, data.status) == (200, 200)
    assert data_of(page.body.decode()) == json.loads(data.body)
    assert json.loads(data.body)["live"] is True


def test_the_page_may_ask_its_own_server_and_nobody_else(server: ReportServer) -> None:
    page = ask(server)
    allowed = page.headers["Content-Security-Policy"]
    assert allowed.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in allowed and "frame-ancestors 'none'" in allowed
    assert "unsafe" not in allowed and "http" not in allowed
    in_page = re.search(r'Content-Security-Policy" content="([^"]+)"', page.body.decode())
    assert in_page is not None and in_page[1].replace("&#x27;", "'") in allowed
    assert b"connect-src" not in file_page(server).encode()


def file_page(server: ReportServer) -> str:
    from train.report.page import render

    return render(server.report._folders)


@pytest.mark.parametrize("path", ["/", "/data", "/nothing"])
def test_every_answer_is_kept_to_itself(server: ReportServer, path: str) -> None:
    headers = ask(server, path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Server"] == "glm-pretraining"


def test_data_that_are_known_are_not_sent_again(server: ReportServer, run: Path) -> None:
    first = ask(server, "/data")
    again = ask(server, "/data", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    # The tag is what the page finds in its own data.
    written = json.loads(first.body)["written"]
    assert first.headers["ETag"] == f'"{json.dumps(written)}"'


def test_a_run_that_grows_gives_newer_data(server: ReportServer, run: Path) -> None:
    first = ask(server, "/data")
    assert json.loads(first.body)["runs"][0]["step"] == 3
    server.report._not_before = -1.0  # the pause is over
    grow(run, 4, 6)
    second = ask(server, "/data", If_None_Match=first.headers["ETag"])
    assert second.status == 200 and json.loads(second.body)["runs"][0]["step"] == 6


def test_only_the_names_of_the_loopback_interface_are_answered(server: ReportServer) -> None:
    port = server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert ask(server, Host=host).status == 200
    for host in (
        None,
        "",
        "localhost",
        f"localhost:{port + 1}",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        f"localhost:{port}@evil.example",
        f"localhost:{port}.evil.example",
        f"0.0.0.0:{port}",
    ):
        refused = ask(server, "/data", Host=host)
        assert refused.status == 421, host
        assert b"ssh -L" in refused.body and b"train/loss" not in refused.body
    two = f"GET /data HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n"
    assert raw(server, two.encode()).startswith(b"HTTP/1.0 421")


@pytest.mark.parametrize(
    "path",
    [
        "/metrics.jsonl",
        "/../metrics.jsonl",
        "/..%2fmetrics.jsonl",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//evil.example/data",
        "/data/",
        "/data/..",
        "/DATA",
        "/./data",
        "/report.html",
        "data",
        "*",
        "http://localhost/data",
        "/\x00data",
    ],
)
def test_nothing_else_is_there(server: ReportServer, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n"
    answer = raw(server, request.encode())
    assert answer.startswith((b"HTTP/1.0 404", b"HTTP/1.0 400")), answer[:100]
    assert b"train/loss" not in answer and b"root:" not in answer


def test_there_is_no_icon(server: ReportServer) -> None:
    found = ask(server, "/favicon.ico")
    assert (found.status, found.body) == (204, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_only_get_and_head_are_answered(server: ReportServer, method: str) -> None:
    refused = ask(server, "/data", method)
    assert refused.status == 405 and refused.headers["Allow"] == "GET, HEAD"
    assert b"train/loss" not in refused.body


def test_head_has_the_headers_alone(server: ReportServer) -> None:
    found = ask(server, "/data", "HEAD")
    assert found.status == 200 and found.body == b""
    assert int(found.headers["Content-Length"]) == len(ask(server, "/data").body)


def test_headers_without_end_are_refused(server: ReportServer) -> None:
    port = server.port
    long = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nX: {'x' * 100_000}\r\n\r\n"
    many = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n" + "X: x\r\n" * 500 + "\r\n"
    address = f"GET /{'x' * 100_000} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    for request, status in ((long, b"431"), (many, b"431"), (address, b"414")):
        answer = raw(server, request.encode())
        # The rest of the request may still be on its way when the server closes.
        assert answer == b"" or answer.split()[1] == status
    assert ask(server).status == 200


def test_slow_clients_do_not_keep_others_from_an_answer(server: ReportServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=30)
            )
            slow.sendall(b"GET / HT")
        assert ask(server).status == 200


def test_a_client_that_never_finishes_its_request_is_cut_off(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 0.2)
    with serving(run) as server:
        assert raw(server, b"GET / HT") == b""
        assert ask(server).status == 200


def test_more_connections_than_there_is_room_for_are_closed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_MOST_CONNECTIONS", 2)
    with serving(run) as server, contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            for _ in range(2)
        ]
        while len(server._deadlines) < 2:
            pass
        assert raw(server, b"GET / HTTP/1.1\r\n\r\n") == b""
        held[0].close()
        while len(server._deadlines) > 1:
            pass
        assert ask(server).status == 200


def test_a_run_that_is_gone_is_said_and_the_server_goes_on(server: ReportServer, run: Path) -> None:
    content = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").unlink()
    server.report._not_before = -1.0
    refused = ask(server, "/data")
    assert refused.status == 503 and refused.headers["Content-Type"].startswith("text/plain")
    (run / "metrics.jsonl").write_text(content)
    server.report._not_before = -1.0
    assert ask(server, "/data").status == 200


def test_a_fault_of_the_program_is_shown_and_a_client_that_left_is_not(
    server: ReportServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> None:
        def raised(*_: object) -> None:
            raise error

        monkeypatch.setattr(serve._Handler, "_send", raised)
        assert (
            raw(server, f"GET / HTTP/1.1\r\nHost: localhost:{server.port}\r\n\r\n".encode()) == b""
        )

    fail(BrokenPipeError())
    assert capfd.readouterr().err == ""
    fail(ValueError("a fault of the program"))
    assert "ValueError: a fault of the program" in capfd.readouterr().err


def test_texts_of_the_run_stay_data(server: ReportServer) -> None:
    page, data = ask(server).body.decode(), ask(server, "/data")
    assert "<script>alert" not in page and "\x1b" not in page
    assert data.headers["Content-Type"] == "application/json" and b"\x1b" not in data.body
    assert "<script>alert" in json.dumps(json.loads(data.body)["events"])


def test_it_listens_on_the_loopback_interface_alone(server: ReportServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_message(
    server: ReportServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([str(run), "--serve", "--port", str(server.port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert f"Port {server.port} of 127.0.0.1 cannot be listened on" in captured.err
    assert "--port N" in captured.err


def test_the_usual_port_is_not_insisted_on(
    server: ReportServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DEFAULT_PORT", server.port)
    with open_server([run], None, lambda _: None) as other:
        assert other.port not in (0, server.port)


@pytest.mark.parametrize(
    "words",
    [["--port", "1"], ["--serve", "--port", "70000"], ["--serve", "--output", "x.html"]],
)
def test_words_that_do_not_go_together_are_refused(run: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as found:
        cli([str(run), *words])
    assert found.value.code == 2


def test_a_run_without_lines_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([str(tmp_path), "--serve", "--port", "0"]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


def test_the_command_says_where_it_is_and_ends_with_ctrl_c(run: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "train.report", str(run), "--serve", "--port", "0"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A test run in the background of a shell ignores Ctrl-C, and what it starts would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        address, follows, tunnel = (process.stdout.readline() for _ in range(3))
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", address)
        assert found is not None and "Ctrl-C" in follows
        assert f"ssh -L {found[1]}:localhost:{found[1]} HOST" in tunnel
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        connection.request("GET", "/data")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()
