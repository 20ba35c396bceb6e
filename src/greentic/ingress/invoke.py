"""`POST /workers/invoke`: another program drives a worker (formats: worker 11). Pure."""

from __future__ import annotations

import msgspec

from greentic.flow.activity import replies
from greentic.ground.documents import MAX_DEPTH, TooDeep, TooMany, decode

WORKER_VERSION = "1.0.0"
NEWLINE = b"\n"


class WorkerRequest(msgspec.Struct, frozen=True):
    """`HostWorkerRequest`. `tenant` is echoed as it came; its member `tenant` finds the deployment."""

    tenant: dict[str, object]
    worker_id: str
    payload: object = None
    version: str = WORKER_VERSION
    correlation_id: str | None = None
    session_id: str | None = None
    thread_id: str | None = None


MAX_NESTS = 100_000
"""Arrays and objects of a request, which are made before anybody else has a turn: a megabyte of brackets has ten times as many."""


class InvalidRequest(ValueError):
    """The body is no worker request; the text says why."""


def read_request(body: bytes) -> WorkerRequest:
    """Raises `InvalidRequest`."""
    try:
        request = decode(body, WorkerRequest, most=MAX_NESTS)
    except TooDeep:
        raise InvalidRequest(f"nested deeper than {MAX_DEPTH} levels") from None
    except TooMany as error:
        raise InvalidRequest(str(error)) from None
    except ValueError as error:
        text = str(error).replace("Object missing required", "missing")
        raise InvalidRequest(text if " - at " in text else f"{text}{_end_of(body)}") from None
    for member in ("env", "tenant", "tenant_id"):
        if not isinstance(request.tenant.get(member), str):
            raise InvalidRequest(f"missing field `{member}` - at `$.tenant`")
    return request


def _end_of(body: bytes) -> str:
    """Where the document ends, as other programs tell it: lines and columns from 1."""
    text = body.rstrip()
    line = text.count(b"\n") + 1
    return f" at line {line} column {len(text) - (text.rfind(NEWLINE) + 1)}"


class _Tenant(msgspec.Struct, frozen=True):
    tenant: str


class _Addressed(msgspec.Struct, frozen=True):
    """As much of a request as tells who it is for."""

    tenant: _Tenant


def told_tenant(body: bytes) -> str | None:
    """The tenant that a body names, whatever else is wrong with it; nothing if it names none. The rest is passed over, not built."""
    try:
        return decode(body, _Addressed).tenant.tenant
    except ValueError:
        return None


def tenant_of(request: WorkerRequest) -> str:
    return str(request.tenant["tenant"])


def response(request: WorkerRequest, output: object, now: str) -> dict[str, object]:
    """The answer: one message per reply, a parked turn by its visible response."""
    payloads = [r["payload"] for r in replies(output, tenant_of(request))]
    return {
        "version": request.version,
        "tenant": request.tenant,
        "worker_id": request.worker_id,
        "timestamp_utc": now,
        "messages": [_message(_visible(p)) for p in payloads],
        "correlation_id": request.correlation_id,
        "session_id": request.session_id,
        "thread_id": request.thread_id,
    }


def _visible(payload: object) -> object:
    if isinstance(payload, dict) and payload.get("status") == "pending" and "response" in payload:
        return payload["response"]
    return payload


def _message(payload: object) -> dict[str, object]:
    card = _card(payload)
    if card is not None:
        return {"kind": "adaptive-card", "payload": card}
    if isinstance(payload, dict) and ("text" in payload or _is_failure(payload)):
        return {"kind": "text", "payload": payload}
    return {"kind": "activity", "payload": payload}


def _is_failure(payload: dict[str, object]) -> bool:
    metadata = payload.get("metadata")
    return isinstance(metadata, dict) and "error_kind" in metadata


def _card(payload: object, depth: int = 0) -> object | None:
    """A `renderedCard` under the known members; of a list the last that has one."""
    if depth > 8:
        return None
    if isinstance(payload, list):
        for item in reversed(payload):
            found = _card(item, depth + 1)
            if found is not None:
                return found
    if isinstance(payload, dict):
        if payload.get("renderedCard") is not None:
            return payload["renderedCard"]  # type: ignore[no-any-return]
        for member in ("outputs", "result", "structured_content", "payload", "response"):
            found = _card(payload.get(member), depth + 1)
            if found is not None:
                return found
    return None
