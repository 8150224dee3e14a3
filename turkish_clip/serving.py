"""Serves the web page: at an address that is free, and to requests for this machine alone."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import signal
import socket
import sys
import threading
from typing import Any

from turkish_clip.errors import InputError, not_imported, one_line
from turkish_clip.language import translated

LOOPBACK = "127.0.0.1"
PORTS_TRIED = 100  # to name a free one where the wanted one is taken


class AppError(InputError):
    """A page that can't be built or served."""


def serve(page: Any, *, host: str = LOOPBACK, port: int = 7860, quiet: bool = False) -> None:
    """Serves the page until interrupted.

    Args:
        page: from `build_page`.
        host: the address to listen on: 127.0.0.1 or ::1 for this machine alone, 0.0.0.0 or :: for everyone who reaches
            it.
        port: the TCP port, 1 to 65535.
        quiet: whether to leave the address unprinted.

    Raises:
        AppError: the port is taken or not allowed, or the page does not start.
    """
    end_at_signals()
    check_address(host, port)
    address = f"http://{_in_url(host)}:{port}"
    line = "" if quiet else f"the page: {address} (Ctrl-C ends it)"
    try:
        _listen(OwnAddresses(page, host=host, port=port), host, port, line)
    except Exception as error:
        raise AppError(
            f"expected the page to answer at {address}, got {type(error).__name__}: {one_line(error)}; "
            "check --host and --port"
        ) from error


def check_address(host: str, port: int) -> None:
    """Checks that the page can listen at an address.

    Args:
        host: as in `serve`.
        port: as in `serve`.

    Raises:
        AppError: the port is taken or not allowed, or this machine has no such address.
    """
    error = _why_not(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        free = next((other for other in range(port + 1, port + PORTS_TRIED) if _why_not(host, other) is None), None)
        another = f": --port {free}" if free is not None else " with --port"
        raise AppError(f"expected a free port, got {port}, which is taken by another program; name another{another}")
    if isinstance(error, PermissionError):
        raise AppError(f"expected a port that you may open, got {port}; name one from 1024 on with --port")
    raise AppError(
        f"expected an address of this machine, got --host {host} ({error.strerror}); 127.0.0.1 is for this machine "
        "alone, 0.0.0.0 for everyone who reaches it"
    )


def _why_not(host: str, port: int) -> OSError | None:
    """Returns the error of listening at an address; None if there is none."""
    if isinstance(_address(host.strip("[]")), ipaddress.IPv6Address):
        error = _why_not(LOOPBACK, port)  # where a browser may look for localhost, and would find the other
        if error is not None and error.errno == errno.EADDRINUSE:
            return error
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as listener:
                if os.name == "posix":  # as servers do: a connection that was closed lately takes no port
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
    except OSError as error:
        return error
    except (UnicodeError, OverflowError) as error:  # no name of a host, no port
        return OSError(errno.EINVAL, str(error))
    return None


def end_at_signals() -> None:
    """Ends the process in order at SIGTERM, and at SIGHUP of a closed terminal."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, lambda *_: sys.exit(0))


def _in_url(host: str) -> str:
    """Returns a host as an address has it: one of IPv6 in brackets, without which its colons would name a port."""
    address = _address(host.strip("[]"))
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else host


def _listen(page: Any, host: str, port: int, line: str) -> None:
    """Answers requests until a signal ends it; prints a line once it does."""
    try:
        import uvicorn
    except ImportError as error:
        raise AppError(not_imported(error, "uvicorn", "app", "uvicorn")) from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and line:
                print(translated(line), flush=True)

    config = uvicorn.Config(
        page,
        host=host.strip("[]"),
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # else a request could say by itself from where it comes
        timeout_graceful_shutdown=1,
        lifespan="off",
    )
    Server(config).run()


class OwnAddresses:
    """Answers requests for the page's own hosts alone.

    A site elsewhere can let its name point at this machine (DNS rebinding), but not its requests name another host; and
    it can let a browser send requests to the page (to upload files), but not without naming itself as their origin.

    Args:
        app: the ASGI application behind this.
        host: the address that it listens on.
        port: its port.
    """

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._app, self._host, self._port = app, host, port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, as an ASGI application."""
        if scope["type"] in ("http", "websocket"):
            refused = self._refusal(scope)
            if refused is not None:
                from starlette.responses import PlainTextResponse

                if scope["type"] == "websocket":
                    await send({"type": "websocket.close"})
                else:
                    await PlainTextResponse(*refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[str, int] | None:
        """Returns text and status of the answer to a request that is not for the page; None for one that is."""
        headers = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        named = dict(headers).get(b"host", "")
        if not is_own_host(named, self._host):
            return "Invalid host", 421
        origins = [value for name, value in headers if name == b"origin"]  # a request of a program has none
        if not all(is_own_origin(origin, named, self._host, self._port) for origin in origins):
            return "Foreign origin", 403
        return None


def is_own_origin(origin: str, named: str, host: str, port: int) -> bool:
    """Returns whether a request comes from the page itself, as the browser says.

    Args:
        origin: the request's header "Origin".
        named: its header "Host", of one of the page's own hosts: that may be the end of a tunnel, with another port.
        host: the address that the page listens on.
        port: its port.

    >>> is_own_origin("http://localhost:7860", "127.0.0.1:7860", "127.0.0.1", 7860)
    True
    >>> is_own_origin("http://localhost:3000", "127.0.0.1:7860", "127.0.0.1", 7860)
    False
    """
    scheme, separator, place = origin.lower().partition("://")
    usual = {"http": 80, "https": 443}.get(scheme)
    if not separator or usual is None:  # such as null, of a sandboxed frame or a file
        return False
    found = re.fullmatch(r"(.*?)(?::(\d{1,5}))?", place)
    where = re.fullmatch(r"(.*?)(?::(\d{1,5}))?", named.lower())
    if found is None or where is None:
        return False
    of_page, of_host = int(found[2] or usual), int(where[2] or usual)
    return (found[1], of_page) == (where[1], of_host) or (is_own_host(place, host) and of_page == port)


def is_for_this_machine(host: str) -> bool:
    """Returns whether nothing but this machine reaches an address.

    >>> [is_for_this_machine(host) for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0", "192.168.1.5")]
    [True, True, True, False, False]
    """
    address = _address(host.strip("[]"))
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_own_host(named: str, host: str) -> bool:
    """Returns whether the host that a request names is this machine's, or the one that the page listens on.

    Args:
        named: the request's header "Host", with or without a port.
        host: the address that the page listens on; all of this machine's own where it is 0.0.0.0 or ::.

    >>> is_own_host("localhost:7860", "127.0.0.1"), is_own_host("evil.example:7860", "127.0.0.1")
    (True, False)
    """
    name = (re.sub(r":\d*$", "", named) if not named.endswith("]") else named).strip("[]").lower().rstrip(".")
    if name in ("localhost", host.strip("[]").lower()):
        return True
    listens = _address(host.strip("[]"))
    anywhere = listens is not None and listens.is_unspecified
    address = _address(name)
    if address is not None:
        return address.is_loopback or anywhere
    machine = socket.gethostname().lower()
    return anywhere and name in (machine, machine.partition(".")[0], f"{machine.partition('.')[0]}.local")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
