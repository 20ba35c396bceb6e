"""One HTTP/1.1 exchange on the event loop: a request out, one bounded answer in. No redirects, no reuse, no policy.

Rules:
1. The address is connected to as it is given; whoever gives it has checked it. A certificate must be of the name.
2. An answer ends where its length, its chunks or, with neither, its connection ends; one that ends before is an error.
3. Head and body are bounded in bytes. Time is the caller's: a cancelled exchange closes its connection.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import NamedTuple

import httptools
import msgspec

from greentic.ground import variables
from greentic.ground.beside import beside
from greentic.net.dial import tls_context

MAX_HEAD = 64 << 10
"""Bytes of an answer's head."""


class NoHttp(ValueError):
    """An answer that is no HTTP, too large or cut; the text says which, and nothing of what was sent."""


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes


class Destination(msgspec.Struct, frozen=True):
    """Where a request goes."""

    scheme: str
    host: str
    port: int
    addresses: list[str]
    """To be tried one after the other."""


async def exchange(where: Destination, head: bytes, body: bytes | None, *, bodiless: bool, limit: int) -> Answer:
    """Send a request and read its answer of at most `limit` bytes; `bodiless` if it has none whatever its head announces.

    Raises `OSError` for what the network does and `NoHttp` for what the server does.
    """
    loop = asyncio.get_running_loop()
    context = await _tls() if where.scheme == "https" else None
    name = where.host if context is not None else None
    error: OSError | None = None
    for address in where.addresses:
        try:
            transport, reading = await loop.create_connection(
                lambda: _Reading(loop, bodiless, limit), address, where.port, ssl=context, server_hostname=name
            )
        except OSError as refused:
            error = refused
            continue
        try:
            transport.write(head + (body or b""))
            return await reading.answer
        finally:
            transport.abort()
    raise error or OSError("no address")


@functools.cache
def _made_tls() -> ssl.SSLContext:
    return tls_context(variables.listed("GREENTIC_CA_FILES"))


async def _tls() -> ssl.SSLContext:
    """Reading the certificate authorities of a machine takes tens of milliseconds, once."""
    return await beside(_made_tls)


class _Reading(asyncio.Protocol):
    """Reads one answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bodiless: bool, limit: int) -> None:
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless, self._limit = bodiless, limit
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._size = self._head = 0
        self._in_head, self._until_end = True, False

    # -- the connection

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        if self._in_head:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it switches to another protocol")
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP ({type(error).__name__})")
        if self._in_head and self._head > MAX_HEAD:
            self._fail(f"the head of the answer is larger than {MAX_HEAD} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error if isinstance(error, OSError) else OSError(type(error).__name__))
        elif self._until_end and not self._in_head:
            self._finish()
        elif self._in_head:
            self._fail("the connection ended before the answer")
        else:
            announced = next((value for name, value in self._headers if name == "content-length"), "more")
            self._fail(f"the answer ended after {self._size} of {announced[:20]} bytes")

    # -- the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._in_head = False
        names = {name for name, _ in self._headers}
        self._until_end = not names & {"content-length", "transfer-encoding"}
        if self._bodiless or status in (204, 304):
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._fail(f"the answer is larger than {self._limit} bytes")
        if not self.answer.done():
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._headers, self._head = [], 0  # an interim answer; the real one follows
        elif not self.answer.done():
            self._finish()

    def _finish(self) -> None:
        self.answer.set_result(Answer(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _fail(self, text: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(NoHttp(text))
