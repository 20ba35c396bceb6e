"""From a pack to an answer: loading, signatures, conversations, turns, and where they run."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

import wat
from conftest import make_bundle, make_pack, need
from greentic.activate.turn import ActiveRevision, Message, Turn, TurnServices, flow_index, turn
from greentic.activate.warm import check_loadable
from greentic.author.pack_sign import sign_pack
from greentic.components.runtime import ComponentRuntime, RevisionComponents, grants_of
from greentic.expressions.paths import MISSING
from greentic.flow.activity import activity_of
from greentic.ground.errors import (
    BootError,
    Conflict,
    FlowFailure,
    GreenticError,
    InvalidArgument,
    IoError,
    MalformedArtifact,
)
from greentic.ground.going import in_place
from greentic.ground.variables import TABLE
from greentic.ingress.identity import (
    NOTHING,
    SESSION_BYTES,
    Stated,
    session_cookie,
    stranger_identity,
    trusted_identity,
)
from greentic.materialize.placed import file_digest
from greentic.pack.archive import PackArchive
from greentic.pack.load import load_pack, load_packs
from greentic.pack.located import LocatedPack
from greentic.pack.signature import (
    CHAIN,
    POLICY,
    SIGNATURE,
    SIGNERS,
    Mode,
    PackSignaturePolicy,
    UntrustedPack,
    read_signature_policy,
)
from greentic.sessions.conversation import Conversations, Identity, session_hint
from greentic.sessions.directory_store import DirectoryStore
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.shares import Shares
from greentic.sessions.stored_state import StoredState
from greentic.sessions.value_store import DROPPED, MAX_VALUE, MAX_WAITING, ConversationBusy, StoreUnavailable
from greentic.sessions.waiting_counts import WaitingCounts
from greentic.shape.pod_settings import Signatures
from greentic.telemetry.component_output import line_of
from greentic.telemetry.tallies import TALLIES
from simulators import CountingRandom, FakeClock
from test_flow import node, to, when
from waiting import until


def placed(tmp_path: Path, data: bytes, name: str = "pack") -> LocatedPack:
    path = tmp_path / f"{name}.gtpack"
    path.write_bytes(data)
    return LocatedPack(name, path, file_digest(path))


def component_node(component: str, mapping: object = "{{entry}}", routing: object = "End") -> dict[str, object]:
    return node("c", component, {"input": mapping}, routing, operation="run")


ECHO = {"main": {"nodes": [component_node("echo")]}}


# -- loading --------------------------------------------------------------------------------------------------------


def sources(
    component_id: str, source: str, digest: str | None, artifact: object, name: str = "component_id"
) -> dict[str, object]:
    entry = {"name": "n", name: component_id, "source": source, "resolved": {"digest": digest}, "artifact": artifact}
    kind = "greentic.pack.component_sources@v1"
    return {kind: {"kind": kind, "version": "v1", "inline": {"schema_version": 1, "components": [entry]}}}


def test_a_pack_with_components_loads_and_tells_of_them(tmp_path):
    pack = load_pack(placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()})))
    assert [(c.id, c.sha256) for c in pack.components] == [("echo", wat.sha256(wat.node_06()))] and pack.warnings == ()
    report = check_loadable([placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}))]).report
    assert (
        report.components == 1
        and check_loadable([placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}))]).report.compiled == 0
    )


REFERENCE = "oci://reg.example/x/component-echo:1.0@sha256:" + "0" * 64


@pytest.mark.parametrize(
    "named", ["echo", "echo.run", REFERENCE, "oci://reg.example/x/component-echo:9.9", "oci://elsewhere/y/echo"]
)
def test_components_only_listed_as_sources_are_found_by_every_name(tmp_path, named):
    wasm = wat.node_06()
    data = make_pack(
        "p",
        {"main": {"nodes": [node("c", "component.exec", {"component": named, "operation": "run", "input": 1})]}},
        extensions=sources("echo", REFERENCE, f"sha256:{wat.sha256(wasm)}", {"inline": {"wasm_path": "blobs/e.wasm"}}),
    )
    data = with_entries(data, {"blobs/e.wasm": wasm})
    answer = run_pack(tmp_path, data, {"x": 1})
    assert answer.output == 1


def with_entries(data: bytes, more: dict[str, bytes], without: tuple[str, ...] = ()) -> bytes:
    """A pack with other entries, its SBOM left as it was."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name not in more and name not in without:
                new.writestr(name, old.read(name))
        for name, content in more.items():
            new.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_entries(make_pack("p", ECHO, {"echo": wat.node_06()}), {}, ("components/echo.wasm",)), "components missing: echo; looked in components/"),
        (make_pack("p", {}, extensions=sources("echo", "oci://r/echo:1", None, "remote")), "uses tag ref oci://r/echo:1 but is not bundled; rebuild the pack"),
        (make_pack("p", {}, extensions=sources("echo", "oci://r/echo@sha256:00", "sha256:00", "remote")), "components missing: echo"),
        (with_entries(make_pack("p", {}, extensions=sources("echo", "x", "sha256:" + "0" * 64, {"inline": {"wasm_path": "e.wasm"}})), {"e.wasm": wat.node_06()}), "component echo digest mismatch"),
        (with_entries(make_pack("p", {}, extensions=sources("echo", "x", "blake3:" + "0" * 64, {"inline": {"wasm_path": "e.wasm"}})), {"e.wasm": wat.node_06()}), "component echo digest mismatch"),
        (with_entries(make_pack("p", {}, extensions=sources("echo", "x", "md5:0", {"inline": {"wasm_path": "e.wasm"}})), {"e.wasm": wat.node_06()}), "no sha256 and no blake3"),
        (make_pack("p", ECHO, {"echo": b"\0asm\x01\0\0\0" + bytes(9)}), "component echo is a core WebAssembly module, expected a component"), (make_pack("p", ECHO, {"echo": b"text"}), "component echo is no WebAssembly component"),
    ],
)  # fmt: skip
def test_packs_whose_components_are_wrong_do_not_load(tmp_path, data, why):
    with pytest.raises(MalformedArtifact, match=f"pack `pack` does not load: .*{why}"):
        load_pack(placed(tmp_path, data))


