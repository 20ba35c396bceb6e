"""Calling a component's node, runtime or provider interface, whichever it exports (formats: components 1, 3).

Rules:
1. The newest of node 0.6, 0.5, 0.4, then the runtime, is called. Several are often exported.
2. 0.4 and 0.5 get the whole envelope as JSON text, 0.6 its payload as CBOR, the runtime the whole envelope as CBOR. A card's
   invocation is passed as it is.
3. Records are filled by the names of their fields, so that every form of a tenant gets what it asks for.
4. What a component reports as a failure is a value `{ok: false, error: {…}}`. A trap, an answer that cannot be read and a
   missing export end the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import cast

import cbor2
import msgspec

from greentic.components.host import HostCall
from greentic.expressions.value_range import GREATEST, LEAST
from greentic.flow.envelope import envelope_of
from greentic.flow.ports import Caller, ComponentCall, ProviderCall
from greentic.ground.documents import parse
from greentic.ground.errors import FlowFailure
from greentic.wasm.call_limits import CallLimits
from greentic.wasm.component import NODE_06, RUNTIME, Export, HostFailure, LoadedComponent, Trap
from greentic.wasm.values import ValueMismatch

Map = dict[str, object]

PROVIDER = "greentic:provider-schema-core/schema-core-api@1.0.0"
NO_DEADLINE = 2**64 - 1
_EMPTY_MAP = b"\xa0"
MAX_JSON_DEPTH = 128
MAX_ANSWER = 16 << 20
"""How much an answer may hold: bytes of its texts, and `NODE` for everything else."""
NODE = 16
_TEXT = frozenset({str})


async def invoke_node(
    component: LoadedComponent, component_id: str, call: ComponentCall, host: HostCall, limits: CallLimits
) -> object:
    """The answer of a component as JSON. Raises `FlowFailure`."""
    found = component.entry_point
    if found is None:
        raise FlowFailure(f"component {component_id} exports no node and no runtime interface that this worker calls")
    interface, export = found
    if interface == RUNTIME:
        arguments: list[object] = [cbor2.dumps(_whole(call)), _EMPTY_MAP]
    elif interface == NODE_06:
        arguments = [call.operation, _envelope_06(component_id, call)]
    else:
        arguments = [_context_05(call), call.operation, msgspec.json.encode(_whole(call)).decode()]
    answer = await _called(component, export, arguments, component_id, host, limits)
    try:
        if interface == RUNTIME:
            return _from_cbor(
                cast(bytes, cast(Map, answer)["output"]), f"component {component_id}: the output of `run`"
            )
        return _answer_06(answer, component_id) if interface == NODE_06 else _answer_05(answer)
    except (TypeError, ValueError, KeyError, AttributeError):
        # A component may declare any type for a function of this name.
        raise FlowFailure(f"component {component_id} answers with another type than {interface} has") from None


async def invoke_provider(
    component: LoadedComponent, component_id: str, call: ProviderCall, host: HostCall, limits: CallLimits
) -> object:
    """The answer of a provider component (JSON bytes both ways). Raises `FlowFailure`."""
    export = component.find(PROVIDER, "invoke")
    if export is None:
        raise FlowFailure(f"component {component_id} does not export {PROVIDER}")
    answer = await _called(
        component, export, [call.operation, msgspec.json.encode(call.input)], component_id, host, limits
    )
    if not isinstance(answer, bytes):
        raise FlowFailure(f"component {component_id} answers with another type than {PROVIDER} has")
    return _parsed(answer.decode(errors="replace"))


async def _called(
    component: LoadedComponent,
    export: Export,
    arguments: list[object],
    component_id: str,
    host: HostCall,
    limits: CallLimits,
) -> object:
    try:
        return await component.invoke(export, arguments, host, limits)
    except Trap as trap:
        raise FlowFailure(f"component {component_id} trapped: {trap}") from None
    except HostFailure as failure:
        raise FlowFailure(f"component {component_id}: {failure}") from None
    except (ValueMismatch, UnicodeError) as mismatch:
        raise FlowFailure(f"component {component_id} and this worker disagree about a value: {mismatch}") from None


def _whole(call: ComponentCall) -> object:
    """A card's invocation as it is, or the envelope."""
    return call.input if call.card else envelope_of(call).to_json()


def _envelope_06(component_id: str, call: ComponentCall) -> Map:
    caller, session = call.caller, call.caller.session or ""
    context = {
        "tenant-id": caller.tenant, "team-id": caller.team if caller.user else None, "user-id": caller.user, "env-id": caller.env,
        "trace-id": "", "correlation-id": session, "deadline-ms": NO_DEADLINE, "attempt": call.attempt,
        "idempotency-key": session or None, "i18n-id": "",
    }  # fmt: skip
    metadata = None if caller.user is None else cbor2.dumps(_verified(caller), canonical=True)
    payload = cbor2.dumps(call.input if call.card else envelope_of(call).payload)
    return {
        "ctx": context, "flow-id": call.flow_id, "step-id": call.node_id or "component.exec", "component-id": component_id,
        "attempt": call.attempt, "payload-cbor": payload, "metadata-cbor": metadata,
    }  # fmt: skip


def _verified(caller: Caller) -> dict[str, str]:
    pairs = {"caller.sub": caller.user or "", "caller.user_verified": "true"}
    return pairs if caller.team is None else pairs | {"caller.team": caller.team}


