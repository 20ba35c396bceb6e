"""Every parser of bytes that come from outside, one line each. Others add theirs to `TARGETS`; see `fuzzing.py`."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import wat
from conftest import make_pack
from foreign_cookie import make_cookie
from fuzzing import CBOR, JSON, TAR, WORDS, YAML, ZIP, Seed, Target, plain_image
from greentic.activate.dispatch import AffinityCookie, read_cookie
from greentic.author.flow_compile import FlowSourceError, compile_flow
from greentic.author.source_files import read_yaml
from greentic.bundle import contents
from greentic.bundle.squashfs_reader import SquashImage
from greentic.bundle.squashfs_writer import write_image
from greentic.cli import op
from greentic.cli.op_payload import read_answers
from greentic.cluster import connect
from greentic.distribute.bundle_cache import BundleCache
from greentic.distribute.journal import Journal
from greentic.expressions.conditions import parse_condition
from greentic.expressions.template import compile_value
from greentic.expressions.value_range import fault, in_range
from greentic.flow.cards import before_dispatch, card_invocation, inlined_call
from greentic.flow.graph import read_graph
from greentic.flow.lint import Known, lint_flow
from greentic.flow.nodes import plan_flow
from greentic.flow.results import interpret
from greentic.flow.state import read_snapshot
from greentic.ground.documents import Document, from_json, json_object, parse, pretty, replace
from greentic.ground.errors import FetchError, FlowFailure, GreenticError
from greentic.httpd import http1
from greentic.ingress.invoke import InvalidRequest, read_request
from greentic.k8s.answers import read_answers as read_cluster_answers
from greentic.materialize.import_archive import import_archive
from greentic.materialize.remembered import KEPT_LIST, SEEN, Memory, Seen, memory_of
from greentic.materialize.seed import place_seed, read_seed
from greentic.materialize.trusted import Examined
from greentic.model.delivery import delivery_of
from greentic.model.environment import Environment
from greentic.model.projection import (
    EnvironmentRuntime,
    RuntimeConfig,
    project,
)
from greentic.model.revision_files import PackConfig, PackListLock, check_lock, diverging_packs, pack_config, pack_list
from greentic.model.traffic import unstash
from greentic.model.validate import validate
from greentic.net.request import Answer
from greentic.net.terms import Terms
from greentic.operate.payload import read as read_payload
from greentic.pack import cbor
from greentic.pack import manifest as pack_manifest
from greentic.pack.archive import PackArchive
from greentic.pack.load import load_pack
from greentic.pack.located import LocatedPack
from greentic.pack.signature import PackSignaturePolicy, signature_warnings
from greentic.registry import manifests, media_types
from greentic.registry.challenges import challenges
from greentic.registry.client import Registry
from greentic.registry.login import credentials_for, may_have_password
from greentic.registry.reference import parse as parse_reference
from greentic.registry.referrers import attached
from greentic.release.env_manifest import EnvManifest, check_manifest, wanted_revisions
from greentic.sessions.conversation import Conversations, Identity, read_waiting
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState
from greentic.store.layout import EnvPaths
from greentic.store.ledger import LedgerDocument
from greentic.trust import keys
from greentic.trust.dsse import SignatureError, claimed_statement, envelope_bytes, read_envelope, sign, statement
from greentic.trust.gate import pin
from greentic.trust.policy import Trusted
from greentic.trust.revocation import RevocationError, empty, read_list, sign_list
from greentic.trust.root import read_trust_root
from greentic.trust.statements import KINDS, vouched
from greentic.wasm.format import check_component, least_memory
from test_model_rules import BINDING, DEP, EXTENSION, NOW, REV, REV2, deployment, endpoint, raw_env, revision, split

KEY = keys.SigningKey(bytes(32))
TRUSTED = {KEY.key_id: KEY.public}


@cache
def scratch() -> Path:
    """A directory of this process for parsers that take paths; gone with it."""
    held = tempfile.TemporaryDirectory(prefix="fuzz-")
    _HELD.append(held)
    return Path(held.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []


def file_of(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


# -- images and bundles ---------------------------------------------------------------------------------------------


@cache
def _images() -> list[bytes]:
    made = []
    for kind in range(3):
        with tempfile.TemporaryDirectory() as top:
            tree = Path(top)
            (tree / "packs").mkdir()
            (tree / "state" / "pack-configs").mkdir(parents=True)
            (tree / "bundle-manifest.json").write_bytes(pretty(_BUNDLE_MANIFEST))
            (tree / "bundle-lock.json").write_bytes(pretty(_BUNDLE_LOCK))
            (tree / "packs" / "a.gtpack").write_bytes(make_pack("a.b", {}))
            (tree / "state" / "pack-configs" / "a.json").write_bytes(pretty(_CONFIG_INPUT))
            if kind:
                (tree / "big").write_bytes(b"\0" * 140_000 + bytes(range(256)) * 600)
                (tree / "link").symlink_to("packs/a.gtpack")
            if kind == 2:
                for number in range(40):
                    (tree / f"file{number}").write_bytes(b"x" * number)
            out = io.BytesIO()
            write_image(tree, out)
            made += [plain_image(out.getvalue()), out.getvalue()]
    return made


_BUNDLE_MANIFEST = {
    "format_version": "gtbundle-v1", "bundle_id": "b", "bundle_name": "b", "requested_mode": "create", "locale": "en", "artifact_extension": ".gtbundle",
    "generated_resolved_files": ["x"], "generated_setup_files": [], "app_packs": ["packs/a.gtpack"],
}  # fmt: skip
_BUNDLE_LOCK = {
    "schema_version": 1, "bundle_id": "b", "requested_mode": "create", "build_format_version": "bundle-lock-v1", "workspace_root": "bundle.yaml",
    "lock_file": "bundle.lock.json", "setup_state_files": [],
}  # fmt: skip
_CONFIG_INPUT = {
    "schema": "greentic.pack-config-input.v1", "pack_id": "a", "env_id": "prod", "bundle_id": "bot", "non_secret": {"a": [1]},
    "secret_refs": {"k": "secret://prod/bot/a/k"},
}  # fmt: skip


def _image(data: bytes) -> None:
    image = SquashImage(lambda offset, count: data[offset : offset + count], len(data))
    read = 0
    for entry in image.entries():
        if entry.kind == "file" and read < 1 << 20:
            for block in entry.blocks[:16]:
                read += len(image.read(block))


def _bundle(data: bytes) -> None:
    with file_of(data, "b.gtbundle").open("rb") as file, pin(file) as verified:
        listed = contents.open_bundle(verified)
        contents.strict_faults(listed)
        contents.pack_paths(listed.entries)
        for name, raw in contents.pack_config_inputs(listed):
            pack_config(name, raw, env_id="prod", bundle_id="bot", revision_id=REV, known_packs={"a"})


_WASM = b"\0asm\x0d\0\x01\0"

# -- packs ----------------------------------------------------------------------------------------------------------

_NODES = [
    {"id": "ask", "component": {"id": "emit.response", "operation": None}, "input": {"mapping": {"text": "hi {{entry.text}}"}},
     "output": {"mapping": {}}, "routing": {"Branch": {"on_status": {"ok": "end"}, "default": "end"}}},
    {"id": "end", "component": {"id": "a.echo", "operation": "run"}, "input": {"mapping": "{{#if entry}}{{entry}}{{/if}}"}, "output": {"mapping": {}},
     "routing": {"Custom": [{"to": "ask", "when": "entry.text == 'x'"}, {"out": True}]}},
]  # fmt: skip


def _manifest(**more: object) -> dict[str, object]:
    graph = {
        "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {"default": "ask"}, "nodes": _NODES,
        "metadata": {"tags": [], "extra": {}},
    }  # fmt: skip
    flow = {"id": "main", "kind": "messaging", "flow": graph, "tags": ["default"], "entrypoints": ["default"]}
    return {
        "schema_version": "pack-v1", "pack_id": "a.b", "version": "1.0.0", "kind": "application", "publisher": "t", "symbols": {}, "components": [],
        "flows": [flow], "dependencies": [], "capabilities": [], "signatures": {"signatures": []}, "extensions": {},
    } | more  # fmt: skip


def _manifests() -> list[Seed]:
    sources = {
        "inline": {"components": [{"name": "a.echo", "source": "oci://x/y:1", "resolved": {"digest": "sha256:" + hashlib.sha256(_WASM).hexdigest()},
                                   "artifact": {"inline": {"wasm_path": "components/a.echo.wasm"}}}]}
    }  # fmt: skip
    provider = {
        "inline": {
            "providers": [
                {"provider_type": "messaging.x", "ops": ["send"], "runtime": {"component_ref": "a.echo", "world": "w"}}
            ]
        }
    }
    runtime = {
        "inline": {
            "flows": [
                {
                    "id": "f",
                    "start": "a",
                    "entrypoints": {"default": "a"},
                    "nodes": {"a": {"component": "emit.response"}},
                }
            ]
        }
    }
    tables = {"component_ids": ["a.echo"], "node_ids": ["ask"], "capability_names": ["c"], "pack_ids": ["a.b"]}
    return [
        _manifest(),
        _manifest(pack_id=0, symbols=tables, components=[{"id": 0, "version": "1.0.0", "world": "w", "capabilities": {"host": {"secrets": {}}}}]),
        _manifest(components=[{"id": "a.echo", "version": "1", "world": "w"}], extensions={
            "greentic.pack.component_sources@v1": sources, "greentic.provider-extension.v1": provider}),
        _manifest(extensions={"greentic.pack.runtime_flow": runtime}, secret_requirements=[{"key": "K"}], dependencies=[
            {"alias": "x", "pack_id": "c.d", "version_req": "*", "required_capabilities": ["c"]}], capabilities=[{"name": "c"}]),
    ]  # fmt: skip


def _packs() -> list[Seed]:
    signature = {
        "alg": "ed25519",
        "sig": "AAAA",
        "digest": "00" * 32,
        "signed_at_utc": NOW,
        "key_fingerprint": "00" * 32,
    }
    sbom = {
        "format": "greentic-sbom-v1",
        "files": [{"path": "manifest.cbor", "size": 3, "media_type": "x", "hash_blake3": "00" * 32}],
    }
    lock = {"version": 1, "components": {"a.echo": {"resolved_digest": "sha256:00"}}}
    found: list[Seed] = []
    for manifest in _manifests():
        files = {
            "manifest.cbor": manifest,
            "components/a.echo.wasm": _WASM,
            "assets/a": b"x",
            "sbom.cbor": sbom,
            "pack.lock.cbor": lock,
        }
        signed = {"signatures/pack.sig": signature, "signatures/chain.pem": _CHAIN.encode()}
        found += [
            files,
            files | signed,
            {"manifest.cbor": manifest, "sbom.json": sbom, "components/a.echo.wasm": _WASM},
        ]
    return found


def _pack(data: bytes) -> None:
    path = file_of(data, "a.gtpack")
    loaded = load_pack(LocatedPack("a", path, "sha256:00"))
    loaded.assets.read("a", 1 << 20)


@cache
def _chain() -> str:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "greentic-dev-local")])
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, when, when + datetime.timedelta(days=1)).sign(
        key, None
    )
    return made.public_bytes(Encoding.PEM).decode()


_CHAIN = _chain()


def _pack_signature(data: bytes) -> None:
    """The input stands for `signatures/pack.sig` or, where it has a certificate's head, for the chain."""
    whole = make_pack("a.b", {})
    out = io.BytesIO(whole)
    import zipfile

    chain = data if b"CERTIFICATE" in data else _CHAIN.encode()
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("signatures/pack.sig", _GOOD_SIGNATURE if chain is data else data)
        archive.writestr("signatures/chain.pem", chain)
    opened = PackArchive(out)
    for policy in (PackSignaturePolicy("warn"), PackSignaturePolicy("require", frozenset({"00" * 32}))):
        with contextlib.suppress(GreenticError):
            signature_warnings(opened, policy, [])


