"""What a worker proves that it serves, and what the operator makes of it: equal in every field, behind, different, or not believed."""

from __future__ import annotations

import base64
import errno
import json
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author, booted, gtc
from greentic.activate.lease import Serving
from greentic.examine.env_verify import EnvVerifyPayload, pinned_keys, verify
from greentic.ground.disk import RealDisk
from greentic.ground.documents import replace
from greentic.ground.errors import BootError, FetchError, InvalidArgument
from greentic.ingress.app import WorkerApp
from greentic.ingress.auth import BearerGate
from greentic.ingress.status_proof import BadNonce, Prover, nonce_of
from greentic.ingress.trusted_peer import TrustedPeers
from greentic.materialize.serving_plan import Scope
from greentic.materialize.tree import tree_digest
from greentic.model.delivery import Delivery, SignaturePolicy, generation_of, with_delivery
from greentic.model.environment import Environment, Revision
from greentic.model.pod_view import for_pods, for_worker
from greentic.model.traffic import wanted_revisions
from greentic.net.addresses import shown
from greentic.store import proof_key as proof_keys
from greentic.store.proof_key import PROOF_KEY, proof_key
from greentic.trust import proof as p
from greentic.trust.dsse import envelope_bytes, sign
from greentic.trust.keys import SigningKey, private_pem, public_pem, read_private_pem
from greentic.trust.proof_verdict import Known, ProofVerdict, judge
from greentic.trust.statements import BUNDLE, signed_statement
from simulators import CountingRandom
from test_model_rules import DEP2, REV, REV2, REV3, deployment, env, revision, split
from test_programs import Worker
from test_serve import call

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
NONCE = "n" * 32
TREE = f"sha256:{'c' * 64}"
EVERYTHING = p.ProvenScope()


def honest(document: Environment, *, scope: p.ProvenScope = EVERYTHING, nonce: str = NONCE) -> p.Proof:
    """What a worker that serves a document would prove, written down without the code that compares it."""
    seen = document if scope.own_revision is None else for_worker(document, scope.own_revision)
    assert seen is not None
    found = []
    for r in wanted_revisions(seen):
        bound, weights = seen.deployment(r.deployment_id), seen.split(r.deployment_id)
        assert bound is not None and weights is not None
        binding = bound.route_binding
        routes = [f"host {h}" for h in binding.hosts] + [f"prefix {x}" for x in binding.path_prefixes]
        routes.append(f"tenant {binding.tenant_selector.tenant}/{binding.tenant_selector.team}")
        chain: list[p.Step] = [
            p.Source(shown(r.bundle_source_uri) if r.bundle_source_uri else None),
            p.Bundle(r.bundle_digest),
            p.Signatures("off"),
            p.Tree(TREE),
            p.Packs([p.Pack(x.pack_id, x.digest) for x in r.pack_list]),
            p.Compiled(None, None),
            p.Routed(routes, next(e.weight_bps for e in weights.entries if e.revision_id == r.revision_id)),
            p.Served("2026-01-01T00:00:00Z", generation_of(document)),
        ]
        found.append(p.ProvenRevision(r.deployment_id, r.revision_id, r.bundle_id, chain))
    worker = p.ProvenWorker("host", KEY.key_id, "1.1", "0", "then", public_pem(KEY.public), scope)
    return p.Proof(p.SCHEMA, document.environment_id, generation_of(document), nonce, "now", worker, found)


def known(document: Environment) -> Known:
    return Known({}, {r.revision_id: TREE for r in document.revisions})


@st.composite
def environments(draw: st.DrawFn) -> Environment:
    first = draw(st.integers(0, 10_000))
    status = draw(st.sampled_from(["active", "paused"]))
    uris = draw(st.lists(st.sampled_from([None, "https://h/b?sig=secret", "https://h/c"]), min_size=3, max_size=3))
    made = env(
        bundles=[deployment(), deployment(DEP2, bundle_id="two", status=status)],
        revisions=[
            revision(bundle_source_uri=uris[0]),
            revision(REV2, bundle_source_uri=uris[1]),
            revision(REV3, DEP2, bundle_id="two", bundle_source_uri=uris[2]),
        ],
        traffic_splits=[
            split((REV, first), (REV2, 10_000 - first)),
            split((REV3, 10_000), dep=DEP2, bundle_id="two"),
        ],
    )
    return with_delivery(made, Delivery(generation=draw(st.integers(3, 9))))


