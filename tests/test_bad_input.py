"""Bad input to a worker of two processes that follows a mounted ConfigMap: the old set serves, and the next good change heals.

One worker takes all of it, one thing after the other: that nothing is left of the one before is a part of what is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Author, make_bundle, make_pack
from greentic.ground.documents import pretty, replace
from greentic.operate import delivery
from greentic.operate.change import Context
from greentic.store.environments import EnvironmentStore
from greentic.trust.keys import SigningKey, public_pem
from greentic.trust.root import EMPTY, add_key
from storm import Worker, made_pack
from waiting import children, until

pytestmark = pytest.mark.e2e


class Mounted:
    """A worker of two processes, and the ConfigMap that it follows."""

    def __init__(self, root: Path) -> None:
        self.root, self.seed, self._mounts = root, root / "seed", itertools.count()
        self.author = Author(Context(EnvironmentStore(root / "author"))).create()
        self.bundle = make_bundle(root, {"app": made_pack(0)})
        self.deployment, self.revision = self.author.deployed(self.bundle, self.bundle.as_uri())
        delivery.set_delivery(
            self.author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn")
        )
        self.mount(self.document)
        self.anchor = root / "anchor.json"
        shutil.copy(self.author.context.store.paths("local").trust_root, self.anchor)
        told = {"GREENTIC_SEED_DIR": str(self.seed), "GREENTIC_TRUST_ANCHOR": str(self.anchor)}
        self.worker = Worker(root / "worker", self.document, **told)
        self.await_all(lambda s: s["following"]["error"] is None)

    @property
    def document(self) -> bytes:
        return self.author.context.store.paths("local").environment.read_bytes()

    def mount(self, data: bytes) -> None:
        """Swap a document in as a kubelet does."""
        inside = self.seed / f"..{next(self._mounts)}"
        inside.mkdir(parents=True)
        (inside / "environment.json").write_bytes(data)
        link = self.seed / "..new"
        link.symlink_to(inside.name)
        link.rename(self.seed / "..data")
        if not (self.seed / "environment.json").is_symlink():
            (self.seed / "environment.json").symlink_to("..data/environment.json")

    def changed(self) -> int:
        """One good change of the environment; its generation."""
        env = self.author.context.store.load("local")
        with self.author.context.store.transaction("local") as transaction:
            transaction.save(replace(env, name=f"{env.name}x"))
        return int(json.loads(self.document)["greentic:delivery"]["generation"])

    def await_all(self, condition: Callable[[dict], object]) -> list[dict]:
        """Wait until every process tells what is asked; what each of them told."""
        found: dict[str, dict] = {}

        def seen() -> bool:
            status = self.worker.status()
            found[str(status["process"]).partition(".")[0]] = status
            living = [found[str(pid)] for pid in children(self.worker.process.pid) if str(pid) in found]
            return len(living) == 2 and all(map(condition, living))

        until(seen, "both processes tell it", 60)
        return list(found.values())

    def await_error(self, text: str) -> None:
        """Both go on with what they served, and tell why."""
        self.await_all(lambda s: text in (s["following"]["error"] or ""))
        self.answers()

    def await_served(self, generation: int) -> None:
        self.await_all(lambda s: s["following"]["error"] is None and served(s) == generation)
        self.answers()

    def answers(self, path: str = "/") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.worker.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, b'{"text":"hi"}', {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, b"revision 0" in answer.read()) == (200, True)


def served(status: dict) -> int:
    return int(status["following"]["serving"]["generation"])


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    root = tmp_path_factory.mktemp("mounted")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HOME", str(root))
        made = Mounted(root)
    try:
        yield made
        assert made.worker.stop() == 0
    finally:
        if made.worker.process.poll() is None:
            made.worker.process.kill()


@pytest.fixture(autouse=True)
def of_one_operator(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test seals with the same key."""
    monkeypatch.setenv("HOME", str(mounted.root))


def heals(mounted: Mounted) -> None:
    generation = mounted.changed()
    mounted.mount(mounted.document)
    mounted.await_served(generation)


