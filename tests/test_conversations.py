"""A message is applied to the state that it was sent for, once; a failure takes nothing away."""

from __future__ import annotations

import asyncio
import shutil
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

import wat
from conftest import make_pack
from greentic.activate.turn import ENDED, STALE, Message, Turn, _attempts, may_repeat, turn
from greentic.flow import engine
from greentic.flow.activity import activity_of
from greentic.flow.engine import Completed, Parked, Run, new_budget
from greentic.flow.graph import read_graph
from greentic.flow.nodes import plan_flow
from greentic.flow.ports import Caller, Ports, scope
from greentic.flow.results import interpret
from greentic.ground.errors import FlowFailure
from greentic.ground.going import in_place
from greentic.sessions.conversation import (
    ANSWER_SECONDS,
    ANYONE,
    MAX_ANSWER_BYTES,
    MAX_ANSWERS,
    MAX_FAILURES,
    Conversations,
    Identity,
    session_hint,
)
from greentic.sessions.directory_store import DirectoryStore
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState
from greentic.sessions.value_store import MAX_WAITING, StoreUnavailable
from simulators import FakeClock, SimulatedAssets, SimulatedComponents, SimulatedState, resume, start
from test_activate import ASK, ECHO, Stage
from test_flow import node, to, when

ANN = Identity(session="ann")


# -- who is who -----------------------------------------------------------------------------------------------------

_NAMES = st.text(alphabet="a|:%", max_size=4) | st.sampled_from(["%7C", "%3A", "%75ser", ANYONE, "ep=E::a", "t:provider:f:f:a", "ep=E::t:provider:f:f:a", "t%3Aprovider%3Af%3Af%3Aa"])  # fmt: skip
_CALLERS = st.builds(Identity, st.none() | _NAMES, st.none() | _NAMES, st.none() | st.sampled_from(["E", "a"]))


@given(_CALLERS, _CALLERS)
@example(Identity("a|", "b"), Identity("a", "|b"))
@example(Identity("t:provider:f:f:a"), Identity(user="a"))
@example(Identity("ep=E::a"), Identity("a", endpoint="E"))
@example(Identity(user=ANYONE), Identity())
@example(Identity(user=ANYONE), Identity(user="%75ser"))
@example(Identity("t%3Aprovider%3Af%3Af%3Aa"), Identity("t:provider:f:f:a"))
def test_threat_replayed_message_no_two_callers_have_one_conversation(one, other):
    """What they are called was joined without a sign for what belongs to whom: two callers shared a pin, and one was the other's session."""
    values = MemoryStore(FakeClock())
    conversations = Conversations(values, "env")
    conversations.pin("D", "t", one, "R1")
    told = [(i.endpoint or "", i.session or "", i.user or "") for i in (one, other)]
    assert (conversations.pinned("D", "t", other) is not None) == (told[0] == told[1])
    who = [(i.endpoint or "", i.session or "", "" if i.session else i.user or "") for i in (one, other)]
    assert (session_hint(one, "t", "f") == session_hint(other, "t", "f")) == (who[0] == who[1])


_PARTS = st.lists(st.none() | st.text(alphabet="a_:%5F3", max_size=3), max_size=4)


@given(_PARTS, _PARTS)
@example(["_"], [None])
@example(["%5F"], ["_"])
def test_no_two_lists_of_parts_have_one_scope(one, other):
    """A user who is called `_` read what is kept for nobody."""
    assert (scope("component", *one) == scope("component", *other)) == (one == other)
    assert scope("component", "e", "t", None, "ann@example.com") == "component:e:t:_:ann@example.com"


def test_ordinary_names_stand_in_keys_as_they_are():
    """A conversation that waits goes on with another version of the worker."""
    values = MemoryStore(FakeClock())
    Conversations(values, "env").pin("D", "t", Identity("private:abc-_", "ann@example.com", "E"), "R1")
    assert values.get("env:pin:D:t:E|private:abc-_|ann@example.com") == b"R1"
    assert session_hint(Identity("private:abc-_"), "t", "f") == "private:abc-_"
    assert session_hint(Identity(user="ann:1"), "t", "f") == "t:provider:f:f:ann:1"


