"""Waiting until what was applied is healthy, by watching (formats: cluster 7).

Rules:
1. One watch of Deployments and one of pods, whatever their number. A watch that ends or is too old is taken up again with a list.
2. It ends when everything is complete, when something is hopeless, or when the time is over; the error names what is missing, with
   the last lines of a crashed pod's log.
3. A failing request is not the end: watches are taken up again until the time is over.
4. What somebody wrote over or deleted since, such as an operator, is not waited for: it is told at once.
"""

from __future__ import annotations

import queue
import threading
from typing import NamedTuple, Protocol

from greentic.cluster.served import is_ready
from greentic.ground.backoff import Backoff
from greentic.ground.clock import CLOCK, RANDOM
from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import Conflict
from greentic.k8s.health import PASSING_SECONDS, Rollout, Trouble, next_step, rollout, runs_template, selects, trouble
from greentic.k8s.names import CHECKSUM
from greentic.k8s.objects import ApiRefused, Cluster, ClusterUnreachable, Ref, member, metadata_of, objects_in

DEFAULT_SECONDS = 300
LOG_LINES = 20
LOG_HEAD = "\nits last lines:\n"
"""What stands before a pod's own words in an error."""
_WATCH_SECONDS = 60.0
_AGAIN = Backoff(first=0.5, longest=8.0)  # between two watches that failed


class RolloutFailed(Conflict):
    """What was applied did not become healthy; everything else that may go wrong says nothing about it."""


def undone(what: str, namespace: str) -> RolloutFailed:
    """The error where somebody else undid what was applied (rule 4)."""
    return RolloutFailed(
        f"{what} since this run wrote it: somebody else keeps namespace `{namespace}`, such as an operator, Flux or another reconcile",
        hint=f"kubectl -n {namespace} get leases names an operator: publish to it (gtc op env publish), or pause it (spec.paused), and "
        "reconcile again; or end the other writer",
    )


class WaitView(Protocol):
    """Where progress is shown."""

    def show(self, rollouts: dict[str, tuple[Rollout, str]]) -> None:
        """By Deployment, how far it is and what ails its pods."""
        ...


class _Noticed(NamedTuple):
    kind: str
    type: str
    thing: JsonObject


def wait_healthy(
    cluster: Cluster,
    namespace: str,
    selector: str,
    objects: dict[Ref, JsonObject],
    seconds: float,
    view: WaitView,
) -> None:
    """Return when all Deployments among `objects` are complete. Raises `Conflict` that says which are not, and why."""
    deployments = {ref.name: thing for ref, thing in objects.items() if ref.kind == "Deployment"}
    if not all(rollout(thing).done for thing in deployments.values()):
        _Wait(cluster, namespace, selector, deployments, view).run(seconds)
    view.show({name: (rollout(thing), "") for name, thing in deployments.items()})


def _generation(thing: JsonObject) -> int:
    value = metadata_of(thing).get("generation")
    return value if isinstance(value, int) else 0


def _template(thing: JsonObject) -> Json:
    """What tells the templates that we state apart."""
    return member(thing, "spec", "template", "metadata", "annotations").get(CHECKSUM)