def test_a_mounted_document_is_followed_by_every_process(mounted):
    heals(mounted)
    stored = mounted.root / "worker" / "local" / "environment.json"
    assert stored.read_bytes() == mounted.document


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: data[: len(data) // 2], "json error"),
        (lambda data: b"", "json error"),
        (lambda data: pretty(json.loads(data) | {"environment_id": "other"}), "environment_id mismatch"),
        (lambda data: data.replace(b'"weight_bps": 10000', b'"weight_bps": 1'), "must sum to 10000"),
    ],
    ids=["cut", "empty", "other environment", "rule broken"],
)
def test_a_document_that_is_refused_leaves_the_old_set_serving(mounted, damage, told):
    stored = mounted.root / "worker" / "local" / "environment.json"
    before = stored.read_bytes()
    mounted.mount(damage(mounted.document))
    mounted.await_error(told)
    assert stored.read_bytes() == before
    heals(mounted)


def test_threat_rollback_an_older_generation_is_refused_by_every_process(mounted):
    old = mounted.document
    heals(mounted)
    mounted.mount(old)
    mounted.await_error("has generation")
    heals(mounted)


def test_a_revision_of_another_digest_and_a_flow_that_does_not_load_are_one_deployment(mounted):
    before = mounted.document
    store, author = mounted.author.context.store, mounted.author
    broken = author.add("broken", ("/broken",))
    bad = make_bundle(mounted.root / "bad", {name: make_pack("p", {}) for name in ("a", "b")})
    staged = [author.stage(broken, bad, bad.as_uri())]
    swapped = author.add("swapped", ("/swapped",))
    other = make_bundle(mounted.root / "other", {"app": made_pack(1)})
    staged.append(author.stage(swapped, other, other.as_uri()))
    data = bytearray(other.read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    env = store.load("local")
    ready = [replace(r, lifecycle="ready") if r.revision_id in staged else r for r in env.revisions]
    with store.transaction("local") as transaction:
        transaction.save(replace(env, revisions=ready))
    author.route(broken, (staged[0], 10_000), key="broken")
    author.route(swapped, (staged[1], 10_000), key="swapped")
    mounted.mount(mounted.document)
    for status in mounted.await_all(lambda s: len(s["unavailable"]) == 2):
        reasons = {row["deployment_id"]: (row["reason"], row["error"]) for row in status["unavailable"]}
        assert reasons[broken][0] == "broken" and "digest" in reasons[swapped][1]
    mounted.answers()
    with store.transaction("local") as transaction:
        transaction.save(replace(store.load("local"), bundles=env.bundles[:1], revisions=env.revisions[:1],
                                 traffic_splits=env.traffic_splits[:1]))  # fmt: skip
    assert before != mounted.document
    heals(mounted)
    mounted.await_all(lambda s: not s["unavailable"])


def test_twenty_swaps_in_a_second_leave_the_last_one_serving(mounted):
    for number in range(20):
        generation = mounted.changed()
        mounted.mount(mounted.document if number % 3 else b"{")
    mounted.mount(mounted.document)
    mounted.await_served(generation)


def test_a_signal_reaches_every_process(mounted):
    """SIGHUP to the worker, whose first process only watches over the others: each looks again."""
    before = children(mounted.worker.process.pid)
    log = mounted.worker.log.read_text().count("asked to look again")
    mounted.worker.process.send_signal(signal.SIGHUP)
    until(lambda: mounted.worker.log.read_text().count("asked to look again") == log + 2, "both look")
    heals(mounted)
    assert children(mounted.worker.process.pid) == before


def test_threat_stripped_signature_an_anchor_that_no_longer_vouches_is_noticed_without_a_restart(mounted):
    """The document is the same, and who is to be believed is another: it is refused, told, and what served goes on."""
    good = mounted.anchor.read_bytes()
    other = SigningKey(b"o" * 32)
    changed = add_key(EMPTY, other.key_id, public_pem(other.public))
    mounted.anchor.write_bytes(pretty(changed))
    mounted.await_error("is not sealed by a key of the trust anchor")
    mounted.anchor.write_bytes(good)
    heals(mounted)
