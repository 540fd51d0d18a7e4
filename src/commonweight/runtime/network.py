"""Network settings of a server: its listening socket, TLS, URL, and checks of what operators set."""

import errno
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from commonweight.runtime.errors import UserError
from commonweight.runtime.settings import ServerSettings


def check_key(api_key: str | None) -> None:
    """Raise :class:`UserError` if a key cannot travel in a header."""
    if api_key == "":
        raise UserError("the API key is empty; is the variable set that it was taken from?")
    if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
        raise UserError("an API key travels in a header: use ASCII letters, digits and signs, and no spaces")


def check_origins(origins: Sequence[str]) -> None:
    """Raise :class:`UserError` if one of the origins is malformed."""
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@*]+", origin):
            raise UserError(f"--cors-origin {origin}: write it like https://example.com, with nothing after it")


def load_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load TLS with a certificate and its key; None: plain HTTP.

    Raises:
        UserError: they cannot be used.
    """
    if cert is None:
        if key is not None:
            raise UserError("--tls-key is of no use without --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # With no password given, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = "no certificate with its unencrypted key" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(f"cannot use {' and '.join(map(str, filter(None, (cert, key))))}: {reason}") from error
    return context


def bind_listener(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises:
        UserError: it cannot, for the reason given.
    """
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # The reason anew, because asyncio's and the socket module's own texts repeat the address.
        reason, advice = error.strerror, "is that an address of this machine?"
        match error.errno:
            case errno.EADDRINUSE:
                reason, advice = "something else listens there", "try another --port, or 0 for a free one"
            case errno.EACCES:
                reason, advice = os.strerror(errno.EACCES), "try a --port of 1024 or more"
            case errno.EADDRNOTAVAIL:
                reason = os.strerror(errno.EADDRNOTAVAIL)
        raise UserError(f"cannot listen on {host}:{port}: {reason}; {advice}") from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_url(server: ServerSettings, port: int) -> str:
    """Make the URL at which clients on this machine reach a server."""
    # An address that means "all of them" is none that a client could use.
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    scheme = "http" if server.tls_cert is None else "https"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"
