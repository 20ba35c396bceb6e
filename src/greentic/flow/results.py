"""What the answer of a component means (formats: flows 8).

Rules, first applicable:
1. `{ok: false, error}`, the error an object or a text, and an object with an object `error` and no `result` are failures: a failed
   output where the node has an error route, else the end of the run. `retryable` and `backoff_ms` are kept: they decide whether it is
   tried again.
2. `greentic_control` with the integer 1 as its version jumps to another flow or responds and completes; other actions are ignored.
3. Anything else is the node's output.
"""

from __future__ import annotations

import msgspec

from greentic.flow.state import Map, NodeOutput
from greentic.ground.errors import FlowFailure

DEFAULT_REDIRECTS = 3
_CODE, _NO_MESSAGE = "component_error", "component reported error"
"""What is said where a component says nothing."""
SAID_IN_WORDS = "COMPONENT_INVOCATION_FAILED"
"""The code of failures of components whose interface has only a text for them; nobody said whether to try again."""


class Jump(msgspec.Struct, frozen=True):
    """Go on in another flow, or at another node."""

    flow: str
    node: str | None
    payload: object
    max_redirects: int


class Respond(msgspec.Struct, frozen=True):
    """Answer with this, and complete."""

    message: Map


class Result(msgspec.Struct, frozen=True):
    output: NodeOutput
    control: Jump | Respond | None = None


def interpret(component: str, value: object, *, catches_errors: bool) -> Result:
    """The meaning of a component's answer. Raises `FlowFailure` for a failure that nothing catches."""
    if not isinstance(value, dict):
        return Result(NodeOutput(True, value))
    failure = _failure(component, value)
    if failure is not None:
        if not catches_errors:
            raise _told(failure, value["error"])
        return Result(NodeOutput(False, value, {"error": failure}))
    control = value.get("greentic_control")
    return Result(NodeOutput(True, value), _control(control) if isinstance(control, dict) else None)


def _told(text: str, error: object) -> FlowFailure:
    """The failure with what the component says about trying again, in its fields."""
    told = error if isinstance(error, dict) else {}
    if told.get("code") == SAID_IN_WORDS:
        return FlowFailure(text)
    retryable, backoff = told.get("retryable"), told.get("backoff_ms")
    return FlowFailure(
        text,
        retryable=retryable if isinstance(retryable, bool) else None,
        backoff_ms=backoff if isinstance(backoff, int) and not isinstance(backoff, bool) and backoff >= 0 else None,
    )


def failed(value: Map) -> tuple[object, object] | None:
    """The code and the message of an answer that says itself that it is a failure, by `ok: false` and an error."""
    error = value.get("error")
    if value.get("ok") is not False or not isinstance(error, dict | str):
        return None
    return (_CODE, error or _NO_MESSAGE) if isinstance(error, str) else _named(error)


def _named(error: Map) -> tuple[object, object]:
    code, message = (error.get(key) for key in ("code", "message"))
    return _CODE if code in (None, "") else code, _NO_MESSAGE if message in (None, "") else message


def _failure(component: str, value: Map) -> str | None:
    if (told := failed(value)) is not None:
        return f"component {component} failed: {told[0]}: {told[1]}"
    error = value.get("error")
    if not isinstance(error, dict) or value.get("result") is not None:
        return None
    code, message = _named(error)
    status = f" (status {error['status']})" if error.get("status") is not None else ""
    return f"component {component} returned tool error: {code}: {message}{status}"


def _control(control: Map) -> Jump | Respond | None:
    if type(control.get("v")) is not int or control["v"] != 1:
        return None
    action = control.get("action")
    if action == "jump":
        flow, node = control.get("flow"), control.get("node")
        if not isinstance(flow, str) or not flow.strip():
            raise FlowFailure("jump_failed: greentic_control names no flow")
        if node is not None and not isinstance(node, str):
            raise FlowFailure("jump_failed: the node of greentic_control is no text")
        return Jump(flow.strip(), node, control.get("payload"), redirects(control))
    if action == "respond":
        return Respond({key: control[key] for key in ("text", "card_cbor", "needs_user") if key in control})
    return None


def redirects(source: Map) -> int:
    """How many jumps are allowed in this run."""
    told = source.get("max_redirects")
    return told if isinstance(told, int) and not isinstance(told, bool) and told >= 0 else DEFAULT_REDIRECTS