def test_a_pack_that_is_gone_is_a_typed_error_that_names_it(tmp_path):
    place = placed(tmp_path, make_pack("p", {}))
    place.path.unlink()
    with pytest.raises(IoError, match="pack.gtpack"):
        load_pack(place)


def test_damaged_wasm_fails_the_warm(tmp_path):
    with pytest.raises(MalformedArtifact, match="component echo does not compile"):
        check_loadable([placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()[:300]}))])


def test_faults_of_a_pack_without_number_are_neither_told_nor_sought_without_number(tmp_path, monkeypatch):
    """What may have been meant is sought among all nodes: thousands of mistyped names took minutes of a boot."""
    wanted: list[str] = []
    monkeypatch.setattr("greentic.flow.lint_names.did_you_mean", lambda word, known: wanted.append(word) or "")
    nodes = [node(f"n{i}", "emit.response", {"text": f"{{{{node.mistyped-{i}.x}}}}"}) for i in range(3000)]
    found = load_pack(placed(tmp_path, make_pack("p", {"main": {"nodes": nodes}}))).warnings
    assert found[:1] == ("flow main: node n0: `{{node.mistyped-0.x}}` prints nothing: there is no node `mistyped-0`",)
    assert found[100:] == ("more than 100 warnings like these",) and len(wanted) == 101


def test_what_does_not_matter_is_a_warning(tmp_path):
    data = make_pack(
        "p", {"main": {"nodes": [component_node("gone", routing=when({"next": "x"}))]}, "empty": {"nodes": []}}
    )
    found = "\n".join(load_pack(placed(tmp_path, data)).warnings)
    assert (
        "component 'gone' not found in pack" in found
        and "unknown routing key `next`" in found
        and "flow empty has no nodes" in found
    )
    wrong_sbom = with_entries(make_pack("p", ECHO, {"echo": wat.node_06()}), {"extra.txt": b"x"})
    assert any("extra.txt" in w for w in load_pack(placed(tmp_path, wrong_sbom)).warnings)
    with pytest.raises(Conflict, match="same manifest id"):
        load_packs([placed(tmp_path, make_pack("p", {}), "a"), placed(tmp_path, make_pack("p", {}), "b")])


def test_grants_come_from_manifest_and_pack():
    assert grants_of({}, ("API-Key",)).secrets == {"api_key"} and grants_of({}, ()).state_read
    told = {"capabilities": {"host": {"http": {"client": False}, "state": {"read": True, "write": False}}}}
    assert grants_of(told, ())[:3] == (False, True, False)


def test_secrets_that_flows_name_are_granted(tmp_path):
    flows = {
        "main": {"nodes": [component_node("echo", {"token_secret": "FROM_FIELD", "deep": [{"x_secret": "DEEP"}]})]}
    }
    pack = load_pack(
        placed(tmp_path, make_pack("p", flows, {"echo": wat.node_06()}, secret_requirements=[{"key": "DECLARED"}]))
    )
    assert set(pack.secrets) == {"DECLARED", "FROM_FIELD", "DEEP"}


# -- signatures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture
def signed(tmp_path, key_file):
    place = placed(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}))
    told = sign_pack(place.path, key_file, None, None, FakeClock())
    return place, str(told["key_fingerprint"])


