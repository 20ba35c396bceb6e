"""What is found by its id stands once: wherever a file of others lists something twice, it is refused or told, never the last one taken."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from conftest import make_pack
from greentic.author.bundle_build import build_bundle
from greentic.author.pack_build import build_pack
from greentic.ground import documents
from greentic.ground.documents import replace
from greentic.ground.errors import MalformedArtifact, SpecViolation, StoreError, TrustRootError
from greentic.materialize.placed import RevisionFault, read_pack_config, verified_packs
from greentic.model.elements import Elements
from greentic.model.environment import PackListEntry
from greentic.model.pointer import pointer_to, read_pointer
from greentic.model.revision_files import LockedPack, PackConfig, PackListLock, diverging_packs
from greentic.model.validate import validate
from greentic.pack import cbor
from greentic.pack import manifest as pack_manifest
from greentic.pack.archive import PackArchive
from greentic.pack.assets import PackAssets
from greentic.pack.load import load_pack
from greentic.store.environments import environment_of
from greentic.trust import dsse, root
from greentic.trust.keys import SigningKey, public_pem
from test_activate import ECHO, placed
from test_artifact import MANIFEST, raw_manifest, zipped
from test_model_rules import DEP, REV, REV2, deployment, env, raw_env, revision, split

Raw = dict[str, object]


def doubled(where: str) -> Raw:
    """A manifest in which a thing of a kind is there twice, the second one another."""
    raw = json.loads(json.dumps(raw_manifest()))
    flow, component = raw["flows"][0], raw["components"][0]
    if where == "flows":
        raw["flows"].append(flow | {"kind": "job"})
    elif where == "components":
        raw["components"].append(component | {"version": "2.0.0"})
    else:
        nodes = flow["flow"]["nodes"]
        nodes.append(nodes[0] | {"routing": "End"})
    return dict(raw)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("flows", "two flows of the pack have the id `main`"),
        ("components", "two components of the pack have the id `c.d`"),
        ("nodes", "two nodes of flow `main` have the id `n`"),
    ],
)
def test_a_pack_of_another_builder_with_an_id_twice_is_refused(where: str, told: str) -> None:
    data = cbor.encode(_indexed(doubled(where)))
    with pytest.raises(MalformedArtifact, match=told) as refused:
        pack_manifest.decode(data)
    assert refused.value.hint == "rename one of them, and build the pack again"


def _indexed(raw: Raw) -> Raw:
    """As a builder without our checks writes it: texts are taken as themselves."""
    return raw | {"symbols": {name: [] for name in pack_manifest.TABLES}}


RUNTIME = {"id": "main", "flow_type": "messaging", "nodes": {"a": {"component_id": "emit.response"}}}
LISTED = RUNTIME | {"nodes": [{"id": "a", "component": "emit.response"}, {"node_id": "a", "component": "emit.log"}]}
SOURCE = {"name": "echo", "artifact": {"inline": {"wasm_path": "components/echo.wasm"}}}


@pytest.mark.parametrize(
    ("extension", "inline", "told"),
    [
        ("greentic.pack.runtime_flow", {"flows": [RUNTIME, RUNTIME | {"flow_type": "job"}]}, "flows of the extension .* have the id `main`"),
        ("greentic.pack.runtime_flow", {"flows": [LISTED]}, "nodes of flow `main` have the id `a`"),
        ("greentic.pack.component_sources@v1", {"components": [SOURCE, SOURCE | {"source": "oci://x/y"}]}, "components of .* have the id `echo`"),
    ],
)  # fmt: skip
def test_what_an_extension_lists_twice_is_refused(tmp_path: Path, extension: str, inline: Raw, told: str) -> None:
    data = make_pack("p", ECHO, extensions={extension: {"kind": "x", "version": "1", "inline": inline}})
    with pytest.raises(MalformedArtifact, match=told):
        load_pack(placed(tmp_path, data))


def test_a_path_that_an_sbom_lists_twice_is_told() -> None:
    row = {"path": "manifest.cbor", "hash_blake3": "0" * 64}
    sbom = cbor.encode({"format": "greentic-sbom-v1", "files": [row, row | {"hash_blake3": "1" * 64}]})
    told = PackArchive(zipped(MANIFEST | {"sbom.cbor": sbom})).sbom_warnings()
    assert told == ["sbom.cbor: the SBOM lists 'manifest.cbor' twice"]


def test_threat_pinned_subset_a_lock_that_names_a_pack_twice_is_a_fault(author, hello) -> None:
    """The second entry is the pinned one; the first brings another file, with a digest that fits it."""
    author.create()
    _, revision_id = author.deployed(hello, f"file://{hello}")
    store = author.context.store
    paths, recorded = store.paths("local"), store.load("local").revision(revision_id)
    assert recorded is not None
    lock = paths.revision(revision_id) / "pack-list.lock"
    lock.chmod(0o600)
    honest = json.loads(lock.read_bytes())
    first = honest["packs"][0]
    lock.write_text(
        json.dumps(honest | {"packs": [first | {"path": f"revisions/{revision_id}/pack-list.lock"}, first]})
    )
    with pytest.raises(RevisionFault, match=f"names pack `{first['pack_id']}` twice"):
        verified_packs(paths, recorded)


def test_pack_lists_are_compared_with_all_that_they_list() -> None:
    lock = PackListLock(schema="x", revision_id=REV, packs=[LockedPack(pack_id="p", path="x", digest="d")])
    pinned = PackListEntry(pack_id="p", version="1.0.0", digest="d")
    assert diverging_packs([pinned], lock) == []
    assert diverging_packs([replace(pinned, digest="e"), pinned], lock) == ["p"]
    assert diverging_packs([pinned, pinned], lock) == ["p"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"revisions": [revision(), revision(sequence=2)]}, f"two revisions have the id `{REV}`"),
        ({"bundles": [deployment(), deployment(customer_id="b")]}, f"two bundle deployments have the id `{DEP}`"),
        ({"revisions": [revision(), revision(REV2)], "traffic_splits": [split((REV, 10000)), split((REV2, 10000))]},
         f"two traffic splits are for deployment `{DEP}`"),
    ],
)  # fmt: skip
def test_an_environment_with_a_record_twice_is_refused(more: Raw, told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecViolation, match=told):
        validate(env(**more))
    known = Elements()
    path = tmp_path / "environment.json"
    assert environment_of(json.dumps(raw_env()).encode(), path, "prod", known)
    with pytest.raises(StoreError, match=told):  # as a change of what was read before, too
        environment_of(json.dumps(raw_env(**more)).encode(), path, "prod", known)


def test_a_trusted_key_that_is_listed_twice_is_removed_whole() -> None:
    key = SigningKey(bytes(32))
    once = root.add_key(root.EMPTY, key.key_id, public_pem(key.public))
    twice = replace(once, keys=[*once.keys, replace(once.keys[0], key_id=once.keys[0].key_id.upper())])
    left, gone = root.remove_key(twice, once.keys[0].key_id)
    assert gone is not None and left.keys == []


def test_a_file_whose_place_among_the_assets_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "pack.yaml").write_text("pack_id: p\nversion: 1.0.0\nkind: application\npublisher: me\n")
    (tmp_path / "logo.svg").write_text("loose")
    assert build_pack(tmp_path).warnings == []
    (tmp_path / "assets" / "logo.svg").write_text("in its place")
    built = build_pack(tmp_path)
    assert built.warnings == [f"{tmp_path / 'logo.svg'}: left out, for `assets/logo.svg` stands in its place"]
    assert zipfile.ZipFile(io.BytesIO(built.data)).read("assets/logo.svg") == b"in its place"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("assets/a.json", "assets/assets/a.json"), "`assets/assets/a.json` is never read as a card or a translation: each of its paths means `assets/a.json`"),
        (("assets/fixtures/a.json", "fixtures/a.json"), "`fixtures/a.json` is never read as a card or a translation: each of its paths means `assets/fixtures/a.json`"),
        (("assets/Logo.svg", "assets/logo.svg"), "`assets/Logo.svg` and `assets/logo.svg` are one file to systems"),
        (("assets/caf\u00e9.json", "assets/cafe\u0301.json"), "are one file to systems"),
        (("assets/stra\u00dfe.json", "assets/STRASSE.json"), "are one file to systems"),
        (("assets/a.json", "fixtures/b.json", "assets/assets/c.json"), None),
    ],
)  # fmt: skip
def test_names_that_are_one_to_somebody_are_told_when_a_pack_is_built(names: tuple[str, ...], told: str | None, tmp_path: Path) -> None:  # fmt: skip
    """The first of two assets that a card's path means was read, and nobody was told."""
    (tmp_path / "pack.yaml").write_text("pack_id: p\nversion: 1.0.0\nkind: application\npublisher: me\n")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    built = build_pack(tmp_path).warnings
    assert built == [] if told is None else len(built) == 1 and told in built[0]