class _Wait:
    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        selector: str,
        deployments: dict[str, JsonObject],
        view: WaitView,
    ) -> None:
        self._cluster, self._namespace, self._selector, self._view = cluster, namespace, selector, view
        self._deployments = deployments
        self._wanted = {name: _generation(thing) for name, thing in deployments.items()}
        self._templates = {name: _template(thing) for name, thing in deployments.items()}
        self._pods: dict[str, JsonObject] = {}
        self._events: queue.Queue[_Noticed] = queue.Queue()
        self._stopped = threading.Event()
        self._patience: dict[str, float] = {}
        self._lost = ""
        self._pods_listed = False

    def run(self, seconds: float) -> None:
        ends = CLOCK.monotonic() + seconds
        for kind in ("Deployment", "Pod"):
            threading.Thread(target=self._watch, args=(kind, ends), daemon=True, name=f"watch-{kind}").start()
        try:
            while True:
                troubles = self._troubles()
                self._view.show(self._shown(troubles))
                if all(self._rollout(name).done for name in self._wanted):
                    return
                self._give_up(troubles)
                if CLOCK.monotonic() > ends:
                    raise self._late(seconds, troubles)
                try:
                    self._take(self._events.get(timeout=0.25))
                    while True:
                        self._take(self._events.get_nowait())
                except queue.Empty:
                    continue
        finally:
            self._stopped.set()

    def _take(self, seen: _Noticed) -> None:
        if seen.type == "LISTED":
            if seen.kind == "Pod":
                self._pods_listed = True
                self._pods.clear()  # what was deleted while nobody watched is gone
            return
        name = str(metadata_of(seen.thing).get("name"))
        known = self._deployments if seen.kind == "Deployment" else self._pods
        if seen.kind == "Deployment" and name not in self._wanted:
            return
        if seen.type == "DELETED":
            if seen.kind == "Deployment":
                raise undone(f"Deployment `{name}` was deleted", self._namespace)
            known.pop(name, None)
            return
        newer = seen.kind == "Deployment" and _generation(seen.thing) > self._wanted[name]
        if newer and _template(seen.thing) != self._templates[name]:
            raise undone(f"Deployment `{name}` got another template", self._namespace)
        known[name] = seen.thing

    def _rollout(self, name: str) -> Rollout:
        """How far a Deployment is; one that is older than what was applied has not been seen yet."""
        found = rollout(self._deployments[name])
        return found if found.expected >= self._wanted[name] else found._replace(done=False, failed=None)

    def _troubles(self) -> dict[str, list[Trouble]]:
        out: dict[str, list[Trouble]] = {}
        for pod in list(self._pods.values()):
            for name, deployment in self._deployments.items():
                if selects(deployment, pod) and runs_template(pod, deployment):
                    found = trouble(pod)
                    if found is not None:
                        out.setdefault(name, []).append(found)
                    else:
                        self._patience.pop(str(metadata_of(pod).get("name")), None)
                    break
        return out

    def _shown(self, troubles: dict[str, list[Trouble]]) -> dict[str, tuple[Rollout, str]]:
        seen = self._rollout
        return {n: (seen(n), troubles[n][0].reason if n in troubles else seen(n).failed or "") for n in self._wanted}

    def _give_up(self, troubles: dict[str, list[Trouble]]) -> None:
        """Raise `Conflict` if something will never be healthy."""
        for name in self._wanted:
            state = self._rollout(name)
            if state.done:
                continue
            for found in troubles.get(name, []):
                since = self._patience.setdefault(found.pod, CLOCK.monotonic())
                if CLOCK.monotonic() - since < found.patience:
                    continue
                raise RolloutFailed(
                    f"Deployment `{name}` did not become ready: pod `{found.pod}`: {found.reason}{self._tail(name, found)}",
                    hint=next_step(found.reason),
                )
            if state.failed is None:
                self._patience.pop(name, None)
            elif CLOCK.monotonic() - self._patience.setdefault(name, CLOCK.monotonic()) >= PASSING_SECONDS or (
                "Deadline" in state.failed and self._pods_listed and self._events.empty()
            ):
                raise RolloutFailed(
                    f"Deployment `{name}` did not become ready: {state.failed}", hint=next_step(state.failed)
                )

    def _tail(self, name: str, found: Trouble) -> str:
        if not found.crashed:
            return ""
        return self._said(name, found.pod, previous=True) or self._said(name, found.pod, previous=False)

    def _said(self, name: str, pod: str, *, previous: bool) -> str:
        """The last lines of a pod's own log, to end a sentence with."""
        containers = objects_in(member(self._deployments[name], "spec", "template", "spec").get("containers"))
        container = str(containers[0].get("name")) if containers else ""
        log = self._cluster.log(self._namespace, pod, container, previous=previous, lines=LOG_LINES)
        return f"{LOG_HEAD}{log.rstrip()}" if log else ""

    def _silent(self, missing: list[str], troubles: dict[str, list[Trouble]]) -> str:
        """What one pod says that nothing ails and that is not ready: it may be waiting for something, such as its bundle."""
        for name in missing:
            deployment = self._deployments[name]
            for pod in [] if name in troubles else list(self._pods.values()):
                if selects(deployment, pod) and runs_template(pod, deployment) and not is_ready(pod):
                    pod_name = str(metadata_of(pod).get("name"))
                    said = self._said(name, pod_name, previous=False)
                    return f"; pod `{pod_name}` runs and is not ready{said}" if said else ""
        return ""

    def _late(self, seconds: float, troubles: dict[str, list[Trouble]]) -> RolloutFailed:
        missing, parts = [n for n in self._wanted if not self._rollout(n).done], list[str]()
        for name in missing[:10]:
            state, pods = self._rollout(name), troubles.get(name)
            why = f"pod `{pods[0].pod}`: {pods[0].reason}" if pods else state.failed
            parts.append(f"`{name}` ({state}{f'; {why}' if why else ''})")
        lost = f"; watching failed: {self._lost}" if self._lost else ""
        told = f"{', '.join(parts)}{lost}{self._silent(missing, troubles)}"
        further = f"kubectl -n {self._namespace} describe pods; reconciling again goes on from here, --timeout gives more time"
        text = f"{len(missing)} Deployment(s) did not become ready within {seconds:g}s: {told}"
        return RolloutFailed(text, hint=next_step(told) or further)

    def _watch(self, kind: str, ends: float) -> None:
        """List, then watch, again and again until the wait is over (rules 1 and 3)."""
        failed = 0
        while not self._stopped.is_set() and CLOCK.monotonic() < ends + 5:
            try:
                listed = self._cluster.list(kind, self._namespace, self._selector)
                failed = 0
                self._events.put(_Noticed(kind, "LISTED", {}))
                for thing in listed.items:
                    self._events.put(_Noticed(kind, "ADDED", thing))
                seconds = min(_WATCH_SECONDS, max(1.0, ends - CLOCK.monotonic()))
                for event in self._cluster.watch(
                    kind, self._namespace, self._selector, listed.resource_version, seconds
                ):
                    if self._stopped.is_set():
                        return
                    self._events.put(_Noticed(kind, event.type, event.thing))
            except (ApiRefused, ClusterUnreachable) as error:
                self._lost = error.message
                failed += 1
                self._stopped.wait(_AGAIN.pause(failed, RANDOM))