@given(environments())
def test_who_serves_what_is_wanted_serves(document):
    assert judge(document, honest(document), known(document)) == ProofVerdict("serves", 0, ())
    own = wanted_revisions(document)[0].revision_id
    alone = honest(document, scope=p.ProvenScope(own, True))
    assert len(alone.revisions) == 1 and judge(document, alone, known(document)).state == "serves"
    assert judge(for_pods(document), alone, known(document)).state == "serves"
    assert p.read_proof(p.signed_proof(alone, KEY), NONCE, [KEY.key_id]) == p.BelievedProof(alone, True)


@given(environments())
def test_a_revision_that_lists_no_pack_is_compared_by_its_bundle(document):
    bare = msgspec.structs.replace(
        document, revisions=[msgspec.structs.replace(r, pack_list=[]) for r in document.revisions]
    )
    assert judge(bare, honest(document), known(document)).state == "serves"
    told = honest(document)
    liar = told.revisions[0]
    told.revisions[0] = msgspec.structs.replace(
        liar, chain=[_change(step)[1] if isinstance(step, p.Bundle) else step for step in liar.chain]
    )
    assert [d.field for d in judge(bare, told, known(document)).differences] == ["bundle"]


def _change(step: p.Step) -> tuple[str, p.Step]:
    """A lie about one step, and the field that it is about."""
    change = msgspec.structs.replace
    match step:
        case p.Source():
            return "source", change(step, uri="https://elsewhere/b")
        case p.Bundle() | p.Tree():
            return type(step).__name__.lower(), change(step, digest=f"sha256:{'0' * 64}")
        case p.Signatures():
            return "policy", change(step, policy="require")
        case p.Packs():
            return "packs", change(step, packs=[*step.packs, p.Pack("more", TREE)])
        case p.Routed():
            return "weight_bps", change(step, weight_bps=step.weight_bps + 1)
        case p.Served():
            return "generation", change(step, generation=step.generation - 1)
        case _:
            return "", step


@given(environments(), st.data())
def test_a_difference_is_told_by_its_field(document, data):
    told = honest(document)
    number = data.draw(st.integers(0, len(told.revisions) - 1))
    place = data.draw(st.sampled_from([0, 1, 2, 3, 4, 6, 7]))
    liar = told.revisions[number]
    field, lie = _change(liar.chain[place])
    step = data.draw(st.sampled_from([[lie], [], [liar.chain[place]] * 2]))  # another, none, the true one twice
    chain = [*liar.chain[:place], *step, *liar.chain[place + 1 :]]
    told.revisions[number] = msgspec.structs.replace(liar, chain=chain)
    found = judge(document, told, known(document))
    assert found.state == "differs" and not found.behind
    assert field in {d.field for d in found.differences}
    assert {d.revision_id for d in found.differences} == {liar.revision_id}


@given(environments(), st.integers(1, 2))
def test_who_is_behind_is_behind_by_so_many(document, by):
    old = with_delivery(document, Delivery(generation=generation_of(document) - by))
    assert judge(document, honest(old), known(document)) == ProofVerdict("behind", by, ())
    ahead = judge(old, honest(document), known(document))
    assert ahead.state == "differs" and [d.field for d in ahead.differences] == ["generation"]


@given(environments())
def test_threat_lying_worker_more_or_other_revisions(document):
    told = honest(document)
    strange = msgspec.structs.replace(told.revisions[0], revision_id="01JTKW5B4W4Q5Y1CQW93F7S5VZ")
    for revisions in (
        told.revisions[1:],
        [*told.revisions, strange],
        [strange, *told.revisions[1:]],
        [*told.revisions, told.revisions[0]],
    ):
        assert judge(document, msgspec.structs.replace(told, revisions=revisions), known(document)).state == "differs"
    other = msgspec.structs.replace(told, environment_id="other")
    assert [d.field for d in judge(document, other, known(document)).differences] == ["environment_id"]
    absent = msgspec.structs.replace(
        told, worker=msgspec.structs.replace(told.worker, scope=p.ProvenScope("01JTKW5B4W4Q5Y1CQW93F7S5VZ", True))
    )
    assert judge(document, absent, known(document)).state == "differs"


