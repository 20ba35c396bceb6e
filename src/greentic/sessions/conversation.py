"""Who talks to a flow, and which waiting run goes on (formats: worker 12; flows 10).

Rules:
1. A session is what a trusted caller names; else it is `tenant:provider:channel:conversation:user`, with the flow as channel
   and conversation. Callers of this machine that name nothing share one; strangers get a private session each.
2. A run waits under its revision, tenant, session, pack and conversation. The next message of the same session resumes it; a
   completed run leaves nothing; a failed step leaves the run where it was, until `MAX_FAILURES` in a row.
3. While a run waits, its session is pinned to the revision that it waits on, whatever the weights say.
   A pin to a revision that serves no more is forgotten with what waits there: nobody can answer that question any more.
4. Each question has a mark of its own. A message is applied to the question that stood when it came, or to none.
5. No two callers have one key, whatever stands in the names that they were given: what could be read as two names is written otherwise.
   Ordinary names stand as they are.
6. The answers to the last messages that had an id are kept with the session, a few of them and for some minutes.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple, cast

import msgspec

from greentic.flow.ports import scope
from greentic.flow.state import Snapshot, read_snapshot
from greentic.sessions.value_store import ValueStore, kept_text, read_kept

PIN_SECONDS = 7 * 86_400
MAX_FAILURES = 3
"""Failures in a row at one question that end a conversation."""
ANSWER_SECONDS = 600
"""How long the answer to a message with an id is kept."""
MAX_ANSWERS = 8
MAX_ANSWER_BYTES = 256 << 10
"""How many answers of a session are kept, and how large they may be together."""
ANYONE = "user"
"""The user of callers who name none."""
_LIKE_ANOTHER = re.compile(r"%|:provider:|\Aep=")
"""What a named session may have of one that is made up, or of one that stands escaped."""


class Identity(msgspec.Struct, frozen=True):
    """What is known of a caller."""

    session: str | None = None
    """A session that a trusted caller named, or the private one of a stranger."""
    user: str | None = None
    """A user that a trusted caller vouches for."""
    endpoint: str | None = None

    @property
    def nameless(self) -> bool:
        """Whether nobody said whose session it is, so that it may be that of many."""
        return self.session is None and self.user is None


class Waiting(NamedTuple):
    """A run that waits, and the question that it waits at."""

    snapshot: object
    """As it is stored; `read_waiting` reads it."""
    reason: str
    mark: str
    failures: int
    """How often answering this question failed, in a row."""


class Kept(msgspec.Struct, frozen=True):
    """The answer to a message with an id; without an output if it was too large to keep."""

    output: object
    parked: bool
    whole: bool


class Conversations:
    """The waiting runs of an environment."""

    def __init__(self, values: ValueStore, namespace: str, wait_seconds: int | None = None) -> None:
        self.values, self._namespace, self._seconds = values, namespace, wait_seconds

    def key(self, revision_id: str, tenant: str, hint: str, pack_id: str, conversation: str) -> str:
        """Where a run of a session waits."""
        user = "sess" + hashlib.sha256(f"{hint}::pack={pack_id}".encode()).digest()[:8].hex()
        return f"{self._namespace}:{revision_id}:{tenant}:{user}:{conversation}"

    def waiting(self, key: str) -> Waiting | None:
        """What waits there. What cannot be read counts as a question that nobody can answer. Raises `FlowFailure`."""
        found = self.values.get(key)
        if found is None:
            return None
        try:
            document = read_kept(found)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return Waiting(None, "", "", MAX_FAILURES)
        failures = document.get("failures", 0)
        return Waiting(
            document.get("snapshot"),
            str(document.get("reason", "")),
            str(document.get("mark", "")),
            failures if isinstance(failures, int) else MAX_FAILURES,
        )

    def park(self, key: str, snapshot: Snapshot, reason: str, mark: str) -> None:
        """Let a run wait at a new question. Raises `FlowFailure` for a state that cannot be kept."""
        data = kept_text({"snapshot": snapshot.to_json(), "reason": reason, "mark": mark, "failures": 0})
        self.values.set(key, data, self._seconds)

    def failed(self, key: str, waiting: Waiting) -> bool:
        """Count a failure at the question, which stays as it was; or end the conversation. Whether it goes on."""
        if waiting.failures + 1 >= MAX_FAILURES:
            self.clear(key)
            return False
        self.values.set(
            key, msgspec.json.encode(waiting._replace(failures=waiting.failures + 1)._asdict()), self._seconds
        )
        return True

    def clear(self, key: str) -> None:
        self.values.delete(key)

    def waiting_on(self, revision_id: str) -> int:
        """How many runs wait on a revision, whoever parked them. Looks at all keys. Raises `FlowFailure`."""
        return self.values.count(f"{self._namespace}:{revision_id}:")

    # -- pins -------------------------------------------------------------------------------------------------------

    def pinned(self, deployment_id: str, tenant: str, identity: Identity) -> str | None:
        """The revision that a run of the caller's session waits on (rule 3)."""
        found = self.values.get(self._pin(deployment_id, tenant, identity))
        return None if found is None else found.decode(errors="replace")

    def pin(self, deployment_id: str, tenant: str, identity: Identity, revision_id: str) -> None:
        seconds = self._seconds or PIN_SECONDS
        self.values.set(self._pin(deployment_id, tenant, identity), revision_id.encode(), seconds)

    def unpin(self, deployment_id: str, tenant: str, identity: Identity) -> None:
        self.values.delete(self._pin(deployment_id, tenant, identity))

    # -- answers ----------------------------------------------------------------------------------------------------

    def answered(self, session: str, message_id: str) -> Kept | None:
        """The answer that a message of this id got (rule 6). Raises `FlowFailure`."""
        for row in self._answers(session):
            if row.get("id") == message_id:
                return Kept(row.get("output"), row.get("parked") is True, "output" in row)
        return None

    def keep_answer(self, session: str, message_id: str, output: object, *, parked: bool) -> None:
        """Keep an answer for the same message coming again. Raises `FlowFailure`."""
        row: dict[str, object] = {"id": message_id, "parked": parked}
        size = len(kept_text(output))
        rows = [row | {"output": output} if size <= MAX_ANSWER_BYTES else row, *self._answers(session)][:MAX_ANSWERS]
        while len(rows) > 1 and sum(len(msgspec.json.encode(r)) for r in rows) > MAX_ANSWER_BYTES:
            rows.pop()
        self.values.set(f"{session}:answers", msgspec.json.encode(rows), ANSWER_SECONDS)

    def _answers(self, session: str) -> list[dict[str, object]]:
        found = self.values.get(f"{session}:answers")
        try:
            rows = [] if found is None else read_kept(found)
        except ValueError:
            return []
        return (
            [cast("dict[str, object]", row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        )

    def session(self, deployment_id: str, tenant: str, hint: str) -> str:
        """What the messages of one session are held under, whichever revision takes them."""
        who = hashlib.sha256(hint.encode()).hexdigest()[:32]
        return f"{self._namespace}:session:{deployment_id}:{tenant}:{who}"

    def _pin(self, deployment_id: str, tenant: str, identity: Identity) -> str:
        told = (identity.endpoint or "", identity.session or "", identity.user or "")
        who = "|".join(part.replace("%", "%25").replace("|", "%7C") for part in told)
        return f"{self._namespace}:pin:{deployment_id}:{tenant}:{who}"


def read_waiting(waiting: Waiting, pack_id: str) -> Snapshot:
    """The run that waits. Raises `FlowFailure` for one that cannot be read, or of another pack."""
    return read_snapshot(waiting.snapshot, pack_id)


def session_hint(identity: Identity, tenant: str, flow_id: str) -> str:
    """The session of a caller (rules 1 and 5)."""
    named = identity.session
    if not named:
        hint = f"{tenant}:provider:{flow_id}:{flow_id}:{_user(identity.user)}"
    else:
        hint = scope(named) if _LIKE_ANOTHER.search(named) else named
    return f"ep={identity.endpoint}::{hint}" if identity.endpoint else hint


def _user(named: str | None) -> str:
    """The user of a session; who is called as nobody is, is written otherwise (rule 5)."""
    if not named:
        return ANYONE
    return f"%{ord(ANYONE[0]):X}{ANYONE[1:]}" if named == ANYONE else named.replace("%", "%25")
