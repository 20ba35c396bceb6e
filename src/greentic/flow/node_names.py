"""What templates and conditions see of a run (formats: flows 5, 7).

Rules:
1. `entry` and `in` are the message; an object without `input` gets itself as `input`, then every submitted field whose
   name is free.
2. Submitted fields are the metadata but for `action`, then the envelope but for `metadata` and `text`; the latter win.
3. `node.<id>` is a node's output; an object also gets `data` (the output) and `errors`.
4. Everything is made when it is asked for, once for each node.
5. A message answers one question: once a route was taken that asked for it, the conditions of later nodes see neither its
   action nor its text. Templates still see the text.
"""

from __future__ import annotations

import datetime

from greentic.expressions.conditions import Facts
from greentic.expressions.paths import MISSING
from greentic.flow.nodes import Routing
from greentic.flow.ports import Now
from greentic.flow.results import failed
from greentic.flow.state import Map, NodeOutput, RunState


class NodeNames:
    """The names of one node of a run."""

    __slots__ = ("_cached", "_clock", "_prev", "_state")

    def __init__(self, state: RunState, prev: object, clock: Now) -> None:
        self._state, self._prev, self._clock = state, prev, clock
        self._cached: Map = {}

    @property
    def variables(self) -> Map:
        """The variables of the run, which a node may set."""
        return self._state.vars

    def named(self, name: str) -> object:
        value = self._cached.get(name, MISSING)
        if value is MISSING:
            value = self._make(name)
            self._cached[name] = value
        return value

    def _make(self, name: str) -> object:
        state = self._state
        if name == "prev":
            return {} if self._prev is MISSING else self._prev
        if name in ("entry", "in"):
            return entry_view(state.entry)
        if name == "node":
            if len(state.views) != len(state.nodes):  # of a run that was resumed
                state.views = {node: node_view(output) for node, output in state.nodes.items()}
            return dict(state.views)  # what is asked for later is not put into what was given out
        if name == "vars":
            return state.vars
        if name == "now":
            return _now(self._clock.now_ns())
        if name == "state":
            return {
                "entry": state.entry,
                "input": state.entry,
                "nodes": {node: output.to_json() for node, output in state.nodes.items()},
                "redirect_count": state.redirect_count,
                "park_turns": state.park_turns,
                "pending_agent_await": None,
            }
        return MISSING

    def facts(self, output: NodeOutput, routing: Routing) -> Facts:
        """What the conditions after a node may ask about."""

        state = self._state
        entry = without_answer(state.entry) if state.taken else state.entry

        def named(name: str) -> object:
            if name in ("entry", "in"):
                return entry_view(entry) if state.taken else self.named(name)
            if name == "node":
                return self.named(name)
            if name == "response":
                return response_of(entry)
            return event_of(output, routing) if name == "event" else MISSING

        self._cached.pop("node", None)
        return Facts(output.payload, named)


def response_of(entry: object) -> Map:
    """The metadata of the message, and its text."""
    text = _member(entry, "text")
    return metadata_of(entry) if text is None else {**metadata_of(entry), "text": text}


def event_of(output: NodeOutput, routing: Routing) -> str:
    """What happened: the outcome that a component tells, else success or error in the word that the routes use."""
    outcome = output.payload.get("outcome") if isinstance(output.payload, dict) else None
    if isinstance(outcome, str):
        return outcome
    return routing.success_event if output.ok else routing.error_event


def entry_view(entry: object) -> object:
    """The message as templates see it (rule 1)."""
    if not isinstance(entry, dict):
        return entry
    view: Map = dict(entry)
    inner = view.setdefault("input", entry)
    if inner is entry and not isinstance(entry.get("metadata"), dict):
        return view  # what it submits is what it has
    for key, value in submitted(entry).items():
        view.setdefault(key, value)
    return view


def submitted(entry: object) -> Map:
    """The fields that a message submits (rule 2)."""
    if not isinstance(entry, dict):
        return {}
    fields = {key: value for key, value in metadata_of(entry).items() if key != "action"}
    inner = entry.get("input")
    envelope: Map = inner if isinstance(inner, dict) else entry
    fields.update({key: value for key, value in envelope.items() if key not in ("metadata", "text")})
    return fields


def metadata_of(entry: object) -> Map:
    """`entry.input.metadata`, else `entry.metadata`, else nothing."""
    found = _member(entry, "metadata")
    return found if isinstance(found, dict) else {}


def without_answer(entry: object) -> object:
    """The message without its action and its text, which a step has taken (rule 5)."""
    out = without_action(entry)
    if not isinstance(out, dict):
        return out
    out = {key: value for key, value in out.items() if key != "text"}
    inner = out.get("input")
    if isinstance(inner, dict):
        out["input"] = {key: value for key, value in inner.items() if key != "text"}
    return out


def without_action(entry: object) -> object:
    """The message without the action that was just taken, so that the next card does not take it again."""
    if not isinstance(entry, dict):
        return entry
    out = dict(entry)
    for holder, put in ((entry.get("input"), "input"), (entry, None)):
        if isinstance(holder, dict) and isinstance(holder.get("metadata"), dict) and "action" in holder["metadata"]:
            metadata = {key: value for key, value in holder["metadata"].items() if key != "action"}
            if put is None:
                out["metadata"] = metadata
            else:
                out[put] = {**holder, "metadata": metadata}
    return out


def node_view(output: NodeOutput) -> object:
    """A node's output as `node.<id>` (rule 3)."""
    payload = output.payload
    if not isinstance(payload, dict):
        return payload
    return {**payload, "data": payload, "errors": _errors(payload)}


def _errors(payload: Map) -> object:
    if "error" not in payload and "errors" not in payload:
        return []  # most
    if (told := failed(payload)) is not None:
        code, message = told
        return [{"code": code, "message": message, "kind": "internal", "retryable": False}]
    if "errors" in payload and "ok" not in payload:
        return payload["errors"]
    return []


def _member(entry: object, name: str) -> object:
    if not isinstance(entry, dict):
        return None
    inner = entry.get("input")
    if isinstance(inner, dict) and inner.get(name) is not None:
        return inner[name]
    return entry.get(name)


def _now(now_ns: int) -> Map:
    seconds, milliseconds = divmod(now_ns // 1_000_000, 1000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    iso = moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{milliseconds:03d}Z"
    return {"iso": iso, "epoch_ms": now_ns // 1_000_000, "date": moment.strftime("%Y-%m-%d")}
