"""How much a flow may cost: what is read, gone through, made and kept is bounded by what it is, not by how long it takes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from msgspec.structs import replace

from conftest import make_pack
from greentic.activate import pieces
from greentic.expressions import handlebars, handlebars_render
from greentic.expressions.paths import MISSING
from greentic.expressions.template import compile_value
from greentic.flow import engine, node_names
from greentic.flow.bounds import MAX_DEPTH, MAX_SIZE, PIECE, bounded
from greentic.flow.cards import card_invocation
from greentic.flow.engine import Exhausted
from greentic.flow.lint import Known, lint_flow
from greentic.flow.node_names import NodeNames, node_view
from greentic.flow.state import NodeOutput, RunState
from greentic.ground.errors import FlowFailure, LimitExceeded, MalformedArtifact
from greentic.ground.going import in_place
from greentic.pack.assets import PackAssets
from simulators import FakeClock, SimulatedAssets, start
from test_flow import World, flow, node, rendered, to


def test_a_template_is_read_once_however_its_tags_are_broken():
    """Each unclosed tag once searched the rest anew: 53 kB of `{{{` held a worker for two minutes."""

    class Counted(str):
        looked_at = 0

        def find(self, wanted: str, begin: int) -> int:  # type: ignore[override]
            found = super().find(wanted, begin)
            Counted.looked_at += (found if found >= 0 else len(self)) - begin
            return found

    for broken in ("x{{{", "{{!-- x ", "{{~a", "{{{a}} "):
        Counted.looked_at = 0
        try:
            handlebars.parse(Counted(broken * 1000))
        except handlebars.TemplateError:
            pass
        assert Counted.looked_at <= 8 * len(broken) * 1000, broken


def test_what_a_rendering_goes_through_is_counted_though_it_prints_nothing():
    lists = {"l": list(range(30)), "a": [0] * 20_000, "b": [0] * 20_000, "s": "x" * 10**6, "t": "x" * 10**6 + "y"}
    names = NodeNames(RunState(lists), MISSING, FakeClock())
    loop = "x" + "{{#each @root.entry.l}}" * 2 + "%s" + "{{/each}}" * 2
    assert compile_value(loop % "{{#each @root.entry.a}}{{/each}}").render(names) == "x"  # nothing in it, nothing to do
    many = " ".join(["y"] * 200)
    for inner in ("(eq @root.entry.a @root.entry.b)", "(lt @root.entry.s @root.entry.t)", f"(or {many})"):
        with pytest.raises(FlowFailure, match="more than 100000 steps"):
            compile_value(loop % f"{{{{#if {inner}}}}}{{{{/if}}}}").render(names)
    inner = "{{#if (eq (lookup @root.entry.a @index) (len @root.entry.b))}}{{/if}}"
    assert compile_value(loop % inner).render(names) == "x"  # looking up and measuring go through nothing


@pytest.mark.parametrize("kind", ["var.set", "in_map", "out_map", "vars_out"])
def test_no_value_of_a_run_doubles_without_an_end(kind):
    """Forty doublings are a value that takes days to print."""
    twice = ["{{vars.a}}", "{{vars.a}}"]
    if kind == "var.set":
        doubling = node("a", "var.set", {"name": "a", "value": twice}, to("a"))
    elif kind == "vars_out":
        doubling = node("a", "emit.response", {"vars_out": {"a": twice}, "input": "x"}, to("a"))
    else:
        mapping = {"provider_type": "t", "op": "o", kind: ["{{entry.l}}"] * 300, "vars_out": {"a": 1}}
        doubling = node("a", "provider.invoke", mapping, to("a"))
    with pytest.raises(FlowFailure, match="a value became larger than 4194304 bytes"):
        world = World(flow(doubling, extra={"vars_init": {"a": {"default": "x" * 10**5}}}))
        world.components.providers["t"] = lambda call: {}
        world.start({"l": ["x" * 1000] * 20})


def test_a_large_value_is_gone_through_in_pieces():
    """One of four megabytes held a worker for a tenth of a second and more, while others waited."""
    shared: list[object] = [
        {"ab": "c" * 8}
    ] * 1000  # 8 for the object in its list, 8 and 2 for its member, 8 for the text

    def measured(value: object) -> int:
        paused = 0

        async def pause() -> None:
            nonlocal paused
            paused += 1

        assert in_place(bounded(value, pause)) is value
        return paused

    assert [measured(value) for value in ("x" * MAX_SIZE, 1, {}, shared)] == [0, 0, 0, 0]
    fitting = MAX_SIZE // (26 * 1000 + 8)
    assert measured([shared] * fitting) == fitting * 2001 // PIECE
    assert measured([1] * (PIECE * 3)) == 3
    for large in ("x" * (MAX_SIZE + 1), [shared] * (fitting + 1), {"x" * MAX_SIZE: 1}, [1] * (MAX_SIZE // 8 + 1)):
        with pytest.raises(FlowFailure, match="larger than 4194304 bytes"):
            measured(large)
    deep: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert measured([*deep, 1]) == 0
    with pytest.raises(FlowFailure, match="deeper than 128 levels"):
        measured({"a": deep})


@pytest.mark.parametrize("kind", ["payload", "var.set", "in_map", "out_map", "vars_out"])
def test_a_run_that_goes_through_a_large_value_gives_way(kind):
    nodes = {
        "payload": {"input": ["{{entry.l}}"]},
        "var.set": {"name": "a", "value": ["{{entry.l}}"]},
        "vars_out": {"vars_out": {"a": "{{entry.l}}"}, "input": "x"},
    }
    mapping = nodes.get(kind, {"provider_type": "t", "op": "o", kind: ["/entry/l"]})
    kinds = {"var.set": "var.set", "payload": "emit.response", "vars_out": "emit.response"}
    world = World(flow(node("a", kinds.get(kind, "provider.invoke"), mapping)))
    world.components.providers["t"] = lambda call: {}
    paused = 0

    async def pause() -> None:
        nonlocal paused
        paused += 1

    run = world.run()
    in_place(engine.start(replace(run, ports=replace(run.ports, pause=pause)), {"l": [1] * (PIECE * 3)}))
    assert paused >= 3


def test_what_a_run_keeps_is_bounded_together():
    text = "x" * 10**6
    said = flow(*(node(f"n{i}", "emit.response", "{{entry.text}}", to(f"n{i + 1}")) for i in range(100)))
    with pytest.raises(Exhausted, match="keeps more than 67108864 bytes"):
        World(said).start({"text": text})
    variables = (
        node(f"n{i}", "var.set", {"name": f"v{i}", "value": "{{entry.text}}"}, to(f"n{i + 1}")) for i in range(100)
    )
    with pytest.raises(Exhausted, match="keeps more than"):
        World(flow(*variables)).start({"text": text})
    # What takes the place of something else, and what a flow kept that was called, is not kept twice.
    again = flow(node("a", "var.set", {"name": "v", "value": "{{entry.text}}"}, to("b")), node("b", "flow.call", {"flow_id": "sub", "input": "{{entry.text}}"}, to("a")))  # fmt: skip
    sub = flow(node("a", "emit.response", "{{entry}}", "End"), flow_id="sub")
    with pytest.raises(Exhausted, match="more than 10000 steps"):
        World(again, sub).start({"text": text})


def test_a_single_call_of_a_helper_is_no_path_and_what_prints_nothing_is_told():
    assert rendered("{{len entry.list}}") == rendered("{{ len entry.list}}") == "3"
    assert rendered("{{len}}") == ""
    texts = ["{{len entry.l}}", "{{> p}}", "{{text}}", "{{entry.text}}", "{{! c }}"]
    found = lint_flow(flow(node("a", "emit.response", texts)), Known(lambda *a: True, frozenset()))
    assert [text.split("`")[1] for text in found] == ["{{len entry.l}}", "{{> p}}", "{{text}}"]


def test_a_card_is_bounded_together_with_its_translations():
    """65 documents of 6 MiB, which a pack of two megabytes can hold, took 2 GiB for each turn."""
    names = [f"l{number}" for number in range(4)]
    spec = {"card_source": "asset", "card_spec": {"asset_path": "cards/a.json"}}
    text = '{"k": "' + "v" * (MAX_SIZE // 4) + '"}'
    files = {"cards/a.json": b"{}", "i18n/_manifest.json": str(names).replace("'", '"').encode()}
    files |= {f"i18n/{name}.json": text.encode() for name in names}
    with pytest.raises(FlowFailure, match="a card and its translations are larger than 4194304 bytes together"):
        card_invocation(spec, None, SimulatedAssets(files))
    del files["i18n/l3.json"]
    found = card_invocation(spec, None, SimulatedAssets(files))
    assert found is not None and sorted(found["card_spec"]["i18n_inline"]) == names[:3]


def test_an_asset_is_not_read_beyond_its_limit_and_two_assets_stand_in_no_way(tmp_path):
    pack = tmp_path / "p.gtpack"
    pack.write_bytes(make_pack("p", {}, assets={"assets/a.json": b"x" * 100, "assets/b": b"1", "assets/b/c": b"2"}))
    assets = PackAssets(pack)
    for limit in (99, 100, 99):  # read anew, and from what is kept
        if limit == 100:
            assert assets.read("assets/a.json", limit) == b"x" * 100
            continue
        with pytest.raises(LimitExceeded, match="has 100 bytes, more than 99"):
            assets.read("a.json", limit)
    assert assets.read("none", 1) is None
    with pytest.raises(MalformedArtifact, match="stands where another one stands or needs a directory"):
        assets.extract(tmp_path / "out")


def test_an_output_is_made_ready_for_templates_once_however_many_nodes_ask(monkeypatch):
    """Each node that named another one had all of them made anew: two thousand nodes took four seconds."""
    made: list[NodeOutput] = []

    def counted(output: NodeOutput) -> object:
        made.append(output)
        return node_view(output)

    monkeypatch.setattr(engine, "node_view", counted)
    monkeypatch.setattr(node_names, "node_view", counted)
    asking = [
        node(f"n{i}", "emit.response", {"t": "{{node.n0.t}}", "all": "{{node}}"}, to(f"n{i + 1}")) for i in range(5)
    ]
    wait = node("n5", "session.wait", "w", to("n6"))
    world = World(flow(*asking, wait, node("n6", "emit.response", {"t": "{{node.n4.t}}", "data": "{{node.n6}}"})))
    parked = world.start({})
    assert len(made) == 6
    said = parked.output
    assert [sorted(item["all"]) for item in said] == [[f"n{k}" for k in range(i)] for i in range(5)]
    done = world.resume(parked, {})
    assert len(made) == 6 + 6 + 1 and done.output == [{"t": "", "data": ""}]


LONG = "{{#each entry.l}}{{#if this}}{{this}}{{/if}}{{/each}}"
"""Of thirty thousand elements: some 60,000 steps."""


@pytest.mark.parametrize(
    ("kind", "mapping"),
    [
        ("emit.response", {"text": LONG}),
        ("emit.response", [{"deep": ["x", LONG]}]),
        ("emit.response", {"text": "hi", "vars_out": {"v": LONG}}),
        ("var.set", {"name": "v", "value": LONG}),
        ("provider.invoke", {"op": "x", "in_map": {"t": LONG}}),
        ("provider.invoke", {"op": "x", "out_map": {"t": LONG}}),
    ],
)  # fmt: skip
def test_a_worker_does_something_else_while_a_long_template_is_rendered(kind, mapping):
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both():
        beside = asyncio.create_task(others())
        try:
            await asyncio.sleep(0)
            run = world.run()
            ports = replace(run.ports, pause=partial(pieces.piece_done, "D"))
            return await engine.start(replace(run, ports=ports), {"l": [1] * 30_000})
        finally:
            beside.cancel()

    world = World(flow(node("a", kind, mapping)))
    world.components.providers[""] = lambda call: {}
    outcome = asyncio.run(both())
    assert isinstance(outcome, engine.Completed)
    assert turns > 60_000 / handlebars_render.PIECE - 2  # a clock that stands still gives way between no nodes
    assert start(world.run(), {"l": [1] * 30_000}).output == outcome.output  # and the same where there is no loop


def test_many_long_renderings_take_turns_and_hold_up_nobody_else():
    """A hundred that each gave way once in a turn of the loop would hold up a short request for a quarter of a second."""
    happened: list[str] = []
    done: list[str] = []

    async def paused(lane: str) -> None:
        happened.append("piece")
        await pieces.piece_done(lane)

    async def ticking() -> None:
        while True:
            happened.append("tick")
            await asyncio.sleep(0)

    async def one(lane: str) -> None:
        run = world.run()
        await engine.start(replace(run, ports=replace(run.ports, pause=partial(paused, lane))), {"l": [1] * 10_000})
        done.append(lane)

    async def all_of_them() -> None:
        runs = [asyncio.create_task(one("flooded")) for _ in range(30)]
        for _ in range(60):
            await asyncio.sleep(0)
        others = asyncio.create_task(ticking())
        calm = asyncio.create_task(one("calm"))
        await calm
        first = len(done)
        for run in runs[::2]:
            run.cancel()  # who leaves is passed over
        await asyncio.gather(*runs, return_exceptions=True)
        others.cancel()
        assert first < 10, "a lane with one run waited for all of another lane"

    world = World(flow(node("a", "emit.response", {"text": LONG})))
    asyncio.run(all_of_them())
    assert sum(lane == "flooded" for lane in done) >= 15
    at = happened.index("tick")
    between = "".join("p" if what == "piece" else "t" for what in happened[at:])
    assert "ppp" not in between and between.count("p") > 100


def test_what_is_compared_is_weighed_by_the_smaller_of_the_two():
    """Each comparison of a small value with a large one walked through the large one: three seconds within the limit."""
    looked_at = 0

    class Counted(list):
        def __iter__(self):
            nonlocal looked_at
            for item in super().__iter__():
                looked_at += 1
                yield item

    large = Counted(Counted([1] * 300) for _ in range(300))
    looked_at = 0
    names = NodeNames(RunState({"large": large, "small": [[1] * 10] * 300}), MISSING, FakeClock())
    text = "x{{#each @root.entry.small}}{{#if (eq @root.entry.large this)}}y{{/if}}{{/each}}"
    assert compile_value(text).render(names) == "x"
    assert looked_at < 300 * 1000
    with pytest.raises(FlowFailure, match="more than 100000 steps"):
        compile_value(
            "x{{#each @root.entry.large}}{{#if (eq @root.entry.large @root.entry.large)}}y{{/if}}{{/each}}"
        ).render(names)


def test_turns_without_a_tag_and_members_that_are_printed_are_counted():
    names = NodeNames(
        RunState(
            {"l": [1] * 100_001, "deep": [[1] * 200] * 101, "some": [[1] * 200] * 99, "none": [[None] * 200] * 99}
        ),
        MISSING,
        FakeClock(),
    )
    with pytest.raises(FlowFailure, match="more than 100000 steps"):
        compile_value("{{#each entry.l}}{{/each}}a{{#each entry.l}}a{{/each}}").render(names)
    for text in ("x {{entry.deep}}", "x {{#if true}}{{entry.deep}}{{/if}}", "x {{entry.l}}"):
        with pytest.raises(FlowFailure, match="a list of more than 20000 members is no text"):
            compile_value(text).render(names)
    assert len(str(compile_value("x {{entry.some}}").render(names))) == 2 + 99 * 600 + 2 * 99
    with pytest.raises(FlowFailure, match="a list of more than 20000 members is no text"):  # together they take as long
        compile_value("x {{entry.some}} {{entry.some}}").render(names)
    with pytest.raises(FlowFailure, match="more than 100000 steps"):
        compile_value("x {{#each entry.none}}{{@root.entry.none}}{{/each}}").render(names)
    assert compile_value("{{entry.l}}").render(names) == [1] * 100_001  # as itself, which no text is made of