def test_names_that_are_one_to_somebody_are_told_when_a_bundle_is_built(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "packs" / "Bot").mkdir(parents=True)
    (source / "bundle.yaml").write_text("schema_version: 1\nbundle_id: hello\nbundle_name: Hello\n")
    (source / "packs" / "Bot" / "pack.yaml").write_text("pack_id: p\nversion: 1.0.0\nkind: application\npublisher: me\n")  # fmt: skip
    assert build_bundle(source, tmp_path / "out.gtbundle").warnings == []
    (source / "packs" / "bot.gtpack").write_bytes(make_pack("q", ECHO))
    (told,) = build_bundle(source, tmp_path / "out.gtbundle").warnings
    assert "`packs/Bot.gtpack` and `packs/bot.gtpack` are one file to systems" in told


def test_assets_that_a_file_system_takes_for_one_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assets = PackAssets(placed(tmp_path, make_pack("p", ECHO, assets={"assets/logo.svg": b"1"})).path)
    assets.extract(tmp_path / "once")
    names = assets.names()
    monkeypatch.setattr(assets, "names", lambda: [*names, *names])
    with pytest.raises(MalformedArtifact, match="stands where another one stands") as refused:
        assets.extract(tmp_path / "twice")
    assert refused.value.hint is not None and "upper and lower case" in refused.value.hint