def test_threat_lying_worker_wrong_key_replayed_nonce_other_payload():
    told = honest(env())
    good = p.signed_proof(told, KEY)
    assert not p.read_proof(good, NONCE, []).pinned
    for data, nonce, pins, why in (
        (good, NONCE, [OTHER.key_id], "is signed by the key"),
        (good, "m" * 32, [], "another question"),
        (p.signed_proof(told, OTHER), NONCE, [], "no signature by a trusted key"),
        (p.signed_proof(msgspec.structs.replace(told, schema="x"), KEY), NONCE, [], "its schema is `x`"),
        (b"<html>", NONCE, [], "is no proof"),
        (envelope_bytes(sign(msgspec.json.encode(told), KEY)), NONCE, [], "payload type is"),
        (envelope_bytes(signed_statement(BUNDLE, "b", "0" * 64, {}, KEY)), NONCE, [], "payload type is"),
        (envelope_bytes(sign(b"[]", KEY, p.PAYLOAD_TYPE)), NONCE, [], "is no proof"),
        (
            envelope_bytes(
                sign(msgspec.json.encode(told).replace(b'"nonce":', b'"nonce":"x","nonce":', 1), KEY, p.PAYLOAD_TYPE)
            ),
            NONCE,
            [],
            "stands twice",
        ),
    ):
        with pytest.raises(p.ProofError, match=why):
            p.read_proof(data, nonce, pins)
    changed = json.loads(good)
    payload = base64.b64decode(changed["payload"]).replace(b'"now"', b'"NOW"')
    with pytest.raises(p.ProofError, match="does not hold"):
        p.read_proof(json.dumps(changed | {"payload": base64.b64encode(payload).decode()}).encode(), NONCE, [])
    stolen = msgspec.structs.replace(
        told, worker=msgspec.structs.replace(told.worker, public_key_pem=public_pem(OTHER.public))
    )
    with pytest.raises(p.ProofError, match="names the key"):
        p.read_proof(p.signed_proof(stolen, OTHER), NONCE, [KEY.key_id])


@pytest.mark.parametrize(
    "query", [b"nonce=a b", b"nonce=%41", b"nonce=" + b"a" * 129, b"nonce=a&nonce=b", b"nonce=\xff", b"nonce=<"]
)
def test_nonces_are_bounded(query):
    with pytest.raises(BadNonce):
        nonce_of(query)
    assert nonce_of(b"") == "" and nonce_of(b"x=1&nonce=" + b"a" * 128) == "a" * 128


# -- the tree -------------------------------------------------------------------------------------------------------


def test_the_digest_of_a_tree_is_over_names_kinds_and_bytes(tmp_path, monkeypatch):
    root = tmp_path / "bundle"
    (root / "packs").mkdir(parents=True)
    (root / "packs" / "a").write_bytes(b"one")
    (root / "link").symlink_to("packs/a")
    first = tree_digest(root, {})
    assert first is not None and tree_digest(root, {}) == first
    assert tree_digest(root, {"packs/a": "sha256:known"}) not in (None, first)  # what is known is not read

    def differs() -> bool:
        found = tree_digest(root, {})
        return found is not None and found != first

    (root / "packs" / "a").chmod(0o755)
    assert differs()
    (root / "packs" / "a").chmod(0o644)
    (root / "packs" / "a").write_bytes(b"two")
    assert differs()
    (root / "packs" / "a").write_bytes(b"one")
    (root / "empty").mkdir()
    assert differs()
    (root / "empty").rmdir()
    (root / "link").unlink()
    (root / "link").symlink_to("packs/b")
    assert differs()
    (root / "link").unlink()
    (root / "link").symlink_to("packs/a")
    assert tree_digest(root, {}) == first
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(root)  # the name of a socket is short
        listening.bind("odd")
        assert tree_digest(root, {}) is None
    assert tree_digest(tmp_path / "gone", {}) is None