@cache
def _good_signature() -> bytes:
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from greentic.pack.signature import signed_digest

    digest = signed_digest(PackArchive(io.BytesIO(make_pack("a.b", {}))))
    sig = base64.urlsafe_b64encode(Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(digest)).decode().rstrip("=")
    return msgspec.json.encode({"alg": "ed25519", "sig": sig, "digest": digest.hex(), "signed_at_utc": NOW})


_GOOD_SIGNATURE = _good_signature()

# -- documents ------------------------------------------------------------------------------------------------------


def _environments() -> list[Seed]:
    delivery = {
        "mirrors": ["https://m/{sha256}"],
        "signatures": {"mode": "require", "keys": ["00"], "threshold": 1},
        "generation": 3,
    }
    return [
        raw_env(),
        raw_env(revisions=[revision(), revision(REV2, sequence=2)], traffic_splits=[split((REV, 4000), (REV2, 6000))]),
        raw_env(packs=[BINDING], extensions=[EXTENSION], messaging_endpoints=[endpoint()], bundles=[deployment(
            config_overrides={"p": {"a": 1}}, route_binding={"hosts": ["a.b"], "path_prefixes": ["/x"],
                                                           "tenant_selector": {"tenant": "t", "team": "u"}})]),
        raw_env(**{"greentic:delivery": delivery, "host_config": {"env_id": "prod", "public_base_url": "https://a.b", "listen_addr": "[::]:1"}}),
    ]  # fmt: skip