# -- one message answers one question -------------------------------------------------------------------------------


def card(name: str, condition: str, following: str) -> dict[str, object]:
    return node(name, "emit.response", {"text": name}, when({"condition": condition, "to": following}))


def play(nodes: list[dict[str, object]], *messages: object, components: SimulatedComponents | None = None):
    """The outcomes of a conversation with one flow."""
    calls = components or SimulatedComponents({})
    ports = Ports(
        {"main": plan_flow(read_graph("main", {"nodes": nodes}))},
        calls,
        SimulatedAssets(),
        SimulatedState(),
        FakeClock(),
    )
    run = Run("p", "main", Caller("e", "t", session="s"), ports)
    outcome = None
    for message in messages:
        outcome = resume(run, outcome.snapshot, message) if isinstance(outcome, Parked) else start(run, message)
        yield outcome


CLICK = {"text": "", "metadata": {"action": "next"}}
INNER = {"input": {"text": "next", "metadata": {"action": "next"}}}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("response.action == next", CLICK),
        ("response.text == next", {"text": "next"}),
        ("response.text contains NEX", {"text": "go next"}),
        ("entry.metadata.action == next", CLICK),
        ("in.text == next", {"text": "next"}),
        ("entry.input.text == next", INNER),
        ("response.action == next", INNER),
        ("entry.input.metadata.action == next", INNER),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
def test_threat_replayed_message_goes_through_one_card(condition, message, waits):
    nodes = [card("one", condition, "two"), card("two", condition, "three"), card("three", condition, "paid")]
    nodes.append(node("paid", "emit.response", {"text": "PAID"}))
    *_, outcome = play(nodes, *([{"text": "hi"}] if waits else []), message)
    assert isinstance(outcome, Parked) and outcome.snapshot.next_node == "two"
    assert [said["text"] for said in outcome.output] == (["one", "two"])


def test_a_taken_text_can_still_be_printed_and_the_next_message_is_a_new_one():
    nodes = [
        card("one", "response.text contains tea", "two"),
        node(
            "two",
            "emit.response",
            {"text": "you said {{entry.text}}"},
            when({"condition": "response.text contains tea", "to": "end"}),
        ),
        node("end", "emit.response", {"text": "end"}),
    ]
    first, second = play(nodes, {"text": "tea"}, {"text": "tea again"})
    assert [said["text"] for said in first.output] == ["one", "you said tea"] and isinstance(second, Completed)


def test_what_asks_for_no_message_takes_nothing():
    nodes = [
        node("one", "emit.response", {"kind": "a"}, when({"condition": "kind == a", "to": "two"})),
        card("two", "response.action == next", "end"),
        node("end", "emit.response", {"text": "end"}),
    ]
    (outcome,) = play(nodes, CLICK)
    assert isinstance(outcome, Completed)


# -- two messages at once -------------------------------------------------------------------------------------------


