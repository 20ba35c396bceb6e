"""Who talks to a flow, and which waiting run goes on (spec: worker 6.3, packs-flows-components 3.9).

Rules:
1. A session is what a trusted caller names; else it is `tenant:provider:channel:conversation:user`, with the flow as channel
   and conversation. Callers of this machine that name nothing are one user; strangers get a private session each.
2. A run waits under its revision, tenant, session, pack and conversation. The next message of the same session resumes it; a
   completed run leaves nothing.
3. While a run waits, its session is pinned to the revision that it waits on, whatever the weights say.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from greentic.flow.graph import FlowFailure
from greentic.flow.state import Snapshot, read_snapshot
from greentic.sessions.value_store import ValueStore

PIN_SECONDS = 7 * 86_400
ANYONE = "user"
"""The user of callers who name none."""


class Identity(NamedTuple):
    """What is known of a caller."""

    session: str | None = None
    """A session that a trusted caller named, or the private one of a stranger."""
    user: str | None = None
    """A user that a trusted caller vouches for."""
    endpoint: str | None = None


class Conversations:
    """The waiting runs of an environment."""

    def __init__(self, values: ValueStore, namespace: str, wait_seconds: int | None = None) -> None:
        self.values, self._namespace, self._seconds = values, namespace, wait_seconds

    def key(self, revision_id: str, tenant: str, hint: str, pack_id: str, conversation: str) -> str:
        """Where a run of a session waits."""
        user = "sess" + hashlib.sha256(f"{hint}::pack={pack_id}".encode()).digest()[:8].hex()
        return f"{self._namespace}:{revision_id}:{tenant}:{user}:{conversation}"

    def waiting(self, key: str, pack_id: str) -> Snapshot | None:
        """The run that waits there. Raises `FlowFailure` for one that cannot be read."""
        found = self.values.get(key)
        if found is None:
            return None
        try:
            document = msgspec.json.decode(found)
        except msgspec.DecodeError:
            raise FlowFailure("the waiting conversation cannot be read") from None
        return read_snapshot(document.get("snapshot") if isinstance(document, dict) else None, pack_id)

    def park(self, key: str, snapshot: Snapshot, reason: str) -> None:
        document = {"snapshot": snapshot.to_json(), "reason": reason}
        self.values.set(key, msgspec.json.encode(document), self._seconds)

    def clear(self, key: str) -> None:
        self.values.delete(key)

    # -- pins -------------------------------------------------------------------------------------------------------

    def pinned(self, deployment_id: str, tenant: str, identity: Identity) -> str | None:
        """The revision that a run of the caller's session waits on (rule 3)."""
        found = self.values.get(self._pin(deployment_id, tenant, identity))
        return None if found is None else found.decode()

    def pin(self, deployment_id: str, tenant: str, identity: Identity, revision_id: str) -> None:
        seconds = self._seconds or PIN_SECONDS
        self.values.set(self._pin(deployment_id, tenant, identity), revision_id.encode(), seconds)

    def unpin(self, deployment_id: str, tenant: str, identity: Identity) -> None:
        self.values.delete(self._pin(deployment_id, tenant, identity))

    def _pin(self, deployment_id: str, tenant: str, identity: Identity) -> str:
        who = f"{identity.endpoint or ''}|{identity.session or ''}|{identity.user or ''}"
        return f"{self._namespace}:pin:{deployment_id}:{tenant}:{who}"


def session_hint(identity: Identity, tenant: str, flow_id: str) -> str:
    """The session of a caller (rule 1)."""
    hint = identity.session or f"{tenant}:provider:{flow_id}:{flow_id}:{identity.user or ANYONE}"
    return f"ep={identity.endpoint}::{hint}" if identity.endpoint else hint
