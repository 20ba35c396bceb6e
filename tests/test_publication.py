"""An environment as an artifact: published, pulled, rolled back, and followed by workers that boot from it."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author, gtc
from greentic.cli.gtc import main
from greentic.ground.documents import compact, replace
from greentic.ground.errors import BootError, Conflict, FetchError, InvalidArgument, NotFound, UntrustedBundle
from greentic.model.delivery import delivery_of, with_delivery
from greentic.model.environment import document_digest
from greentic.model.ids import digest_of_bytes
from greentic.model.pod_view import for_pods
from greentic.model.pointer import POINTER_FILE, pointer_to
from greentic.net import terms
from greentic.net.terms import Terms
from greentic.operate.change import Context
from greentic.publication.artifact import (
    ARTIFACT,
    LAYER,
    MAX_ENVIRONMENT,
    Edition,
    document_tag,
    edition_of,
    manifest_of,
    one_step_back,
    press,
    unpress,
)
from greentic.publication.layout_place import MAX_LISTED, Layout, blob_path, listed
from greentic.publication.place import by_name, newest, place_of, push, read_document
from greentic.publication.unchanged import DOUBTED
from greentic.release import env_publish
from greentic.store.environments import EnvironmentStore
from greentic.worker.boot import Booted, boot
from greentic.worker.settings import StartOptions
from simulators import CountingRandom, FakeClock
from test_delivery import RegistryProcess
from test_programs import Worker, ask
from waiting import until


def publish(author: Author, place: object) -> env_publish.EnvPublished:
    return env_publish.publish(
        author.context, env_publish.EnvPublishPayload(environment_id=author.env_id, place=str(place))
    )


def rollback(author: Author, place: object, generation: int | None = None) -> env_publish.EnvPublished:
    payload = env_publish.EnvRollbackPayload(environment_id=author.env_id, place=str(place), generation=generation)
    return env_publish.rollback(author.context, payload)


def generations(author: Author, place: object) -> list[int]:
    payload = env_publish.EnvHistoryPayload(environment_id=author.env_id, place=str(place))
    return [e.generation for e in env_publish.told_history(author.context, payload).editions]


@pytest.fixture
def published(author: Author, hello: Path, tmp_path: Path) -> Path:
    """A directory with the first generation of an environment that routes /one."""
    author.create()
    author.deployed(hello, f"file://{hello}", "one", ("/one",))
    publish(author, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def web(published: Path) -> Iterator[str]:
    """The same behind a web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(published)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def anchor(author: Author) -> Path:
    return author.context.store.paths(author.env_id).trust_root