def _environment(data: bytes) -> None:
    env = from_json(Environment, parse(data))
    validate(env)
    delivery_of(env)
    project(env)
    pretty(env)


_DOCUMENTS: dict[str, tuple[type[Document], Mapping[str, object]]] = {
    "runtime-config": (RuntimeConfig, json_object(project(from_json(Environment, raw_env())) or {})),
    "lock": (PackListLock, {"schema": "greentic.pack-list-lock.v1", "revision_id": REV,
                            "packs": [{"pack_id": "p", "path": f"revisions/{REV}/bundle/packs/p.gtpack", "digest": "sha256:" + "b" * 64}]}),
    "config": (PackConfig, {"schema": "greentic.pack-config.v1", "pack_id": "p", "revision_id": REV, "non_secret": {"a": {}}}),
    "runtime": (EnvironmentRuntime, {"schema": "greentic.environment-runtime.v1", "environment_id": "prod", "generated_at": NOW, "generated_by": "x", "generation": 1}),
    "ledger": (LedgerDocument, {"schema": "greentic.op-ledger.v1", "entries": [{
        "key": "k", "noun": "n", "verb": "v", "scope": "s", "fingerprint": "f", "recorded_at": NOW, "result": {"a": 1}}]}),
}  # fmt: skip


def _document(data: bytes) -> None:
    raw = parse(data)
    told = raw.get("of") if isinstance(raw, dict) else None
    form = _DOCUMENTS[told][0] if isinstance(told, str) and told in _DOCUMENTS else PackListLock
    found = from_json(form, raw.get("document") if isinstance(raw, dict) else raw)
    if isinstance(found, PackListLock):
        check_lock(found, REV)
        pack_list(found, {"p": "1.0.0"})
        diverging_packs([], found)
    pretty(found)


