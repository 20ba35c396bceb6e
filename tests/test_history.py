"""The history of an environment: the chain of its audit, the log as people read it, and what differs between generations."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Author
from greentic.cli import op_table
from greentic.deployments import traffic
from greentic.examine import env_doctor
from greentic.examine.env_log import EnvChangesPayload, EnvLogPayload, changes, log
from greentic.ground.errors import NotFound
from greentic.history.compare import differences
from greentic.history.line_chain import breaks, end_missing
from greentic.history.trail import entries, told
from greentic.model.ids import is_ulid
from greentic.model.naming import revision_name
from greentic.operate import env
from greentic.operate.change import Context
from greentic.release.env_prune import EnvPrunePayload, prune
from greentic.store.audit import PREVIOUS_LINE as PREVIOUS
from greentic.store.audit import AuditLog, Change, line_digest, outcome_of
from greentic.store.environments import EnvironmentStore


@pytest.fixture
def busy(author: Author, hello) -> Author:
    author.create()
    deployment, first = author.deployed(hello)
    second = author.warm(author.stage(deployment, hello))
    author.route(deployment, (first, 5000), (second, 5000), key="half")
    return author


def lines(author: Author) -> list[bytes]:
    return author.context.store.paths("local").audit.read_bytes().splitlines()


def test_each_line_tells_which_was_before_it(busy):
    assert len(lines(busy)) > 10 and breaks(lines(busy)) == []
    assert sum(PREVIOUS in json.loads(line) for line in lines(busy)) == len(lines(busy)) - 1
    assert not [f for f in env_doctor.doctor(busy.context, "local").findings if f.kind.startswith("audit")]


@pytest.mark.parametrize("harm", ["removed", "changed", "reordered", "first removed", "cut short", "unchained"])
def test_threat_audit_edited_what_was_done_to_the_log_shows(busy, harm):
    told = lines(busy)
    if harm == "removed":
        del told[4]
    elif harm == "first removed":
        del told[0]
    elif harm == "changed":
        told[4] = told[4].replace(b'"uid":', b'"uid":1')
    elif harm == "reordered":
        told[4:6] = reversed(told[4:6])
    elif harm == "cut short":
        told[4] = told[4][:40]
    else:
        told = [
            json.dumps({k: v for k, v in json.loads(t).items() if k != PREVIOUS or n < 5}).encode()
            for n, t in enumerate(told)
        ]
    assert breaks(told)
    busy.context.store.paths("local").audit.write_bytes(b"\n".join(told) + b"\n")
    found = [f for f in env_doctor.doctor(busy.context, "local").findings if f.kind == "audit-chain"]
    assert found and "line" in found[0].message and log(busy.context, EnvLogPayload(environment_id="local")).breaks
    before = len(found)
    busy.add("more", ("/more",))  # what follows is chained to what is there now
    assert len([f for f in env_doctor.doctor(busy.context, "local").findings if f.kind == "audit-chain"]) == before


@pytest.mark.parametrize(("left", "why"), [(-1, "its last change has no event"), (-2, "it ends before the document was replaced"), (-9, ""), (0, "it ends before the document was replaced"), (None, "it ends before the document was replaced")])  # fmt: skip
def test_threat_audit_edited_an_end_that_was_taken_out_shows_by_the_document(busy, left, why):
    """The end of a log, or all of it, could be deleted without a word."""
    path = busy.context.store.paths("local").audit
    assert not [f for f in env_doctor.doctor(busy.context, "local").findings if f.kind.startswith("audit")]
    if left is None:
        path.unlink()
    else:
        path.write_bytes(b"".join(line + b"\n" for line in lines(busy)[:left]))
    (found,) = [f for f in env_doctor.doctor(busy.context, "local").findings if f.kind.startswith("audit")]
    assert found.kind == "audit-end" and why in found.message
    busy.add("more", ("/more",))
    assert not [f for f in env_doctor.doctor(busy.context, "local").findings if f.kind == "audit-end"], "it goes on"


@given(st.lists(st.binary(max_size=40), max_size=3), st.sampled_from([None, "20260101T000000.000000000Z", "x"]))
def test_the_end_of_any_log_is_read(raw, replaced):
    end_missing(raw, replaced)


def test_a_line_that_a_kill_cut_short_is_told_and_the_next_one_follows_it(busy):
    path = busy.context.store.paths("local").audit
    with path.open("ab") as file:
        file.write(b'{"schema":"greentic.au')
    busy.add("more", ("/more",))
    assert [b.number for b in breaks(lines(busy))] == [
        next(n for n, t in enumerate(lines(busy), 1) if t.endswith(b"au"))
    ]


def test_lines_of_a_program_that_does_not_chain_begin_a_new_stretch(author, hello):
    author.create()
    path = author.context.store.paths("local").audit
    path.write_bytes(
        b"".join(
            json.dumps({k: v for k, v in json.loads(t).items() if k != PREVIOUS}).encode() + b"\n"
            for t in lines(author)
        )
    )
    author.add("more", ("/more",))
    assert breaks(lines(author)) == []


def test_a_log_that_retention_cut_is_whole(busy):
    busy.context.store.clock.sleep(40 * 86_400)
    busy.add("late", ("/late",))
    before = len(lines(busy))
    prune(busy.context, EnvPrunePayload(environment_id="local", audit_days=7))
    assert len(lines(busy)) < before and breaks(lines(busy)) == []
    assert breaks(lines(busy)[1:])


def test_two_who_write_at_once_leave_one_chain(busy):
    def work(number: int) -> None:
        Author(patient).add(f"b{number}", (f"/b{number}",))

    patient = Context(EnvironmentStore(busy.context.store.root))  # with a clock that goes
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert breaks(lines(busy)) == []


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), max_size=6))
def test_any_log_is_read(raw):
    assert len(breaks(raw)) <= len(raw) and len(entries(raw)) <= len(raw)


def test_the_log_tells_who_did_what(busy):
    found = log(busy.context, EnvLogPayload(environment_id="local", last=3))
    assert [c.verb for c in found.changes] == ["revisions stage", "revisions warm", "traffic set"]
    assert found.older == len(entries(lines(busy))) - 3 and found.breaks == 0
    assert all(c.outcome == "ok" and c.who and c.at for c in found.changes)
    warmed = found.changes[1]
    assert warmed.what.startswith(f"revision {revision_name(busy.context.store.load('local').revisions[-1])},"), (
        "a name"
    )
    assert is_ulid(str(warmed.target["revision_id"])), "and the id for programs"
    with pytest.raises(NotFound):
        log(busy.context, EnvLogPayload(environment_id="elsewhere"))
    assert len(told({"a": "x" * 500, "b": {}, "c": list(range(1000))}, {})) <= 120


def test_names_stand_in_the_place_of_ids_wherever_there_is_one():
    names = {"R": "bot@3", "D": "bot"}
    target = {
        "deployment_id": "D",
        "entries": [{"revision_id": "R", "weight_bps": 1}],
        "key": "D-",
        "revision_id": "gone",
    }
    assert told(target, names) == 'deployment bot, entries [{"revision_id":"bot@3","weight_bps":1}], key D-, revision_id gone'  # fmt: skip


def test_a_change_of_traffic_is_told_from_what_to_what(busy):
    """The most important change of all was told as `deployment hello`."""
    env_ = busy.context.store.load("local")
    deployment, (first, second) = env_.bundles[0].deployment_id, (r.revision_id for r in env_.revisions)
    busy.route(deployment, (second, 10_000), key="all")
    traffic.rollback(busy.context, traffic.TrafficShowPayload(environment_id="local", deployment_id=deployment))
    traffic.rollback(busy.context, traffic.TrafficShowPayload(environment_id="local", deployment_id=deployment), traffic.RollbackOptions(to=first))  # fmt: skip
    told_ = [
        e.what for e in log(busy.context, EnvLogPayload(environment_id="local")).changes if e.verb.startswith("traffic")
    ]
    name = env_.bundles[0].bundle_id
    assert told_ == [
        f"{name}: nothing → @1 100%", f"{name}: @1 100% → @1 50%, @2 50%", f"{name}: @1 50%, @2 50% → @2 100%",
        f"{name}: @2 100% → @1 50%, @2 50%", f"{name}: @1 50%, @2 50% → @1 100%",
    ]  # fmt: skip
    refused = told({"deployment_id": "D", "weights_before": 5, "weights": [["R", "x"]]}, {})
    assert refused == "D: nothing → nothing", "whatever a line holds"


def test_a_log_is_told_with_ids_where_the_document_cannot_be_read(busy):
    path = busy.context.store.paths("local").environment
    path.write_text("{")
    found = log(busy.context, EnvLogPayload(environment_id="local", last=2))
    assert str(found.changes[0].target["revision_id"]) in found.changes[0].what


def test_what_differs_between_two_generations(busy):
    found = changes(busy.context, EnvChangesPayload(environment_id="local"))
    (entry,) = [d for d in found.differences if d.path.endswith("entries") or "].entries" in d.path][:1]
    assert entry.path.startswith("traffic_splits[") and found.to_generation > found.from_generation
    same = changes(busy.context, EnvChangesPayload(environment_id="local", from_generation=1, to_generation=1))
    assert same.differences == []
    with pytest.raises(NotFound, match="generation 77") as error:
        changes(busy.context, EnvChangesPayload(environment_id="local", from_generation=77))
    assert error.value.hint
    env.create(busy.context, env.EnvCreatePayload(environment_id="new", name="new"))
    with pytest.raises(NotFound, match="no backup"):
        changes(busy.context, EnvChangesPayload(environment_id="new"))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda i: st.lists(i, max_size=3) | st.dictionaries(st.text(max_size=3), i, max_size=3), max_leaves=8)  # fmt: skip


@given(JSON, JSON)
def test_only_what_differs_is_told(before, after):
    assert differences(before, before) == []
    if json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True) and not (
        isinstance(before, dict) and isinstance(after, dict)
    ):
        assert differences(before, after)


def test_records_are_told_by_their_id():
    before = {"revisions": [{"revision_id": "A", "lifecycle": "ready"}, {"revision_id": "B", "lifecycle": "ready"}]}
    after = {"revisions": [{"revision_id": "B", "lifecycle": "failed"}, {"revision_id": "A", "lifecycle": "ready"}]}
    assert [tuple(d) for d in differences(before, after)] == [("revisions[B].lifecycle", "ready", "failed")]


def test_diff_with_generations_is_the_comparison_of_generations_and_without_them_that_with_the_cluster():
    for words in (["prod", "--from", "3"], ["--to=4", "prod"], ["prod", "--from=1", "--to", "2"]):
        assert op_table.named("env", "diff", words) is op_table.find("env", "changes")
    for words in ([], ["prod"], ["prod", "--force"], ["prod", "from=1"]):
        assert op_table.named("env", "diff", words) is op_table.find("env", "diff")


def test_a_change_reads_the_log_once_and_again_only_if_it_was_rewritten(author, monkeypatch):
    author.create()
    reads: list[int] = []
    tail = AuditLog._tail

    def counted(log: AuditLog) -> list[bytes]:
        reads.append(1)
        return tail(log)

    monkeypatch.setattr(AuditLog, "_tail", counted)
    author.add("counted")
    assert reads == [1]
    path = author.context.store.paths(author.env_id).audit
    with author.context.store.transaction(author.env_id) as transaction:
        event = transaction.audit.intend(Change(author.env_id, "env", "prune", {}))
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[-1])
        transaction.audit.record(event, Change(author.env_id, "env", "prune", {}), outcome_of(None))
    intent, last = path.read_bytes().splitlines()
    assert len(reads) == 3 and json.loads(last)[PREVIOUS] == line_digest(intent)


def test_a_reader_made_from_the_page_of_formats_reads_the_audit(author):
    """As `formats/store.md` 5 and 6 say it, without a line of ours."""
    author.create().add()
    root = author.context.store.paths("local").root
    lines = (root / "audit" / "events.jsonl").read_bytes().splitlines()
    told = [json.loads(line) for line in lines]
    assert told[0]["documents"] == hashlib.sha256(bytes(96)).hexdigest() and "previous_line" not in told[0]
    for before, line in zip(lines, told[1:], strict=False):
        assert (
            line["previous_line"] == f"sha256:{hashlib.sha256(before).hexdigest()}" and [*line][-1] == "previous_line"
        )
    files = [root / name for name in ("environment.json", "trust-root.json", "runtime.json")]
    whole = b"".join(hashlib.sha256(f.read_bytes()).digest() if f.exists() else bytes(32) for f in files)
    author.add("other", ("/other",))
    intents = [json.loads(line) for line in (root / "audit" / "events.jsonl").read_bytes().splitlines()]
    assert intents[-2]["schema"] == "greentic.audit.intent.v1"
    assert intents[-2]["documents"] == hashlib.sha256(whole).hexdigest()