def changed(place: LocatedPack, more: dict[str, bytes], without: tuple[str, ...] = ()) -> LocatedPack:
    place.path.write_bytes(with_entries(place.path.read_bytes(), more, without))
    return place


REQUIRE = PackSignaturePolicy("require")


def test_a_signed_pack_is_accepted_where_it_must_be(signed):
    place, fingerprint = signed
    named = load_pack(place, PackSignaturePolicy("require", frozenset({fingerprint})))
    assert named.signed and named.warnings == ()
    with pytest.raises(UntrustedPack, match="is required and not accepted"):
        load_pack(place, REQUIRE)  # nobody is named, and nobody is not anybody
    with pytest.raises(UntrustedPack, match="not among the allowed ones"):
        load_pack(place, PackSignaturePolicy("require", frozenset({"0" * 64})))
    assert any("not among" in w for w in load_pack(place, PackSignaturePolicy("warn", frozenset({"0" * 64}))).warnings)


@pytest.mark.parametrize(
    "what",
    [
        "signature",
        "chain",
        "manifest",
        "both",
        "component",
        "extra",
        "algorithm",
        "garbage",
        "garbage-chain",
        "other-signature",
        "twice",
    ],
)
def test_threat_stripped_signature_whatever_is_missing_or_changed_is_refused(signed, what):
    place, _ = signed
    archive = PackArchive(io.BytesIO(place.path.read_bytes()))
    signature = json.loads(archive.read(SIGNATURE))
    manifest = archive.read("manifest.cbor")
    change: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
        "signature": ({}, (SIGNATURE,)), "chain": ({}, (CHAIN,)), "both": ({}, (SIGNATURE, CHAIN)), "manifest": ({"manifest.cbor": manifest.replace(b"tests", b"Tests")}, ()),
        "component": ({"components/echo.wasm": wat.trapping()}, ()), "extra": ({"assets/more.txt": b"x"}, ()), "algorithm": ({SIGNATURE: json.dumps(signature | {"alg": "none"}).encode()}, ()),
        "twice": ({SIGNATURE: archive.read(SIGNATURE).replace(b"{", b'{"alg": "none", ', 1)}, ()),
        "garbage": ({SIGNATURE: b"{"}, ()), "garbage-chain": ({CHAIN: b"x"}, ()), "other-signature": ({SIGNATURE: json.dumps(signature | {"sig": base64.urlsafe_b64encode(bytes(64)).decode()}).encode()}, ()),
    }  # fmt: skip
    more, without = change[what]
    place = changed(place, more, without)
    with pytest.raises(UntrustedPack, match="is required and not accepted"):
        load_pack(place, REQUIRE)
    tolerant = load_pack(place)
    assert (tolerant.warnings == ()) is (what == "both") and load_pack(
        place, PackSignaturePolicy("ignore")
    ).pack_id == "pack"


def test_development_certificates_need_their_key_to_be_named(tmp_path, key_file):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(key_file.read_bytes(), None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "greentic-dev-local")])
    import datetime

    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    pem = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, began, began + datetime.timedelta(days=9))
        .sign(key, None)
        .public_bytes(Encoding.PEM)
    )
    (tmp_path / "chain.pem").write_bytes(pem)
    place = placed(tmp_path, make_pack("p", {}))
    told = sign_pack(place.path, key_file, tmp_path / "chain.pem", None, FakeClock())
    with pytest.raises(UntrustedPack, match="dev self-signed"):
        load_pack(place, REQUIRE)
    assert load_pack(place, PackSignaturePolicy("require", frozenset({str(told["key_fingerprint"])}))).signed


def test_signing_refuses_what_it_cannot_vouch_for(tmp_path, key_file):
    place = placed(tmp_path, with_entries(make_pack("p", {}), {"extra": b"x"}))
    with pytest.raises(Conflict, match="its SBOM is not true"):
        sign_pack(place.path, key_file, None, None, FakeClock())
    (tmp_path / "no.pem").write_text("x")
    good = placed(tmp_path, make_pack("p", {}), "good")
    for key, chain in ((tmp_path / "no.pem", None), (key_file, tmp_path / "no.pem")):
        with pytest.raises(InvalidArgument):
            sign_pack(good.path, key, chain, None, FakeClock())
    with pytest.raises(GreenticError):
        sign_pack(good.path, tmp_path / "gone.pem", None, None, FakeClock())
    first = sign_pack(good.path, key_file, None, tmp_path / "out.gtpack", FakeClock())
    again = sign_pack(tmp_path / "out.gtpack", key_file, None, None, FakeClock())
    assert (
        first["signed_digest"] == again["signed_digest"]
        and "signatures/pack.sig" not in zipfile.ZipFile(good.path).namelist()
    )


