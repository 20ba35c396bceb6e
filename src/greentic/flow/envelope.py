"""The envelope in which a component gets its input (formats: components 3). Pure.

Rules:
1. An input with `envelope` brings operation, payload and metadata itself.
2. Else `op` or `operation`, `payload` or `input`, `metadata` or `config` are taken out of an object. Where none of them is
   set the whole object is the payload; where one is, the rest becomes the payload if there is none, else it is dropped.
3. The configuration of a node goes with the payload: `{config, input}`.
4. Payload and metadata are JSON texts, as bytes.
"""

from __future__ import annotations

import msgspec

from greentic.flow.ports import ComponentCall
from greentic.flow.state import Map

_TENANT_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_PAIRS = (("op", "operation"), ("payload", "input"), ("metadata", "config"))


class Envelope(msgspec.Struct, frozen=True):
    """An ordinary call."""

    call: ComponentCall
    operation: str
    payload: object
    metadata: object

    def to_json(self) -> Map:
        """The whole envelope; payload and metadata are the bytes of their JSON texts, as lists of numbers (rule 4)."""
        call, caller = self.call, self.call.caller
        tenant = caller.tenant if caller.tenant and set(caller.tenant) <= _TENANT_CHARS else "tenant.default"
        context: Map = {"env": caller.env, "tenant": tenant, "tenant_id": tenant}
        if caller.session is not None:
            context["session_id"] = caller.session
        context |= {"flow_id": call.flow_id, "node_id": call.node_id, "attempt": call.attempt}
        if caller.provider is not None:
            context["provider_id"] = caller.provider
        if caller.user is not None:
            context["user_id"] = caller.user
            if caller.team is not None:
                context["team_id"] = caller.team
        return {
            "ctx": context,
            "flow_id": call.flow_id,
            "node_id": call.node_id,
            "op": self.operation,
            "payload": list(msgspec.json.encode(self.payload)),
            "metadata": list(msgspec.json.encode(self.metadata)),
        }


def envelope_of(call: ComponentCall) -> Envelope:
    """The envelope of an ordinary call."""
    operation, payload, metadata = split_input(call.input)
    if call.config is not None:
        payload = {"config": call.config, "input": payload}
    return Envelope(call, operation or call.operation, payload, metadata)


def split_input(value: object) -> tuple[str | None, object, object]:
    """Operation, payload and metadata of an input (rules 1 and 2)."""
    if not isinstance(value, dict):
        return None, value, None
    if "envelope" in value:
        inner = value["envelope"]
        if not isinstance(inner, dict):
            return None, inner, None
        operation = inner.get("op")
        return operation if isinstance(operation, str) else None, inner.get("payload"), inner.get("metadata")
    rest = dict(value)
    found: list[object] = []
    for first, second in _PAIRS:
        taken = rest.pop(first, None)
        found.append(taken if taken is not None else rest.pop(second, None))
    operation, payload, metadata = found
    if operation is None and payload is None and metadata is None:
        return None, value, None
    if payload is None and rest:
        payload = rest
    return operation if isinstance(operation, str) else None, payload, metadata


def dropped_keys(value: object) -> list[str]:
    """The keys of an input that no component will see (rule 2), for a load report."""
    if not isinstance(value, dict) or "envelope" in value:
        return []
    known = {key for pair in _PAIRS for key in pair}
    has_payload = any(value.get(key) is not None for key in _PAIRS[1])
    return sorted(key for key in value if key not in known) if has_payload else []