def _env_manifest(data: bytes) -> None:
    raw = read_answers(file_of(data, "env.yaml"))
    manifest = read_payload(EnvManifest, raw, GreenticError, "env.yaml: ")
    check_manifest(manifest)
    for bundle in manifest.bundles or []:
        wanted_revisions(bundle)


_ENV_MANIFEST: dict[str, object] = {
    "schema": "greentic.env-manifest.v1", "environment": {"id": "prod", "name": "P"}, "trust_root": "bootstrap",
    "bundles": [{"bundle_id": "b", "bundle_path": "b.gtbundle", "route_binding": {"hosts": ["x"], "path_prefixes": ["/"]}}],
}  # fmt: skip

# -- trust ----------------------------------------------------------------------------------------------------------

_STATEMENT = statement("x", "a" * 64, "https://greentic.ai/x/v1", {"a": 1})
_ENVELOPE = msgspec.json.decode(envelope_bytes(sign(_STATEMENT, KEY)))


def _payloads() -> list[Seed]:
    return [_ENVELOPE, msgspec.json.decode(sign_list(replace(empty(1), version=1), KEY)), _STATEMENT]


def _envelope(data: bytes) -> None:
    """An envelope as it is, and the same bytes as what a trusted key signed."""
    import base64

    for kind in KINDS:
        vouched(kind, [data], "a" * 64, TRUSTED)
    with contextlib.suppress(RevocationError):
        read_list(data, TRUSTED)
    wrapped = {
        "payloadType": "application/vnd.in-toto+json", "payload": base64.b64encode(data).decode(), "signatures": [{"keyid": KEY.key_id, "sig": ""}],
    }  # fmt: skip
    with contextlib.suppress(SignatureError):
        claimed_statement(read_envelope(msgspec.json.encode(wrapped)))
    read_list(data, TRUSTED)


def _keys(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(keys.KeyFormatError):
        keys.read_public_pem(text)
    keys.read_private_pem(text)


# -- the rest -------------------------------------------------------------------------------------------------------


def _journal(data: bytes) -> None:
    partial = scratch() / "partial"
    if not partial.exists():
        partial.write_bytes(bytes(1000))
    Journal(file_of(data, "partial.journal"), partial).load()


_AFFINITY = AffinityCookie("prod", "default", DEP, REV, 1, 2_000_000_000)


def _cookie(data: bytes) -> None:
    """A cookie as it came, and the same bytes as a body that was signed with the right key."""
    import base64
    import hashlib
    import hmac

    text = data.decode("latin-1")
    read_cookie(text, bytes(32))
    unstash(text)
    body = base64.urlsafe_b64encode(data).decode().rstrip("=")
    mac = base64.urlsafe_b64encode(hmac.digest(bytes(32), body.encode(), hashlib.sha256)).decode().rstrip("=")
    read_cookie(f"{body}.{mac}", bytes(32))


def _pinning(sha256_hex: str) -> bytes:
    """The environment whose revisions pin a digest."""
    env = from_json(Environment, raw_env())
    return pretty(replace(env, revisions=[replace(r, bundle_digest=f"sha256:{sha256_hex}") for r in env.revisions]))


def _export(data: bytes) -> None:
    import shutil

    top = scratch() / "import"
    shutil.rmtree(top, ignore_errors=True)
    (top / "cache").mkdir(parents=True)
    paths = EnvPaths(top / "store" / "prod")

    def examine(env: Environment, listed: bytes | None) -> Examined:
        return Examined(Trusted(delivery_of(env), {}, None, False), Seen(), listed)

    import_archive(file_of(data, "export.tar"), paths, BundleCache(top / "cache"), memory_of(paths, None), examine)


def _kubeconfig(data: bytes) -> None:
    import os

    os.environ["KUBECONFIG"] = str(file_of(data, "kubeconfig"))
    with contextlib.suppress(connect.ClusterUnreachable):
        connect.connect(None).certificate_ends()


def _kubeconfigs() -> list[Seed]:
    base: dict[str, object] = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/nowhere",
        "env": [{"name": "A", "value": "b"}],
    }
    return [
        base,
        base | {"users": [{"name": "u", "user": {"exec": plugin}}]},
        base
        | {
            "users": [
                {
                    "name": "u",
                    "user": {
                        "username": "a",
                        "password": "b",
                        "client-certificate-data": "AAAA",
                        "client-key-data": "AAAA",
                    },
                }
            ]
        },
    ]


def _flow(data: bytes) -> None:
    try:
        graph = compile_flow(read_yaml(file_of(data, "flow.ygtc")))
    except FlowSourceError:
        return
    plan = plan_flow(read_graph("main", graph))
    lint_flow(plan, Known(lambda name, operation: False, frozenset({"main"})))