def test_signature_policies_are_read():
    assert (
        read_signature_policy({}) == PackSignaturePolicy()
        and read_signature_policy({POLICY: "Require", SIGNERS: "A" * 64 + ", "}).keys == {"a" * 64}
        and read_signature_policy({POLICY: "ignore", SIGNERS: ""}).mode == "ignore"
    )
    for mode, keys in (("maybe", ""), ("require", "xyz"), ("require", " ")):
        with pytest.raises(InvalidArgument):
            read_signature_policy({POLICY: mode, SIGNERS: keys})
    assert get_args(Mode) == get_args(Signatures) == TABLE[POLICY].words  # types cannot be made of a table


# -- turns ----------------------------------------------------------------------------------------------------------


class Stage:
    """A revision and what its turns need."""

    def __init__(self, tmp_path: Path, data: bytes, values: object = None, revision_id: str = "R1") -> None:
        self.clock, self.log = FakeClock(), []
        self.values = values or MemoryStore()
        state = StoredState(self.values)
        pack = load_pack(placed(tmp_path, data))
        self.runtime = ComponentRuntime(
            None, state, lambda name, stream, text: self.log.append(line_of(name, stream, text))
        )
        self.revision = ActiveRevision(
            revision_id,
            "D",
            "b",
            pack.digest,
            None,
            (pack,),
            flow_index((pack,)),
            RevisionComponents((pack,), self.runtime),
        )
        self.services = TurnServices(
            "local", Conversations(self.values, "s"), state, self.clock, CountingRandom(), self.log.append
        )

    def turn(self, body: object, identity: Identity = Identity(), message_id: str | None = None, **more: str):  # noqa: B008
        message = Message(activity_of(body), "acme", None, identity, message_id)
        return in_place(turn(self.revision, message, self.services, **more))


def run_pack(tmp_path: Path, data: bytes, body: object):
    return Stage(tmp_path, data).turn(body)


ASK = {
    "main": {
        "nodes": [
            node("ask", "emit.response", {"text": "name?"}, to("w")),
            node("w", "session.wait", {"reason": "a name"}, to("greet")),
            node("greet", "emit.response", {"text": "hello {{entry.text}}"}),
        ]
    }
}


def test_a_message_beyond_those_that_may_wait_is_no_turn(tmp_path, monkeypatch):
    """Four of a conversation wait, for so long; a fifth is told to come back, and the four are answered in their order."""
    stage = Stage(tmp_path, make_pack("p", ASK, {}))

    def one(text: str) -> asyncio.Task[Turn]:
        message = Message(activity_of({"text": text}), "acme", None, Identity(session="s"))
        return asyncio.create_task(turn(stage.revision, message, stage.services))

    async def all_of_them() -> None:
        first = await one("hi")
        assert first.parked
        hint = session_hint(Identity(session="s"), "acme", "main")
        with stage.values.hold(stage.services.conversations.session("D", "acme", hint)):
            held = one("zero")  # looks again and again until nobody holds it
            waiting = [one(f"{n}") for n in range(MAX_WAITING + 2)]
            refused = await asyncio.gather(*waiting[MAX_WAITING:], return_exceptions=True)
            assert [type(failure) for failure in refused] == [ConversationBusy] * 2
        outputs = [(await task).output for task in (held, *waiting[:MAX_WAITING])]
        assert outputs[0] == [{"text": "hello zero"}] and len(outputs) == MAX_WAITING + 1

    asyncio.run(all_of_them())


def test_a_component_answers_a_turn(tmp_path):
    assert run_pack(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}), {"text": "hi"}).output == {"text": "hi"}


def test_a_flow_without_nodes_fails_and_waits_for_nobody(tmp_path):
    found = run_pack(tmp_path, make_pack("p", {"main": {"nodes": []}}), {"text": "hi"})
    assert found.parked is False and found.failed == "flow main has no start node"
    assert found.output["metadata"]["error_message"] == found.failed


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_conversations_wait_for_their_own_caller(tmp_path, kind):
    values = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path / "sessions")
    stage = Stage(tmp_path, make_pack("p", ASK), values)
    ann, bob = Identity(session="ann"), Identity(user="bob")
    pending = stage.turn({"text": "x"}, ann)
    assert pending.parked and pending.output == {
        "status": "pending",
        "reason": "a name",
        "reply_scope": {"conversation": "main"},
        "response": [{"text": "name?"}],
    }
    assert stage.turn({"text": "y"}, bob).parked and stage.turn({"text": "Bob"}, bob).output == [{"text": "hello Bob"}]
    assert (
        stage.services.conversations.pinned("D", "acme", ann) == "R1"
        and stage.services.conversations.pinned("D", "acme", bob) is None
    )
    other = Stage(tmp_path, make_pack("p", ASK), values, "R2")
    assert other.turn({"text": "z"}, ann).parked  # what waits on one revision does not go on with another
    # ... and is forgotten once the session talks to another: should the first revision come back, nothing is answered by mistake.
    assert stage.services.conversations.pinned("D", "acme", ann) == "R2"
    assert stage.turn({"text": "Ann"}, ann).parked and stage.turn({"text": "Ann"}, ann).output == [
        {"text": "hello Ann"}
    ]
    assert session_hint(Identity(user="u", endpoint="E"), "t", "f") == "ep=E::t:provider:f:f:u"


