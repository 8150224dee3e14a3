"""Serves the web page: at an address that is free, behind no proxy, and to requests for this machine alone."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from turkish_clip.errors import InputError, one_line

NAMED_ENDPOINTS = re.compile(r"/(gradio_api/)?(call|run|api|monitoring)(/|$)")  # the page itself uses /queue alone
LOOPBACK = "127.0.0.1"
MAX_UPLOAD = "20mb"
NO_PROXY = ("no_proxy", "NO_PROXY")
PORTS_TRIED = 100  # to name a free one where the wanted one is taken


class AppError(InputError):
    """A page that can't be built or served."""


def serve(blocks: Any, *, host: str = LOOPBACK, port: int = 7860, quiet: bool = False) -> None:
    """Serves the page until interrupted.

    Args:
        blocks: from `build_page`.
        host: the address to listen on: 127.0.0.1 or ::1 for this machine alone, 0.0.0.0 or :: for everyone who reaches
            it.
        port: the TCP port, 1 to 65535.
        quiet: whether to leave the address unprinted.

    Raises:
        AppError: the port is taken or not allowed, or the page does not start.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that thumbnails and uploads are removed
    check_address(host, port)
    address = f"http://{_in_url(host)}:{port}"
    try:
        with without_proxy():
            _launch(blocks, host, port)
    except Exception as error:
        raise AppError(
            f"expected the page to answer at {address}, got {type(error).__name__}: {one_line(error)}; "
            "check --host and --port"
        ) from error
    if not quiet:
        print(f"the page: {address} (Ctrl-C ends it)", flush=True)
    blocks.block_thread()


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
        error = _why_not(LOOPBACK, port)  # where Gradio looks whether a port is free, wherever it is to listen
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


@contextmanager
def without_proxy() -> Iterator[None]:
    """Takes the proxies of the environment away for a while: Gradio asks its own page for an answer."""
    before = {name: os.environ.get(name) for name in NO_PROXY}
    os.environ.update(dict.fromkeys(NO_PROXY, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _in_url(host: str) -> str:
    """Returns a host as an address has it: one of IPv6 in brackets, without which its colons would name a port."""
    address = _address(host.strip("[]"))
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else host


def _launch(blocks: Any, host: str, port: int) -> None:
    from starlette.middleware import Middleware

    blocks.queue(max_size=32, default_concurrency_limit=2).launch(
        server_name=_in_url(host),
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,  # else it advises to share the page publicly
        prevent_thread_lock=True,
        show_error=False,  # gr.Error is shown all the same; other errors may hold paths
        max_file_size=MAX_UPLOAD,
        allowed_paths=[],
        footer_links=[],
        app_kwargs={"middleware": [Middleware(OwnAddresses, host=host)]},
    )


class OwnAddresses:
    """Answers requests for the page's own hosts alone, and none for the endpoints that Gradio names by itself.

    A site elsewhere can let its name point at this machine (DNS rebinding), but not its requests name another host.

    Args:
        app: the ASGI application behind this.
        host: the address that it listens on.
    """

    def __init__(self, app: Any, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, as an ASGI application."""
        if scope["type"] in ("http", "websocket"):
            named = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            unknown = NAMED_ENDPOINTS.match(scope["path"]) is not None
            if unknown or not is_own_host(named, self._host):
                from starlette.responses import PlainTextResponse

                if scope["type"] == "websocket":
                    await send({"type": "websocket.close"})
                else:
                    refusal = PlainTextResponse("Not Found" if unknown else "Invalid host", 404 if unknown else 421)
                    await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


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
