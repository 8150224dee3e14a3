"""Where the page is served: an address that is free, and requests that name this machine and come from the page."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from turkish_clip import serving
from turkish_clip.serving import AppError, OwnAddresses, check_address, is_own_host, is_own_origin


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("named", "host", "own"),
    [
        ("127.0.0.1:7860", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("LOCALHOST.:80", "127.0.0.1", True),
        ("[::1]:7860", "127.0.0.1", True),
        ("[::1]", "::1", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example:7860", "0.0.0.0", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "0.0.0.0", False),
        ("192.168.1.5:7860", "0.0.0.0", True),
        ("192.168.1.5:7860", "127.0.0.1", False),
        ("192.168.1.5", "192.168.1.5", True),
        ("fotograflar.local:7860", "fotograflar.local", True),
        (f"{socket.gethostname()}:7860", "0.0.0.0", True),
        ("", "127.0.0.1", False),
        ("[::]:7860", "::", True),
        ("[2001:db8::7]:7860", "::", True),
        ("[2001:db8::7]:7860", "::1", False),
        ("[2001:DB8::7]:7860", "2001:db8::7", True),
    ],
)
def test_the_page_answers_for_its_own_hosts(named: str, host: str, own: bool) -> None:
    assert is_own_host(named, host) == own


@pytest.mark.parametrize(
    ("origin", "named", "host", "own"),
    [
        ("http://127.0.0.1:7860", "127.0.0.1:7860", "127.0.0.1", True),
        ("http://localhost:7860", "127.0.0.1:7860", "127.0.0.1", True),
        ("HTTP://LOCALHOST:7860", "localhost:7860", "127.0.0.1", True),
        ("http://[::1]:7860", "[::1]:7860", "::1", True),
        ("http://localhost:9000", "localhost:9000", "127.0.0.1", True),  # the end of a tunnel
        ("http://localhost", "localhost", "127.0.0.1", True),  # port 80 of a proxy
        ("https://fotograflar.local", "fotograflar.local", "fotograflar.local", True),
        ("http://192.168.1.5:7860", "192.168.1.5:7860", "0.0.0.0", True),
        ("http://localhost:3000", "localhost:7860", "127.0.0.1", False),
        ("http://127.0.0.1", "127.0.0.1:7860", "127.0.0.1", False),
        ("https://127.0.0.1:7861", "127.0.0.1:7860", "127.0.0.1", False),
        ("http://evil.example", "127.0.0.1:7860", "127.0.0.1", False),
        ("http://evil.example:7860", "127.0.0.1:7860", "0.0.0.0", False),
        ("http://127.0.0.1:7860.evil.example", "127.0.0.1:7860", "127.0.0.1", False),
        ("http://evil.example@127.0.0.1:7860", "127.0.0.1:7860", "127.0.0.1", False),
        ("http://127.0.0.1:7860/", "127.0.0.1:7860", "127.0.0.1", False),  # no browser ends it so
        ("http://127.0.0.1:99999", "127.0.0.1:7860", "127.0.0.1", False),
        ("null", "127.0.0.1:7860", "127.0.0.1", False),
        ("file://", "127.0.0.1:7860", "127.0.0.1", False),
        ("ftp://127.0.0.1:7860", "127.0.0.1:7860", "127.0.0.1", False),
        ("", "127.0.0.1:7860", "127.0.0.1", False),
    ],
)
def test_requests_come_from_the_page_itself(origin: str, named: str, host: str, own: bool) -> None:
    assert is_own_origin(origin, named, host, 7860) == own


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),  # as curl asks
        ([(b"origin", b"http://127.0.0.1:7860")], 200),
        ([(b"origin", b"http://evil.example")], 403),
        ([(b"origin", b"http://127.0.0.1:7860"), (b"origin", b"http://evil.example")], 403),
        ([(b"origin", b"http://localhost:8888")], 403),
        ([(b"origin", b"null")], 403),
    ],
)
def test_a_foreign_origin_reaches_nothing(headers: list[tuple[bytes, bytes]], status: int) -> None:
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    for kind in ("http", "websocket"):
        sent.clear()
        scope = {"type": kind, "method": "POST", "path": "/upload"}
        scope["headers"] = [(b"host", b"127.0.0.1:7860"), *headers]  # type: ignore[assignment]
        asyncio.run(OwnAddresses(page, "127.0.0.1", 7860)(scope, None, send))
        if kind == "websocket" and status != 200:
            assert sent == [{"type": "websocket.close"}]
        else:
            assert sent[0]["status"] == status


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGHUP")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_process_in_order(number: str) -> None:
    program = (
        "import atexit, os, signal\n"
        "from turkish_clip.serving import end_at_signals\n"
        "end_at_signals()\n"
        "atexit.register(print, 'removed')\n"
        f"os.kill(os.getpid(), signal.{number})\n"
        "print('went on')\n"
    )
    usual = (
        f"import signal\nsignal.signal(signal.{number}, signal.SIG_DFL)\n{program}"  # also where pytest is under nohup
    )
    done = subprocess.run([sys.executable, "-c", usual], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "removed\n")
    ignored = f"import signal\nsignal.signal(signal.{number}, signal.SIG_IGN)\n{program}"  # as under nohup
    done = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "went on\nremoved\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_taken_port_is_named_with_a_free_one(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AppError, match=f"expected a free port, got {port}, which is taken .*: --port ") as raised:
            check_address(host, port)
        check_address(host, int(str(raised.value).rpartition(" ")[2]))
    check_address(host, port)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken_at_either_kind_of_address_is_told(host: str, family: socket.AddressFamily) -> None:
    with socket.socket(family) as taken:
        taken.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AppError, match=f"expected a free port, got {port}, which is taken .*: --port "):
            check_address(host, port)
    check_address(host, port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860"),
        ("::1", "http://[::1]:7860"),
        ("[::1]", "http://[::1]:7860"),
        ("::", "http://[::]:7860"),
        ("fotograflar.local", "http://fotograflar.local:7860"),
    ],
)
def test_an_address_of_ipv6_has_brackets(host: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(serving, "check_address", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(serving, "_listen", lambda page, host, port, line: lines.append(line))
    serving.serve(None, host=host)
    serving.serve(None, host=host, quiet=True)
    assert lines == [f"the page: {address} (Ctrl-C ends it)", ""]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "a" * 100])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(AppError, match=f"expected an address of this machine, got --host {host} "):
        check_address(host, 7860)


def test_a_port_that_is_not_allowed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_why_not", lambda host, port: PermissionError(13, "Permission denied"))
    with pytest.raises(AppError, match="expected a port that you may open, got 80; name one from 1024 on"):
        check_address("127.0.0.1", 80)


def test_a_page_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(serving, "check_address", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(serving, "_listen", fail)
    with pytest.raises(
        AppError, match="expected the page to answer at http://127.0.0.1:7860, got RuntimeError: no luck; "
    ):
        serving.serve(None)