def test_a_failed_resume_is_answered_and_forgotten(tmp_path):
    flows = {"main": {"nodes": [node("w", "session.wait", "r", to("gone"))]}}
    stage = Stage(tmp_path, make_pack("p", flows))
    assert stage.turn({"text": "x"}).parked
    failed = stage.turn({"text": "y"})
    assert failed.output["metadata"]["error_message"] == "node gone not found" and stage.turn({"text": "z"}).parked
    key = stage.services.conversations.key("R1", "acme", session_hint(Identity(), "acme", "main"), "p", "main")
    stage.values.set(key, b"{damaged")
    assert "cannot be read" in stage.turn({"text": "q"}).output["metadata"]["error_message"]


def test_passing_failures_are_tried_again(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ECHO, {"echo": wat.error_06("full", "later", retryable=True)}))
    began = stage.clock.monotonic()
    failed = stage.turn({"text": "x"})
    assert "full" in failed.output["metadata"]["error_message"] and stage.clock.monotonic() - began >= 0.75
    assert sum("trying again" in line for line in stage.log) == 2
    final = Stage(tmp_path, make_pack("p", ECHO, {"echo": wat.error_06("unavailable", "never")}))
    assert (
        final.turn({"text": "x"}).output["metadata"]["error_message"] == "component echo failed: unavailable: never"
        and final.clock.monotonic() - FakeClock().monotonic() < 0.1
    )


def test_two_messages_at_once_advance_a_conversation_once(tmp_path):
    flows = {
        "main": {
            "nodes": [
                node("a", "session.wait", "first", to("b")),
                node("b", "session.wait", "second", to("c")),
                node("c", "emit.response", {"text": "done"}),
            ]
        }
    }
    stage = Stage(tmp_path, make_pack("p", flows))
    assert stage.turn({"text": "0"}).parked
    together = threading.Barrier(2)
    answers: list[object] = []

    def send(text: str) -> None:
        together.wait()
        answers.append(stage.turn({"text": text}).output)

    threads = [threading.Thread(target=send, args=(t,)) for t in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("done" in str(a) for a in answers) == [False, True]


# -- stores ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "directory", "redis"])
def values(request, tmp_path):
    if request.param == "redis":
        from greentic.sessions.redis_store import RedisStore

        with redis_server(tmp_path) as url:
            yield RedisStore(url)
    else:
        yield MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "values")


class redis_server:
    """A Redis of Debian's package on a free port, for one test."""

    def __init__(self, tmp_path: Path) -> None:
        self._program, self._directory = need("redis-server", "redis-server"), tmp_path

    def __enter__(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [self._program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory)],
            stdout=subprocess.DEVNULL,
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return f"redis://127.0.0.1:{port}/0"
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.02)

    def __exit__(self, *a: object) -> None:
        self.process.terminate()
        self.process.wait()


def test_values_are_kept_held_and_end(values):
    assert values.get("k") is None and not values.delete("k")
    values.set("k", b"1")
    values.set("k", b"2", 100)
    assert values.get("k") == b"2" and values.delete("k") and values.get("k") is None
    values.set("gone", b"x", 1)
    while values.get("gone") is not None:
        time.sleep(0.05)
    with pytest.raises(FlowFailure, match="cannot be kept"):
        values.set("big", bytes(MAX_VALUE + 1))
    order: list[int] = []
    inside = threading.Event()

    def other() -> None:
        inside.wait()
        with values.hold("c"):
            order.append(2)

    thread = threading.Thread(target=other)
    thread.start()
    with values.hold("c"):
        inside.set()
        time.sleep(0.05)
        order.append(1)
    thread.join()
    assert order == [1, 2]
    at_once = values.hold_at_once("c")
    assert (at_once is not None) is values.local
    with at_once or nullcontext():
        pass
    state = StoredState(values)
    state.set("s", "k", {"a": [1]})
    assert state.get("s", "k") == {"a": [1]} and state.get("other", "k") is MISSING and state.delete("s", "k")