# -- a worker -------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(author: Author, hello):
    """An environment that is served, its worker's application, and what it serves."""
    author.create()
    author.deployed(hello, "https://h/b?sig=PLANTED")
    made = booted(author.context.store)
    serving = Serving(made.activation, made.store.clock)
    prover = Prover(serving, made.proof_key, made.store.paths("local"), made.store.clock, Scope())
    gate, peers = BearerGate([], enabled=True), TrustedPeers((), trust_loopback=True)
    app = WorkerApp(serving, "127.0.0.1:1", gate, made.log, made.services, peers, prover=lambda: prover)
    return author, made, app


class Asked:
    """Workers that answer from the application, or what a test says."""

    def __init__(self, app: WorkerApp, instead: bytes | None = None) -> None:
        self.app, self.instead, self.nonces = app, instead, list[str]()

    def ask(self, address: str, nonce: str) -> bytes:
        self.nonces.append(nonce)
        if self.instead is not None:
            return self.instead
        code, _, body = call(self.app, "GET", f"/status/proof?nonce={nonce}", peer="203.0.113.9")
        if code != 200:
            raise FetchError(f"{code}")
        return body


def wanted(*keys: str) -> EnvVerifyPayload:
    return EnvVerifyPayload(environment_id="local", at=["http://w"], proof_keys=list(keys))


def test_a_worker_proves_what_it_serves(worker):
    author, made, app = worker
    told = verify(author.context, wanted(made.proof_key.key_id), Asked(app))
    assert told.state == "serves" and not told.differences and told.workers[0].pinned and not told.warnings
    code, headers, body = call(app, "GET", "/status/proof?nonce=abc")
    found = p.read_proof(body, "abc", [made.proof_key.key_id]).proof
    assert code == 200 and headers[b"content-type"] == b"application/json"
    (proven,) = found.revisions
    steps = json.loads(msgspec.json.encode(proven))["chain"]
    assert [s["step"] for s in steps] == [
        "source",
        "bundle",
        "signatures",
        "tree",
        "packs",
        "compiled",
        "routes",
        "serving",
    ]
    tree = tree_digest(made.store.paths("local").revision(proven.revision_id) / "bundle", {})
    assert tree is not None and steps[3]["digest"] == tree
    assert steps[0] == {"step": "source", "uri": "https://h/b?…"} and b"PLANTED" not in base64.b64decode(
        json.loads(body)["payload"]
    )
    assert steps[5] == {"step": "compiled", "library": None, "version": None}


@pytest.mark.parametrize("policy", [None, "warn", "require"])
def test_a_chain_names_the_policy_and_what_compiled_its_components(worker, policy):
    _, made, app = worker
    activation = app.serving.activation
    (one,) = activation.revisions.values()
    component = SimpleNamespace(id="c", sha256="ab" * 32)
    told = activation.trusted
    assert told is not None
    trusted = told._replace(delivery=replace(told.delivery, signatures=SignaturePolicy(mode=policy or "off")))
    app.serving.activation = activation._replace(
        trusted=None if policy is None else trusted,
        revisions={one.revision_id: replace(one, packs=(one.packs[0]._replace(components=(component,)),))},
    )
    found = p.read_proof(call(app, "GET", "/status/proof?nonce=abc")[2], "abc", [made.proof_key.key_id]).proof
    steps = {s["step"]: s for s in json.loads(msgspec.json.encode(found.revisions[0]))["chain"]}
    assert steps["signatures"]["policy"] == (policy or "off")
    assert steps["packs"]["packs"][0]["components"] == [{"id": "c", "digest": f"sha256:{'ab' * 32}"}]
    assert steps["compiled"]["library"] == "wasmtime" and steps["compiled"]["version"]


