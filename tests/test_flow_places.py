"""What is told of a flow's source begins with the place where it stands, in whatever program tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from greentic.author.bundle_build import build_bundle
from greentic.author.flow_run import lint
from greentic.author.inspect import inspect_bundle, write_checked
from greentic.author.pack_build import build_pack
from greentic.author.yaml_places import YamlPlaces
from greentic.ground.errors import InvalidArgument
from greentic.ground.yaml import parse_yaml

PACK = "pack_id: p\nversion: 1.0.0\nkind: application\npublisher: me\nflows: [{file: flows/main.ygtc}]\n"
HEAD = "id: main\ntype: messaging\n"
SAYS = "    emit.response: {text: hi}\n"


def written(tmp_path: Path, flow: str) -> Path:
    pack = tmp_path / "b" / "packs" / "app"
    (pack / "flows").mkdir(parents=True)
    (pack / "pack.yaml").write_text(PACK)
    (pack / "flows" / "main.ygtc").write_text(flow)
    (tmp_path / "b" / "bundle.yaml").write_text("bundle_id: b\n")
    return pack


def place_of_mark(flow: str) -> str:
    """The line with the mark, and the column of the first thing in it that the marked text `«…»` shows."""
    at = flow.index("«")
    line = flow.count("\n", 0, at) + 1
    return f"{line}:{at - (flow.rfind(chr(10), 0, at) + 1) + 1}"


def unmarked(flow: str) -> str:
    return flow.replace("«", "")


BROKEN = [
    (HEAD + "«strat: a\nnodes:\n  a:\n" + SAYS, "unknown key"),
    ("«type: messaging\n", "missing required property `id`"),
    ("«id: 7\ntype: messaging\n", "`id` is a text"),
    ("id: main\n«type: nope\n", "Unknown flow type"),
    (HEAD + "«nodes: [a]\n", "mapping of node ids"),
    (HEAD + "«start: z\nnodes:\n  a:\n" + SAYS, "names no node"),
    (HEAD + "entrypoints:\n  «default: z\nnodes:\n  a:\n" + SAYS, "names no node"),
    (HEAD + "«parameters: 1\nnodes:\n  a:\n" + SAYS, "`parameters` is a mapping"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "  «b c:\n" + SAYS, "is no node id"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "  «b: x\n", "is a mapping"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "    «emit.log: {}\n", "exactly one component key"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "    «routing: 7\n", "is `out`, `reply` or a list"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "    routing:\n      - {to: a}\n      - status: x\n        «to: nope\n", "Missing node 'nope'"),
    (HEAD + "nodes:\n  «a:\n    component.exec: {component: nope, operation: x}\n", "which this pack does not have"),
    ("«id: a b\ntype: messaging\nnodes:\n  a:\n" + SAYS, "invalid identifier"),
]  # fmt: skip


@pytest.mark.parametrize(("flow", "told"), BROKEN)
def test_what_does_not_compile_is_told_with_its_place(flow: str, told: str, tmp_path: Path) -> None:
    pack = written(tmp_path, unmarked(flow))
    for build in (lambda: build_pack(pack), lambda: build_bundle(tmp_path / "b", tmp_path / "out.gtbundle")):
        with pytest.raises(InvalidArgument, match=told) as refused:
            build()
        assert f"{pack}/flows/main.ygtc:{place_of_mark(flow)}: " in refused.value.message


FOUND = [
    (HEAD + "«schema_version: 3\nnodes:\n  a:\n" + SAYS, "is not known, and read as 2"),
    (HEAD + "«tags: x\nnodes:\n  a:\n" + SAYS, "`tags` is no list"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "    «retry: 3\n", "reserved, and does nothing"),
    (HEAD + "nodes:\n  a:\n    «emit.response: {text: hi}\n    in_map: {text: no}\n", "left out: `in_map`"),
    (HEAD + "nodes:\n  a:\n    emit.response:\n      text: hi\n      more: «\"Hello {{name}}!\"\n", "no name `name`"),
    (HEAD + "nodes:\n  a:\n    emit.response:\n      text: «>-\n        two lines {{node.nope.x}}\n        here\n", "no node `nope`"),
    (HEAD + "nodes:\n  a:\n    emit.response: {text: «'{{a}}{{b}}'}\n", "is several expressions"),
    (HEAD + "nodes:\n  a:\n" + SAYS + "    routing:\n      - {condition: «\"a == 1 && b == 2\", to: a}\n", "is one comparison"),
    (HEAD + "nodes:\n  «a:\n    var.set: {value: 1}\n", "without `name` fails"),
    (HEAD + "nodes:\n  a:\n    emit.response: {text: hi}\n    routing: [{to: a, «wehn: x}]\n", "unknown routing key"),
    ('{"id": "main", "type": "messaging", "nodes": {"a": {"emit.response": {\n  "text": «"{{nam}}"}}}}', "no name `nam`"),
]  # fmt: skip


@pytest.mark.parametrize(("flow", "told"), FOUND)
def test_what_is_found_is_told_with_its_place_by_every_program(flow: str, told: str, tmp_path: Path) -> None:
    pack = written(tmp_path, unmarked(flow))
    source = pack / "flows" / "main.ygtc"
    built = build_pack(pack)
    bundle = build_bundle(tmp_path / "b", tmp_path / "out.gtbundle")
    programs: dict[str, Any] = {
        "lint of a flow": lint([source]), "lint of a pack": lint([pack]),
        "pack build": [*built.warnings, write_checked(tmp_path / "p.gtpack", built.data, built.where)],
        "bundle build": [*bundle.warnings, inspect_bundle(bundle.path, bundle.where)],
    }  # fmt: skip
    for program, answer in programs.items():
        lines = [text for text in _texts(answer) if told in text]
        assert lines, program
        assert all(f"{source}:{place_of_mark(flow)}: " in line for line in lines), (program, lines)


def test_a_card_that_is_not_there_is_told_where_it_is_named(tmp_path: Path) -> None:
    flow = HEAD + "nodes:\n  a:\n    emit.response: {text: hi}\n"
    card = "    cards.card:\n      card_source: asset\n      card_spec: {asset_path: «cards/nope.json}\n"
    flow = flow.replace("    emit.response: {text: hi}\n", card)
    pack = written(tmp_path, unmarked(flow))
    (pack / "pack.yaml").write_text(PACK + "components: [{id: cards}]\n")
    (pack / "components").mkdir()
    (pack / "components" / "cards.wat").write_text("(component)")
    told = [text for text in _texts(lint([pack])) if "nope.json" in text]
    assert len(told) == 1 and told[0].startswith(f"{pack}/flows/main.ygtc:{place_of_mark(flow)}: ")


def test_a_pack_whose_source_is_not_there_is_told_of_without_a_place(tmp_path: Path) -> None:
    pack = written(tmp_path, HEAD + "nodes:\n  a:\n    emit.response: {text: '{{nam}}'}\n")
    out = tmp_path / "p.gtpack"
    out.write_bytes(build_pack(pack).data)
    assert next(text for text in _texts(lint([out])) if "nam" in text).startswith("flow main: node a: ")


@pytest.mark.parametrize(
    ("way", "about", "place"),
    [
        ((), "", "1:1"), (("a",), "", "1:1"), (("a", 1), "", "2:5"), (("a", 1, "x"), "", "2:6"), (("a", 7), "", "1:1"),
        (("b", "y"), "", "3:1"), (("c",), "deep", "4:7"), (("c",), "gone", "4:1"), (("1",), "", "5:1"),
    ],
)  # fmt: skip
def test_a_way_is_followed_as_far_as_it_leads(way: tuple[str | int, ...], about: str, place: str) -> None:
    text = b"a: [x,\n    {x: 1}]\nb: &b {x: deep}\nc: [*b, deep]\n1: k\n"
    assert parse_yaml(text)
    assert YamlPlaces(text).place(way, about) == (place if about != "deep" else "3:11")


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _texts(item)]


def test_places_are_found_in_json() -> None:
    assert YamlPlaces(json.dumps({"a": {"b": 1}}, indent=2).encode()).place(("a", "b")) == "3:5"