def test_runs_that_wait_on_a_revision_are_counted_where_they_wait(values):
    held, others = Conversations(values, "s:*[x]"), Conversations(values, "s:y")
    for revision, user in (("R1", "a"), ("R1", "b"), ("R2", "a")):
        values.set(held.key(revision, "t", user, "p", "c"), b"{}")
    values.set(others.key("R1", "t", "a", "p", "c"), b"{}")
    values.set("s:*[x]:pin:R1:t:a", b"R1")
    gone = held.key("R1", "t", "gone", "p", "c")
    values.set(gone, b"{}", 1)
    until(lambda: values.get(gone) is None, "its end of life")
    with values.hold(held.key("R1", "t", "a", "p", "c")):
        assert [held.waiting_on(r) for r in ("R1", "R2", "R")] == [2, 1, 0]
    held.clear(held.key("R1", "t", "a", "p", "c"))
    assert held.waiting_on("R1") == 1


def test_strangers_who_ask_how_many_wait_cost_little():
    clock, looked = FakeClock(), list[str]()

    class Slow(Conversations):
        def waiting_on(self, revision_id: str) -> int:
            looked.append(revision_id)
            clock.sleep(2)
            return len(looked)

    async def ask() -> None:
        rests = list[float]()

        async def rest(seconds: float) -> None:
            rests.append(seconds)
            clock.sleep(seconds)

        counts = WaitingCounts(Slow(MemoryStore(), "s"), clock)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", rest)
            # The first look had begun when the others asked; one more is for all of them.
            assert await asyncio.gather(*(counts.of("R1") for _ in range(50))) == [1] + [2] * 49
            assert await counts.of("R1") == 3, "nobody is told what was found before"
            assert await counts.of("R2") == 4 and rests == pytest.approx([8.0] * 3, rel=0.2)
        assert looked == ["R1", "R1", "R1", "R2"]

    asyncio.run(ask())


def test_memory_is_bounded_by_what_was_not_used_longest(monkeypatch):
    from greentic.sessions import memory_store

    monkeypatch.setattr(memory_store, "MAX_ENTRIES", 3)
    store = MemoryStore()
    for name in "abc":
        store.set(name, b"x")
    store.get("a")
    store.set("d", b"x")
    assert [store.get(n) is not None for n in "abcd"] == [True, False, True, True]


def test_a_directory_is_bounded_too(tmp_path, monkeypatch):
    from greentic.sessions import directory_store

    monkeypatch.setattr(directory_store, "MAX_ENTRIES", 10)
    store = DirectoryStore(tmp_path / "v")
    for number in range(1000):
        store.set(str(number), b"x")
    until(lambda: sum(not p.name.startswith(".") for p in (tmp_path / "v").iterdir()) == 10)
    assert store.get("999") == b"x"
    shutil.rmtree(tmp_path / "v")
    for act in (lambda: store.set("k", b"x"),):
        with pytest.raises(FlowFailure, match="unavailable"):
            act()


ONE, OTHER = "01JTKW5B4W4Q5Y1CQW93F7S5VG", "01JTKW5B4W4Q5Y1CQW93F7S5VH"


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_flood_pushes_out_its_own_deployments_conversations_alone(tmp_path, monkeypatch, kind):
    from greentic.sessions import directory_store, memory_store

    for module in (memory_store, directory_store):
        monkeypatch.setattr(module, "MAX_ENTRIES", 100)
    values = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path / "v")
    kept = Conversations(values, "greentic:session:prod")
    few = [kept.key(OTHER, "acme", f"user {number}", "p", "main") for number in range(10)]
    for number, key in enumerate(few):
        values.set(key, b"waits")
        kept.pin(OTHER, "acme", Identity(session=f"user {number}"), OTHER)
    dropped = sum(row[2][0] for row in TALLIES.rows() if row[0] == DROPPED)
    for number in range(1000 - 20):
        values.set(kept.key(ONE, "acme", f"stranger {number}", "p", "main"), b"waits")
    until(lambda: values.count(f"greentic:session:prod:{ONE}:") <= 80)
    assert [values.get(key) for key in few] == [b"waits"] * 10
    assert all(kept.pinned(OTHER, "acme", Identity(session=f"user {number}")) == OTHER for number in range(10))
    assert values.count(f"greentic:session:prod:{ONE}:") in range(
        79, 81
    )  # up to the limit, less what is made free beyond it
    assert values.get(kept.key(ONE, "acme", "stranger 979", "p", "main")) == b"waits"  # the newest
    now_dropped = sum(row[2][0] for row in TALLIES.rows() if row[0] == DROPPED)
    assert now_dropped - dropped == 1000 - 20 - values.count(f"greentic:session:prod:{ONE}:")