def _flows() -> list[Seed]:
    return [
        {"id": "main", "type": "messaging", "start": "a", "tags": ["default"], "parameters": {}, "nodes": {
            "a": {"emit.response": {"text": "hi {{entry.input.text}}"}, "routing": [{"to": "b", "when": "entry.x == 1"}, {"out": True}]},
            "b": {"a.echo": {"operation": "run", "input": "{{#each xs as |x i|}}{{x}}{{/each}}"}, "routing": "out"}}},
        {"id": "m", "type": "event", "nodes": {"w": {"session.wait": {"reason": "x"}, "routing": [{"status": "ok", "to": "w"}]},
                                               "f": {"flow.call": {"flow_id": "m"}, "routing": "reply"}}},
    ]  # fmt: skip


def _template(data: bytes) -> None:
    text = data.decode(errors="replace")
    compile_value(text, pointers=True)
    parse_condition(text)


def _templates() -> list[Seed]:
    texts = (
        "{{#if a.b}}x{{else if c}}y{{else}}z{{/if}} {{{raw}}} {{!-- c --}}", "{{#each xs as |x i|}}{{@index}}{{x.[a b].0}}{{/each}}",
        "{{lookup (lookup a 'b') \"c\" k=1.5}} \\{{x}} {{~y~}}", "entry.text == 'x' && state.y != 3", "response.status >= 10 || !a",
    )  # fmt: skip
    return [text.encode() for text in texts]


def _snapshot(data: bytes) -> None:
    read_snapshot(parse(data), "p")


_SNAPSHOT: dict[str, object] = {
    "pack_id": "p", "flow_id": "f", "next_node": "n", "next_flow": None, "awaiting_submit": True,
    "state": {"entry": {"x": 1}, "nodes": {"a": {"ok": True, "payload": {}, "meta": None}}, "vars": {}, "redirect_count": 0, "park_turns": 1},
}  # fmt: skip

_REQUEST: dict[str, object] = {
    "version": "1.0", "tenant": {"env": "prod", "tenant": "t", "tenant_id": "t"}, "worker_id": "w", "payload": {"text": "hi"}, "timestamp_utc": NOW,
}  # fmt: skip


def _requests(data: bytes) -> None:
    """What one connection sends, whole and in pieces: both are read the same."""
    for size in (len(data) or 1, 7):
        reader = http1.RequestReader()
        for at in range(0, len(data), size):
            reader.feed(data[at : at + size])
            while reader.next() is not None:
                pass


_HTTP: list[Seed] = [
    b"POST /e2e?x=%2F HTTP/1.1\r\nHost: a.b:80\r\nContent-Type: application/json\r\nCookie: a=b\r\nCookie: c=d\r\nContent-Length: 2\r\n\r\n{}",
    b"POST http://a.b/x HTTP/1.1\r\nHost: q\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n",
    b"GET /livez HTTP/1.0\r\n\r\nGET /status HTTP/1.1\r\nHost: [::1]\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
]


def _reference(data: bytes) -> None:
    parse_reference(data.decode(errors="replace"))


_VERBS = ("env", "trust-root", "bundles", "revisions", "traffic", "env-packs", "config", "delivery")
_AWAY = frozenset({"reconcile", "diff", "apply-revision", "apply-traffic", "sweep", "destroy", "migrate-dev"})
"""Verbs that would ask a cluster of this machine, or delete."""


def _command(data: bytes) -> None:
    words = data.decode(errors="replace").split("\0")
    if _AWAY & set(words) or any("://" in word for word in words) or (words and words[0] not in _VERBS):
        words = ["env", "show", *words[1:3]]
    store = ["--store-root", str(scratch() / "store")]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = op.main([*store, *words])
    assert code in (0, 1, 2), code
    assert code or out.getvalue(), "nothing printed"
    assert not code or err.getvalue() or out.getvalue(), "an error without a text"


def _commands() -> list[Seed]:
    return [
        ["env", "create", "prod", "--name", "P", "--listen-addr", "127.0.0.1:80"],
        ["env", "update", "prod", "--name", "P", "--clear", "region"],
        ["env", "show", "prod"], ["env", "doctor", "prod"], ["env", "list", "--output", "table"],
        ["bundles", "add", "prod", "bundle_id=bot", "customer_id=acme", 'route_binding.path_prefixes=["/"]'],
        ["bundles", "update", "prod", f"deployment_id={DEP}", "status=paused"],
        ["traffic", "set", "prod", f"{REV}=100", "--deployment", DEP, "--idempotency-key", "k"],
        ["traffic", "show", "prod", DEP], ["revisions", "list", "prod"], ["revisions", "drain", "prod", f"revision_id={REV}"],
        ["config", "set", "prod", "name=x"], ["env-packs", "add", "prod", "slot=state", "kind=a.b@1.0.0"],
        ["delivery", "set", "prod", "--signatures", "warn", "--threshold", "2"], ["trust-root", "add", "prod", "--key-id", "00"],
        ["env", "create", "--schema"],
    ]  # fmt: skip