class Gate(MemoryStore):
    """A store that tells when a turn waits for another one."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Semaphore(0)

    def hold(self, key: str):
        self.came.release()
        return super().hold(key)


def both_at_once(stage: Stage, values: Gate, messages: list[object], **more: object) -> list[object]:
    """The answers of messages that all came before any of them was taken."""
    session = stage.services.conversations.session("D", "acme", session_hint(ANN, "acme", "main"))
    answers: list[object] = []

    def say(message: object) -> None:
        answers.append(stage.turn(message, ANN, **more))

    threads = [threading.Thread(target=say, args=(message,)) for message in messages]
    with MemoryStore.hold(values, session):
        for thread in threads:
            thread.start()
        for _ in threads:
            values.came.acquire()
    for thread in threads:
        thread.join()
    return answers


def test_threat_replayed_message_of_a_double_click_advances_once(tmp_path):
    values = Gate()
    stage = Stage(tmp_path, make_pack("p", ASK), values)
    assert stage.turn({"text": "hi"}, ANN).parked
    outputs = [a.output for a in both_at_once(stage, values, [{"text": "Ann"}] * 2)]
    assert outputs.count([{"text": "hello Ann"}]) == 1
    assert [o["text"] for o in outputs if isinstance(o, dict)] == [STALE]
    assert stage.turn({"text": "again"}, ANN).parked  # only now a new one starts


def test_threat_replayed_message_of_two_first_messages_starts_once(tmp_path):
    values = Gate()
    stage = Stage(tmp_path, make_pack("p", ASK), values)
    outputs = [a.output for a in both_at_once(stage, values, [{"text": "hi"}] * 2)]
    assert sorted(o.get("status", o.get("text")) for o in outputs) == sorted(["pending", STALE])


def test_what_callers_without_a_name_begin_goes_side_by_side(tmp_path):
    """A load generator, or a gateway that names no session, is no double click: nobody waits, and nobody is refused."""
    stage = Stage(tmp_path, make_pack("p", ASK))
    nobody = Identity(endpoint="teams")
    session = stage.services.conversations.session("D", "acme", session_hint(nobody, "acme", "main"))
    with stage.values.hold(session):
        assert stage.turn({"text": "hi"}, nobody).parked
    assert stage.turn({"text": "Bob"}, nobody).output == [{"text": "hello Bob"}]


def test_many_without_a_name_may_wait_for_one_question(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ASK))
    session = stage.services.conversations.session("D", "acme", session_hint(Identity(), "acme", "main"))

    def one() -> asyncio.Task[Turn]:
        message = Message(activity_of({"text": "Ann"}), "acme", None, Identity())
        return asyncio.create_task(turn(stage.revision, message, stage.services))

    async def all_of_them() -> list[object]:
        assert (await one()).parked
        with stage.values.hold(session):
            tasks = [one() for _ in range(MAX_WAITING + 20)]
            await asyncio.wait(tasks, timeout=0)
        return [(await task).output for task in tasks]

    outputs = asyncio.run(all_of_them())
    assert outputs.count([{"text": "hello Ann"}]) == 1
    assert [o["text"] for o in outputs if isinstance(o, dict)] == [STALE] * (MAX_WAITING + 19)


def test_a_message_for_an_earlier_question_does_not_answer_the_next(tmp_path):
    twice = {
        "main": {
            "nodes": [
                node("w", "session.wait", "first", to("v")),
                node("v", "session.wait", "second", to("end")),
                node("end", "emit.response", {"text": "{{entry.text}}"}),
            ]
        }
    }
    values = Gate()
    stage = Stage(tmp_path, make_pack("p", twice), values)
    stage.turn({"text": "hi"}, ANN)
    outputs = [a.output for a in both_at_once(stage, values, [{"text": "a"}, {"text": "b"}])]
    assert sorted(o.get("reason", o.get("text")) for o in outputs) == sorted(["second", STALE])
    assert stage.turn({"text": "c"}, ANN).output == [{"text": "c"}]


def test_threat_replayed_message_with_an_id_gets_the_same_answer(tmp_path):
    for values in (MemoryStore(), DirectoryStore(tmp_path / "v")):
        stage = Stage(tmp_path, make_pack("p", ASK), values)
        first = stage.turn({"text": "hi"}, ANN, message_id="1")
        assert first.parked and stage.turn({"text": "hi"}, ANN, message_id="1") == first
        done = stage.turn({"text": "Ann"}, ANN, message_id="2")
        assert done.output == [{"text": "hello Ann"}]
        for _ in range(3):
            assert stage.turn({"text": "Ann"}, ANN, message_id="2") == done
        assert stage.turn({"text": "Ann"}, Identity(session="bob"), message_id="2").parked  # ids are of one session
        # another process, another revision: the same session
        other = Stage(tmp_path, make_pack("p", ASK), values, "R2")
        assert other.turn({"text": "Ann"}, ANN, message_id="2") == done


def test_answers_are_kept_for_some_minutes_few_and_small(tmp_path):
    class Clocked(MemoryStore):
        def __init__(self, clock: FakeClock) -> None:
            super().__init__(clock)

    clock = FakeClock()
    values = Clocked(clock)
    conversations = Conversations(values, "s")
    for number in range(MAX_ANSWERS + 3):
        conversations.keep_answer("k", str(number), {"n": number}, parked=False)
    assert conversations.answered("k", "2") is None and conversations.answered("k", "3").output == {"n": 3}
    conversations.keep_answer("k", "big", "x" * MAX_ANSWER_BYTES, parked=True)
    kept = conversations.answered("k", "big")
    assert not kept.whole and kept.parked and kept.output is None  # known, though not whole
    for number in range(4):
        conversations.keep_answer("k", f"half{number}", "x" * (MAX_ANSWER_BYTES // 3), parked=False)
    assert len(values.get("k:answers")) <= MAX_ANSWER_BYTES + 200
    clock.sleep(ANSWER_SECONDS)
    assert conversations.answered("k", "half3") is None
    with pytest.raises(FlowFailure):
        conversations.keep_answer("k", "odd", {"n": object()}, parked=False)


def test_a_flow_that_never_waits_answers_a_repeated_id_once(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}))
    first = stage.turn({"text": "a"}, ANN, message_id="x" * 5000)
    assert stage.turn({"text": "b"}, ANN, message_id="x" * 5000) == first
    assert stage.turn({"text": "b"}, ANN, message_id="x" * 4999).output == {"text": "b"}
    assert stage.turn({"text": "b"}, ANN).output == {"text": "b"}


# -- failures -------------------------------------------------------------------------------------------------------

FAILS = {
    "main": {
        "nodes": [
            node("w", "session.wait", "the amount", to("pay")),
            node("pay", "component.exec", {"component": "bank", "operation": "pay", "input": {"a": "{{entry.text}}"}}),
        ]
    }
}


def test_threat_failure_forgets_nothing_until_three_in_a_row(tmp_path):
    stage = Stage(tmp_path, make_pack("p", FAILS, {"bank": wat.error_06("offline", "no answer")}))
    key = stage.services.conversations.key("R1", "acme", session_hint(ANN, "acme", "main"), "p", "main")
    stage.turn({"text": "hi"}, ANN)
    before = stage.services.conversations.waiting(key)
    for number in range(1, MAX_FAILURES):
        failed = stage.turn({"text": "12"}, ANN)
        after = stage.services.conversations.waiting(key)
        assert (
            failed.parked and failed.output["metadata"]["error_message"] == "component bank failed: offline: no answer"
        )
        assert (
            after == before._replace(failures=number) and stage.services.conversations.pinned("D", "acme", ANN) == "R1"
        )
    last = stage.turn({"text": "12"}, ANN)
    assert not last.parked and last.output["text"] == ENDED and "offline" in last.output["metadata"]["error_message"]
    assert stage.values.get(key) is None and stage.services.conversations.pinned("D", "acme", ANN) is None
    assert stage.turn({"text": "hi"}, ANN).output["reason"] == "the amount"


def test_what_cannot_be_read_ends_at_once(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ASK))
    key = stage.services.conversations.key("R1", "acme", session_hint(ANN, "acme", "main"), "p", "main")
    for damaged in (
        b"{damaged",
        b"[]",
        b"\xff",
        b"{}",
        b"[" * 5000,
        b'{"snapshot": {"pack_id": "p"}, "failures": "x"}',
    ):
        stage.values.set(key, damaged)
        told = stage.turn({"text": "q"}, ANN)
        assert "cannot be read" in told.output["metadata"]["error_message"], damaged
        if stage.values.get(key) is not None:  # a snapshot that lacks something is a failure as any other
            stage.services.conversations.clear(key)
        assert stage.turn({"text": "q"}, ANN).parked
        stage.services.conversations.clear(key)


def test_what_cannot_be_read_says_what_was_expected_where(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ASK))
    key = stage.services.conversations.key("R1", "acme", session_hint(ANN, "acme", "main"), "p", "main")
    stage.values.set(key, b'{"snapshot": {"pack_id": "p", "flow_id": "main", "next_node": "x", "state": null}}')
    told = stage.turn({"text": "q"}, ANN).output["metadata"]["error_message"]
    assert told.endswith("cannot be read: Expected `object`, got `null` - at `$.state`")


class Away(MemoryStore):
    """A store that stops answering after some questions."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def _asked(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise StoreUnavailable("away")
            self.left -= 1

    def get(self, key: str) -> bytes | None:
        self._asked()
        return super().get(key)

    def set(self, key: str, value: bytes, seconds: int | None = None) -> None:
        self._asked()
        super().set(key, value, seconds)

    def delete(self, key: str) -> bool:
        self._asked()
        return super().delete(key)

    def hold(self, key: str):
        self._asked()
        return super().hold(key)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("message_id", [None, "2"])
