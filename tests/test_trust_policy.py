"""What a signature is worth, what a worker remembers, what is refused before it is written: the kinds, not the examples."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from greentic.author import bundle_revoke
from greentic.ground.disk import RealDisk
from greentic.ground.documents import Json, JsonObject, replace
from greentic.ground.errors import (
    BootError,
    Conflict,
    GreenticError,
    InvalidArgument,
    NotFound,
    OperatorKeyError,
    StoreError,
    UntrustedBundle,
)
from greentic.materialize import export_archive
from greentic.materialize.placed import RevisionFault, verified_packs
from greentic.materialize.remembered import KEPT_LIST, NOTHING_SEEN, SEEN, Memory, Seen, memory_of
from greentic.materialize.seed import read_seed
from greentic.materialize.trusted import Examiner, believed_list
from greentic.model.delivery import Delivery, SignaturePolicy, delivery_of, with_delivery
from greentic.model.environment import Environment, HostConfig, Revocation, new_environment
from greentic.model.secret_text import WITHHELD, secret_in, without_secrets
from greentic.net.terms import Terms
from greentic.operate import delivery, env_packs, trust_root
from greentic.operate.payload import read as read_payload
from greentic.operate.payload import refuse_secrets
from greentic.store import recovery
from greentic.store.audit import Change
from greentic.store.environments import EnvironmentStore
from greentic.store.layout import EnvPaths
from greentic.trust import policy, revocation, statements
from greentic.trust.dsse import envelope_bytes
from greentic.trust.keys import SigningKey, private_pem, public_pem
from greentic.worker.boot import _from_archive
from greentic.worker.settings import StartOptions, read_settings
from simulators import FakeClock

KEY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
KEYS = {KEY.key_id: KEY.public}
BOTH = KEYS | {OTHER.key_id: OTHER.public}
NOW = 1_000
HEX = "ab" * 32


def listed(
    version: int, *gone: str, key: SigningKey = KEY, until: int = 2 * NOW, digests: tuple[str, ...] = ()
) -> bytes:
    return revocation.sign_list(
        revocation.RevocationList(
            revocation.SCHEMA, version, 0, until,
            [revocation.RevokedDigest(d, "leaks") for d in digests], [revocation.RevokedKey(k, "stolen") for k in gone],
        ),
        key,
    )  # fmt: skip


# -- one signature, one meaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_as", statements.KINDS, ids=lambda kind: kind.words)
@pytest.mark.parametrize("signed_as", statements.KINDS, ids=lambda kind: kind.words)
def test_threat_signature_purpose_a_statement_counts_as_what_it_is_and_nothing_else(signed_as, read_as):
    envelope = envelope_bytes(statements.signed_statement(signed_as, "x", HEX, {}, KEY))
    found = statements.vouched(read_as, [envelope], HEX, KEYS)
    assert (found.lacking is None) is (signed_as is read_as)
    assert found.keys == ((KEY.key_id,) if signed_as is read_as else ())


def _sealed(kind: statements.Kind, content: Callable[[Environment], object]) -> Environment:
    env = with_delivery(new_environment("local", "x", HostConfig(env_id="local")), Delivery(generation=1))
    seal = statements.sign_content(kind, "x", content(env), KEY, "")
    return with_delivery(env, replace(delivery_of(env), seal=seal))


@pytest.mark.parametrize("kind", statements.KINDS, ids=lambda kind: kind.words)
def test_threat_signature_purpose_every_reader_refuses_every_other_kind(kind):
    env = _sealed(kind, policy.sealed_content)
    assert (policy.unsealed(env, delivery_of(env), KEYS, ()) is None) is (kind is statements.SEAL)
    bundle = envelope_bytes(statements.signed_statement(kind, "x", HEX, {}, KEY))
    required = SignaturePolicy(mode="require")
    assert (policy.bundle_unsigned([bundle], f"sha256:{HEX}", required, KEYS, ()) is None) is (
        kind is statements.BUNDLE
    )
    document = msgspec.json.decode(msgspec.json.encode(revocation.RevocationList(revocation.SCHEMA, 1, 0, 2)))
    data = envelope_bytes(statements.signed_statement(kind, "x", statements.canonical_sha256(document), document, KEY))
    if kind is statements.REVOCATIONS:
        assert revocation.read_list(data, KEYS).version == 1
    else:
        with pytest.raises(revocation.RevocationError):
            revocation.read_list(data, KEYS)


def test_threat_signature_purpose_a_seal_of_one_environment_is_none_of_another():
    env = _sealed(statements.SEAL, policy.sealed_content)
    other = replace(env, environment_id="prod")
    assert policy.unsealed(other, delivery_of(other), KEYS, ()) is not None


# -- every user of a key asks the same question ---------------------------------------------------------------------


def test_keys_are_counted_once_and_only_those_that_are_wanted_and_not_revoked():
    envelopes = [
        envelope_bytes(statements.signed_statement(statements.BUNDLE, "x", HEX, {}, k)) for k in (KEY, KEY, OTHER)
    ]

    def keys(**asked: object) -> tuple[tuple[str, ...], bool]:
        found = statements.vouched(statements.BUNDLE, envelopes, HEX, BOTH, **asked)
        return found.keys, found.lacking is None

    assert keys(threshold=2) == ((KEY.key_id, OTHER.key_id), True)
    assert keys(threshold=3)[1] is False
    assert keys(threshold=2, revoked={OTHER.key_id}) == ((KEY.key_id,), False)
    assert keys(wanted=[OTHER.key_id.upper()]) == ((OTHER.key_id,), True)
    assert keys(wanted=[OTHER.key_id], revoked={OTHER.key_id}) == ((), False)
    told = statements.vouched(statements.BUNDLE, envelopes, HEX, BOTH, revoked=set(BOTH)).lacking
    assert told is not None and f"the key {KEY.key_id} is revoked" in told
    assert statements.vouched(statements.BUNDLE, [], HEX, BOTH).lacking is not None
    assert statements.vouched(statements.BUNDLE, envelopes, HEX, {}).lacking is not None


@pytest.mark.parametrize(
    ("asked", "trusted", "possible"),
    [
        (SignaturePolicy(mode="require"), [], False), (SignaturePolicy(mode="require"), ["a"], True),
        (SignaturePolicy(mode="require", keys=["B"]), ["a"], False), (SignaturePolicy(mode="require", keys=["A"]), ["a"], True),
        (SignaturePolicy(mode="require", threshold=2), ["a"], False), (SignaturePolicy(mode="warn"), [], True),
        (SignaturePolicy(mode="off"), [], True),
    ],
)  # fmt: skip
def test_to_require_what_nobody_can_give_is_no_policy(asked, trusted, possible):
    assert (policy.unsatisfiable(asked, trusted) is None) is possible


def test_to_require_signatures_of_nobody_is_refused_where_it_is_configured(author, monkeypatch):
    author.create()
    path = author.context.store.paths("local").environment
    before = path.read_bytes()
    with pytest.raises(InvalidArgument, match="is not in the trust root"):
        delivery.set_delivery(
            author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require", keys=["ab" * 16])
        )
    assert path.read_bytes() == before
    monkeypatch.setenv("GREENTIC_PACK_SIGNATURES", "require")
    with pytest.raises(BootError, match="names nobody"):
        read_settings(StartOptions("local", author.context.store.root), os.environ)


def test_the_last_key_that_satisfies_a_policy_is_not_taken_away_and_others_leave_the_sealed_document(author):
    author.create()
    own = author.context.store.trust_root("local").keys[0].key_id
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="require"))
    with pytest.raises(Conflict, match="no bundle would be served"):
        trust_root.remove(author.context, trust_root.TrustRootRemovePayload(environment_id="local", key_id=own))
    pem = public_pem(KEY.public)
    trust_root.add(
        author.context, trust_root.TrustRootAddPayload(environment_id="local", key_id=KEY.key_id, public_key_pem=pem)
    )
    assert set(delivery_of(author.context.store.load("local")).keys) == {own, KEY.key_id}
    trust_root.remove(author.context, trust_root.TrustRootRemovePayload(environment_id="local", key_id=KEY.key_id))
    assert set(delivery_of(author.context.store.load("local")).keys) == {own}


def test_a_key_that_nobody_trusts_seals_nothing(author, tmp_path, monkeypatch):
    author.create()
    path = author.context.store.paths("local").environment
    before = path.read_bytes()
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(private_pem(bytes(32)))
    stranger.chmod(0o600)
    monkeypatch.setenv("GTC_OPERATOR_KEY_PATH", str(stranger))
    with pytest.raises(OperatorKeyError, match="not in the trust root"):
        delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="warn"))
    assert path.read_bytes() == before


def test_a_revoked_key_signs_no_further_list(tmp_path):
    place = tmp_path / "revocations.json"

    def believed(published: bytes, kept: bytes | None, seen: int) -> tuple[int, bool]:
        place.write_bytes(published)
        lists = () if kept is None else ((tmp_path / "kept", kept),)
        found = believed_list(
            Revocation(list_ref=f"file://{place}"),
            BOTH,
            NOTHING_SEEN._replace(seen=Seen(0, seen), lists=lists),
            NOW,
            terms=Terms(),
        )
        assert found.revoked is not None
        return found.revoked.version, KEY.key_id in found.revoked.key_ids

    assert believed(listed(1, KEY.key_id), None, 0) == (1, True)  # its own last word
    assert believed(listed(3), listed(2, KEY.key_id, key=OTHER), 2) == (2, True)  # the stolen key takes it back in vain
    assert believed(listed(3, key=OTHER), listed(2, KEY.key_id, key=OTHER), 2) == (3, False)
    with pytest.raises(revocation.RevocationError, match="is revoked"):
        revocation.read_list(listed(1), BOTH, {KEY.key_id})


def test_gtc_bundle_revoke_does_not_sign_with_a_key_that_the_list_revokes(tmp_path):
    key, file = tmp_path / "k.pem", tmp_path / "r.json"
    key.write_text(private_pem(KEY.seed))
    bundle_revoke.revoke(file, [], [KEY.key_id.upper()], "stolen", key, 1, FakeClock())
    before = file.read_bytes()
    with pytest.raises(Conflict, match="revoked by this very list"):
        bundle_revoke.revoke(file, ["sha256:" + HEX], [], "x", key, 1, FakeClock())
    with pytest.raises(InvalidArgument, match="no id of a key"):
        bundle_revoke.revoke(tmp_path / "new", [], ["sha256:x"], "x", key, 1, FakeClock())
    assert file.read_bytes() == before and not (tmp_path / "new").exists()


# -- protective state -----------------------------------------------------------------------------------------------


def memory(tmp_path: Path) -> Memory:
    return memory_of(EnvPaths(tmp_path / "env"), tmp_path / "state")


def test_threat_state_beside_one_copy_of_the_memory_may_be_lost_set_back_or_damaged(tmp_path):
    kept = memory(tmp_path)
    assert kept.recall() == NOTHING_SEEN
    kept.remember(Seen(7, 3), b"list")
    assert {(place / SEEN).read_bytes() for place in kept.places} == {
        b'{"generation":7,"revocations":3}'
    }  # what other versions read
    for place in kept.places:
        for spoilt in (None, msgspec.json.encode(Seen(1, 1)), b"{"):
            path = place / SEEN
            path.unlink() if spoilt is None else path.write_bytes(spoilt)
            found = kept.recall()
            assert found.seen == Seen(7, 3) and str(path) in " ".join(found.warnings)
            kept.remember(found.seen, None)
            assert kept.recall().warnings == ()
    for place in kept.places:
        (place / SEEN).write_bytes(b"{")
    with pytest.raises(UntrustedBundle, match="cannot be read") as caught:
        kept.recall()
    assert "delete it" in str(caught.value.hint)
    for place in kept.places:
        (place / SEEN).unlink()
        (place / SEEN).mkdir()  # stands for what the system does not let us read
    with pytest.raises(UntrustedBundle, match="Is a directory") as caught:
        kept.recall()
    assert "delete" not in str(caught.value.hint)  # it may be whole
    for place in kept.places:
        (place / SEEN).rmdir()
    kept.forget()
    assert kept.recall() == NOTHING_SEEN


def test_memory_that_cannot_be_written_is_done_without_and_told(tmp_path):
    (tmp_path / "state").write_text("a file where a directory should be")
    kept = memory(tmp_path)
    assert len(kept.remember(Seen(2), None)) == 1
    assert kept.recall().seen == Seen(2)


def _generation(number: int, reference: str | None = None) -> Environment:
    env = replace(new_environment("local", "x", HostConfig(env_id="local")), revocation=Revocation(list_ref=reference))
    return with_delivery(env, Delivery(generation=number, keys={KEY.key_id: public_pem(KEY.public)}))


def test_threat_state_beside_an_older_generation_is_refused_whichever_copy_is_gone(tmp_path):
    kept, clock = memory(tmp_path), FakeClock(NOW * 10**9)
    Examiner(kept, None, Terms(), clock).establish(_generation(5))
    for place in kept.places:
        (place / SEEN).unlink()
        with pytest.raises(BootError) as error:
            Examiner(kept, None, Terms(), clock).examine(_generation(4))
        assert "has generation 4, and this worker has seen 5" in str(error.value.__cause__)
        Examiner(kept, None, Terms(), clock).establish(_generation(5))
    assert Examiner(kept, None, Terms(), clock, allow_rollback=True).establish(_generation(4)).delivery.generation == 4


def test_threat_state_beside_a_list_that_was_seen_and_is_gone_is_missed(tmp_path):
    kept, clock, place = memory(tmp_path), FakeClock(NOW * 10**9), tmp_path / "revocations.json"
    env = _generation(1, f"file://{place}")
    assert Examiner(kept, None, Terms(), clock).establish(env).revoked is None  # never there, not required: told
    place.write_bytes(listed(4, digests=("sha256:" + HEX,)))
    Examiner(kept, None, Terms(), clock).establish(env)
    place.unlink()
    for gone in kept.places:
        (gone / KEPT_LIST).unlink()
        if gone is not kept.places[-1]:
            found = Examiner(kept, None, Terms(), clock).examine(env).trusted
            assert found.revoked is not None and found.revoked.version == 4
    with pytest.raises(BootError) as error:
        Examiner(kept, None, Terms(), clock).examine(env)
    assert "version 4 was seen, and is gone" in str(error.value.__cause__)


def test_threat_refused_import_a_document_that_is_refused_leaves_no_trace(tmp_path):
    kept, clock, place = memory(tmp_path), FakeClock(NOW * 10**9), tmp_path / "revocations.json"
    place.write_bytes(listed(1))
    Examiner(kept, None, Terms(), clock).establish(_generation(3, f"file://{place}"))
    before = _tree(tmp_path)
    anchor = tmp_path / "anchor.pem"
    anchor.write_text(public_pem(KEY.public))
    before[anchor] = anchor.read_bytes()
    place.write_bytes(data := listed(9))
    before[place] = data
    for env, given in ((_generation(2, f"file://{place}"), None), (_generation(9, f"file://{place}"), anchor)):
        with pytest.raises(BootError):
            Examiner(kept, given, Terms(), clock).establish(env)
        assert _tree(tmp_path) == before


def _tree(top: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_threat_state_beside_a_seed_brings_no_memory(tmp_path):
    seed, target = tmp_path / "seed", tmp_path / "env"
    seed.mkdir()
    for name in (SEEN, KEPT_LIST, "environment.json"):
        (seed / name).write_text("{}")
    assert [str(path) for path, _ in read_seed(seed, target).files] == ["environment.json"]


# -- equality -------------------------------------------------------------------------------------------------------


def test_threat_pinned_subset_what_a_lock_adds_takes_away_or_changes_is_a_fault(author, hello):
    author.create()
    _, revision_id = author.deployed(hello, f"file://{hello}")
    store = author.context.store
    paths, revision = store.paths("local"), store.load("local").revision(revision_id)
    assert revision is not None and verified_packs(paths, revision)
    lock_path = paths.revision(revision_id) / "pack-list.lock"
    lock_path.chmod(0o600)
    honest = json.loads(lock_path.read_bytes())
    first = honest["packs"][0]
    for packs in (
        [*honest["packs"], first | {"pack_id": "more"}],
        [first | {"pack_id": "other"}],
        [first | {"digest": "sha256:" + HEX}],
    ):
        lock_path.write_text(json.dumps(honest | {"packs": packs}))
        with pytest.raises(RevisionFault, match="diverges"):
            verified_packs(paths, revision)
    lock_path.write_text(json.dumps(honest))
    more = replace(revision, pack_config_refs=[f"revisions/{revision_id}/pack-configs/{first['pack_id']}.json"])
    config = paths.revision(revision_id) / "pack-configs" / f"{first['pack_id']}.json"
    config.parent.mkdir()
    config.write_text(
        json.dumps({"schema": "greentic.pack-config.v1", "pack_id": first["pack_id"], "revision_id": revision_id})
    )
    with pytest.raises(RevisionFault, match="records other pack configurations"):
        verified_packs(paths, more)
    (paths.revision(revision_id) / "bundle.gtbundle").unlink()
    with pytest.raises(RevisionFault, match="cannot be compared"):
        verified_packs(paths, more)


# -- archives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["honest", "older", "other", "broken", "extra", "twice"])
def test_threat_refused_import_every_check_comes_before_the_first_write(spoil, author, hello, tmp_path, monkeypatch):
    author.create()
    author.deployed(hello, f"file://{hello}")
    out, store = tmp_path / "all.tar", EnvironmentStore(tmp_path / "pod")
    delivery.set_delivery(author.context, delivery.DeliverySetPayload(environment_id="local", signatures="off"))
    export_archive.export(author.context.store, "local", out)
    monkeypatch.setenv("GREENTIC_BUNDLE_CACHE_DIR", str(tmp_path / "podcache"))
    settings = read_settings(StartOptions("local", store.root, archive=out), os.environ)
    if spoil == "older":
        memory_of(store.paths("local"), settings.state_directory).remember(Seen(50), None)
    _rewrite(out, spoil)
    before = _tree(tmp_path / "pod")
    if spoil == "honest":
        _from_archive(out, store, settings)
        assert store.load("local") == author.context.store.load("local")
        return
    with pytest.raises(BootError):
        _from_archive(out, store, settings)
    assert _tree(tmp_path / "pod") == before and not any(p.is_file() for p in (tmp_path / "podcache").rglob("*sha256*"))


def _rewrite(path: Path, spoil: str) -> None:
    with tarfile.open(path) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]  # type: ignore[union-attr]
    changed = []
    for name, data in members:
        if name == "environment.json" and spoil == "other":
            data = data.replace(b'"local"', b'"prod"')
        if name == "environment.json" and spoil == "broken":
            data = data[:-20]
        changed.append((name, data))
    if spoil == "extra":
        changed.append(("bundles/sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", b""))
    if spoil == "twice":
        changed.append(changed[0])
    with tarfile.open(path, "w") as archive:
        for name, data in changed:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


# -- nothing secret is written before it was recognised -------------------------------------------------------------

PEM = private_pem(bytes(range(32)))
MARK = PEM.splitlines()[1]


@pytest.mark.parametrize(
    "value",
    [PEM, {"a": PEM}, {"a": {"b": [1, {"c": PEM}]}}, {PEM: 1}, "-----BEGIN ENCRYPTED PRIVATE KEY-----", "https://me:pw@h/x", {"u": "see oci://a:b@r/x"}],
)  # fmt: skip
def test_threat_secret_before_validation_secrets_are_recognised_wherever_they_stand(value: Json):
    found = secret_in(value)
    assert found is not None
    shown = json.dumps([without_secrets(value)])
    assert WITHHELD in shown and MARK not in shown and "pw" not in shown and "a:b" not in shown


@pytest.mark.parametrize(("value", "instead"), [(PEM, "public key"), ("https://me:pw@h/x", "OCI_PASSWORD")])
def test_who_gives_a_secret_is_told_what_to_give_instead(value, instead):
    with pytest.raises(InvalidArgument, match="nothing was recorded of it") as refused:
        refuse_secrets({"a": value}, "verb: ")
    assert refused.value.hint is not None and instead in refused.value.hint and "replace a secret" in refused.value.hint


@pytest.mark.parametrize(
    "value", ["", "https://h/x:1@y", "oci://r:5000/x@sha256:ab", "me@example.com", public_pem(KEY.public), 7, None]
)
def test_what_is_no_secret_is_left_alone(value: Json):
    assert secret_in({"a": [value]}) is None and without_secrets({"a": [value]}) == {"a": [value]}


@pytest.mark.parametrize("where", ["public_key_pem", "public_key_file", "key_id", "unknown"])
def test_threat_secret_before_validation_no_byte_of_a_private_key_reaches_the_store(where, author, tmp_path):
    author.create()
    root = author.context.store.root
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    raw: JsonObject = {
        "environment_id": "local",
        "key_id": "ab" * 16,
        where: str(file) if where == "public_key_file" else PEM,
    }
    before = _tree(root)
    with pytest.raises(GreenticError) as error:
        payload = read_payload(trust_root.TrustRootAddPayload, raw, InvalidArgument)
        trust_root.add(author.context, payload)
    assert MARK not in str(error.value) and "private key" in str(error.value)
    assert _tree(root) == before


def test_threat_secret_before_validation_what_is_not_recognised_is_not_in_the_log(author, tmp_path):
    author.create()
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2 is no key")
    with pytest.raises(GreenticError):
        trust_root.add(
            author.context,
            trust_root.TrustRootAddPayload(environment_id="local", key_id="ab" * 16, public_key_file=str(wrong)),
        )
    store = author.context.store
    with store.transaction("local") as transaction:
        change = Change("local", "x", "y", {"password": PEM})
        transaction.audit.intend(change)
    with store.transaction("local"):
        pass  # the event of the intent that nobody finished
    text = store.paths("local").audit.read_text()
    assert "hunter2" not in text and MARK not in text and text.count(WITHHELD) == 2


# -- the store ------------------------------------------------------------------------------------------------------


def test_threat_poisoned_document_what_could_not_be_read_again_is_not_saved(author, hello):
    author.create()
    author.deployed(hello, f"file://{hello}")
    store = author.context.store
    path = store.paths("local").environment
    before = path.read_bytes()
    env = store.load("local")
    revision = env.revisions[0]
    bad = replace(revision, pack_list=[replace(revision.pack_list[0], version="1.0")])
    with store.transaction("local") as transaction, pytest.raises(StoreError, match="could not be read again"):
        transaction.save(replace(env, revisions=[bad]))
    assert path.read_bytes() == before and store.load("local") == env


def test_a_key_stands_for_the_whole_payload(author):
    author.create()

    def bind(verb: str, ref: str, key: str, answers: str | None = None) -> str:
        payload = env_packs.EnvPackBindingPayload(
            environment_id="local",
            slot="revocation",
            kind="a.b@1.0.0",
            pack_ref=ref,
            answers_ref=answers,
            idempotency_key=key,
        )
        return getattr(env_packs, verb)(author.context, payload).pack_ref  # type: ignore[no-any-return]

    bind("add", "ONE", "k1")
    assert bind("update", "TWO", "k2") == bind("update", "TWO", "k2") == "TWO"
    for ref, answers in (("THREE", None), ("TWO", "answers.json")):
        with pytest.raises(Conflict, match="with a different payload"):
            bind("update", ref, "k2", answers)
    binding = author.context.store.load("local").binding("revocation")
    assert binding is not None and binding.pack_ref == "TWO" and binding.answers_ref is None


@pytest.mark.parametrize("verb", ["bootstrap", "add", "remove"])
def test_an_environment_that_does_not_exist_trusts_nobody(verb, context, operator_home):
    payloads = {
        "bootstrap": trust_root.TrustRootBootstrapPayload(environment_id="prod"),
        "add": trust_root.TrustRootAddPayload(
            environment_id="prod", key_id=KEY.key_id, public_key_pem=public_pem(KEY.public)
        ),
        "remove": trust_root.TrustRootRemovePayload(environment_id="prod", key_id=KEY.key_id),
    }
    with pytest.raises(NotFound):
        getattr(trust_root, verb)(context, payloads[verb])
    assert not (context.store.root / "prod").exists() and not (operator_home / ".greentic/operator").exists()


def test_staging_of_others_is_left_alone_where_there_are_no_locks(store, monkeypatch):
    paths = store.paths("local")
    young, old = (paths.revisions / f"{recovery.STAGING_PREFIX}{name}" for name in ("young", "old"))
    for directory in (young, old):
        directory.mkdir(parents=True)
    now = 10**9
    os.utime(young, (now - 60, now - 60))
    os.utime(old, (now - 2 * recovery.ABANDONED_SECONDS,) * 2)
    with monkeypatch.context() as without_locks:
        without_locks.setattr(recovery, "try_exclusive", lambda fd: True)
        recovery.recover_revisions(paths, RealDisk(), FakeClock(now * 10**9))
    assert young.exists() and not old.exists()
    recovery.recover_revisions(paths, RealDisk(), FakeClock(now * 10**9))
    assert not young.exists()  # with locks, the one that nobody holds is dead whatever its age
