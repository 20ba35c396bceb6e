"""Connections to addresses that were checked: a name is resolved once, and what was checked is what is connected to."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 30.0
_RECEIVE_BUFFER = 1 << 21

Check = Callable[[str, str], None]
"""Raises for an address of a host that must not be reached."""


def dial(
    host: str, port: int, check: Check, *, connect: float = CONNECT_SECONDS, idle: float = IDLE_SECONDS
) -> socket.socket:
    """A connection to the first address of `host` that answers; every address is checked before any is tried."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for _, _, _, _, address in found:
        check(host, str(address[0]))
    error: OSError | None = None
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(connect)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            connection.connect(address)
            connection.settimeout(idle)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as refused:
            connection.close()
            error = refused
            continue
        return connection
    raise error or OSError(f"no address for `{host}`")


class CheckedHttp(http.client.HTTPConnection):
    """HTTP to a checked address."""

    def __init__(
        self, host: str, port: int, check: Check, *, connect: float = CONNECT_SECONDS, idle: float = IDLE_SECONDS
    ) -> None:
        super().__init__(host, port, timeout=idle)
        self._check, self._limits = check, (connect, idle)

    def connect(self) -> None:
        self.sock = dial(self.host, self.port, self._check, connect=self._limits[0], idle=self._limits[1])


class CheckedHttps(CheckedHttp):
    """HTTPS to a checked address; the certificate must be of the name, by the authorities of this machine."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        plain = self.sock
        try:
            self.sock = tls_context().wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def tls_context() -> ssl.SSLContext:
    """The authorities of this machine (`SSL_CERT_FILE` says others), and those of `GREENTIC_CA_FILES` besides."""
    import ssl

    context = ssl.create_default_context()
    for path in os.environ.get("GREENTIC_CA_FILES", "").split(","):
        if path.strip():
            try:
                context.load_verify_locations(path.strip())
            except OSError as error:
                raise OSError(
                    f"the certificates of GREENTIC_CA_FILES `{path.strip()}` cannot be read: {error}"
                ) from None
    return context


def connection(
    scheme: str,
    host: str,
    port: int | None,
    check: Check,
    *,
    connect: float = CONNECT_SECONDS,
    idle: float = IDLE_SECONDS,
) -> CheckedHttp:
    """An unopened connection for `http` or `https`."""
    if scheme == "https":
        return CheckedHttps(host, port or 443, check, connect=connect, idle=idle)
    return CheckedHttp(host, port or 80, check, connect=connect, idle=idle)


def reason(error: Exception, seconds: float = IDLE_SECONDS) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    text = getattr(error, "strerror", None) or str(error)
    return str(text) or type(error).__name__