def test_threat_failure_forgets_nothing_when_the_store_goes_away_at_any_moment(
    tmp_path, monkeypatch, message_id, fails
):
    """Either nothing was done and it is told so, or what was done is answered; the conversation is never lost."""
    bank = wat.error_06("offline", "no answer") if fails else wat.node_06()
    told, ran = set(), []

    async def counted(run: Run, *words: object) -> object:
        ran.append(run)
        return await engine.resume(run, *words)

    monkeypatch.setattr("greentic.activate.turn.resume", counted)
    for questions in range(40):
        values = Away()
        stage = Stage(tmp_path, make_pack("p", FAILS, {"bank": bank}), values)
        assert stage.turn({"text": "hi"}, ANN).parked
        key = stage.services.conversations.key("R1", "acme", session_hint(ANN, "acme", "main"), "p", "main")
        waited = values.get(key)
        values.left = questions
        ran.clear()
        try:
            answer = stage.turn({"text": "12"}, ANN, message_id=message_id)
        except StoreUnavailable:
            values.left = None
            told.add("nothing was done")
            assert (
                not ran and values.get(key) == waited and stage.services.conversations.pinned("D", "acme", ANN) == "R1"
            )
            again = stage.turn({"text": "12"}, ANN, message_id=message_id)
            assert again.parked == fails and again.output != STALE
            continue
        if values.left:  # it was never asked again
            told.add("all was done")
            break
        values.left = None
        told.add("answered" if answer.failed is None else "failed")
        if fails:
            assert answer.parked and "offline" in str(answer.failed) and values.get(key) is not None
    assert told == (
        {"nothing was done", "all was done", "failed"} if fails else {*told, "nothing was done", "all was done"}
    )