def _context_05(call: ComponentCall) -> Map:
    caller, session = call.caller, call.caller.session
    verified = caller.user is not None
    tenant: Map = {
        "env": caller.env, "tenant": caller.tenant, "tenant-id": caller.tenant,
        "team": caller.team if verified else None, "team-id": caller.team if verified else None,
        "user": caller.user, "user-id": caller.user, "trace-id": None, "i18n-id": None, "correlation-id": session,
        "attributes": list(_verified(caller).items()) if verified else [], "session-id": session, "flow-id": call.flow_id,
        "node-id": call.node_id, "provider-id": caller.provider, "deadline-ms": None, "deadline-unix-ms": None,
        "attempt": call.attempt, "idempotency-key": session, "impersonation": None,
    }  # fmt: skip
    return {"tenant": tenant, "i18n-id": None, "flow-id": call.flow_id, "node-id": call.node_id}


def _answer_05(answer: object) -> object:
    tag, value = cast("tuple[str, object]", answer)
    return _parsed(cast(str, value)) if tag == "ok" else _failure(cast(Map, value))


def _answer_06(answer: object, component_id: str) -> object:
    tag, value = cast("tuple[str, Map]", answer)
    if tag != "ok":
        return _failure(value)
    output = _from_cbor(cast(bytes, value["output-cbor"]), f"component {component_id}: `output-cbor`")
    if value["ok"]:
        return _parsed(output) if isinstance(output, str) else output
    message = msgspec.json.encode(output).decode()
    return {"ok": False, "error": {"code": "COMPONENT_INVOCATION_FAILED", "message": message, "retryable": False}}


def _failure(error: Map) -> Map:
    told: Map = {"code": error["code"], "message": error["message"], "retryable": error["retryable"]}
    if error.get("backoff-ms") is not None:
        told["backoff_ms"] = error["backoff-ms"]
    details = error.get("details")
    if isinstance(details, bytes):
        details = details.decode(errors="replace")
    if details is not None:
        told["details"] = _parsed(cast(str, details))
    return {"ok": False, "error": told}


def _parsed(text: str) -> object:
    """The JSON of a text; no text is null, and one that is no JSON is itself."""
    if not text:
        return None
    try:
        return parse(text)
    except ValueError:
        return text


def _from_cbor(data: bytes, what: str) -> object:
    if not data:
        return None
    try:
        value = cbor2.loads(data, max_depth=MAX_JSON_DEPTH, semantic_decoders=_TAGS)
        if type(value) is int and -24 <= value < 24 and len(data) > 1 and _is_json(data):
            raise ValueError  # the first byte of a text or a number in JSON is a number in CBOR
        return value if _is_plain(value) else _Plain().of(value)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, ArithmeticError, MemoryError) as error:
        reason = "it is the text of JSON" if _is_json(data) else error.__cause__ or error
        raise FlowFailure(f"{what} is no CBOR that this worker takes: {reason}") from None


def _is_json(data: bytes) -> bool:
    try:
        parse(data)
    except ValueError:
        return False
    return True


def _refuse(value: object, immutable: bool) -> object:
    raise ValueError("it uses a tag that has no meaning in JSON")


def _content(value: object, immutable: bool) -> object:
    return value


_TAGS = dict.fromkeys((0, 1, 37, 52, 54, 100, 260, 261, 1004, 43000), _content) | dict.fromkeys(
    (4, 5, 25, 28, 29, 30, 35, 36, 256, 258), _refuse
)
"""What the library would make something of that JSON has no word for (a date, a UUID, an address) is its content, as with every tag
that it does not know. Tags whose few bytes stand for much are refused: references to other values, numbers with exponents, expressions."""


def _is_plain(value: object) -> bool:
    """Whether a decoded value is JSON as it stands and small enough, as nearly all are: then nothing of it has to be made again."""
    left = MAX_ANSWER
    waiting: list[dict[object, object] | list[object]] = [[value]]
    while waiting:
        held = waiting.pop()
        left -= NODE * len(held)
        if type(held) is dict and set(map(type, held)) - _TEXT:
            return False
        for item in held.values() if type(held) is dict else held:
            kind = type(item)
            if kind is str:
                left -= len(item)  # type: ignore[arg-type]
            elif kind is dict or kind is list:
                waiting.append(item)  # type: ignore[arg-type]
            elif kind is int:
                if not LEAST <= item <= GREATEST:  # type: ignore[operator]
                    return False
            elif kind is float:
                if not isfinite(item):  # type: ignore[arg-type]
                    return False
            elif item is not None and kind is not bool:
                return False
        if left < 0:
            return False
    return True


class _Plain:
    """A decoded value as JSON: bytes become lists of numbers, keys texts, what has no JSON form null. Bounded."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER

    def of(self, value: object) -> object:
        """Raises `ValueError` for a value that is too large."""
        self._left -= NODE
        if isinstance(value, str):
            self._left -= len(value)
        elif isinstance(value, bytes):
            self._left -= len(value) * NODE
        if self._left < 0:
            raise ValueError(f"it is larger than {MAX_ANSWER} bytes")
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return value if LEAST <= value <= GREATEST else float(value)
        if isinstance(value, float):
            return value if isfinite(value) else None
        if isinstance(value, bytes):
            return list(value)
        if isinstance(value, cbor2.CBORTag):
            return self.of(value.value)
        if isinstance(value, Mapping):
            return {_key(k): self.of(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item) for item in value]
        return None


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if not isinstance(key, int | float | bytes) and key is not None:
        raise ValueError("a key of a map is no text and no number")
    return str(key)