def test_a_conversation_that_is_used_while_a_full_directory_is_looked_through_stays(tmp_path, monkeypatch):
    from greentic.sessions import directory_store

    monkeypatch.setattr(directory_store, "MAX_ENTRIES", 1)
    store = DirectoryStore(tmp_path / "v")
    store.set("old", b"x")
    os.utime(store._path("old"), (1, 1))
    store.set("new", b"x")

    class Used(directory_store.Shares):
        def leaving(self, *most: int):
            for name in super().leaving(*most):
                store.set("old", b"again")
                yield name

    monkeypatch.setattr(directory_store, "Shares", Used)
    store._prune()
    assert store.get("old") == b"again" and store.get("new") == b"x"


def test_kept_answers_push_out_no_run_that_waits(monkeypatch):
    from greentic.sessions import memory_store

    monkeypatch.setattr(memory_store, "MAX_BYTES", 100_000)
    values = MemoryStore()
    kept = Conversations(values, "greentic:session:prod")
    waits = kept.key(ONE, "acme", "ann", "p", "main")
    values.set(waits, b"x" * 1000)
    for number in range(200):
        kept.keep_answer(kept.session(ONE, "acme", f"stranger {number}"), "m", {"text": "y" * 1000}, parked=False)
    assert values.get(waits) is not None
    assert kept.answered(kept.session(ONE, "acme", "stranger 199"), "m") is not None
    assert kept.answered(kept.session(ONE, "acme", "stranger 0"), "m") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 40)), max_size=80))
def test_a_store_is_never_fuller_than_it_may_be_and_who_has_less_than_a_part_loses_nothing(puts):
    shares, there = Shares(), dict[tuple[str, str], int]()
    for share, name, size in puts:
        shares.put(share, f"{share}{name}", size)
        there.pop((share, f"{share}{name}"), None)
        there[share, f"{share}{name}"] = size
        before = [*there]
        for left in shares.leaving(20, 300):
            share_left = left[0]
            assert left == next(
                n for s, n in there if s == share_left
            )  # the one of its share that was not used for longest
            mine = [size for (s, _), size in there.items() if s == share_left]
            assert len(mine) > 20 // 3 or sum(mine) > 297 // 3 - 40, "it had less than its part"
            del there[share_left, left]
        assert len(there) <= 20 and sum(there.values()) <= 300
        assert [*there] == [key for key in before if key in there]
        assert (share, f"{share}{name}") in there  # what was just put stays


def test_a_waiting_conversation_survives_a_restart_in_redis(tmp_path):
    from greentic.sessions.redis_store import RedisStore

    with redis_server(tmp_path) as url:
        first = Stage(tmp_path, make_pack("p", ASK), RedisStore(url))
        assert first.turn({"text": "x"}, Identity(session="ann")).parked
        second = Stage(tmp_path, make_pack("p", ASK), RedisStore(url))
        assert second.services.conversations.pinned("D", "acme", Identity(session="ann")) == "R1"
        assert second.turn({"text": "Ann"}, Identity(session="ann")).output == [{"text": "hello Ann"}]
        lost = Stage(tmp_path, make_pack("p", ASK), RedisStore(url))
    with pytest.raises(StoreUnavailable, match="session store is unavailable"):
        lost.turn({"text": "x"})
    with pytest.raises(BootError, match="does not answer") as refused:
        RedisStore("redis://user:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("behind", ["/notanumber", "/1/2", "/-1", "/\N{SUPERSCRIPT TWO}"])
def test_an_address_of_redis_with_a_database_that_is_no_number_is_refused(behind):
    """The library took database 0 for it, which may be another worker's. Nothing of it is shown: it may be a password."""
    from greentic.sessions.redis_store import RedisStore

    with pytest.raises(BootError, match="no number of a database") as refused:
        RedisStore(f"redis://127.0.0.1:1{behind}")
    assert behind not in str(refused.value)


@pytest.mark.parametrize("behind", ["", "/", "/0", "/3", "/3?db=1"])
def test_an_address_of_redis_may_name_a_database_or_none(tmp_path, behind):
    from greentic.sessions.redis_store import RedisStore

    with redis_server(tmp_path) as url:
        RedisStore(url.removesuffix("/0") + behind).set("k", b"v")


@pytest.mark.parametrize("option", ["decode_responses=1", "encoding=utf-16"])
def test_an_address_of_redis_that_changes_what_is_kept_is_refused(tmp_path, option):
    from greentic.sessions.redis_store import RedisStore

    with redis_server(tmp_path) as url:
        with pytest.raises(BootError, match="what is kept are bytes"):
            RedisStore(f"{url}?{option}")
        store = RedisStore(f"{url}?encoding=utf-8")
        store.set("k", b"\xff")
        assert store.get("k") == b"\xff"


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "SSL_CERT_FILE"])
def test_nobody_waits_for_a_file_that_the_address_of_a_redis_names(tmp_path, monkeypatch, option):
    """The library opens them once it is connected, and would wait for a fifo for good: the alarm ends the tests."""
    from greentic.sessions.redis_store import RedisStore

    odd = tmp_path / "odd"
    os.mkfifo(odd)
    query = "ssl_cert_reqs=none"
    if option == "SSL_CERT_FILE":
        monkeypatch.setenv(option, str(odd))
    else:
        query = f"{option}={odd}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}/0"
        signal.alarm(60)
        try:
            with pytest.raises(
                BootError, match=f"the file of {option} `{odd}` cannot be read: a device or fifo is there"
            ):
                RedisStore(f"rediss://{address}?{query}")
        finally:
            signal.alarm(0)
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()  # nobody was asked