# -- members --------------------------------------------------------------------------------------------------------


def twice(data: bytes, key: str, value: str) -> bytes:
    """A text with a member a second time, before the one that our readers would take."""
    return data.replace(f'"{key}":'.encode(), f'"{key}": {value}, "{key}":'.encode(), 1)


@pytest.mark.parametrize("known", [False, True])
def test_threat_edited_document_a_member_that_stands_twice_is_refused(author, hello, known: bool) -> None:
    """Of two digests each reader may take another one: ours took the last, others take the first, or refuse it."""
    author.create()
    author.deployed(hello, f"file://{hello}")
    store = author.context.store
    path = store.paths("local").environment
    honest, elements = path.read_bytes(), Elements()
    if known:
        assert environment_of(honest, path, "local", elements)
    for key in ("bundle_digest", "environment_id", "weight_bps"):
        path.write_bytes(twice(honest, key, '"sha256:0"'))
        for read in (lambda: store.load("local"), lambda: environment_of(path.read_bytes(), path, "local", elements)):
            with pytest.raises(StoreError, match=f"the key `{key}` stands twice") as refused:
                read()
            assert refused.value.hint is not None and "env doctor local` examines it" in refused.value.hint
    path.write_bytes(json.dumps(json.loads(honest), indent=None).encode())  # as somebody else writes it
    assert store.load("local") == environment_of(honest, path, "local")


def test_a_document_as_it_is_written_here_is_not_read_a_second_time(
    author, hello, monkeypatch: pytest.MonkeyPatch
) -> None:
    author.create()
    author.deployed(hello, f"file://{hello}")
    monkeypatch.setattr(documents, "repeated_key", lambda data: pytest.fail("it was looked through for nothing"))
    assert author.context.store.load("local").bundles and author.context.store.trust_root("local").keys


def test_other_documents_with_a_member_twice_are_refused(author, hello) -> None:
    author.create()
    _, revision_id = author.deployed(hello, f"file://{hello}")
    store = author.context.store
    paths = store.paths("local")
    lock = paths.revision(revision_id) / "pack-list.lock"
    lock.chmod(0o600)
    recorded = store.load("local").revision(revision_id)
    assert recorded is not None and verified_packs(paths, recorded)
    lock.write_bytes(twice(lock.read_bytes(), "digest", '"sha256:0"'))
    with pytest.raises(RevisionFault, match="the key `digest` stands twice"):
        verified_packs(paths, recorded)
    paths.trust_root.write_bytes(twice(paths.trust_root.read_bytes(), "keys", "[]"))
    with pytest.raises(TrustRootError, match="the key `keys` stands twice"):
        root.read_trust_root(paths.trust_root.read_bytes())
    key = SigningKey(bytes(32))
    payload = twice(dsse.statement("a", "0" * 64, "t", {}), "subject", "[]")
    with pytest.raises(dsse.MalformedEnvelope, match="the key `subject` stands twice"):
        dsse.claimed_statement(dsse.sign(payload, key))
    for envelope in (dsse.envelope_bytes(dsse.sign(b"1", key)), documents.compact(dsse.sign(b"1", key))):
        assert dsse.read_envelope(envelope).payload == "MQ=="
        assert dsse.read_envelope(envelope[:-1] + b', "of_others": 1}').payload == "MQ=="
        with pytest.raises(dsse.MalformedEnvelope, match="the key `payload` stands twice"):
            dsse.read_envelope(twice(envelope, "payload", '"Mg=="'))
    pointer = documents.compact(pointer_to("local", "oci://r/envs/local", f"sha256:{'0' * 64}"))
    assert read_pointer(pointer)
    with pytest.raises(SpecViolation, match="the key `document` stands twice"):
        read_pointer(twice(pointer, "document", f'"sha256:{"1" * 64}"'))
    config = PackConfig(schema="x", pack_id="p", revision_id=revision_id)
    ref = f"revisions/{revision_id}/configured.json"
    paths.ref(ref).write_bytes(documents.pretty(config))
    assert read_pack_config(paths, ref, revision_id) == config
    paths.ref(ref).write_bytes(twice(documents.pretty(config), "pack_id", '"q"'))
    with pytest.raises(RevisionFault, match="the key `pack_id` stands twice"):
        read_pack_config(paths, ref, revision_id)