def _start(data: bytes) -> None:
    from greentic.cli.start import _parse

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _parse(data.decode(errors="replace").split("\0"))


def _cluster_answers(data: bytes) -> None:
    read_cluster_answers(parse(data), "prod")


_CLUSTER_ANSWERS: dict[str, object] = {
    "namespace": "n", "runtime_image": "r.io/x:1", "router_replicas": 2, "kubeconfig_context": "c", "egress_cidrs": ["10.0.0.0/8"],
    "secrets_secret": "s", "tunnel": "none",
}  # fmt: skip

_TRUST_ROOT: dict[str, object] = {
    "schema": "greentic.trust-root.v1",
    "keys": [{"key_id": KEY.key_id, "public_key_pem": keys.public_pem(KEY.public)}],
}


def _trust_root(data: bytes) -> None:
    read_trust_root(data).public_keys()


# -- answers of registries, components and stores -------------------------------------------------------------------


class _Told(NamedTuple):
    """What a registry answers, whatever it is asked."""

    data: bytes
    status: int = 200
    redirected: bool = False
    url: str = "https://r.example/x"

    def one(self, name: str) -> str:
        return ""

    def close(self) -> None:
        pass


class _Answering(Registry):
    """A registry whose every answer has the same body."""

    def __init__(self, data: bytes) -> None:
        super().__init__(parse_reference("r.example/a/b:1"), Terms(), {})
        self._data = data

    def ask(self, question: Callable[[Terms], Any]) -> Any:
        return question(Terms())

    def request(self, *words: object, **more: object) -> Any:
        response = http.client.HTTPResponse(
            _Pipe(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._data) + self._data)
        )
        response.begin()
        return Answer(200, response.msg, response, http.client.HTTPConnection("r.example"), "https://r.example/x")


class _Pipe:
    """What a response is read from, in place of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


_DIGEST = "sha256:" + "0" * 64
_OCI: list[Seed] = [
    {"schemaVersion": 2, "mediaType": media_types.MANIFEST, "config": {"digest": _DIGEST, "size": 2}, "layers": [
        {"mediaType": "application/octet-stream", "digest": _DIGEST, "size": 10}, {"mediaType": "a+tar", "digest": _DIGEST, "size": 1}]},
    {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": [
        {"digest": _DIGEST, "artifactType": "x", "platform": {"architecture": "amd64", "os": "linux"}}, {"digest": _DIGEST}]},
    {"token": "abc", "access_token": "abc", "expires_in": 300},
    {"auths": {"r.example": {"auth": "YTpi"}, "https://r.example/v1/": {"identitytoken": "t"}}, "credHelpers": {"o.example": "none"}, "credsStore": ""},
]  # fmt: skip


def _oci(data: bytes) -> None:
    """The bytes as a manifest, an index, referrers, a token, and as a Docker configuration."""
    registry = _Answering(data)
    found = 0
    for question in (
        lambda: manifests.layer_of(manifests.resolve_manifest(registry, "1"), "r"),
        lambda: attached(registry, _DIGEST, "x", 1 << 20),
        lambda: registry._read_token(registry.request()),
        lambda: credentials_for("r.example", {"DOCKER_CONFIG": str(file_of(data, "config.json").parent)}),
    ):
        with contextlib.suppress(FetchError):
            found += question() is not None
    if not found:
        raise FetchError("it is none of them")


def _challenges(data: bytes) -> None:
    text = data.decode("latin-1")
    found = challenges(text.split("\n"))
    registry = _Answering(b"")
    for one in found:
        registry._scopes(one.parameters.get("scope", ""))
        may_have_password(one.parameters.get("realm", ""), "r.example", {})
    registry.led_to(_Told(b"")._replace(url=text), "https://r.example/x")


_CHALLENGES: list[Seed] = [
    b'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull"\nBasic realm="x"',
    b'Negotiate YWJj==, Digest qop="auth, auth-int", Bearer realm = "q\\"q"',
]


def _component_answer(data: bytes) -> None:
    """What a component gives back, as CBOR and as the text of JSON, on its way into the state of a run."""
    from greentic.components.interfaces import _from_cbor, _parsed

    interpret("c", _parsed(data.decode(errors="replace")), catches_errors=True)
    interpret("c", in_range(_from_cbor(data, "the answer")), catches_errors=True)


_ANSWERS: list[Seed] = [
    {"ok": True, "payload": {"text": "a", "n": [1, -2, 2.5, None, True, 2**63, -(2**63)]}, "metadata": {"x": b"bytes"}},
    {"ok": False, "error": {"code": "c", "message": "m", "retryable": True, "backoff_ms": 5, "details": {"a": [1]}}},
    {"status": "ok", "output": {"text": "a"}, "routing": "next"}, [1, "a", {"b": []}],
]  # fmt: skip


def _card(data: bytes) -> None:
    """The bytes as an invocation of a card, as its configuration, and as every file that it names."""
    assets = _Everywhere(data)
    value = parse(data)
    for mapping in (value, {"card_source": "asset", "card_spec": {"asset_path": "a.json", "i18n_bundle_path": "i"}}):
        before_dispatch("adaptive-card", mapping, value)
        made = card_invocation(mapping, value, assets)
        inlined_call(mapping, assets)
        inlined_call({"call": mapping}, assets)
        assert made is None or fault(made) is None or fault(mapping) is not None, "a value of another range came in"


class _Everywhere:
    """Assets whose every file has the same content."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, path: str, limit: int) -> bytes | None:
        return self._data