@pytest.mark.parametrize("query", ["ssl_ca_certs=/x", "odd=1", "retry_on_error=1"])
def test_an_option_that_no_connection_to_redis_takes_is_told(query):
    from greentic.sessions.redis_store import RedisStore

    with pytest.raises(BootError, match="REDIS_URL does not answer: an option is none of its connections: "):
        RedisStore(f"redis://127.0.0.1:1/0?{query}")


# -- who asks, and where turns run ----------------------------------------------------------------------------------


def test_identities():
    assert trusted_identity(Stated("u", "s", "E"), {"user": "x"}).identity == Identity("s", "u", "E")
    assert (
        trusted_identity(NOTHING, {"user": "x", "session": "y"}).identity == Identity("y", "x")
        and trusted_identity(Stated("", "x" * 300), 5).identity == Identity()
    )
    fresh = bytes(range(SESSION_BYTES))
    first = stranger_identity(None, fresh, shared=False)
    text = session_cookie(first.identity).partition("=")[2].partition(";")[0]
    assert first.private and stranger_identity(text, bytes(SESSION_BYTES), shared=False).identity == first.identity
    assert (
        stranger_identity("short", fresh, shared=False).identity == first.identity
        and stranger_identity(text[:-1] + "!", fresh, shared=False).identity == first.identity
    )
    assert stranger_identity(text, fresh, shared=True).identity == Identity()


def test_threat_secret_leak_no_planted_secret_reaches_an_output(tmp_path, monkeypatch):
    """A component reads a secret and answers with something else; nothing that we write may hold it."""
    planted = "planted-secret-93b1"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "abc").write_text(planted)
    monkeypatch.setenv("GREENTIC_SECRETS_DIR", str(tmp_path / "secrets"))
    get = wat.Function(
        "get",
        {"key": "string"},
        ("result", wat.opt(wat.BYTES), ("enum", "secrets-error", ["not-found", "denied", "invalid-key", "internal"])),
    )
    wasm = wat.node_06(
        f"(call $get (i32.const 16) (i32.const 3) (i32.const 2048)) {wat.ok_06(*wat.payload_06())}",
        {"greentic:secrets-store/secrets-store@1.0.0": [get]},
        '(data (i32.const 16) "abc")',
    )
    for requirement in ([{"key": "abc"}], []):
        stage = Stage(
            tmp_path,
            make_pack(
                "p",
                {"main": {"nodes": [component_node("c", "{{entry}}")]}},
                {"c": wasm},
                secret_requirements=requirement,
            ),
        )
        told = str(stage.turn({"text": "x"})) + "".join(stage.log)
        assert planted not in told
    assert "denied" in told or "not declared" in told


def test_bundles_with_components_are_staged_warmed_and_served(tmp_path, author):
    bundle = make_bundle(tmp_path, {"app": make_pack("p", ECHO, {"echo": wat.node_06()})})
    author.create()
    deployment = author.add()
    revision = author.stage(deployment, bundle)
    author.warm(revision)
    assert author.context.store.load("local").revision(revision).lifecycle == "ready"
    broken = (
        make_bundle(tmp_path / "b", {"app": make_pack("p", ECHO, {"echo": wat.node_06()[:400]})})
        if (tmp_path / "b").mkdir() is None
        else None
    )
    failed = author.stage(deployment, broken)
    with pytest.raises(Conflict, match="does not compile"):
        author.warm(failed)
    assert author.context.store.load("local").revision(failed).lifecycle == "failed"


def test_a_name_has_1_to_256_characters():
    assert [trusted_identity(Stated("x" * length), {}).identity.user for length in (1, 256)] == ["x", "x" * 256]
    assert [trusted_identity(Stated("x" * length), {}).identity.user for length in (0, 257)] == [None, None]
    assert trusted_identity(NOTHING, {"user": ""}).identity.user is None
