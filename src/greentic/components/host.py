"""What a component may ask of the worker: the host imports and who answers them (formats: components 5, 6).

Rules:
1. An import is answered for every version that is listed; what a version does not have is not answered.
2. A grant is looked up for each call, since one compiled component may serve several packs.
3. Failures that the interface can express are values; only what it cannot express ends the call.
4. What has to wait (requests, files, a store elsewhere) suspends the call and holds no thread of its own.
5. A missing secret is `not-found`, a secret that nothing declares is `denied`. Secret values are never logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import msgspec

from greentic.expressions.paths import MISSING
from greentic.flow.ports import Caller, Log, StateStore, scope
from greentic.ground.beside import beside
from greentic.ground.documents import parse
from greentic.ground.errors import FlowFailure
from greentic.telemetry import request_id
from greentic.wasm.call import CallContext, HostFunction
from greentic.wasm.printed import MAX_TEXT
from greentic.wasm.traps import HostFailure

Map = dict[str, object]

SECRET_BYTES = 1 << 20
MAX_LOGS, LAST_LOGS = 256, 8
"""Messages that a call may log."""


class HttpResponse(msgspec.Struct, frozen=True):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class EgressRefused(Exception):
    """The policy does not allow the request; the text says why."""


class EgressFailed(Exception):
    """The request could not be made or answered."""


class HttpClient(Protocol):
    async def send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None, seconds: float
    ) -> HttpResponse:
        """Raises `EgressRefused` or `EgressFailed`."""
        ...


class Secrets(Protocol):
    def get(self, caller: Caller, key: str) -> bytes | None:
        """The value of a secret by its canonical name."""
        ...

    def put(self, caller: Caller, key: str, value: bytes) -> bool:
        """Whether it was stored."""
        ...


class Grants(NamedTuple):
    """What the manifest of a component, and its pack, let it ask for."""

    http: bool = True
    state_read: bool = True
    state_write: bool = True
    secrets: frozenset[str] = frozenset()
    """Canonical names."""


class HostCall(msgspec.Struct):
    """The context of one call."""

    component: str
    caller: Caller
    grants: Grants
    seconds: float
    """How long the call may wait."""
    logger: Log
    config: Map = {}
    """The published configuration of the pack."""
    lane: str = ""
    """Whose share of computing the call takes: its deployment's."""
    logged: int = 0
    computed: float = 0.0
    """Seconds of processor time that the call took, once it is over."""
    trapped: bool = False
    request: bytes | None = msgspec.field(default_factory=request_id.current)

    def over(self, computed: float, *, trapped: bool) -> None:
        """Note what a call that is over took."""
        self.computed, self.trapped = computed, trapped
        if trapped:
            self.logged = min(self.logged, MAX_LOGS - LAST_LOGS)

    def log(self, stream: str, text: str) -> bool:
        """Log a message of the component; the first `MAX_LOGS` of a call, that there were more, and the last of one that trapped."""
        self.logged += 1
        if self.logged > MAX_LOGS + 1:
            return False
        request_id.go_on(self.request)  # the library tells what was printed in threads of its own
        if self.logged > MAX_LOGS:
            text = f"it logged more than {MAX_LOGS} messages; the rest of the call is left out"
        elif len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} more characters)"
        self.logger(self.component, stream, text)
        return self.logged <= MAX_LOGS


def canonical_name(key: str) -> str:
    """A secret's name as it is looked up: lower snake case (formats: worker 8)."""
    text = re.sub(r"[-. /]", "_", key.lower())
    text = re.sub(r"_+", "_", re.sub(r"[^a-z0-9_]", "", text)).strip("_")
    return text or "secret"