def test_a_store_that_a_step_asks_in_vain_is_a_failure_of_the_run(tmp_path):
    class NoState(SimulatedState):
        def get(self, scope: str, key: str) -> object:
            raise StoreUnavailable("away")

    calls = SimulatedComponents({})
    flow = plan_flow(read_graph("main", {"nodes": [node("a", "state.get", {"key": "k"})]}))
    run = Run("p", "main", Caller("e", "t"), Ports({"main": flow}, calls, SimulatedAssets(), NoState(), FakeClock()))
    stage = Stage(tmp_path, make_pack("p", ECHO, {"echo": wat.node_06()}))
    with pytest.raises(FlowFailure) as failure:
        in_place(_attempts(run, {}, stage.services))
    assert not isinstance(failure.value, StoreUnavailable) and "the session store is unavailable: away" in str(
        failure.value
    )


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        ({"code": "x", "message": "internal unavailable transient timeout", "retryable": False}, False),
        ({"code": "x", "message": "m", "retryable": True, "backoff_ms": 10_000}, True),
        ({"code": "x", "message": "m", "retryable": True, "backoff_ms": 10_001}, False),
        ({"code": "x", "message": "timeout", "backoff_ms": 3_600_000}, False),
        ({"code": "unavailable", "message": "m"}, True),
        ({"code": "x", "message": "m"}, False),
        ({"code": "x", "message": "m", "retryable": "yes"}, False),
        ({"code": "COMPONENT_INVOCATION_FAILED", "message": "timeout", "retryable": False}, True),
    ],
)
def test_a_field_decides_before_words(error, repeated):
    calls = SimulatedComponents({"bank": lambda call: {"ok": False, "error": error}})
    flow = plan_flow(read_graph("main", {"nodes": [FAILS["main"]["nodes"][1]]}))
    ports = Ports({"main": flow}, calls, SimulatedAssets(), None, FakeClock())
    run = Run("p", "main", Caller("e", "t"), ports)
    run = replace(run, budget=new_budget(run))
    with pytest.raises(FlowFailure) as failure:
        start(run, {})
    assert may_repeat(failure.value, run) is repeated
    assert failure.value.backoff_ms == error.get("backoff_ms")