_CARDS: list[Seed] = [
    {"card_source": "asset", "card_spec": {"asset_path": "a.json", "i18n_bundle_path": "i"}, "payload": {}, "locale": "de"},
    {"default_card_asset": "a.json", "default_source": "asset", "catalog_registry_ref": "c", "locales": ["de", "en"],
     "metadata": {"routeToCardId": "x", "toCardId": 1, "locale": "fr"}},
    {"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": "{{i18n:a}}"}], "locales": ["de"], "a": "b"},
]  # fmt: skip


def _stored(data: bytes) -> None:
    """The bytes as everything that waits between turns, and as the memory of a worker."""
    values = MemoryStore()
    conversations, state = Conversations(values, "e"), StoredState(values)
    for key in ("k", "s:answers", "greentic:state:a:b", "e:pin:d:t:||"):
        values.set(key, data)
    waiting = conversations.waiting("k")
    with contextlib.suppress(FlowFailure):
        read_waiting(waiting, "p")
    conversations.answered("s", "m")
    conversations.keep_answer("s", "m", {"a": 1}, parked=False)
    conversations.pinned("d", "t", Identity())
    place = scratch() / "memory"
    for name in (SEEN, KEPT_LIST):
        place.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    with contextlib.suppress(GreenticError):
        Memory((place,)).recall()
    state.get("a", "b")


_STORED: list[Seed] = [
    {"snapshot": _SNAPSHOT, "reason": "x", "mark": "m", "failures": 1},
    [{"id": "m", "parked": False, "output": {"a": 1}}, {"id": "n"}],
    {"generation": 3, "revocations": 2}, {"a": {"b": [1.5, "x"]}},
]  # fmt: skip


def _seed(data: bytes) -> None:
    """An archive's files as the directory that a pod is seeded from, links and all; what is refused changes nothing."""
    import shutil
    import tarfile

    top = scratch() / "seeding"
    shutil.rmtree(top, ignore_errors=True)
    (top / "seed").mkdir(parents=True)
    (top / "env").mkdir()
    (top / "env" / "kept").write_bytes(b"kept")
    unpacking = contextlib.suppress(tarfile.TarError, OSError, ValueError, EOFError, KeyError, RuntimeError)
    with unpacking, tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(top / "seed", filter="data")
    outside = (top / "seed" / "..outside").exists()
    seed = read_seed(top / "seed", top / "env")
    place_seed(seed, top / "env")
    assert (top / "env" / "kept").read_bytes() == b"kept" or seed.file("kept") is not None
    assert not outside or not (top / "env" / "..outside").exists()
    document = seed.file("environment.json")
    if document is not None:
        _environment(document)


def _wasm(data: bytes) -> None:
    check_component(data, "c")
    least_memory(data)


def _components() -> list[Seed]:
    return [wat.node_06(), wat.node_06(pages=200), wat.component("a:b/c@1.0.0", [])]


_PROGRAMS = {
    "bundle": ("greentic.cli.bundle", ["build", "inspect", "verify", "sign", "publish", "revoke", "export"]),
    "pack": ("greentic.cli.pack", ["new", "build", "sign", "inspect"]),
    "flow": ("greentic.cli.flow", ["run", "lint"]),
    "cache": ("greentic.cli.cache", ["list", "verify", "prune"]),
}


def _program(data: bytes) -> None:
    """`gtc bundle|pack|flow|cache` with words, in a directory of its own."""
    import importlib
    import os
    import shutil

    words = data.decode(errors="replace").split("\0")
    module, verbs = _PROGRAMS.get(words[0], _PROGRAMS["bundle"])
    # Nothing but names in the directory of the run: no word may lead to a file of this machine, or to a server.
    words = [word.replace("/", "").replace("..", "").replace("~", "")[:200] for word in words[1:]]
    if not words or words[0] not in verbs:
        words = [verbs[0], *words[1:]]
    place = scratch() / "program"
    shutil.rmtree(place, ignore_errors=True)  # what one run made is no source of the next
    place.mkdir()
    (place / "a.gtpack").write_bytes(b"PK")
    before = Path.cwd()
    os.chdir(place)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = importlib.import_module(module).main(words)
    finally:
        os.chdir(before)
    assert code in (0, 1, 2), code
    assert out.getvalue() or err.getvalue(), "nothing printed"


