"""The HTTP surface of a worker (formats: worker 5): what a request is answered.

The order of decisions is the order of the spec's table: preflight, probes, `/workers/invoke`, deployment, body, endpoint,
revision, method, bearer gate, JSON, turn. Errors are plain text; causes go to the log, not to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING

import msgspec

from greentic.activate.activation import Activation
from greentic.activate.dispatch import Dispatcher, client_of_session, cookie_named
from greentic.activate.lease import Serving
from greentic.activate.turn import Message, TurnServices
from greentic.flow.activity import activity_of, invoke_activity, replies
from greentic.ground.clock import Clock, timestamp, unix_seconds
from greentic.ground.documents import MAX_DEPTH, JsonObject, TooDeep, TooMany, parse
from greentic.httpd.front import Answer
from greentic.httpd.http1 import TEXT, Headers, Incoming, allow
from greentic.ingress import request_span
from greentic.ingress.access_log import Access
from greentic.ingress.auth import BearerGate
from greentic.ingress.exchange import HttpReply, Refused, Request, come_back
from greentic.ingress.identity import (
    NOTHING,
    SESSION_BYTES,
    SESSION_COOKIE,
    RequestIdentity,
    Stated,
    session_cookie,
    stated,
    stranger_identity,
    trusted_identity,
)
from greentic.ingress.invoke import MAX_NESTS, InvalidRequest, read_request, response, tenant_of, told_tenant
from greentic.ingress.metrics import Metrics
from greentic.ingress.operator_paths import OperatorPaths
from greentic.ingress.status import status
from greentic.ingress.steps import Steps
from greentic.ingress.trusted_peer import TrustedPeers
from greentic.ingress.turns import RETRY_SECONDS, Picked, ServedTurn, Turns
from greentic.model.routes import Route
from greentic.sessions.conversation import Identity
from greentic.telemetry import request_id, tracing
from greentic.telemetry.log import OperatorLog, traceback_of
from greentic.telemetry.readings import Row
from greentic.telemetry.tracing import Span

if TYPE_CHECKING:
    from greentic.ingress.status_proof import Prover

_CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Authorization, X-Requested-With, x-ms-bot-agent"),
]
_INVOKE = "/workers/invoke"
_LIVE = frozenset({"/livez"})
_READY = frozenset({"/readyz", "/healthz", "/health"})
_ENDPOINT_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


def is_probe(path: str) -> bool:
    """Whether a path is one that a kubelet or balancer asks."""
    return path in _LIVE or path in _READY


class WorkerApp:
    """Answers requests from what is served, which may be swapped at any time."""

    def __init__(
        self,
        serving: Serving,
        listen_addr: str,
        gate: BearerGate,
        log: OperatorLog,
        services: TurnServices,
        peers: TrustedPeers,
        *,
        shared_sessions: bool = False,
        prover: Callable[[], Prover] | None = None,
        access_log: bool = False,
    ) -> None:
        self.serving = serving
        self.listen_addr = listen_addr
        self.draining = False
        self.gate, self._log, self._services, self._shared = gate, log, services, shared_sessions
        self.turns = Turns(serving, services, log)
        self._access_log = access_log
        self._clock: Clock = services.clock
        self.peers = peers
        self._codes: dict[int, int] = {}
        self.metrics = Metrics(serving, self.live)
        self._operators = OperatorPaths(serving, self.metrics, services, self.own_status, prover)

    def live(self) -> Iterator[Row]:
        """What only this process knows: answers by code, and turns that wait for a place."""
        for code, number in list(self._codes.items()):
            yield "greentic_http_answers", (str(code),), [number]
        yield "greentic_turns_waiting", (), [self.turns.waiting]
        yield "greentic_draining", (), [float(self.draining)]

    def lane(self, incoming: Incoming) -> str | None:
        """Whose share of the loop a request takes: the deployment that it is for. Who is for none goes at once."""
        head = incoming.head
        if head.method != "POST":
            return None
        routes = self.serving.activation.routes
        if head.path == _INVOKE:
            tenant = told_tenant(incoming.body or b"")
            route = None if tenant is None else routes.of_tenant(tenant)
        else:
            route = routes.find(head.fields.get(b"host", b"").decode("latin-1"), head.path)
        return None if route is None else route.deployment_id

    def __call__(self, incoming: Incoming, peer: str) -> Answer | Coroutine[object, object, Answer]:
        """Answer a request, at once where that is possible."""
        name = request_id.begin(incoming.head.fields.get(request_id.FIELD))
        tracer = tracing.installed()
        span = None if tracer is None else request_span.begun(tracer, incoming, name)
        if span is None and not self._access_log:
            return self._handled(incoming, peer, name)
        return self._watched(incoming, peer, name, span)

    def _watched(
        self, incoming: Incoming, peer: str, name: bytes, span: Span | None
    ) -> Answer | Coroutine[object, object, Answer]:
        """The same for a request that is told in the access log, or traced."""
        access = Access(self._log, peer, incoming) if self._access_log else None
        answer = self._handled(incoming, peer, name)
        if isinstance(answer, Answer):
            if span is not None:
                request_span.answered(span, answer)
            if access is not None:
                access.answered(answer)
            return answer
        if span is not None:
            answer = request_span.awaited(span, answer)
        return answer if access is None else access.awaited(answer)

    def _handled(self, incoming: Incoming, peer: str, name: bytes) -> Answer | Coroutine[object, object, Answer]:
        head = incoming.head
        asked = Request(
            head.method, head.path, head.fields, incoming.body, self.peers.trusts(peer, head.fields), head.query
        )
        try:
            found = self._answer(asked)
        except Exception as error:  # noqa: BLE001  a caller never sees our mistakes, the operator does
            return self._dressed(self._failed(asked, error), name)
        return self._dressed(found, name) if isinstance(found, HttpReply) else self._later(asked, found, name)

    async def _later(self, asked: Request, running: Coroutine[object, object, HttpReply], name: bytes) -> Answer:
        try:
            return self._dressed(await running, name)
        except Exception as error:  # noqa: BLE001  as above
            return self._dressed(self._failed(asked, error), name)

    def _failed(self, asked: Request, error: Exception) -> HttpReply:
        if isinstance(error, Refused):
            return HttpReply(error.code, error.text.encode(), TEXT, error.extra, error.cors)
        self._log.error("serve", f"{asked.method} {asked.path}: {traceback_of(error)}")
        if isinstance(error, ImportError):
            return HttpReply(503, b"a file of this program is gone or was replaced; start the worker again", TEXT)
        return HttpReply(500, b"internal error", TEXT)

    def _dressed(self, reply: HttpReply, name: bytes) -> Answer:
        self._codes[reply.code] = self._codes.get(reply.code, 0) + 1
        named = (request_id.FIELD, name)
        headers = [*reply.extra, named] if reply.code == 204 else [reply.kind, *reply.extra, named]
        revision = reply.revision
        served_by = None if revision is None else (revision.deployment_id, revision.revision_id)
        return Answer(reply.code, reply.body, headers + _CORS if reply.cors else headers, served_by)

    def _answer(self, asked: Request) -> HttpReply | Coroutine[object, object, HttpReply]:
        path = asked.path
        if asked.method == "OPTIONS":
            if path == _INVOKE:
                text = "cross-origin requests are not permitted on this path"
                raise Refused(405, text, cors=False, extra=allow("POST"))
            return HttpReply(204, b"", extra=[(b"access-control-max-age", b"86400")])
        if path in _LIVE:
            return HttpReply(200, b"ok", TEXT)
        if path in _READY:
            return HttpReply(503, b"draining", TEXT) if self.draining else HttpReply(200, b"ok", TEXT)
        if path == _INVOKE:
            return self._invoke(asked)
        return self._operators.of(asked) or self._generic(asked)

    def own_status(self) -> JsonObject:
        """What this process tells of itself."""
        return status(self.serving, self.listen_addr, draining=self.draining)

    # -- the generic route ------------------------------------------------------------------------------------------

    def _generic(self, asked: Request) -> HttpReply | Coroutine[object, object, HttpReply]:
        activation = self.serving.activation
        route = activation.routes.find(asked.header(b"host") or "", asked.path)
        if route is None:
            raise Refused(404, "no deployment is bound to this host and path")
        body = asked.whole_body()
        told = stated(asked.fields) if asked.trusted else NOTHING
        _admit_endpoint(activation, route, told.endpoint)
        dispatcher = self._dispatcher(activation, route)
        if asked.method != "POST":
            raise Refused(405, "only POST is supported for the generic revision ingress", extra=allow("POST, OPTIONS"))
        if not asked.trusted and not self._may_drive(asked, route):
            raise Refused(401, "a valid bearer token is required", extra=[(b"www-authenticate", b"Bearer")])
        try:
            value = parse(body, most=MAX_NESTS) if body else None
        except TooDeep:
            raise Refused(400, f"request body is nested deeper than {MAX_DEPTH} levels") from None
        except TooMany as error:
            raise Refused(400, f"request body has {error}") from None
        except ValueError:
            raise Refused(400, "request body must be JSON") from None
        seen = self._identity(asked, told, value)
        picked = self._pick(activation, route, dispatcher, asked, told.revision, seen)
        steps = None if told.steps is None else Steps(self._clock)

        def replied(served: ServedTurn) -> HttpReply:
            extra: Headers = [] if picked.cookie is None else [(b"set-cookie", picked.cookie.encode())]
            if seen.private and served.turn.parked:
                extra.append((b"set-cookie", session_cookie(seen.identity).encode()))
            answer: object = replies(served.turn.output, route.tenant)
            if steps is not None:
                more = {"revision_id": served.revision.revision_id, "waits": served.turn.parked}
                answer = {"replies": answer, **more, **steps.told()}
            return HttpReply(200, msgspec.json.encode(answer), extra=extra, revision=served.revision)

        message = Message(activity_of(value), route.tenant, route.team, seen.identity, message_id(asked, value))
        return self.turns.run(route.deployment_id, picked, message, replied, steps)

    def _may_drive(self, asked: Request, route: Route) -> bool:
        told = asked.header(b"authorization")
        return self.gate.lets_in(told, route.bundle_id, unix_seconds(self._clock))

    def _identity(self, asked: Request, told: Stated, body: object) -> RequestIdentity:
        if asked.trusted:
            return trusted_identity(told, body)
        cookies = asked.header(b"cookie")
        cookie = None if cookies is None else cookie_named(cookies, SESSION_COOKIE)
        return stranger_identity(cookie, self._services.random.octets(SESSION_BYTES), shared=self._shared)

    def _dispatcher(self, activation: Activation, route: Route) -> Dispatcher:
        """Who chooses for a deployment. Raises `Refused` where nobody answers for it, for now or at all."""
        found = activation.dispatchers.get(route.deployment_id)
        if found is not None and found.open:
            return found
        fault = activation.unavailable.get(route.deployment_id)
        if found is None and fault is not None and fault.reason != "absent":  # what is absent comes by no waiting
            text = "this deployment is not available at the moment"
            raise come_back(text, RETRY_SECONDS)
        why = (
            "has no revision that can be served"
            if found is None
            else "has only revisions that are draining or without weight"
        )
        self._log.warn("serve", f"deployment `{route.deployment_id}` {why}")
        raise Refused(500, "revision dispatch failed")

    def _pick(
        self,
        activation: Activation,
        route: Route,
        dispatcher: Dispatcher,
        asked: Request,
        named: str | None,
        seen: RequestIdentity,
    ) -> Picked:
        """The revision of a request: by name, by session, or by cookie."""
        if named is not None:
            if named.upper() not in dispatcher.weights:
                raise Refused(404, "this deployment does not serve the revision that was named")
            return Picked(activation.revisions[named.upper()])
        if seen.identity.session is not None and not seen.private:
            found = dispatcher.of_session(seen.identity.session)
            control = dispatcher.in_control(client_of_session(seen.identity.session), found)
            return Picked(activation.revisions[found], None, control)
        cookies = asked.header(b"cookie")
        cookie = None if cookies is None else cookie_named(cookies, dispatcher.cookie_name)
        found, client = dispatcher.of_cookie(cookie, route.tenant, unix_seconds(self._clock), self._services.random)
        carried = dispatcher.set_cookie(client) if client.cookie else None
        return Picked(activation.revisions[found], carried, dispatcher.in_control(client.key, found))

    # -- invoke -----------------------------------------------------------------------------------------------------

    def _invoke(self, asked: Request) -> HttpReply | Coroutine[object, object, HttpReply]:
        if not asked.trusted:
            raise Refused(403, "worker invoke is restricted to loopback callers", cors=False)
        if asked.method != "POST":
            raise Refused(405, "worker invoke requires POST", cors=False, extra=allow("POST"))
        body = asked.whole_body(cors=False)
        try:
            wanted = read_request(body)
        except InvalidRequest as error:
            raise Refused(400, f"invalid HostWorkerRequest body: {error}", cors=False) from None
        activation = self.serving.activation
        route = activation.routes.of_tenant(tenant_of(wanted))
        if route is None:
            raise Refused(404, "no active deployment resolves for the requested tenant", cors=False)
        user = wanted.tenant.get("user_id")
        seen = RequestIdentity(Identity(wanted.session_id, user if isinstance(user, str) else None), False)
        dispatcher = self._dispatcher(activation, route)
        named = stated(asked.fields).revision
        picked = self._pick(activation, route, dispatcher, asked, named, seen)

        def replied(served: ServedTurn) -> HttpReply:
            answer = response(wanted, served.turn.output, timestamp(self._clock.now_ns()))
            return HttpReply(200, msgspec.json.encode(answer), cors=False, revision=served.revision)

        message = Message(invoke_activity(wanted.payload), route.tenant, route.team, seen.identity)
        return self.turns.run(route.deployment_id, picked, message, replied)


def message_id(asked: Request, body: object) -> str | None:
    """What the caller calls its message: `X-Message-Id`, else `Idempotency-Key`, else the `id` of an activity."""
    told = asked.header(b"x-message-id") or asked.header(b"idempotency-key")
    if told is None and isinstance(body, dict) and "text" in body and isinstance(body.get("id"), str):
        told = body["id"]
    return told or None


def _admit_endpoint(activation: Activation, route: Route, named: str | None) -> None:
    """A messaging endpoint that a trusted caller names must exist and be linked to the deployment's bundle."""
    if named is None:
        return
    linked = activation.endpoints.get(named) if 0 < len(named) <= 128 and set(named) <= _ENDPOINT_CHARS else None
    if linked is None:
        raise Refused(401, "messaging endpoint not recognized in this environment")
    if route.bundle_id not in linked:
        raise Refused(403, "this messaging endpoint is not authorized to route to the resolved bundle")
