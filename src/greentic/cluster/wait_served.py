"""Waiting until running pods serve the document that was written (`cluster.served`), by asking each of them.

Rules:
1. A mounted ConfigMap reaches a pod when its kubelet looks next, up to a minute later. Where pods may be annotated, a kubelet is made to
   look at once, again every `HURRY_SECONDS`, as it may have looked before it knew; where not, nothing is said, for it only takes longer.
2. A pod that has said that it serves the document is not asked again. What passes by itself is waited for `PASSING_SECONDS`.
3. Where pods may not be asked, or cannot be reached through the API server for `UNHEARD_SECONDS`, their readiness has to do, and
   that is told: it is no proof, and no failure either.
4. A document that somebody replaced since is not waited for (rule 4 of `wait`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, Protocol

from greentic.cluster.served import WAITING, Served, asked, served
from greentic.cluster.wait import RolloutFailed, undone
from greentic.ground.backoff import Backoff
from greentic.ground.clock import CLOCK, RANDOM, Clock
from greentic.ground.documents import JsonObject
from greentic.k8s.health import PASSING_SECONDS, next_step
from greentic.k8s.names import ENV_STORE, HURRIED
from greentic.k8s.objects import ApiRefused, Cluster, ClusterUnreachable, Ref
from greentic.k8s.pods import PORT
from greentic.k8s.render import digest_for_pods
from greentic.telemetry.tracing import carried

PARALLEL = 16
HURRY_SECONDS = 5.0
UNHEARD_SECONDS = 30.0
_AGAIN = Backoff(first=0.2, longest=2.0)
"""Between two rounds."""


class ServedView(Protocol):
    """Where progress is shown."""

    def show_served(self, pods: dict[str, Served]) -> None:
        """By pod, how far it is."""
        ...


class AwaitedDocument(NamedTuple):
    """What pods are to serve."""

    digest: str
    namespace: str
    selector: str
    """Finds the pods of the environment."""
    deployments: list[JsonObject]
    """Whose pods count."""


class Heard(NamedTuple):
    """What waiting found."""

    pods: list[str]
    """Those that say that they serve the document."""
    warning: str | None = None
    """Why the others were not waited for."""


def wait_served(
    cluster: Cluster, document: AwaitedDocument, seconds: float, view: ServedView, clock: Clock = CLOCK
) -> Heard:
    """Return when all pods say that they serve the document. Raises `RolloutFailed` that says which do not, and why."""
    return _Round(cluster, document, view, clock).run(seconds)


class _Round:
    def __init__(self, cluster: Cluster, document: AwaitedDocument, view: ServedView, clock: Clock) -> None:
        self._cluster, self._document, self._view, self._clock = cluster, document, view, clock
        self._hurry = True
        self._said: dict[str, Served] = {}
        self._since: dict[str, float] = {}
        """When a pod was first found ailing, or unheard."""
        self._unheard: dict[str, str] = {}
        self._hurried = clock.monotonic()

    def run(self, seconds: float) -> Heard:
        ends, rounds = self._clock.monotonic() + seconds, 0
        while True:
            rounds += 1
            pods = self._cluster.list("Pod", self._document.namespace, self._document.selector).items
            names = asked(pods, self._document.deployments)
            self._said = {name: self._said.get(name, WAITING) for name in names}
            try:
                self._ask([name for name in names if not self._said[name].done])
            except ApiRefused as error:
                return Heard([], _not_allowed(error))
            self._view.show_served(self._said)
            waiting = [name for name in names if not self._said[name].done]
            unheard = [name for name in waiting if self._patience_ended(name)]
            if waiting == unheard:
                done = [name for name in names if self._said[name].done]
                return Heard(done, self._not_heard(unheard) if unheard else None)
            if rounds > 1:
                self._check_there()
            if self._clock.monotonic() > ends:
                raise self._late(seconds, waiting)
            self._touch(waiting, again=rounds > 1)
            self._clock.sleep(_AGAIN.pause(rounds, RANDOM))

    def _ask(self, names: list[str]) -> None:
        """Ask these pods. Raises `ApiRefused` if that is not allowed."""
        if not names:
            return
        with ThreadPoolExecutor(min(PARALLEL, len(names))) as pool:
            for name, said in zip(names, pool.map(carried(self._ask_one), names), strict=True):
                if isinstance(said, str):
                    self._unheard[name] = said
                    self._since.setdefault(name, self._clock.monotonic())
                    continue
                self._said[name] = said
                if said.silent:
                    self._unheard[name] = said.ails
                elif self._unheard.pop(name, None) is not None or not said.ails:
                    self._since.pop(name, None)
                if said.ails:
                    self._since.setdefault(name, self._clock.monotonic())

    def _ask_one(self, name: str) -> Served | str:
        """What a pod says, or why it was not heard."""
        try:
            return served(self._cluster.ask_pod(self._document.namespace, name, PORT, "/status"), self._document.digest)
        except ApiRefused as error:
            if error.forbidden:
                raise
            return error.message
        except ClusterUnreachable as error:
            return error.message

    def _patience_ended(self, name: str) -> bool:
        """Whether a pod is no longer waited for because it is not heard. Raises `RolloutFailed` for one that is, and ails."""
        said, since = self._said[name], self._since.get(name)
        waited = 0.0 if since is None else self._clock.monotonic() - since
        if name in self._unheard:
            return said.silent or waited >= UNHEARD_SECONDS
        if said.for_good or (said.ails and waited >= PASSING_SECONDS):
            raise RolloutFailed(
                f"pod `{name}` does not serve what was applied: {said.ails}",
                hint=next_step(said.ails)
                or "what it served before, it goes on serving; it tries again by itself, and so does another reconcile",
            )
        return False

    def _check_there(self) -> None:
        """Raise `RolloutFailed` if pods are given another document by now (rule 4)."""
        with suppress(ApiRefused, ClusterUnreachable):
            found = self._cluster.get(Ref("ConfigMap", ENV_STORE, self._document.namespace))
            if found is None or digest_for_pods(found) != self._document.digest:
                raise undone(f"the document in ConfigMap `{ENV_STORE}` was replaced", self._document.namespace)

    def _touch(self, names: list[str], *, again: bool) -> None:
        """Make kubelets look (rule 1)."""
        now = self._clock.monotonic()
        if not self._hurry or (again and now - self._hurried < HURRY_SECONDS):
            return
        self._hurried = now
        for name in names:
            try:
                told: JsonObject = {HURRIED: f"{self._document.digest[-12:]}-{self._clock.now_ns()}"}
                self._cluster.merge(Ref("Pod", name, self._document.namespace), {"metadata": {"annotations": told}})
            except ApiRefused as error:
                self._hurry = self._hurry and not error.forbidden  # a pod that is gone is no reason to stop
            if not self._hurry:
                return

    def _not_heard(self, names: list[str]) -> str:
        return (
            f"{len(names)} pod(s) could not be asked what they serve, their readiness had to do: `{names[0]}`: "
            f"{self._unheard[names[0]]}"
        )

    def _late(self, seconds: float, names: list[str]) -> RolloutFailed:
        told = ", ".join(f"`{n}`" + (f" ({self._said[n].ails})" if self._said[n].ails else "") for n in names[:10])
        return RolloutFailed(
            f"{len(names)} pod(s) do not say within {seconds:g}s that they serve {self._document.digest}: {told}",
            hint="a mounted ConfigMap may take a minute; reconciling again goes on from here, --timeout gives more time",
        )


def _not_allowed(error: ApiRefused) -> str:
    return (
        "this identity may not ask pods what they serve (get pods/proxy), so their readiness had to do; running pods follow "
        f"within about a minute. gtc op credentials requirements lists what it lacks ({error.message})"
    )
