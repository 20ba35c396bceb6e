"""Being told that objects changed: one watch a kind, and what is remembered of each object.

Rules:
1. An object counts as changed if anything but its status and the API server's own bookkeeping did. What is kept of it is a hash, and of
   Deployments how far their rollout is.
2. A watch that ends is taken up again with a list, later each time it fails. Nothing is lost by that: a list is compared like a change.
3. Being told is a hint. Without it (rights that were taken away) drift is found when everything is compared again.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable

from greentic.controller.troubles import CLUSTER_AGAIN
from greentic.ground.clock import Clock, Random
from greentic.ground.documents import JsonObject, compact
from greentic.ground.errors import GreenticError
from greentic.k8s.health import Rollout, rollout
from greentic.k8s.objects import Cluster, Listed, Ref, metadata_of, ref_of
from greentic.k8s.plan import LISTED

WATCH_SECONDS = 240.0
_BOOKKEEPING = ("resourceVersion", "managedFields", "generation", "creationTimestamp", "selfLink", "uid")


def fingerprint(thing: JsonObject) -> bytes:
    """What an object says, without what is not its makers' (rule 1)."""
    metadata = {k: v for k, v in metadata_of(thing).items() if k not in _BOOKKEEPING}
    body = {k: v for k, v in thing.items() if k not in ("metadata", "status", "apiVersion", "kind")}
    return hashlib.blake2b(compact({**body, "metadata": metadata}, sort=True), digest_size=16).digest()


class Watches:
    """Watches until it is stopped."""

    def __init__(
        self, cluster: Callable[[], Cluster], namespace: str, clock: Clock, random: Random, wake: Callable[[], None]
    ) -> None:
        self._cluster, self._namespace, self._clock, self._random, self._wake = cluster, namespace, clock, random, wake
        self._stopped = threading.Event()
        self._seen: dict[Ref, bytes] = {}
        self._changed: set[Ref] = set()
        self._lock = threading.Lock()
        self._wishes: dict[Ref, JsonObject] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.troubles: dict[str, GreenticError] = {}
        """Why a kind is not watched now."""

    def follow_wish(self, source: Ref) -> None:
        """Watch the object that holds the wish."""
        self._begin(source.kind, None, lambda thing, gone: self._take_wish(source, thing, gone))

    def follow_objects(self, selector: str) -> None:
        """Watch what was made."""
        for kind in LISTED:
            self._begin(kind, selector, self._take)

    def wish(self, source: Ref) -> JsonObject | None:
        return self._wishes.get(source)

    def changed(self) -> set[Ref]:
        """What changed since this was asked before."""
        with self._lock:
            found, self._changed = self._changed, set()
        return found

    def stop(self) -> None:
        self._stopped.set()

    def _begin(self, kind: str, selector: str | None, take: Callable[[JsonObject, bool], None]) -> None:
        threading.Thread(target=self._run, args=(kind, selector, take), daemon=True, name=f"watch-{kind}").start()

    def _run(self, kind: str, selector: str | None, take: Callable[[JsonObject, bool], None]) -> None:
        failed = 0
        while not self._stopped.is_set():
            began = self._clock.monotonic()
            try:
                self._round(kind, selector, take)
                failed = 0 if self._clock.monotonic() - began > 1 else failed + 1
            except GreenticError as error:
                self.troubles[kind] = error
                failed += 1
                self._wake()
            if failed:
                self._stopped.wait(CLUSTER_AGAIN.pause(failed, self._random))

    def _round(self, kind: str, selector: str | None, take: Callable[[JsonObject, bool], None]) -> None:
        cluster = self._cluster()
        version = self._compare(kind, cluster.pages(kind, self._namespace, selector), take)
        if self.troubles.pop(kind, None) is not None:
            self._wake()
        for event in cluster.watch(kind, self._namespace, selector, version, WATCH_SECONDS):
            if self._stopped.is_set():
                return
            if event.type != "BOOKMARK":
                take({"kind": kind, **event.thing}, event.type == "DELETED")

    def _compare(self, kind: str, pages: Iterable[Listed], take: Callable[[JsonObject, bool], None]) -> str:
        """Take a whole list as changes (rule 2), keeping none of it; the version to watch from."""
        there, version = set(), ""
        for page in pages:
            version = page.resource_version
            for thing in page.items:
                there.add(ref_of(thing))
                take(thing, False)
        for ref in [r for r in (*self._seen, *self._wishes) if r.kind == kind and r not in there]:
            take({"kind": kind, "metadata": {"name": ref.name, "namespace": ref.namespace}}, True)
        return version

    def _take(self, thing: JsonObject, gone: bool) -> None:
        ref = ref_of(thing)
        if ref.kind == "Deployment":
            if gone:
                self.rollouts.pop(ref.name, None)
            else:
                now = rollout(thing)
                if self.rollouts.get(ref.name) != now:
                    self.rollouts[ref.name] = now
                    self._wake()
        mark = None if gone else fingerprint(thing)
        if self._seen.get(ref) == mark:
            return
        if mark is None:
            self._seen.pop(ref, None)
        else:
            self._seen[ref] = mark
        with self._lock:
            self._changed.add(ref)
        self._wake()

    def _take_wish(self, source: Ref, thing: JsonObject, gone: bool) -> None:
        ref = ref_of(thing)
        if ref != source:
            return
        if gone:
            self._wishes.pop(ref, None)
        else:
            self._wishes[ref] = thing
        self._wake()
