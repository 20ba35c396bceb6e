"""Leaving well: a revision goes when nobody is on it any more, and not before."""

from __future__ import annotations

import pytest

from conftest import Author, bind_deployer
from greentic.deployer import drain, reconcile, rollout
from greentic.deployer.cluster_identity import Reached
from greentic.deployments import revisions
from greentic.ground.documents import JsonObject
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.k8s.names import worker_name
from greentic.k8s.objects import ClusterUnreachable, Listed, Ref, member
from greentic.model.pod_view import LEFT, is_left
from simulators import SimulatedCluster


class Occupied(SimulatedCluster):
    """A cluster whose one pod holds so much of a revision, one answer after another; the last again and again."""

    def __init__(self, says: list[tuple[int, int] | Exception], revision: str) -> None:
        super().__init__()
        self.says, self.revision, self.asked = says, revision, 0
        self.replicas: list[object] = []

    def list(self, kind: str, namespace: str | None, selector: str | None = None) -> Listed:
        if kind != "Pod":
            return super().list(kind, namespace, selector)
        ready: JsonObject = {"conditions": [{"type": "Ready", "status": "True"}]}
        other: JsonObject = {"metadata": {"name": "starting"}, "status": {}}
        return Listed([{"metadata": {"name": "router-1"}, "status": ready}, other], "1")

    def ask_pod(self, *where: object) -> JsonObject:
        assert where[1:] == ("router-1", 8080, f"/status?revision={self.revision}")
        self.asked += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        self.replicas.append(self.worker())
        if isinstance(said, Exception):
            raise said
        row: JsonObject = {"revision_id": self.revision, "counts": {"in_flight": said[0], "parked": said[1]}}
        told: JsonObject = {"env_id": "local", "draining_revisions": [row]}
        return told | (said[2] if len(said) > 2 else {})

    def worker(self) -> object:
        thing = self.objects.get(Ref("Deployment", worker_name(self.revision), "gtc-local"))
        return member(thing, "spec").get("replicas") if thing is not None else None


class Scene:
    def __init__(self, author: Author, hello: object, monkeypatch: pytest.MonkeyPatch, says: list) -> None:
        self.author = author
        author.create()
        self.deployment, self.old = author.deployed(hello, "https://b.example.com/h.gtbundle")  # type: ignore[arg-type]
        self.new = author.warm(author.stage(self.deployment, hello, "https://b.example.com/h.gtbundle"))  # type: ignore[arg-type]
        bind_deployer(author)
        self.cluster = Occupied(says, self.old)
        for module in (drain, reconcile, rollout):
            monkeypatch.setattr(
                module, "reach", lambda context, deployer: Reached(self.cluster, self.cluster, "ambient")
            )  # type: ignore[arg-type]

    def move(self) -> None:
        self.author.route(self.deployment, (self.new, 10_000), key="away")

    def drain(self, **how: object) -> drain.RevisionDrained:
        payload = drain.RevisionDrainPayload(environment_id="local", revision_id=self.old, rollout=True, **how)  # type: ignore[arg-type]
        return drain.drain(self.author.context, payload)

    def revision(self):
        return self.author.context.store.load("local").revision(self.old)


@pytest.fixture
def scene(author, hello, monkeypatch):
    return lambda *says: Scene(author, hello, monkeypatch, list(says))


def test_a_revision_with_weight_is_not_drained_and_nothing_is_asked(scene):
    here = scene((0, 0))
    with pytest.raises(Conflict, match="still has 10000 of 10000 parts"):
        here.drain()
    assert here.revision().lifecycle == "ready" and here.cluster.writes == 0 and here.cluster.asked == 0


def test_it_waits_until_nothing_is_held_then_scales_to_nothing_and_archive_prunes(scene):
    here = scene((2, 1), ClusterUnreachable("away"), (0, 1), (0, 0))
    here.move()
    told = here.drain(timeout=60)
    assert (told.lifecycle, told.replicas, told.pods_asked) == ("draining", 0, 1) and here.cluster.asked == 4
    assert here.cluster.replicas == [1, 1, 1, 1] and here.cluster.worker() == 0  # until nobody was on it, it ran on
    assert is_left(here.revision()) and [e["verb"] for e in here.author.audit()][-3:].count("drain") >= 1
    reconcile.reconcile_environment(
        here.author.context, reconcile.EnvReconcilePayload(environment_id="local", no_wait=True)
    )
    assert here.cluster.worker() == 0  # a reconcile leaves it so
    revisions.archive(here.author.context, here.author.transition(here.old))
    reconcile.reconcile_environment(
        here.author.context, reconcile.EnvReconcilePayload(environment_id="local", no_wait=True)
    )
    assert here.cluster.worker() is None


def other(running: int, parked: int = 0) -> JsonObject:
    """Another process of the pod."""
    return {"env_id": "local", "revisions": [{"revision_id": OLD, "counts": {"in_flight": running, "parked": parked}}]}


OLD = "01M3250V3V000000000000000D"


@pytest.mark.parametrize(
    "says",
    [
        (1, 0),
        (0, 3),
        ClusterUnreachable("away"),
        (0, 0, {"others": [other(1)]}),
        (0, 0, {"silent": 1}),
        (0, 0, {"waiting": {"revision_id": OLD, "parked": 2, "shared": True}}),
    ],
)
def test_when_the_window_ends_the_worker_goes_on(scene, says):
    here = scene(says)
    here.move()
    with pytest.raises(Conflict, match=r"is still in use after 5 s: .*its worker was left running"):
        here.drain(timeout=5)
    assert here.revision().lifecycle == "draining" and not is_left(here.revision()) and here.cluster.worker() == 1
    here.cluster.says = [(0, 0)]
    assert here.drain(timeout=5).replicas == 0


def test_without_a_rollout_no_cluster_is_asked_and_a_key_is_refused_with_one(scene):
    here = scene((0, 0))
    here.move()
    with pytest.raises(InvalidArgument, match="idempotency_key"):
        here.drain(idempotency_key="k")
    payload = drain.RevisionDrainPayload(environment_id="local", revision_id=here.old)
    told = drain.drain(here.author.context, payload)
    assert told.lifecycle == "draining" and here.cluster.writes == 0 and not is_left(here.revision())
    assert LEFT not in here.revision().extra
