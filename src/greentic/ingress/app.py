"""The HTTP surface of a worker (spec: worker 4), as an ASGI application.

The order of decisions is the order of the spec's table: preflight, probes, `/workers/invoke`, deployment, body, endpoint,
revision, method, bearer gate, JSON, turn. Errors are plain text; causes go to the log, not to the caller.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from random import random
from typing import NamedTuple

import msgspec

from greentic.activate.activation import Activation
from greentic.activate.dispatch import Dispatcher, cookie_named
from greentic.activate.turn import ActiveRevision, Turn, TurnServices, turn
from greentic.flow.activity import Activity, activity_of, invoke_activity, replies
from greentic.flow.bounds import MAX_DEPTH, too_deep
from greentic.flow.graph import FlowFailure, NotAtOnce
from greentic.flow.select import NoFlow
from greentic.ground.clock import Clock, timestamp
from greentic.ingress.auth import BearerGate
from greentic.ingress.identity import (
    SESSION_BYTES,
    SESSION_COOKIE,
    Seen,
    session_cookie,
    stranger_identity,
    trusted_identity,
)
from greentic.ingress.invoke import InvalidRequest, read_request, response, tenant_of
from greentic.ingress.status import status
from greentic.ingress.turn_pool import TurnPool
from greentic.model.hosts import is_loopback
from greentic.model.routes import Route, find_route, find_tenant
from greentic.sessions.conversation import Identity
from greentic.telemetry.log import OperatorLog, traceback_of

MAX_BODY = 1 << 20
"""Bytes of a request body."""

Message = dict[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Authorization, X-Requested-With, x-ms-bot-agent"),
]
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_INVOKE = "/workers/invoke"
_LIVE = frozenset({"/livez"})
_READY = frozenset({"/readyz", "/healthz", "/health"})
_ENDPOINT_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


class Refused(Exception):
    """A request that ends with a plain text."""

    def __init__(self, code: int, text: str, *, cors: bool = True) -> None:
        super().__init__(text)
        self.code, self.text, self.cors = code, text, cors


class Answer(NamedTuple):
    code: int
    body: bytes
    kind: tuple[bytes, bytes] = _JSON
    extra: Headers = []
    cors: bool = True


class Served(NamedTuple):
    """A turn, and the revision that took it."""

    revision: ActiveRevision
    turn: Turn


class Request(NamedTuple):
    """What the application looks at."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    trusted: bool
    receive: Receive

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class WorkerApp:
    """Answers requests from the current activation, which may be replaced at any time."""

    def __init__(
        self,
        activation: Activation,
        listen_addr: str,
        gate: BearerGate,
        log: OperatorLog,
        services: TurnServices,
        *,
        shared_sessions: bool = False,
        trust_loopback: bool = True,
    ) -> None:
        self.activation = activation
        self.listen_addr = listen_addr
        self.draining = False
        self.pool = TurnPool()
        self._gate, self._log, self._services, self._shared = gate, log, services, shared_sessions
        self._clock: Clock = services.clock
        self._local = services.conversations.values.local
        self._trusted: dict[str, bool] = {}
        self._trust_loopback = trust_loopback

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            return
        request = self._request(scope, receive)
        try:
            answer = await self._answer(request)
        except Refused as refused:
            answer = Answer(refused.code, refused.text.encode(), _TEXT, cors=refused.cors)
        except Exception as error:  # noqa: BLE001  a caller never sees our mistakes, the operator does
            self._log.error("serve", f"{request.method} {request.path}: {traceback_of(error)}")
            answer = Answer(500, b"internal error", _TEXT)
        headers = [answer.kind, (b"content-length", b"%d" % len(answer.body)), *answer.extra]
        if answer.code == 204:
            headers = list(answer.extra)
        if answer.cors:
            headers += _CORS
        if self.draining:
            headers.append((b"connection", b"close"))  # so that callers take their next connection elsewhere
        await send({"type": "http.response.start", "status": answer.code, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})

    def _request(self, scope: dict[str, object], receive: Receive) -> Request:
        client = scope.get("client")
        peer = str(client[0]) if isinstance(client, tuple | list) and client else ""
        trusted = self._trusted.get(peer)
        if trusted is None:
            if len(self._trusted) > 4096:
                self._trusted.clear()
            trusted = self._trusted[peer] = self._trust_loopback and is_loopback(peer)
        headers: dict[bytes, bytes] = dict(scope["headers"])  # type: ignore[call-overload]
        return Request(str(scope["method"]), str(scope["path"]), headers, trusted, receive)

    async def _answer(self, request: Request) -> Answer:
        path = request.path
        if request.method == "OPTIONS":
            if path == _INVOKE:
                raise Refused(405, "cross-origin requests are not permitted on this path", cors=False)
            return Answer(204, b"", extra=[(b"access-control-max-age", b"86400")])
        if path in _LIVE:
            return Answer(200, b"ok", _TEXT)
        if path in _READY:
            return Answer(503, b"draining", _TEXT) if self.draining else Answer(200, b"ok", _TEXT)
        if path == "/status":
            return Answer(200, msgspec.json.encode(status(self.activation, self.listen_addr, draining=self.draining)))
        if path == _INVOKE:
            return await self._invoke(request)
        return await self._generic(request)

    # -- the generic route ------------------------------------------------------------------------------------------

    async def _generic(self, request: Request) -> Answer:
        activation = self.activation
        route = find_route(activation.routes, request.header(b"host") or "", request.path)
        if route is None:
            raise Refused(404, "no deployment is bound to this host and path")
        body = await _read_body(request)
        _admit_endpoint(activation, route, request)
        now = int(time.time())
        revision, cookie = self._pick(activation, route, request.header(b"cookie"), now)
        if request.method != "POST":
            raise Refused(405, "only POST is supported for the generic revision ingress")
        if not request.trusted and self._gate.check(request.header(b"authorization"), route.bundle_id, now) != "pass":
            raise Refused(401, "a valid bearer token is required")
        try:
            value = msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, "request body must be JSON") from None
        if _is_deep(body, value):
            raise Refused(400, f"request body is nested deeper than {MAX_DEPTH} levels")
        seen = self._identity(request, value)
        served = await self._turn(activation, route, revision, activity_of(value), seen.identity)
        extra: Headers = [] if cookie is None else [(b"set-cookie", cookie.encode())]
        if seen.private and served.turn.parked:
            extra.append((b"set-cookie", session_cookie(seen.identity).encode()))
        return Answer(200, msgspec.json.encode(replies(served.turn.output, route.tenant)), extra=extra)

    def _identity(self, request: Request, body: object) -> Seen:
        if request.trusted:
            return trusted_identity(
                request.header(b"x-greentic-user"),
                request.header(b"x-greentic-session"),
                request.header(b"x-greentic-messaging-endpoint-id"),
                body,
            )
        cookies = request.header(b"cookie")
        cookie = None if cookies is None else cookie_named(cookies, SESSION_COOKIE)
        return stranger_identity(cookie, self._services.random.octets(SESSION_BYTES), shared=self._shared)

    def _pick(
        self, activation: Activation, route: Route, cookies: str | None, now: int
    ) -> tuple[ActiveRevision, str | None]:
        """The revision of a request, and the cookie that keeps the caller there if it was drawn."""
        dispatcher = activation.dispatchers.get(route.deployment_id)
        if dispatcher is None:
            self._log.warn("serve", f"deployment `{route.deployment_id}` has no revision that can be served")
            raise Refused(500, "revision dispatch failed")
        if cookies is not None:
            pinned = dispatcher.pinned(cookie_named(cookies, dispatcher.cookie_name), route.tenant, now)
            if pinned is not None:
                return activation.revisions[pinned], None
        return self._draw(activation, route, dispatcher, now)

    def _draw(
        self, activation: Activation, route: Route, dispatcher: Dispatcher, now: int
    ) -> tuple[ActiveRevision, str]:
        revision_id = dispatcher.draw(random())  # noqa: S311  a load balancer's choice, not a secret
        if revision_id is None:
            self._log.warn("serve", f"deployment `{route.deployment_id}`: every revision is draining or has no weight")
            raise Refused(500, "revision dispatch failed")
        return activation.revisions[revision_id], dispatcher.set_cookie(revision_id, route.tenant, now)

    async def _turn(
        self, activation: Activation, route: Route, drawn: ActiveRevision, activity: Activity, identity: Identity
    ) -> Served:
        """Run a turn beside the loop, on the revision that was drawn or on the one where the session waits."""

        def work(*, at_once: bool = False) -> Served:
            revision, services = drawn, self._services
            if not drawn.never_waits:
                pinned = services.conversations.pinned(route.deployment_id, route.tenant, identity)
                if pinned is not None and pinned in activation.revisions:
                    revision = activation.revisions[pinned]
            found = turn(revision, activity, route.tenant, route.team, identity, services, at_once=at_once)
            return Served(revision, found)

        try:
            if self._local:
                with contextlib.suppress(NotAtOnce):
                    return work(at_once=True)
            return await self.pool.run(work)
        except NoFlow as error:
            self._log.error("serve", f"revision `{drawn.revision_id}`: {error}")
            raise Refused(500, "flow execution failed") from None
        except FlowFailure as error:
            self._log.error("serve", f"revision `{drawn.revision_id}`: {error}")
            raise Refused(500, "flow execution failed") from None

    # -- invoke -----------------------------------------------------------------------------------------------------

    async def _invoke(self, request: Request) -> Answer:
        if not request.trusted:
            raise Refused(403, "worker invoke is restricted to loopback callers", cors=False)
        if request.method != "POST":
            raise Refused(405, "worker invoke requires POST", cors=False)
        body = await _read_body(request, cors=False)
        try:
            wanted = read_request(body)
        except InvalidRequest as error:
            raise Refused(400, f"invalid HostWorkerRequest body: {error}", cors=False) from None
        if _is_deep(body, wanted.payload):
            text = f"invalid HostWorkerRequest body: nested deeper than {MAX_DEPTH} levels"
            raise Refused(400, text, cors=False)
        activation = self.activation
        route = find_tenant(activation.routes, tenant_of(wanted))
        if route is None:
            raise Refused(404, "no active deployment resolves for the requested tenant", cors=False)
        revision, _ = self._pick(activation, route, None, int(time.time()))
        user = wanted.tenant.get("user_id")
        identity = Identity(wanted.session_id, user if isinstance(user, str) else None)
        served = await self._turn(activation, route, revision, invoke_activity(wanted.payload), identity)
        answer = response(wanted, served.turn.output, timestamp(self._clock.now_ns()))
        return Answer(200, msgspec.json.encode(answer), cors=False)