def test_threat_failure_forgets_no_effect_a_run_that_did_something_is_not_made_again():
    told = {"ok": False, "error": {"code": "later", "message": "m", "retryable": True}}
    for first in (
        node("a", "component.exec", {"component": "mail", "operation": "send"}, to("pay")),
        node("a", "state.set", {"key": "k", "value": 1}, to("pay")),
    ):
        calls = SimulatedComponents({"bank": lambda call: told, "mail": lambda call: {"sent": True}})
        flow = plan_flow(read_graph("main", {"nodes": [first, FAILS["main"]["nodes"][1]]}))
        run = Run(
            "p",
            "main",
            Caller("e", "t"),
            Ports({"main": flow}, calls, SimulatedAssets(), SimulatedState(), FakeClock()),
        )
        run = replace(run, budget=new_budget(run))
        with pytest.raises(FlowFailure) as failure:
            start(run, {})
        assert failure.value.retryable and not may_repeat(failure.value, run)


def test_the_pause_is_the_one_that_was_asked_for_and_bounded(tmp_path):
    stage = Stage(tmp_path, make_pack("p", ECHO, {"echo": wat.error_06("full", "m", retryable=True)}))
    began = stage.clock.monotonic()
    stage.turn({"text": "x"})  # this component asks for 250 ms
    assert 0.75 <= stage.clock.monotonic() - began <= 1.6


def test_a_question_of_a_revision_that_is_gone_swallows_nothing(tmp_path):
    values = MemoryStore()
    old = Stage(tmp_path, make_pack("p", ASK), values, "R1")
    assert old.turn({"text": "hi"}, ANN).parked
    for flows, components in ((ASK, {}), (ECHO, {"echo": wat.node_06()})):
        new = Stage(tmp_path, make_pack("p", flows, components), values, "R2")
        new.turn({"text": "hello"}, ANN, pinned="R1")
        again = old.turn({"text": "something new"}, ANN)  # rolled back
        assert again.output["response"] == [{"text": "name?"}]


def test_interpret_keeps_what_a_component_says():
    with pytest.raises(FlowFailure) as failure:
        interpret("c", {"error": {"code": "x", "retryable": True, "backoff_ms": -1}}, catches_errors=False)
    assert failure.value.retryable is True and failure.value.backoff_ms is None


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 400, b"nul"])
def test_state_that_is_damaged_is_a_typed_error_and_can_be_replaced(damage, tmp_path):
    for values in (MemoryStore(), DirectoryStore(tmp_path / "v")):
        state = StoredState(values)
        values.set("greentic:state:scope:key", damage)
        with pytest.raises(FlowFailure, match=r"the stored state `key` is damaged|an integer is too large"):
            state.get("scope", "key")
        state.set("scope", "key", {"a": 1})
        assert state.get("scope", "key") == {"a": 1}


def test_a_pin_that_is_damaged_is_none_of_a_revision(tmp_path):
    values = DirectoryStore(tmp_path / "v")
    conversations = Conversations(values, "e")
    conversations.pin("d", "t", ANN, "R1")
    assert conversations.pinned("d", "t", ANN) == "R1"
    for path in (tmp_path / "v").iterdir():
        if not path.name.startswith("."):
            path.write_bytes(path.read_bytes().removesuffix(b"R1") + b"\xff\xfe")
    assert conversations.pinned("d", "t", ANN) not in (None, "R1")


