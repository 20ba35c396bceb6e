"""What an operator may do from the page: warm, set traffic, ramp, roll back; through the verbs of `gtc op`, and only where it is allowed.

Rules:
1. Every change is a verb with its payload, lock and audit line; this room changes nothing by itself.
2. A change runs in a thread of its own, for it may take minutes. It is watched by the page and ends with the program; a ramp that was cut
   off stands in the document as running, and is resumed.
3. The last few are remembered, with what they said. A change that is under way in a deployment keeps others out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from greentic.deployments.revisions import RevisionTransitionPayload, warm
from greentic.deployments.traffic import TrafficSetPayload, TrafficShowPayload, rollback, set_traffic
from greentic.ground.disk import of_the_machine
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import Conflict, GreenticError, InvalidArgument
from greentic.ground.reply import reply_object
from greentic.operate.change import Context
from greentic.operate.payload import P, read
from greentic.operate.view import Row
from greentic.rollout.ramp_run import TrafficRampPayload, ramp
from greentic.store.environments import EnvironmentStore
from greentic.telemetry.log import traceback_of

KEPT = 20
SAID = 50


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page asks for."""

    verb: Literal["warm", "traffic", "ramp", "rollback"]
    payload: dict[str, object]


class Under(NamedTuple):
    """A payload that was read, and what carries it out."""

    scope: str
    run: Callable[[Context], object]


class Running:
    """One change: what it says while it runs (an `operate.view.View`), and what came of it."""

    def __init__(self, number: int, verb: str, scope: str) -> None:
        self.number, self.verb, self.scope = number, verb, scope
        self.state: Literal["running", "done", "failed"] = "running"
        self.said: list[str] = []
        self.error: JsonObject | None = None
        self.result: JsonObject | None = None

    def say(self, text: str) -> None:
        if not self.said or self.said[-1] != text:
            self.said = [*self.said, text][-SAID:]

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def show(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...

    def told(self) -> JsonObject:
        return {
            "number": self.number, "verb": self.verb, "scope": self.scope, "state": self.state, "said": [*self.said],
            "error": self.error,
        }  # fmt: skip


class Changes:
    """The changes that were made from one console."""

    def __init__(self, store: EnvironmentStore, env_id: str, addresses: list[str], *, allowed: bool) -> None:
        self.allowed = allowed
        self._store, self._env_id, self._addresses = store, env_id, addresses
        self._lock = threading.Lock()
        self._all: list[Running] = []
        self._number = 0

    def told(self) -> list[Json]:
        """The last changes, newest first."""
        return [running.told() for running in reversed(self._all)]

    def begin(self, asked: Asked) -> Running:
        """Start a change. Raises `Conflict` or `InvalidArgument`."""
        if not self.allowed:
            raise Conflict("this console only shows", hint="gtc console ENV --allow-changes")
        under = self._read(asked)
        with self._lock:
            if any(r.state == "running" and r.scope == under.scope for r in self._all):
                raise Conflict(f"a change of `{under.scope}` is under way; wait until it is done")
            self._number += 1
            running = Running(self._number, asked.verb, under.scope)
            self._all = [*self._all, running][-KEPT:]
        threading.Thread(target=self._carry_out, args=(running, under), daemon=True, name=asked.verb).start()
        return running

    def _carry_out(self, running: Running, under: Under) -> None:
        try:
            running.result = reply_object(under.run(Context(self._store, running)))
            running.state = "done"
        except (GreenticError, OSError, MemoryError) as found:
            error = found if isinstance(found, GreenticError) else of_the_machine(found)
            running.error = {"kind": error.kind, "message": error.message, "hint": error.hint}
            running.state = "failed"
        except Exception as error:  # noqa: BLE001  the page must learn that it ended
            running.error = {"kind": "internal", "message": traceback_of(error), "hint": None}
            running.state = "failed"

    def _read(self, asked: Asked) -> Under:
        """The payload of the verb, in this environment and with these workers."""
        raw: JsonObject = {**asked.payload, "environment_id": self._env_id}  # type: ignore[dict-item]  # JSON, as it came
        if asked.verb == "warm":
            transition = _payload(RevisionTransitionPayload, raw)
            return Under(transition.revision_id, lambda context: warm(context, transition))
        if asked.verb == "traffic":
            wanted = _payload(TrafficSetPayload, {"updated_by": "console", **raw})
            return Under(wanted.deployment_id, lambda context: set_traffic(context, wanted))
        if asked.verb == "rollback":
            back = _payload(TrafficShowPayload, raw)
            return Under(back.deployment_id, lambda context: rollback(context, back))
        moved = _payload(TrafficRampPayload, raw | {"at": list[Json](self._addresses)})
        if not self._addresses:
            raise InvalidArgument("a ramp looks at workers", hint="gtc console ENV --at URL --allow-changes")
        return Under(moved.deployment_id, lambda context: ramp(context, moved))


def _payload(form: type[P], raw: JsonObject) -> P:
    return read(form, raw, InvalidArgument)