async def _read_body(request: Request, *, cors: bool = True) -> bytes:
    """The whole body, refused as soon as it is known to be too large."""
    announced = request.headers.get(b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > MAX_BODY:
        raise Refused(413, "request body exceeds the size limit", cors=cors)
    if announced is None and b"transfer-encoding" not in request.headers:
        return b""
    first = await request.receive()
    body = first.get("body", b"")
    if isinstance(body, bytes) and not first.get("more_body") and len(body) <= MAX_BODY:
        return body
    parts = [body]
    size = len(body) if isinstance(body, bytes) else 0
    message = first
    while message.get("more_body"):
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request body could not be read", cors=cors)
        part = message.get("body", b"")
        parts.append(part)
        size += len(part) if isinstance(part, bytes) else 0
        if size > MAX_BODY:
            break
    if size > MAX_BODY:
        raise Refused(413, "request body exceeds the size limit", cors=cors)
    return b"".join(p for p in parts if isinstance(p, bytes))


def _is_deep(body: bytes, value: object) -> bool:
    """Whether a decoded body is nested too deeply; one with few brackets cannot be."""
    return body.count(b"[") + body.count(b"{") > MAX_DEPTH and too_deep(value)


def _admit_endpoint(activation: Activation, route: Route, request: Request) -> None:
    """A messaging endpoint that a trusted caller names must exist and be linked to the deployment's bundle."""
    named = request.header(b"x-greentic-messaging-endpoint-id") if request.trusted else None
    if named is None:
        return
    linked = activation.endpoints.get(named) if 0 < len(named) <= 128 and set(named) <= _ENDPOINT_CHARS else None
    if linked is None:
        raise Refused(401, "messaging endpoint not recognized in this environment")
    if route.bundle_id not in linked:
        raise Refused(403, "this messaging endpoint is not authorized to route to the resolved bundle")