def _programs() -> list[Seed]:
    return [
        ["bundle", "verify", "a.gtbundle", "--digest", "sha256:" + "0" * 64, "--key", "k.pem"],
        ["bundle", "build", "a", "--out", "a.gtbundle", "--output", "json"],
        ["bundle", "revoke", "sha256:" + "0" * 64, "--list", "l.json", "--days", "3", "--key", "k.pem"],
        ["bundle", "publish", "a.gtbundle", "b", "--name", "n"],
        ["bundle", "export", "prod", "--out", "x.tar", "--store-root", "s"],
        ["pack", "inspect", "a.gtpack", "--output", "table"], ["pack", "build", "p", "--out", "p.gtpack"],
        ["pack", "new", "p", "--id", "a.b", "--publisher", "x"], ["pack", "sign", "a.gtpack", "--key", "k.pem", "--chain", "c.pem"],
        ["flow", "run", "a.gtpack", "main", "--input", '{"text": "x"}'], ["flow", "lint", "a.ygtc", "--strict"],
        ["cache", "list", "--output", "json"], ["cache", "verify"], ["cache", "prune", "--max-bytes", "1"],
    ]  # fmt: skip


_PARSE = (GreenticError, ValueError)
"""For readers of JSON that hand the hand's own `ValueError` to their caller, who names the place."""

TARGETS: tuple[Target, ...] = (
    Target("squashfs", lambda: list(_images()), _image, share=6),
    Target("bundle", lambda: list(_images()), _bundle, share=2),
    Target("pack", _packs, _pack, ZIP, share=5),
    Target("pack-manifest", _manifests, pack_manifest.decode, CBOR, share=4),
    Target("pack-signature", lambda: [msgspec.json.decode(_GOOD_SIGNATURE), _CHAIN], _pack_signature, JSON, share=1),
    Target("cbor", _manifests, lambda data: cbor.decode(data, limit=1 << 20), CBOR),
    Target("environment", _environments, _environment, JSON, _PARSE, share=4),
    Target(
        "documents",
        lambda: [{"of": n, "document": d} for n, (_, d) in _DOCUMENTS.items()],
        _document,
        JSON,
        _PARSE,
        share=2,
    ),
    Target("env-manifest", lambda: [_ENV_MANIFEST], _env_manifest, YAML, share=1),
    Target("trust-root", lambda: [_TRUST_ROOT], _trust_root, JSON),
    Target("envelopes", _payloads, _envelope, JSON, (RevocationError,), share=2),
    Target(
        "keys",
        lambda: [keys.public_pem(KEY.public).encode(), keys.private_pem(bytes(32)).encode()],
        _keys,
        None,
        (keys.KeyFormatError,),
    ),
    Target(
        "journal",
        lambda: [{"done": [[0, 10], [20, 30]], "total": 1000, "validator": "x", "reference": "r"}],
        _journal,
        JSON,
        (),
    ),
    Target(
        "cookie",
        lambda: [make_cookie(_AFFINITY, bytes(32)).encode(), msgspec.json.encode(_AFFINITY)],
        _cookie,
        None,
        (),
    ),
    Target(
        "export",
        lambda: [
            {
                "environment.json": _pinning(hashlib.sha256(b"x").hexdigest()),
                "revocations.json": b"{}",
                "bundles/sha256-" + hashlib.sha256(b"x").hexdigest(): b"x",
            }
        ],
        _export,
        TAR,
    ),
    Target("kubeconfig", _kubeconfigs, _kubeconfig, YAML, ()),
    Target("flow", _flows, _flow, YAML, share=3),
    Target("template", _templates, _template, None, ()),
    Target("snapshot", lambda: [_SNAPSHOT], _snapshot, JSON, (FlowFailure, ValueError)),
    Target("worker-request", lambda: [_REQUEST], lambda data: read_request(data), JSON, (InvalidRequest,)),
    Target("http-request", lambda: _HTTP, _requests, None, (http1.Refusal,), share=2),
    Target("oci-reference", lambda: [b"ghcr.io/a/b:1", b"localhost:5000/x@sha256:" + b"0" * 64], _reference),
    Target("op", _commands, _command, WORDS, (SystemExit,)),
    Target(
        "start",
        lambda: [["start", "--env", "x", "--workers", "2"], ["--from", "a", "--strict-port"]],
        _start,
        WORDS,
        (SystemExit,),
    ),
    Target("oci-answers", lambda: _OCI, _oci, JSON, (FetchError,)),
    Target("challenges", lambda: _CHALLENGES, _challenges, None, (FetchError,)),
    Target("component-answer", lambda: _ANSWERS, _component_answer, CBOR, (FlowFailure,)),
    Target("card", lambda: _CARDS, _card, JSON, (FlowFailure, ValueError)),
    Target("stored", lambda: _STORED, _stored, JSON, (FlowFailure,)),
    Target(
        "seed",
        lambda: [{"environment.json": raw_env(), "runtime.json": b"{}"}, {"a": b"x", "kept": b"new"}],
        _seed,
        TAR,
        _PARSE,
    ),
    Target("component", _components, _wasm, None),
    Target("program", _programs, _program, WORDS, (SystemExit,)),
    Target("cluster-answers", lambda: [_CLUSTER_ANSWERS], _cluster_answers, JSON, _PARSE),
)
