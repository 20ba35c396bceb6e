"""Environments of thousands of deployments: the document lies in a registry, pods get a pointer, and take no other document."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import IMAGE, Author, bind_deployer
from greentic.deployer import binding, reconcile
from greentic.ground.documents import compact, replace
from greentic.ground.errors import BootError, Conflict, FetchError, SpecViolation
from greentic.k8s import names, render
from greentic.k8s.answers import read_answers
from greentic.k8s.objects import member, ref_of
from greentic.k8s.render import MAX_DATA, DesiredObjects, digest_for_pods
from greentic.manifests import env_render
from greentic.model.environment import DOCUMENT, Environment, document_digest
from greentic.model.ids import digest_of_bytes, mint_ulid
from greentic.model.pod_view import for_pods
from greentic.model.pointer import POINTER_FILE, pointer_to, read_pointer
from greentic.model.validate import validate
from greentic.net.terms import Terms
from greentic.publication.pointed import push_document, read_pointed
from greentic.publication.seed_pointer import LAYER_TYPES, read_seed_pointer, read_seeded
from greentic.registry.client import Registry
from greentic.registry.manifests import put_manifest
from greentic.registry.media_types import EMPTY, EMPTY_TYPE, MANIFEST
from greentic.registry.reference import parse as parse_reference
from greentic.registry.upload import put_blob
from greentic.store.environments import EnvironmentStore
from greentic.worker.candidate import read_candidate
from greentic.worker.settings import StartOptions, read_settings
from simulators import CountingRandom, FakeClock
from test_delivery import RegistryProcess
from test_programs import Worker, ask
from waiting import until

REPOSITORY = "oci://registry.example.com/envs/local"


def grown(env: Environment, count: int) -> Environment:
    """The environment with its one deployment so many times, each at a prefix of its own."""
    clock, random = FakeClock(), CountingRandom()
    (deployment,), (revision,), (split,) = env.bundles, env.revisions, env.traffic_splits
    bundles, revisions, splits = [deployment], [revision], [split]
    for number in range(1, count):
        clock.sleep(0.001)
        d, r = mint_ulid(clock, random), mint_ulid(clock, random)
        route = replace(deployment.route_binding, path_prefixes=[f"/d{number}"])
        bundles.append(
            replace(deployment, deployment_id=d, customer_id=f"c{number}", current_revisions=[r], route_binding=route)
        )
        lock = revision.pack_list_lock_ref.replace(revision.revision_id, r)
        revisions.append(replace(revision, deployment_id=d, revision_id=r, pack_list_lock_ref=lock))
        entries = [replace(split.entries[0], revision_id=r)]
        splits.append(replace(split, deployment_id=d, entries=entries, idempotency_key=f"k{number}"))
    return replace(env, bundles=bundles, revisions=revisions, traffic_splits=splits)


@pytest.fixture
def small(author: Author, hello: Path) -> Environment:
    author.create()
    author.deployed(hello, f"file://{hello}", "one", ("/one",))
    return author.context.store.load("local")


def objects_of(env: Environment, **answers: object) -> list[dict]:
    return render.render(DesiredObjects(env, read_answers({"runtime_image": IMAGE, **answers}, "local"), "s-1"))  # type: ignore[return-value, dict-item]


def env_store(objects: list[dict]) -> dict:
    return next(o for o in objects if ref_of(o).name == names.ENV_STORE)


def test_five_thousand_deployments_are_rendered_with_a_pointer_of_a_few_bytes(small):
    env = for_pods(grown(small, 5_000))
    validate(env)
    with pytest.raises(Conflict, match="a cluster accepts 1048576") as error:
        objects_of(env)
    assert "environment_registry" in (error.value.hint or "")
    objects = objects_of(env, environment_registry=REPOSITORY)
    kinds = [o["kind"] for o in objects]
    assert kinds.count("Deployment") == kinds.count("Service") == 5_001 and kinds.count("ConfigMap") == 1
    data = member(env_store(objects), "data")
    pointer = read_pointer(str(data[POINTER_FILE]).encode())
    assert list(data) == [POINTER_FILE] and len(str(data[POINTER_FILE])) < 1000
    assert pointer.document == digest_for_pods(env_store(objects)) == document_digest(compact(env))
    assert pointer.repository == REPOSITORY
    ports = [
        p["port"]
        for o in objects
        if o["kind"] == "NetworkPolicy"
        for r in o["spec"].get("egress", [])
        for p in r.get("ports", [])
    ]
    assert 443 in ports


def test_below_the_limit_a_document_is_inline_unless_it_is_asked_otherwise(small):
    env = for_pods(small)
    inline = objects_of(env, environment_registry=REPOSITORY)
    assert DOCUMENT in member(env_store(inline), "data") and len(inline) == 14
    assert digest_for_pods(env_store(inline)) == document_digest(compact(env))
    asked = objects_of(env, environment_registry=REPOSITORY, environment_in="registry")
    assert list(member(env_store(asked), "data")) == [POINTER_FILE] and len(asked) == 13
    assert MAX_DATA == 1 << 20


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"environment_in": "registry"}, "needs environment_registry"),
        ({"environment_registry": "https://x/y"}, "is not oci://"),
        ({"environment_registry": "oci://r.example/envs/prod:tag"}, "without tag and digest"),
        ({"environment_registry": "oci://user:pw@r.example/envs"}, "is not oci://"),
        ({"environment_in": "elsewhere"}, "expected auto, registry"),
    ],
)
def test_answers_that_lead_nowhere_are_refused(answers, told):
    with pytest.raises(Conflict, match=told):
        read_answers({"runtime_image": IMAGE, **answers}, "local")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": "x"}, "schema"),
        ({"document": "latest"}, "named by"),
        ({"repository": "file:///etc"}, "expected oci://"),
        ({"document": None}, "document"),
    ],
)
def test_a_pointer_that_makes_no_sense_is_refused(change, told):
    good = json.loads(compact(pointer_to("local", REPOSITORY, f"sha256:{'0' * 64}")))
    read_pointer(json.dumps(good).encode())
    with pytest.raises(SpecViolation, match=told):
        read_pointer(json.dumps(good | change).encode())
    with pytest.raises(SpecViolation, match="does not parse"):
        read_pointer(b"{")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryProcess]:
    made = RegistryProcess(tmp_path)
    monkeypatch.setenv("GREENTIC_OCI_INSECURE_REGISTRIES", made.name)
    yield made
    made.stop()


def point(seed: Path, repository: str, digest: str) -> None:
    """Swap the pointer in as a kubelet swaps a mounted ConfigMap."""
    inside = seed / f"..{time.monotonic_ns()}"
    inside.mkdir(parents=True)
    (inside / POINTER_FILE).write_bytes(compact(pointer_to("local", repository, digest)))
    link = seed / "..new"
    link.symlink_to(inside.name)
    link.rename(seed / "..data")
    if not (seed / POINTER_FILE).is_symlink():
        (seed / POINTER_FILE).symlink_to(f"..data/{POINTER_FILE}")


@pytest.mark.e2e
def test_a_worker_of_five_thousand_deployments_boots_from_a_pointer_and_follows_it(small, registry, tmp_path):
    repository = f"oci://{registry.name}/envs/local"
    env = for_pods(grown(small, 5_000))
    document = compact(env)
    assert push_document(env, document, repository, Terms()) and not push_document(env, document, repository, Terms())
    seed = tmp_path / "seed"
    point(seed, repository, document_digest(document))
    own = env.revisions[17].revision_id
    environ = {
        "GREENTIC_SEED_DIR": str(seed), "GREENTIC_REVISION_ID": own, "GREENTIC_REVISION_SCOPE": "own",
        "GREENTIC_OCI_INSECURE_REGISTRIES": registry.name, "HOME": str(tmp_path / "h"),
    }  # fmt: skip
    worker = Worker(tmp_path / "empty", tmp_path, **environ)
    try:
        port = worker.port()

        def following() -> dict:
            return json.loads(ask(port, "GET", "/status")[1])["following"]

        assert following()["serving"]["digest"] == document_digest(document)
        changed = replace(env, name="another")
        push_document(changed, compact(changed), repository, Terms())
        point(seed, repository, document_digest(compact(changed)))
        until(lambda: following()["serving"]["digest"] == document_digest(compact(changed)), following)
        point(seed, repository, f"sha256:{'1' * 64}")  # nobody pushed it
        until(lambda: "is not there" in (following()["error"] or ""), following)
        assert following()["serving"]["digest"] == document_digest(compact(changed))
    finally:
        assert worker.stop() == 0


def pushed(name: str, *layers: tuple[str, bytes]) -> str:
    """Put an artifact as the existing deployer does; its address by digest."""
    registry = Registry(parse_reference(f"{name}/envs/prod:x"), Terms(), push=True)
    described: list[dict[str, object]] = []
    for kind, data in ((EMPTY_TYPE, EMPTY), *layers):
        put_blob(registry, io.BytesIO(data), digest_of_bytes(data), len(data))
        described.append({"mediaType": kind, "digest": digest_of_bytes(data), "size": len(data)})
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return f"{name}/envs/prod@{put_manifest(registry, 'x', json.dumps(manifest).encode(), MANIFEST)}"


def seed_pointer(uri: str | None, document: bytes, **change: object) -> bytes:
    told = {
        "$greentic_seed_pointer": 1,
        "kind": "oci",
        "uri": uri,
        "sha256": hashlib.sha256(document).hexdigest(),
        "size": len(document),
    }
    return json.dumps(told | change).encode()


@pytest.mark.parametrize("kind", LAYER_TYPES)
def test_a_worker_takes_the_pointer_that_the_existing_deployer_puts_into_a_seed(
    kind, small, registry, author, tmp_path, monkeypatch
):
    document, seed = compact(for_pods(small)), tmp_path / "seed"
    seed.mkdir()
    (seed / DOCUMENT).write_bytes(seed_pointer(pushed(registry.name, (kind, document)), document))
    (seed / "beside").write_text("x")
    environ = {"GREENTIC_SEED_DIR": str(seed), "HOME": str(tmp_path)}
    settings = read_settings(StartOptions("local", tmp_path / "empty"), environ)
    store = EnvironmentStore(tmp_path / "empty")
    found = read_candidate(store, settings)
    assert (found.env.environment_id, found.digest) == ("local", document_digest(document))
    found.adopt(store.paths("local"))
    assert store.paths("local").environment.read_bytes() == document and (store.paths("local").root / "beside").exists()
    registry.stop()  # what is in the store is not asked for again
    assert read_candidate(store, settings).digest == found.digest


def test_threat_verify_then_refetch_a_seed_pointer_that_leads_elsewhere_is_refused(small, registry, tmp_path):
    document = compact(for_pods(small))
    layer = (LAYER_TYPES[0], document)
    uri = pushed(registry.name, layer)
    for pointer, error, told in (
        (seed_pointer(f"{registry.name}/envs/prod:x", document), SpecViolation, "by its digest"),
        (seed_pointer(uri, document, kind="http"), SpecViolation, "kind"), (seed_pointer(uri, document, size=-1), SpecViolation, "size"),
        (seed_pointer(uri, document, **{"$greentic_seed_pointer": 2}), SpecViolation, "version"), (seed_pointer(uri, document, sha256="x"), SpecViolation, "hex"),
        (seed_pointer(None, document), SpecViolation, "does not parse"), (b'{"$greentic_seed_pointer":', SpecViolation, "does not parse"),
        (seed_pointer(uri, document, size=len(document) + 1), FetchError, "bytes, and the pointer"), (seed_pointer(uri, document, size=len(document) - 1), FetchError, "larger than"),
        (seed_pointer(uri, document, sha256="0" * 64), FetchError, "another document"), (seed_pointer(f"{uri[:-4]}0000", document), FetchError, "is not there"),
        (seed_pointer(pushed(registry.name, layer, ("application/json", b"{}")), document), FetchError, "one layer"), (seed_pointer(pushed(registry.name), document), FetchError, "one layer"),
        (seed_pointer(pushed(registry.name, ("text/plain", document)), document), FetchError, "the layer is `text/plain`"),
    ):  # fmt: skip
        with pytest.raises(error, match=told):
            read_seeded(read_seed_pointer(pointer) or pytest.fail("taken for an environment"), Terms(tries=1))
    assert (
        read_seed_pointer(b'{"name": "$greentic_seed_pointer"}')
        is None
        is read_seed_pointer(b'["$greentic_seed_pointer"]')
    )


def test_threat_lying_server_another_document_under_the_name_is_refused(small, registry, author, tmp_path, monkeypatch):
    from greentic.publication.artifact import document_tag, manifest_of, press
    from greentic.publication.place import place_of

    repository, env = f"oci://{registry.name}/envs/local", for_pods(small)
    document = compact(env)
    wanted, evil = document_digest(document), press(compact(replace(env, name="evil")))
    push_document(env, document, repository, Terms())
    assert read_pointed(pointer_to("local", repository, wanted), Terms()) == document
    place = place_of(f"{repository}:x", Terms(), push=True)
    place.put_blob(evil.layer)
    honest = manifest_of("local", 0, evil, None, None, "")
    lying = honest.replace(evil.document.encode(), wanted.encode())
    for manifest, told in ((honest, "and the pointer names"), (lying, "its manifest names")):
        place.put_manifest(manifest, document_tag(wanted))
        with pytest.raises(FetchError, match=told):
            read_pointed(pointer_to("local", repository, wanted), Terms())
    seed = tmp_path / "seed"
    point(seed, repository, wanted)
    monkeypatch.setenv("GREENTIC_SEED_DIR", str(seed))
    empty = type(author.context.store)(tmp_path / "empty")
    with pytest.raises(BootError):
        read_candidate(empty, read_settings(StartOptions("local", tmp_path / "empty"), os.environ))
    assert not (tmp_path / "empty" / "local").exists()
    # who has the document already asks nobody
    paths = empty.paths("local")
    paths.root.mkdir(parents=True)
    paths.environment.write_bytes(document)
    found = read_candidate(empty, read_settings(StartOptions("local", tmp_path / "empty"), os.environ))
    assert found.digest == wanted


def test_a_reconcile_and_a_rendering_on_request_push_what_pods_are_pointed_to(small, author, registry, tmp_path):
    from greentic.operate.view import QUIET

    repository = f"oci://{registry.name}/envs/local"
    bind_deployer(author, environment_registry=repository, environment_in="registry")
    deployer = binding.resolve(author.context, "local", None, live=False)
    wanted = env_render.EnvRenderPayload(environment_id="local")
    rendered = env_render.render_objects(author.context, wanted)
    pointer = read_pointer(str(member(env_store(rendered.manifests), "data")[POINTER_FILE]).encode())
    assert any("--push puts it there" in line for line in rendered.warnings)
    with pytest.raises(FetchError, match="is not there"):
        read_pointed(pointer, Terms())
    assert reconcile.push_pointed(deployer, QUIET)
    assert document_digest(read_pointed(pointer, Terms())) == pointer.document
    again = env_render.render_objects(author.context, replace(wanted, push=True))
    assert not any("--push" in line for line in again.warnings or [])


def test_gitops_the_same_environment_renders_to_the_same_bytes_anywhere(small, author, tmp_path, monkeypatch):
    bind_deployer(author)
    monkeypatch.setenv("GREENTIC_STORE_ID", "team-a")

    def rendered(out: Path) -> dict[str, bytes]:
        env_render.render_objects(author.context, env_render.EnvRenderPayload(environment_id="local", output=str(out)))
        return {p.name: p.read_bytes() for p in out.iterdir()}

    first = rendered(tmp_path / "a")
    root = author.context.store.paths("local").root
    root.rename(root.with_name("moved"))
    root.with_name("moved").rename(root)
    author.context.store.clock.sleep(3600)
    assert rendered(tmp_path / "b") == first == rendered(tmp_path / "a")
    (deployment,) = author.context.store.load("local").bundles
    with author.context.store.transaction("local") as transaction:
        transaction.save(replace(transaction.load(), bundles=[replace(deployment, status="paused")]))
    changed = rendered(tmp_path / "a")
    assert {name for name in changed if changed[name] != first.get(name)} == {
        "01-configmap-gtc-env-store.yaml", "02-configmap-gtc-runtime-config.yaml",
    }  # fmt: skip