def test_who_may_not_ask_and_what_is_no_question(worker):
    _, _, app = worker
    assert call(app, "GET", "/status/proof?nonce=<")[0] == 400 and call(app, "POST", "/status/proof", b"")[0] == 405
    assert call(app, "POST", "/status/proof", b"")[1][b"allow"] == b"GET"
    assert b"access-control-allow-origin" in call(app, "GET", "/status/proof")[1]
    assert b"access-control-allow-origin" not in call(app, "GET", "/status/proof", origin="https://evil.example")[1]


def test_a_worker_that_has_not_followed_yet_is_behind(worker, hello):
    author, _, app = worker
    before = author.context.store.load("local")
    author.deployed(hello, bundle_id="two", prefixes=("/two",))
    author.route(*_second(author, hello), key="again")
    told = verify(author.context, wanted(), Asked(app))
    assert (
        told.state == "behind"
        and told.workers[0].behind == generation_of(author.context.store.load("local")) - generation_of(before) > 0
    )
    assert any("nobody vouches for the key" in w for w in told.warnings)


def _second(author: Author, hello: Path) -> tuple[str, tuple[str, int]]:
    document = author.context.store.load("local")
    made = author.warm(author.stage(document.bundles[0].deployment_id, hello))
    return document.bundles[0].deployment_id, (made, 10_000)


def test_threat_lying_worker_is_told_by_the_verb(worker, tmp_path):
    author, made, app = worker
    replayed = Asked(app).ask("", "x" * 48)
    assert verify(author.context, wanted(), Asked(app, replayed)).workers[0].state == "unproven"
    assert "expected" in (verify(author.context, wanted(OTHER.key_id), Asked(app)).workers[0].reason or "")
    asked = Asked(app)
    verify(author.context, EnvVerifyPayload(environment_id="local", at=["http://w", "http://v"]), asked)
    assert len(set(asked.nonces)) == 2 and all(len(n) >= 32 for n in asked.nonces)
    pem = tmp_path / "worker.pub"
    pem.write_text(public_pem(made.proof_key.public))
    assert verify(author.context, wanted(str(pem)), Asked(app)).state == "serves"
    with pytest.raises(InvalidArgument, match="neither a file nor"):
        pinned_keys(["nothing"])
    with pytest.raises(InvalidArgument, match="missing `--at"):
        verify(author.context, EnvVerifyPayload(environment_id="local"))


def test_threat_lying_worker_whose_disk_was_changed(worker):
    """What lies on the worker's disk is not what the operator unpacked."""
    author, made, app = worker
    (revision_id,) = made.activation.revisions
    bundle = made.store.paths("local").revision(revision_id) / "bundle"
    aside = bundle.with_name("as-staged")
    shutil.copytree(bundle, aside, symlinks=True)
    (bundle / "bundle.yaml").write_text("bundle_id: other\n")
    answered = Asked(app)
    answered.ask("", "first")  # the worker has read the changed tree
    shutil.rmtree(bundle)
    aside.rename(bundle)
    told = verify(author.context, wanted(), answered)
    assert told.state == "differs" and [d.field for d in told.differences] == ["tree"]


def test_since_when_a_revision_serves(worker):
    _, made, app = worker
    serving = app.serving
    (revision_id,) = made.activation.revisions
    began = serving.since[revision_id]
    made.store.clock.sleep(5)
    serving.swap(made.activation._replace(generation=7))
    assert serving.since == {revision_id: began}  # the same loaded revision serves on
    loaded = made.activation.revisions[revision_id]
    serving.swap(made.activation._replace(revisions={revision_id: replace(loaded, content="again")}))
    assert serving.since[revision_id] > began


# -- the key --------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_kept_for_its_owner_and_never_replaced(tmp_path):
    told: list[str] = []
    places = [tmp_path / "env", tmp_path / "state"]

    def key(given: Path | None = None) -> SigningKey:
        return proof_key(given, places, RealDisk(), CountingRandom(), told.append)

    first = key()
    kept = places[1] / PROOF_KEY
    assert kept.stat().st_mode & 0o777 == 0o600 and not places[0].exists() and not told
    assert key() == first
    mine = tmp_path / "mine.pem"
    mine.write_text(private_pem(OTHER.seed))
    assert key(mine) == OTHER and key() == first
    with pytest.raises(BootError, match="cannot be read"):
        key(tmp_path / "absent.pem")
    mine.write_text("no key")
    with pytest.raises(BootError, match="is no Ed25519 key"):
        key(mine)