def test_a_directory_store_whose_directory_is_gone_says_so(tmp_path):
    values = DirectoryStore(tmp_path / "v")
    shutil.rmtree(tmp_path / "v")
    for ask in (lambda: values.hold("k").__enter__(), lambda: values.hold_at_once("k"), lambda: values.set("k", b"v")):
        with pytest.raises(FlowFailure, match="the session store is unavailable: No such file"):
            ask()
    assert values.get("k") is None


# -- what is kept can be read again -----------------------------------------------------------------------------------


def deep(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [100, 122, 123, 124, 125])
@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_what_flows_may_make_is_kept_and_read_again(tmp_path, levels, kind):
    """A run that held a value near the limit waited, and its next message found a conversation that could not be read."""
    values = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path / "v")
    deeper = {"a": {"b": "{{entry.d}}"}}
    nodes = [
        node("keep", "var.set", {"name": "v", "value": deeper}, to("set")),
        node("set", "state.set", {"key": "k", "value": deeper}, to("get")),
        node("get", "state.get", {"key": "k"}, to("wait")),
        node("wait", "session.wait", {"reason": "more"}, to("say")),
        node("say", "emit.response", {"kept": "{{vars.v}}", "state": "{{node.get.value}}"}),
    ]
    stage = Stage(tmp_path, make_pack("p", {"main": {"nodes": nodes}}), values)
    ann, body = Identity(session="ann"), {"d": deep(levels)}
    first = stage.turn(body, ann, "m1")
    assert first.parked and first.failed is None
    assert stage.turn({"text": "again"}, ann, "m1") == first  # answered once
    kept = {"a": {"b": body["d"]}}
    second = stage.turn({"text": "go on"}, ann, "m2")
    assert second.output == [{"kept": kept, "state": kept}] and stage.log == []
    assert stage.turn({"text": "again"}, ann, "m2") == second, "a deep answer was not found, and its message done again"


def test_more_values_than_are_read_are_refused_when_they_are_kept(tmp_path):
    nodes = [
        node("keep", "var.set", {"name": "v", "value": "{{entry.d}}"}, to("wait")),
        node("wait", "session.wait", {"reason": "more"}, to("say")),
        node("say", "emit.response", {"text": "went on"}),
    ]
    stage = Stage(tmp_path, make_pack("p", {"main": {"nodes": nodes}}))
    refused = stage.turn({"d": [1] * 400_000}, Identity(session="ann"))
    assert not refused.parked and refused.failed == "a value of the flow cannot be kept: more than 1000000 values"
    assert stage.turn({"d": [1] * 100_000}, Identity(session="ann")).parked
    assert stage.turn({"text": "hi"}, Identity(session="ann")).output == [{"text": "went on"}]


def test_a_session_whose_run_is_gone_is_pinned_no_longer_once_nothing_waits(tmp_path):
    """A full store lets go of a run; its pin kept the session on an old revision for days, whatever the weights said."""
    nodes = [node("ask", "emit.response", {"text": "x"}, when({"condition": "entry.text == wait", "to": "w"}, {"to": "end"})),
             node("w", "session.wait", {"reason": "more"}, to("end")), node("end", "emit.response", {"text": "end"})]  # fmt: skip
    stage, ann = Stage(tmp_path, make_pack("p", {"main": {"nodes": nodes}})), Identity(session="ann")
    conversations = stage.services.conversations
    assert stage.turn({"text": "wait"}, ann).parked and conversations.pinned("D", "acme", ann) == "R1"
    (key,) = [k for k in stage.values._values if k.startswith("s:R1:")]
    conversations.clear(key)
    assert not stage.turn({"text": "hi"}, ann, pinned="R1").parked
    assert conversations.pinned("D", "acme", ann) is None
    assert stage.turn({"text": "wait"}, ann).parked and conversations.pinned("D", "acme", ann) == "R1"
