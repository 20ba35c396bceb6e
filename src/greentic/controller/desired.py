"""Which document an operator works with: what is published and believed, else the last good one (formats: operator 1).

Rules:
1. What is published is asked for on condition, taken apart and checked as by a worker: seal, environment, generation, revocations.
2. The generation never goes back: what was applied stands in the object's status, which outlives the operator. What pods have, or are
   pointed to, counts as well, for a status may be lost; a pointer says its document's generation, which then counts unread.
3. An operator that starts while nothing can be had takes the document that the cluster's pods have, or the copy of the one that they are
   pointed to (`kept_document`), checked the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from greentic.controller.kept_document import kept
from greentic.controller.wish import Wish
from greentic.ground.clock import Clock
from greentic.ground.disk import make_directory, replace_file
from greentic.ground.documents import parse
from greentic.ground.errors import FetchError, GreenticError, StoreError
from greentic.k8s.names import ENV_STORE
from greentic.k8s.objects import Cluster, Ref, member
from greentic.materialize.remembered import Memory, Seen
from greentic.materialize.trusted import Examiner
from greentic.model.delivery import delivery_of
from greentic.model.environment import DOCUMENT, Environment, document_digest
from greentic.model.ids import check_env_id
from greentic.model.pointer import POINTER_FILE, Pointer, read_pointer
from greentic.net.addresses import shown
from greentic.net.terms import Terms
from greentic.publication.artifact import check_claims
from greentic.publication.place import Place, is_directory, newest, place_of, read_document
from greentic.publication.pointed import read_pointed
from greentic.store.environments import environment_of


class DesiredDocument(NamedTuple):
    """A document that is believed."""

    env: Environment
    digest: str
    manifest: str
    """Where it came from; empty for the one of the cluster's pods."""
    generation: int


class Publication:
    """What one wish says is published, looked at again and again."""

    def __init__(self, home: Path, clock: Clock, terms: Terms) -> None:
        self._home, self._clock, self._terms = home, clock, terms
        self._reference = ""
        self._place: Place | None = None
        self._known: str | None = None

    def look(self, wish: Wish, seen: int) -> DesiredDocument | None:
        """The document that is published now; nothing if it is the known one. `seen` is the generation that was applied.

        Raises `FetchError`, or another `GreenticError` for one that is refused.
        """
        if self._place is None or self._reference != wish.place:
            self._place, self._reference, self._known = place_of(wish.place, self._terms), wish.place, None
        edition = newest(self._place, wish.place, self._known)
        if edition is None:
            return None
        data = read_document(self._place, edition, wish.place)
        env = environment_of(data, Path(shown(wish.place)) / DOCUMENT, wish.env_id or edition.env_id)
        check_claims(edition, env, wish.place)
        self._believe(env, wish, seen)
        self._known = edition.digest
        return DesiredDocument(env, document_digest(data), edition.digest, edition.generation)

    def forget(self) -> None:
        """Read the document anew with the next look, as after a change of the wish."""
        self._known = None

    def of_pods(self, cluster: Cluster, wish: Wish, seen: int) -> DesiredDocument | None:
        """The document that the cluster's pods have, if it is believed (rule 3). Raises `GreenticError`."""
        thing = cluster.get(Ref("ConfigMap", ENV_STORE, wish.answers.namespace))
        held = {} if thing is None else member(thing, "data")
        text, pointer = held.get(DOCUMENT), held.get(POINTER_FILE)
        if isinstance(pointer, str):
            data = self._pointed(cluster, read_pointer(pointer.encode()), wish)
        elif isinstance(text, str):
            data = text.encode()
        else:
            return None
        env = environment_of(data, Path(ENV_STORE) / DOCUMENT, wish.env_id or _claimed(data))
        self._believe(env, wish, seen)
        return DesiredDocument(env, document_digest(data), "", delivery_of(env).generation)

    def _pointed(self, cluster: Cluster, pointer: Pointer, wish: Wish) -> bytes:
        """The document that pods are pointed to. Its generation is noted before it is asked for (rule 2)."""
        if wish.env_id in (None, pointer.environment_id):
            self._note(check_env_id(pointer.environment_id), pointer.generation)
        copy = kept(cluster, wish.answers.namespace, pointer.document)
        return read_pointed(pointer, self._terms) if copy is None else copy

    def _note(self, env_id: str, seen: int) -> Memory:
        """Remember that this generation was there."""
        memory = Memory((self._home / env_id,))
        recalled = memory.recall().seen
        if seen > recalled.generation:
            memory.remember(Seen(seen, recalled.revocations), None)
        return memory

    def _believe(self, env: Environment, wish: Wish, seen: int) -> None:
        anchor = None
        if wish.anchor:
            anchor = self._home / "trust-anchor"
            make_directory(self._home, 0o700)
            replace_file(anchor, wish.anchor.encode(), 0o600)
        elif not is_directory(wish.place):
            raise StoreError(
                "spec.trustAnchor is missing: who published the environment is told by it",
                hint="gtc op operator render puts the keys of the trust root there",
            )
        memory = self._note(env.environment_id, seen)
        try:
            Examiner(memory, anchor, self._terms, self._clock).establish(env)
        except GreenticError as error:
            raise error.__cause__ if isinstance(error.__cause__, GreenticError) else error from None


def _claimed(data: bytes) -> str:
    """The id that a document says it is of."""
    try:
        raw = parse(data)
    except ValueError as error:
        raise FetchError(f"ConfigMap `{ENV_STORE}`: {error}") from None
    return str(raw.get("environment_id")) if isinstance(raw, dict) else ""