def not_asked_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not there is soon given up."""
    monkeypatch.setenv("GREENTIC_FETCH_TOTAL_SECONDS", "1")


def start(author: Author, place: object, tmp_path: Path, **options: object) -> Booted:
    """Boot a worker whose store was empty before the first time."""
    told = StartOptions(None, tmp_path / "worker", trust_anchor=anchor(author), env_from=str(place))._replace(**options)  # type: ignore[arg-type]
    return boot(told, {"HOME": str(tmp_path / "worker-home")})


def routes(worker: Booted) -> list[str]:
    return sorted(p for r in worker.activation.routes for p in r.prefixes)


# -- the format -----------------------------------------------------------------------------------------------------


def test_a_manifest_says_what_it_is_and_is_the_same_each_time():
    pressed = press(b'{"a": 1}')
    data = manifest_of("prod", 7, pressed, digest_of_bytes(b"before"), 3, "2026-01-02T03:04:05Z")
    assert data == manifest_of("prod", 7, press(b'{"a": 1}'), digest_of_bytes(b"before"), 3, "2026-01-02T03:04:05Z")
    edition = edition_of(data, "here")
    assert edition == Edition(
        digest_of_bytes(data), "prod", 7, pressed.document, pressed.layer_digest, len(pressed.layer), digest_of_bytes(b"before"), 3,
        "2026-01-02T03:04:05Z",
    )  # fmt: skip
    assert unpress(pressed.layer, edition, "here") == b'{"a": 1}'
    assert document_tag(pressed.document) == f"document-{pressed.document[7:]}"
    raw = json.loads(data)
    assert raw["artifactType"] == ARTIFACT and raw["layers"][0]["mediaType"] == LAYER


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(artifactType="application/x"), "artifact type is `application/x`"),
        (lambda m: m.update(layers=[]), "one layer"),
        (lambda m: m["layers"].append(m["layers"][0]), "one layer"),
        (lambda m: m["layers"][0].update(size=1 << 40), "at most"),
        (lambda m: m["layers"][0].update(size=True), "at most"),
        (lambda m: m["layers"][0].update(digest="sha256:no"), "not named by their sha256"),
        (lambda m: m["annotations"].update({"ai.greentic.environment.id": "../x"}), "no environment's id"),
        (lambda m: m["annotations"].update({"ai.greentic.environment.generation": "9" * 40}), "no generation"),
        (lambda m: m["annotations"].update({"ai.greentic.environment.previous": "x"}), "no digest"),
        (lambda m: m.pop("annotations"), "expected annotations"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: Callable[[dict], object], told: str):
    raw = json.loads(manifest_of("prod", 7, press(b"{}"), None, None, ""))
    change(raw)
    with pytest.raises(FetchError, match=told):
        edition_of(json.dumps(raw).encode(), "here")
    for data in (b"", b"[]", b"{", b"\xff"):
        with pytest.raises(FetchError, match="no published environment"):
            edition_of(data, "here")


def edition(layer: bytes, document: bytes = b"") -> Edition:
    return Edition(
        "sha256:" + "0" * 64, "prod", 1, digest_of_bytes(document), digest_of_bytes(layer), len(layer), None, None, ""
    )


def test_threat_bomb_a_published_document_is_taken_apart_only_up_to_its_limit():
    bomb = gzip.compress(bytes(MAX_ENVIRONMENT + 1), 9)
    assert len(bomb) < 1 << 20
    with pytest.raises(FetchError, match="larger than"):
        unpress(bomb, edition(bomb), "here")
    good = gzip.compress(b"{}")
    for layer in (good[:-4], good + b"x", b"no gzip"):
        with pytest.raises(FetchError, match=r"no (whole )?compressed document"):
            unpress(layer, edition(layer, b"{}"), "here")
    with pytest.raises(FetchError, match="its manifest names"):
        unpress(good, edition(good, b"{ }"), "here")
    with pytest.raises(FetchError, match="the layer is"):
        unpress(good, edition(b"other", b"{}"), "here")


# -- publishing -------------------------------------------------------------------------------------------------------


def test_what_is_published_is_what_pods_may_see_and_nothing_of_the_deployer(published, author):
    place = Layout(published)
    found = edition_of(place.newest() or b"", "here")
    document = json.loads(unpress(place.blob(found.layer, found.layer_size), found, "here"))
    assert (
        document["environment_id"] == "local" and len(document["revisions"]) == 1 and "credentials_ref" not in document
    )
    assert document["greentic:delivery"]["generation"] == found.generation == 1
    assert "PRIVATE" not in json.dumps(document)
    index = json.loads((published / "index.json").read_text())
    names = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    assert names == ["latest", document_tag(found.document)]
    assert json.loads((published / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    event = author.audit()[-1]
    assert (event["noun"], event["verb"]) == ("env", "publish")


def test_the_same_content_is_published_once_and_generations_only_grow(published, author, hello, tmp_path):
    again = publish(author, published)
    assert not again.published and again.generation == 1 and generations(author, published) == [1]
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    second = publish(author, published)
    assert second.published and second.generation == 2 and second.moved_bytes < second.document_bytes
    back = rollback(author, published)
    assert back.generation == 3 and back.rollback_of == 1
    assert generations(author, published) == [3, 2, 1]
    assert not rollback_is_same(author, published, back)
    # the place was set back: what this store has published there still counts
    shutil.rmtree(published)
    assert publish(author, published).generation == 5
    with pytest.raises(NotFound, match="generation 99 is published"):
        rollback(author, published, 99)


def test_a_rollback_never_goes_forward_to_what_was_gone_back_from(published, author, hello):
    """Two in a row brought back the release that the first had taken away: one retried, or asked for twice in a hurry."""
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    assert publish(author, published).generation == 2
    author.deployed(hello, f"file://{hello}", "three", ("/three",))
    assert publish(author, published).generation == 3
    assert [rollback(author, published).rollback_of for _ in range(2)] == [2, 1]
    with pytest.raises(NotFound, match="no generation older than what was gone back to") as caught:
        rollback(author, published)
    assert "--generation N takes any of them" in (caught.value.hint or "")
    assert rollback(author, published, 3).rollback_of == 3  # who names it means it
    assert rollback(author, published).rollback_of == 2


@given(st.lists(st.integers(0, 5), max_size=12))
def test_steps_back_are_steps_to_older_content(choices):
    """Zero publishes, another number takes an older generation up again; contents are numbered as they came."""
    history: list[Edition] = []
    content: dict[int, int] = {}
    for choice in [0, *choices]:
        number = len(history) + 1
        of = None if not choice else min(choice, number - 1)
        content[number] = number if of is None else content[of]
        edition = Edition(f"sha256:{number}", "e", number, "", "", 0, None, of, "")
        history.insert(0, edition)
    found = one_step_back(history)
    if found is not None:
        assert content[found.generation] < content[len(history)]
    else:
        assert all(content[e.generation] >= content[len(history)] for e in history)


def rollback_is_same(author: Author, place: Path, back: env_publish.EnvPublished) -> bool:
    """Whether publishing after a rollback says that nothing is to do; the store says otherwise, so it must not."""
    told = publish(author, place)
    assert told.generation == 4
    return not told.published


def test_a_sealed_environment_is_published_with_its_own_generation_at_least(author, hello, tmp_path):
    from greentic.operate import delivery

    author.create()
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    author.deployed(hello, f"file://{hello}")
    own = delivery_of(author.context.store.load("local")).generation
    assert own > 2 and publish(author, tmp_path / "place").generation == own


def test_another_environment_or_a_strangers_artifact_is_not_published_over(published, author, context, tmp_path):
    other = Author(context, "other").create()
    with pytest.raises(Conflict, match="is environment `local`, asked for was `other`"):
        publish(other, published)
    stranger = Author(Context(EnvironmentStore(tmp_path / "s", clock=FakeClock(), random=CountingRandom())), "local")
    stranger.create()
    place = Layout(published)
    forged = press(
        compact(with_delivery(stranger.context.store.load("local"), delivery_of(stranger.context.store.load("local"))))
    )
    push(place, forged, manifest_of("local", 9, forged, None, None, ""))
    with pytest.raises(Conflict, match="did not publish"):
        publish(author, published)


def test_nobody_publishes_what_nobody_would_believe(author, tmp_path):
    from greentic.operate import trust_root

    author.create()
    root = author.context.store.trust_root("local")
    trust_root.remove(
        author.context, trust_root.TrustRootRemovePayload(environment_id="local", key_id=root.keys[0].key_id)
    )
    with pytest.raises(Exception, match="is not in the trust root"):
        publish(author, tmp_path / "place")
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize("place", ["https://example.com/x", "ftp://x/y", ""])
def test_some_places_cannot_be_published_to(author, place):
    author.create()
    with pytest.raises(InvalidArgument):
        publish(author, place)


def test_an_index_keeps_its_newest_names_and_readers_find_the_others_by_digest(tmp_path):
    place, before = Layout(tmp_path / "place"), None
    for number in range(MAX_LISTED + 3):
        pressed = press(b'{"n": %d}' % number)
        data = manifest_of("prod", number, pressed, before, None, "")
        assert push(place, pressed, data)
        before = digest_of_bytes(data)
    names = listed((tmp_path / "place" / "index.json").read_bytes(), "x")
    assert len(names) == MAX_LISTED + 1 and names["latest"] == before
    first = edition_of(manifest_of("prod", 0, press(b'{"n": 0}'), None, None, ""), "x")
    assert by_name(place, first.digest, "x") == first
    assert place.manifest("nothing") is None and not push(place, press(b'{"n": 0}'), data)


def test_what_is_pulled_is_checked_by_the_anchor(published, author, tmp_path):
    payload = env_publish.EnvPullPayload(environment_id="local", place=str(published), output=str(tmp_path / "seed"))
    told = env_publish.pull(author.context, payload)
    assert json.loads((tmp_path / "seed" / "environment.json").read_text())["environment_id"] == "local"
    assert told.document == digest_of_bytes((tmp_path / "seed" / "environment.json").read_bytes())
    with pytest.raises(NotFound):
        env_publish.pull(author.context, replace(payload, generation=7))
    elsewhere = Context(EnvironmentStore(tmp_path / "ci"))
    with pytest.raises(InvalidArgument, match="nobody's seal"):
        env_publish.pull(elsewhere, payload)
    assert env_publish.pull(elsewhere, replace(payload, trust_anchor=str(anchor(author)))).generation == 1


def test_threat_rollback_a_place_that_shows_its_past_is_not_pulled(published, author, hello, tmp_path):
    """Who keeps a place, or stands before it, cannot make an older generation pass for the newest; who asks for it by number gets it."""
    index, seed = published / "index.json", tmp_path / "seed" / "environment.json"
    past = index.read_bytes()
    author.deployed(hello, "https://bundles.example.com/two.gtbundle", "two", ("/two",))
    publish(author, published)
    ci = Context(EnvironmentStore(tmp_path / "ci"))
    payload = env_publish.EnvPullPayload(environment_id="local", place=str(published), trust_anchor=str(anchor(author)))
    assert env_publish.pull(ci, replace(payload, output=str(seed.parent))).generation == 2
    newest = seed.read_bytes()
    index.write_bytes(past)
    for context, asked in ((ci, replace(payload, output=str(seed.parent))), (author.context, payload)):
        with pytest.raises(Conflict, match="shows generation 1 as its newest, and generation 2 was seen"):
            env_publish.pull(context, asked)
    assert seed.read_bytes() == newest
    assert env_publish.pull(ci, payload).generation == 1  # who never saw more cannot know
    assert env_publish.pull(ci, replace(payload, output=str(seed.parent), generation=1)).generation == 1
    assert seed.read_bytes() != newest
    seed.write_bytes(b"{}")
    assert env_publish.pull(ci, replace(payload, output=str(seed.parent))).generation == 1


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["directory", "web", "registry"])
def test_a_worker_boots_from_each_place_follows_it_and_serves_on_when_it_is_gone(
    kind, published, web, author, hello, tmp_path, monkeypatch
):
    place, registry = {"directory": str(published), "web": web}.get(kind, ""), None
    if kind == "registry":
        registry = RegistryProcess(tmp_path)
        monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", registry.name)
        place = f"oci://{registry.name}/envs/local:prod"
        publish(author, place)
    target = place if kind == "registry" else published
    try:
        worker = start(author, place, tmp_path)
        assert routes(worker) == ["/one"] and worker.published is not None
        assert worker.activation.protections["anchor"] is True
        first = worker.published.read()
        assert first is worker.published.read()  # nothing is new, nothing is read again
        author.deployed(hello, f"file://{hello}", "two", ("/two",))
        publish(author, target)
        found = worker.published.read()
        assert found.digest != first.digest and len(found.env.bundles) == 2
        assert routes(start(author, place, tmp_path)) == ["/one", "/two"]
        rollback(author, target)
        assert len(worker.published.read().env.bundles) == 1
    finally:
        if registry is not None:
            registry.stop()
        shutil.rmtree(published)
    not_asked_long(monkeypatch)
    again = start(author, place, tmp_path)
    assert routes(again) == ["/one", "/two"] and again.published is not None
    assert "the last good one is" in again.published.warnings[0]
    with pytest.raises(BootError, match="booting from the published environment"):
        start(author, place, tmp_path, store_root=tmp_path / "never")


def forge(author: Author, published: Path, change: Callable, generation: int | None = None) -> None:
    """Put a document under the name that its operator did not seal so."""
    place = Layout(published)
    found = edition_of(place.newest() or b"", "here")
    env = author.context.store.load("local")
    raw = json.loads(unpress(place.blob(found.layer, found.layer_size), found, "here"))
    raw = change(raw) or raw
    pressed = press(json.dumps(raw).encode())
    told = generation if generation is not None else raw["greentic:delivery"]["generation"]
    push(place, pressed, manifest_of(env.environment_id, told, pressed, None, None, ""))


@pytest.mark.parametrize(
    ("change", "generation", "told"),
    [
        (lambda d: d["greentic:delivery"].update(seal=None), None, "there is no signature"),
        (lambda d: d.pop("greentic:delivery") and None, 0, "there is no signature"),
        (lambda d: d["bundles"][0]["route_binding"].update(path_prefixes=["/evil"]), None, "is about sha256"),
        (lambda d: d["greentic:delivery"].update(generation=99), None, "is about sha256"),
        (lambda d: None, 99, "its manifest says"),
        (lambda d: d.update(environment_id="other"), None, "environment_id mismatch"),
    ],
)
def test_threat_stripped_signature_a_published_document_that_is_not_sealed_changes_nothing(
    change, generation, told, published, author, tmp_path
):
    worker = start(author, published, tmp_path)
    good = (tmp_path / "worker" / "local" / "environment.json").read_bytes()
    forge(author, published, change, generation)
    again = start(author, published, tmp_path)
    assert again.digest == worker.digest and told in again.published.warnings[0]  # type: ignore[union-attr]
    assert (tmp_path / "worker" / "local" / "environment.json").read_bytes() == good
    with pytest.raises(BootError) as error:
        start(author, published, tmp_path, store_root=tmp_path / "never")
    assert told in f"{error.value} {error.value.__cause__} {getattr(error.value.__cause__, '__cause__', '')}"
    assert not (tmp_path / "never" / "local" / "environment.json").exists()


def test_threat_rollback_an_older_generation_under_the_name_is_not_served(published, author, hello, tmp_path):
    old = (published / "index.json").read_bytes()
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    publish(author, published)
    worker = start(author, published, tmp_path)
    assert routes(worker) == ["/one", "/two"]
    (published / "index.json").write_bytes(old)
    again = start(author, published, tmp_path)
    assert routes(again) == ["/one", "/two"] and "this worker has seen 2" in again.published.warnings[0]  # type: ignore[union-attr]


def test_a_place_that_turns_to_another_environment_is_not_followed(published, author, context, tmp_path):
    worker = start(author, published, tmp_path)
    other = Author(context, "other").create()
    publish(other, tmp_path / "other-place")
    shutil.rmtree(published)
    shutil.copytree(tmp_path / "other-place", published)
    assert worker.published is not None
    with pytest.raises(Exception, match="environment_id mismatch"):
        worker.published.read()
    assert routes(start(author, published, tmp_path, env="local")) == ["/one"]


def test_a_worker_is_told_by_whom_it_believes_what_comes_over_the_network(author, tmp_path, published, monkeypatch):
    with pytest.raises(BootError, match="told by a trust anchor"):
        start(author, "https://example.com/envs", tmp_path, trust_anchor=None)
    assert routes(start(author, published, tmp_path, trust_anchor=None)) == ["/one"]
    with pytest.raises(BootError, match="give one of them"):
        start(author, published, tmp_path, archive=tmp_path / "x")


NO_NETWORK = "this worker runs without a network"


def test_a_worker_asks_by_what_it_was_told_and_not_by_the_variables_of_the_process(
    author, tmp_path, web, hello, monkeypatch
):
    """Its settings say that there is no network; the place, its list of revocations and a document that is pointed to are no exception."""
    told = StartOptions(None, tmp_path / "worker", trust_anchor=anchor(author))
    offline = {"HOME": str(tmp_path / "home"), "GREENTIC_OFFLINE": "1"}
    with pytest.raises(BootError) as refused:
        boot(told._replace(env_from=web), offline)
    assert "published environment" in str(refused.value) and NO_NETWORK in str(refused.value.__cause__)
    seed = tmp_path / "seed"
    seed.mkdir()
    document = compact(for_pods(author.context.store.load("local")))
    pointer = pointer_to("local", f"oci://{web.removeprefix('http://')}/envs/local", document_digest(document))
    (seed / POINTER_FILE).write_bytes(compact(pointer))
    with pytest.raises(BootError) as refused:
        boot(told, {**offline, "GREENTIC_SEED_DIR": str(seed), "GREENTIC_ENV": "local"})
    assert "loading environment" in str(refused.value) and NO_NETWORK in str(refused.value.__cause__)


def test_a_registry_that_lies_about_digests_is_refused(published, author, tmp_path):
    blob = next(p for p in (published / "blobs" / "sha256").iterdir() if p.read_bytes()[:2] == b"\x1f\x8b")
    blob.write_bytes(gzip.compress(b'{"evil": true}'))
    with pytest.raises(BootError) as error:
        start(author, published, tmp_path)
    assert "its manifest names" in str(error.value.__cause__) or "larger than" in str(error.value.__cause__)


def test_a_manifest_is_the_one_that_was_asked_for_by_its_digest(published, web, author, hello, tmp_path, monkeypatch):
    """Another manifest of the same environment passed for the pinned one, whose seal holds as well."""
    before = place_of(str(published), Terms()).newest()
    assert before is not None
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    now = publish(author, published).manifest
    (published / "blobs" / "sha256" / now.removeprefix("sha256:")).write_bytes(before)
    told = f"the manifest is {digest_of_bytes(before)}, asked for was {now}"
    for where in (str(published), web):
        with pytest.raises(FetchError, match=told):
            place_of(where, Terms()).newest()
        with pytest.raises(FetchError, match=told):
            place_of(where, Terms()).manifest(now)
    registry = published / "v2" / "envs" / "local" / "manifests"
    registry.mkdir(parents=True)
    (registry / now).write_bytes(before)  # a registry that answers a digest with another manifest
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", web.removeprefix("http://"))
    with pytest.raises(FetchError, match=told):
        place_of(f"oci://{web.removeprefix('http://')}/envs/local@{now}", Terms()).newest()


def test_believing_is_the_error_of_its_own(published, author, tmp_path):
    forge(author, published, lambda d: d["greentic:delivery"].update(seal=None))
    payload = env_publish.EnvPullPayload(environment_id="local", place=str(published))
    with pytest.raises(UntrustedBundle, match="not sealed by a trusted key"):
        env_publish.pull(author.context, payload)
    assert place_of(str(published), Terms()).newest() is not None


@pytest.mark.e2e
def test_a_running_worker_follows_what_is_published(published, author, hello, tmp_path):
    environ = {"GREENTIC_ENV_FROM_SECONDS": "0.1", "HOME": str(tmp_path / "h")}
    words = ("--env-from", str(published), "--trust-anchor", str(anchor(author)))
    worker = Worker(tmp_path / "empty", tmp_path, *words, **environ)
    try:
        port = worker.port()

        def following() -> dict:
            return json.loads(ask(port, "GET", "/status")[1])["following"]

        author.deployed(hello, f"file://{hello}", "two", ("/two",))
        told = publish(author, published)
        until(lambda: following()["serving"] == {"generation": 2, "digest": told.document})
        index = (published / "index.json").read_bytes()
        (published / "index.json").unlink()
        until(lambda: "nothing is published there" in (following()["error"] or ""))
        assert following()["serving"]["generation"] == 2 and ask(port, "POST", "/two", b'{"text":"x"}')[0] != 404
        (published / "index.json").write_bytes(index)
        until(lambda: following()["error"] is None)
    finally:
        assert worker.stop() == 0


@pytest.fixture
def silent(published: Path) -> Iterator[tuple[str, list[str]]]:
    """The same web server, which says nothing to the first who asks for a path, as long as the test runs; and the paths that were asked."""
    asked: list[str] = []
    over = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            asked.append(self.path)
            if asked.count(self.path) == 1:
                over.wait(120)
                self.close_connection = True
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(published)))
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        serving.join()


def test_a_place_that_says_nothing_is_asked_again_by_another_connection_while_the_first_is_still_silent(
    silent, author, tmp_path, monkeypatch
):
    where, asked = silent
    monkeypatch.setattr(terms, "SILENT_SECONDS", 0.1)
    monkeypatch.setenv("GREENTIC_FETCH_IDLE_SECONDS", "600")
    booted = start(author, where, tmp_path)
    assert (
        routes(booted) and {asked.count(path) for path in asked} == {2} and len(asked) >= 6
    )  # index, manifest, document


@pytest.fixture
def cached(published: Path) -> Iterator[tuple[str, set[str]]]:
    """The same as a web server and as a registry, and what a cache before it says: "unchanged" to who asks that, or to everybody."""
    says: set[str] = set()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def end_headers(self) -> None:
            self.send_header("ETag", '"one"')
            super().end_headers()

        def do_GET(self) -> None:
            if "/v2/" in self.path and "/blobs/" not in self.path:  # a tag is what the index names
                names = json.loads((published / "index.json").read_bytes())["manifests"]
                self.path = f"/blobs/sha256/{names[0]['digest'].removeprefix('sha256:')}"
            elif "/v2/" in self.path:
                self.path = f"/blobs/sha256/{self.path.rpartition(':')[2]}"
            if "everybody" in says or ("asked" in says and self.headers["If-None-Match"]):
                self.send_response(304)
                self.end_headers()
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(published)))
    serving = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    yield f"127.0.0.1:{server.server_port}", says
    server.shutdown()
    server.server_close()
    serving.join()


@pytest.mark.parametrize("form", ["http://{}", "oci://{}/envs/local:latest"])
def test_threat_lying_server_unchanged_is_not_believed_for_ever(form, cached, published, author, hello, monkeypatch):
    host, says = cached
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", host)
    where = form.format(host)
    place = place_of(where, Terms(tries=1))
    first = newest(place, where)
    assert first is not None
    says.add("asked")
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    publish(author, published)
    looks = [newest(place, where, first.digest) for _ in range(DOUBTED)]
    (second,) = [found for found in looks if found is not None]
    assert second.generation == first.generation + 1
    assert looks[:2] == [None, None], "questions have a condition"
    says.add("everybody")
    for _ in range(DOUBTED):
        try:
            assert newest(place, where, second.digest) is None
        except FetchError as error:
            assert "http status: 304" in error.message and "was not asked that" in error.message
            break
    else:
        pytest.fail("it was believed")


@pytest.mark.e2e
def test_the_verbs_publish_pull_and_render_as_a_person_calls_them(tmp_path):
    place, out = tmp_path / "place", tmp_path / "out"
    store = ("--store-root", str(tmp_path / "store"))
    for words in (("env", "create", "prod", "--name", "prod"), ("trust-root", "bootstrap", "prod")):
        assert gtc("op", *store, *words).returncode == 0
    told = json.loads(gtc("op", *store, "env", "publish", "prod", str(place)).stdout)["result"]
    assert told["published"] is True and told["generation"] == 1
    pulled = gtc("op", *store, "env", "pull", "prod", str(place), "--output", str(out))
    assert json.loads(pulled.stdout)["result"]["output"] == str(out / "environment.json")
    (tmp_path / "store/prod/answers.json").write_text(json.dumps({"runtime_image": f"r.example/w@sha256:{'0' * 64}"}))
    bind = ("slot=deployer", "kind=greentic.deployer.k8s@1.0.0", "pack_ref=builtin", "answers_ref=answers.json")
    assert gtc("op", *store, "env-packs", "add", "prod", *bind).returncode == 0
    words = (
        "operator",
        "render",
        "prod",
        "--from",
        "oci://r.example/envs/prod:prod",
        "--output",
        str(tmp_path / "operator"),
    )
    rendered = json.loads(gtc("op", *store, *words).stdout)["result"]
    assert sorted(p.name for p in (tmp_path / "operator").iterdir()) == rendered["files"]
    assert gtc("op", *store, "config", "set", "prod", "public_base_url=https://x.example.com").returncode == 0
    assert json.loads(gtc("op", *store, "env", "publish", "prod", str(place)).stdout)["result"]["generation"] == 2
    back = json.loads(gtc("op", *store, "env", "rollback", "prod", str(place), "--generation", "1").stdout)["result"]
    assert (back["generation"], back["rollback_of"]) == (3, 1)
    history = json.loads(gtc("op", *store, "env", "history", "prod", str(place)).stdout)["result"]["editions"]
    assert [(e["generation"], e["rollback_of"]) for e in history] == [(3, 1), (2, None), (1, None)]
    refused = gtc("op", *store, "env", "pull", "prod", str(tmp_path / "nowhere"))
    assert refused.returncode == 1 and json.loads(refused.stderr)["error"]["kind"] == "fetch"


def test_of_a_change_that_is_followed_only_what_changed_is_read(author, published, hello, tmp_path):
    worker = start(author, published, tmp_path)
    assert worker.published is not None
    author.deployed(hello, f"file://{hello}", "two", ("/two",))
    publish(author, published)
    found = worker.published.read().env
    before = worker.activation.env
    assert (
        len(found.bundles) == 2 and found.bundles[0] is before.bundles[0] and found.revisions[0] is before.revisions[0]
    )


def lay(place: Path, document: dict, generation: int, env_id: str = "local") -> None:
    """Publish a document as somebody would who may write to the place."""
    pressed = press(compact(document))
    push(Layout(place), pressed, manifest_of(env_id, generation, pressed, None, None, ""))


def damaged(place: Path) -> None:
    edition = edition_of(Layout(place).newest(), "here")
    (place / blob_path(edition.layer, "here")).write_bytes(b"something else")


@pytest.mark.parametrize(
    ("done", "words", "told", "hint"),
    [
        (lambda p, d: lay(p, d | {"name": "evil"}, 1), "pull local {p}", "not sealed by a trusted key", "--trust-anchor FILE"),
        (lambda p, d: lay(p, d | {"greentic:delivery": d["greentic:delivery"] | {"seal": None}}, 1), "pull local {p}", "there is no signature", "--trust-anchor FILE"),
        (lambda p, d: lay(p, d, 7), "pull local {p}", "generation 1; its manifest says `local`, generation 7", "gtc op --store-root {s} env history local {p}"),
        (lambda p, d: damaged(p), "pull local {p}", "its manifest names sha256:", "gtc op --store-root {s} env history local {p}"),
        (lambda p, d: None, "pull other {p}", "is environment `local`, asked for was `other`", "ask for `local`"),
        (lambda p, d: None, "history other {p}", "is environment `local`, asked for was `other`", "ask for `local`"),
        (lambda p, d: None, "pull local oci://127.0.0.1:1/envs/x:prod", "refused", "that it answers"),
        (lambda p, d: None, "rollback local {p} --generation 77", "no generation 77", "gtc op --store-root {s} env history local {p}"),
        (lambda p, d: lay(p, d | {"name": "evil"}, 1), "publish local {p}", "did not publish", "under another name"),
    ],
)  # fmt: skip
def test_what_is_wrong_at_a_place_is_told_to_a_person_with_the_next_step(
    done, words, told, hint, published, author, capsys, monkeypatch
):
    document = json.loads(read_document(Layout(published), edition_of(Layout(published).newest(), "here"), "here"))
    Author(author.context, "other").create()
    done(published, document)
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", "127.0.0.1:1")
    not_asked_long(monkeypatch)
    asked = ["gtc", "op", "--store-root", str(author.context.store.root), "env", *words.format(p=published).split()]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert told in error["message"] and hint.format(p=published, s=author.context.store.root) in error["hint"]