class HostImports:
    """Answers the imports from the services of a worker."""

    def __init__(self, http: HttpClient, secrets: Secrets, state: StateStore) -> None:
        self._http, self._secrets, self._state = http, secrets, state
        self._functions: dict[tuple[str, str], HostFunction] = {}
        for package in ("http-client", "client"):
            self._add(f"greentic:http/{package}@1.0.0", send=lambda c, a: self._send(c, a[0], None))
            self._add(f"greentic:http/{package}@1.1.0", send=lambda c, a: self._send(c, a[0], a[1]))
        self._add("greentic:secrets-store/secrets-store@1.0.0", get=self._get_secret)
        self._add("greentic:secrets-store/secrets-store@1.1.0", get=self._get_secret, put=self._put_secret)
        self._add("greentic:state/state-store@1.0.0", read=self._read, write=self._write, delete=self._delete)
        self._add("greentic:telemetry/logger-api@1.0.0", log=self._log)
        self._add("greentic:host/http-v1@1.0.0", request=self._request)
        self._add("greentic:host/kv-v1@1.0.0", get=lambda c, a: None, put=lambda c, a: None)
        self._add("greentic:runtime-config/runtime-config@1.0.0", get=self._config)
        self._add("greentic:runtime-config@1.0.0", get=self._config)
        for version in ("0.4.0", "0.5.0", "0.6.0"):
            control = {"should-cancel": lambda c, a: False, "yield-now": lambda c, a: None}
            self._add(f"greentic:component/control@{version}", **control)
        broker = dict.fromkeys(("get-consent-url", "exchange-code", "get-token"), self._no_broker)
        self._add("greentic:oauth-broker/broker-v1@1.0.0", **broker)

    def _add(self, interface: str, **functions: HostFunction) -> None:
        for name, function in functions.items():
            self._functions[interface, name] = function

    def function(self, interface: str, name: str) -> HostFunction | None:
        return self._functions.get((interface, name))

    # -- http -------------------------------------------------------------------------------------------------------

    async def _send(self, context: CallContext, request: object, options: object) -> object:
        call, wanted = cast(HostCall, context), cast(Map, request)
        seconds = call.seconds
        if isinstance(options, dict):
            timeout = options.get("timeout-ms")
            if isinstance(timeout, int):
                seconds = min(seconds, timeout / 1000)
            for ignored in ("allow-insecure", "follow-redirects"):
                if options.get(ignored):
                    call.log("http", f"the option `{ignored}` is not supported and has no effect")
        try:
            if not call.grants.http:
                raise EgressRefused("http client disabled by policy")
            answer = await self._http.send(
                str(wanted["method"]), str(wanted["url"]), cast("list[tuple[str, str]]", wanted["headers"]),
                cast("bytes | None", wanted["body"]), max(seconds, 0.001),
            )  # fmt: skip
        except EgressRefused as error:
            return ("err", {"code": "denied", "message": str(error)})
        except EgressFailed as error:
            return ("err", {"code": "unavailable", "message": str(error)})
        return ("ok", {"status": answer.status, "headers": answer.headers, "body": answer.body})

    async def _request(self, context: CallContext, arguments: list[object]) -> object:
        method, url, headers, body = arguments
        pairs: list[tuple[str, str]] = []
        for header in headers if isinstance(headers, list) else []:
            name, _, value = header.partition(":") if isinstance(header, str) else (header[0], "", header[1])
            pairs.append((str(name).strip(), str(value).strip()))
        data = body if isinstance(body, bytes) else None
        tag, value = cast(
            "tuple[str, Map]",
            await self._send(context, {"method": method, "url": url, "headers": pairs, "body": data}, None),
        )
        return ("ok", value["body"] or b"") if tag == "ok" else ("err", f"{value['code']}: {value['message']}")

    # -- secrets ----------------------------------------------------------------------------------------------------

    async def _get_secret(self, context: CallContext, arguments: list[object]) -> object:
        call = cast(HostCall, context)
        key = str(arguments[0])
        if not key.strip():
            return ("err", "invalid-key")
        name = canonical_name(key)
        if name not in call.grants.secrets:
            call.log("secrets", f"the secret `{name}` is not declared by the component or its pack")
            return ("err", "denied")
        try:
            value = await beside(self._secrets.get, call.caller, name)
        except OSError as error:
            call.log("secrets", f"the secret `{name}` cannot be read: {error.strerror}")
            return ("err", "internal")
        return ("err", "not-found") if value is None else ("ok", value)

    async def _put_secret(self, context: CallContext, arguments: list[object]) -> object:
        call = cast(HostCall, context)
        name, value = canonical_name(str(arguments[0])), cast(bytes, arguments[1])
        if (
            name not in call.grants.secrets
            or len(value) > SECRET_BYTES
            or not await beside(self._secrets.put, call.caller, name, value)
        ):
            call.log("secrets", f"the secret `{name}` was not stored")
        return None

    # -- state ------------------------------------------------------------------------------------------------------

    def _read(self, context: CallContext, arguments: list[object]) -> object:
        call, key = cast(HostCall, context), str(arguments[0])
        if not call.grants.state_read:
            return _denied("reading state")

        def read() -> object:
            value = self._state.get(_scope(call), key)
            if value is MISSING:
                return ("err", {"code": "not_found", "message": f"no state under `{key}`"})
            return ("ok", _spelled(value).encode())

        return self._stored(read)

    def _write(self, context: CallContext, arguments: list[object]) -> object:
        call, key = cast(HostCall, context), str(arguments[0])
        if not call.grants.state_write:
            return _denied("writing state")
        try:
            value = parse(cast(bytes, arguments[1]))
        except ValueError:
            return ("err", {"code": "internal", "message": "the value is no JSON"})

        def write() -> object:
            self._state.set(_scope(call), key, value)
            return ("ok", "ok")

        return self._stored(write)

    def _delete(self, context: CallContext, arguments: list[object]) -> object:
        call, key = cast(HostCall, context), str(arguments[0])
        if not call.grants.state_write:
            return _denied("writing state")

        def delete() -> object:
            self._state.delete(_scope(call), key)
            return ("ok", "ok")

        return self._stored(delete)

    def _stored(self, work: Callable[[], object]) -> object:
        """What the store does, at once if it is here, else as something to wait for."""

        def told() -> object:
            try:
                return work()
            except FlowFailure as error:
                return ("err", {"code": "unavailable", "message": str(error)})

        return told() if self._state.local else beside(told)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def _log(self, context: CallContext, arguments: list[object]) -> object:
        fields = ", ".join(f"{pair[0]}={pair[1]}" for pair in cast("list[tuple[str, str]]", arguments[1]))
        context.log("telemetry", fields)
        return ("ok", "ok")

    async def _config(self, context: CallContext, arguments: list[object]) -> object:
        """What is published for the pack, else the secret of that name, if the pack declares it."""
        call = cast(HostCall, context)
        key = str(arguments[0]) if arguments else ""
        value = call.config.get(key)
        if value is None:
            name = canonical_name(key)
            secret = await beside(self._secrets.get, call.caller, name) if name in call.grants.secrets else None
            return None if secret is None else secret.decode(errors="replace")
        return value if isinstance(value, str) else _spelled(value)

    def _no_broker(self, context: CallContext, arguments: list[object]) -> object:
        raise HostFailure("no OAuth broker is configured for this worker")


def _spelled(value: object) -> str:
    import json  # few components read a value that others than they have written

    return json.dumps(value, ensure_ascii=False)


def _denied(what: str) -> object:
    return ("err", {"code": "denied", "message": f"{what} is not granted by the manifest"})


def _scope(call: HostCall) -> str:
    """Whose values a component sees: those of its environment and tenant, and of the verified caller if there is one."""
    caller = call.caller
    return scope("component", caller.env, caller.tenant, caller.team or None, caller.user or None)