@pytest.mark.parametrize("left", ["damaged", "of another user", "directory"])
def test_an_own_key_that_cannot_be_read_ends_no_boot_and_is_left_as_it_is(tmp_path, monkeypatch, left):
    """A claim that another user wrote before; a disk that was full when the key was made."""
    told: list[str] = []
    places = [tmp_path / "env", tmp_path / "state"]
    kept = places[1] / PROOF_KEY
    kept.mkdir(parents=True) if left == "directory" else kept.parent.mkdir()
    if left != "directory":
        kept.write_text("no key")
    if left == "of another user":
        real = proof_keys.read_given

        def closed(path: Path, limit: int) -> bytes:
            if path == kept:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, limit)

        monkeypatch.setattr(proof_keys, "read_given", closed)
    found = [proof_key(None, places, RealDisk(), CountingRandom(), told.append) for _ in range(2)]
    assert found[0] == found[1] == read_private_pem((places[0] / PROOF_KEY).read_text())
    assert len(told) == 2 and str(kept) in told[0] and kept.exists()
    assert left == "directory" or kept.read_text() == "no key"


def test_a_key_that_can_be_kept_nowhere_is_told(tmp_path):
    told: list[str] = []
    (tmp_path / "file").write_text("")
    found = proof_key(None, [tmp_path / "file"], RealDisk(), CountingRandom(), told.append)
    assert len(found.seed) == 32 and "kept nowhere" in told[0]


@pytest.mark.e2e
def test_several_processes_answer_with_one_key_and_the_verb_tells_who_serves_other_bytes(tmp_path, hello, monkeypatch):
    from greentic.operate.change import Context
    from greentic.store.environments import EnvironmentStore

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root = tmp_path / "store"
    real = Author(Context(EnvironmentStore(root))).create()
    deployment_id, first = real.deployed(hello, hello.as_uri())
    running = Worker(root, tmp_path, "--workers", "2")
    try:
        at = f"http://127.0.0.1:{running.port()}"
        keys: dict[str, str] = {}
        while len(keys) < 2:  # until both have answered
            told = json.loads(gtc("op", "env", "verify", "local", "--at", at, "--store-root", str(root)).stdout)[
                "result"
            ]
            keys[told["workers"][0]["process"]] = told["workers"][0]["key_id"]
        assert told["state"] == "serves" and len(set(keys.values())) == 1
        pinned = ("op", "env", "verify", "local", "--at", at, "--proof-key")
        good = gtc(*pinned, told["workers"][0]["key_id"], "--store-root", str(root))
        assert good.returncode == 0 and json.loads(good.stdout)["result"]["workers"][0]["pinned"]
        wrong = gtc(*pinned, OTHER.key_id, "--store-root", str(root))
        assert wrong.returncode == 1 and json.loads(wrong.stdout)["result"]["state"] == "unproven"

        # The operator's own store wants another digest: this worker serves other bytes.
        theirs = tmp_path / "theirs"
        shutil.copytree(root, theirs)
        document = theirs / "local" / "environment.json"
        changed = EnvironmentStore(theirs).load("local")
        digest = f"sha256:{'0' * 64}"
        with EnvironmentStore(theirs).transaction("local") as transaction:
            transaction.save(replace(changed, revisions=[_pinned(r, digest) for r in changed.revisions]))
        assert digest in document.read_text()
        differs = gtc("op", "env", "verify", "local", "--at", at, "--store-root", str(theirs))
        assert differs.returncode == 1
        assert [d["field"] for d in json.loads(differs.stdout)["result"]["differences"]] == ["bundle"]
    finally:
        assert running.stop() == 0
    silent = gtc("op", "env", "verify", "local", "--at", at, "--store-root", str(root))
    assert silent.returncode == 1 and json.loads(silent.stdout)["result"]["state"] == "silent"


def _pinned(found: Revision, digest: str) -> Revision:
    return replace(found, bundle_digest=digest)
