"""`gtc flow run` and `gtc flow lint`: a flow on the spot, without an environment, a bundle or a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import msgspec

from greentic.activate.turn import ActiveRevision, Message, TurnServices, flow_index, turn
from greentic.activate.warm import looked_into
from greentic.author.flow_source import read_flow, where
from greentic.author.inspect import named
from greentic.author.pack_build import SOURCE_FILE, build_pack
from greentic.author.source_files import ends_with, read_authored
from greentic.components.runtime import ComponentRuntime, RevisionComponents
from greentic.flow.activity import Activity, activity_of
from greentic.flow.graph import read_graph
from greentic.flow.lint import Known, Where, lint_flow, nowhere
from greentic.flow.nodes import plan_flow
from greentic.flow.select import unanswerable
from greentic.ground.clock import SystemClock, SystemRandom
from greentic.ground.disk import real_path
from greentic.ground.documents import MAX_BYTES, Json, JsonObject, parse, unmarked
from greentic.ground.errors import InvalidArgument, NotFound
from greentic.ground.going import in_place
from greentic.materialize.placed import file_digest
from greentic.pack.load import LoadedPack, headers, load_pack
from greentic.pack.located import LocatedPack
from greentic.sessions.conversation import Conversations, Identity
from greentic.sessions.memory_store import MemoryStore
from greentic.sessions.stored_state import StoredState

TENANT = "default"


class Step(NamedTuple):
    """One node that ran."""

    flow: str
    node: str
    kind: str
    payload: object
    output: object
    then: str


class _Tracer:
    def __init__(self, told: Callable[[Step], None]) -> None:
        self._told = told

    def enter(self, flow_id: str, node_id: str, kind: str) -> None:
        """Steps are told once they are done."""

    def step(self, flow_id: str, node_id: str, kind: str, payload: object, output: object, then: str) -> None:
        self._told(Step(flow_id, node_id, kind, payload, output, then))

    def said(self, source: str, text: str) -> None:
        """Nothing: the log of the runtime has it."""


@contextmanager
def opened_pack(path: Path) -> Iterator[tuple[LoadedPack, Where]]:
    """A loaded pack of a `.gtpack` file, or of a source directory that is built for the occasion, and where its flows stand."""
    if not path.is_dir():
        if not path.is_file():
            raise NotFound(f"`{path}` is no pack file and no directory")
        with named(path, ".gtpack"):
            pack = load_pack(LocatedPack(path.stem, path, file_digest(path)))
        yield pack, nowhere
        return
    if not (path / SOURCE_FILE).is_file():
        raise NotFound(f"`{path}` has no {SOURCE_FILE}", hint="gtc pack new DIR makes a pack to start from")
    with tempfile.TemporaryDirectory(prefix="greentic-flow-") as scratch:
        built = Path(scratch) / f"{real_path(path).name}.gtpack"
        made = build_pack(path)
        built.write_bytes(made.data)
        pack = load_pack(LocatedPack(built.stem, built, file_digest(built)), where=made.where)
        yield pack._replace(warnings=(*made.unheard, *pack.warnings)), made.where


def run_flow(path: Path, flow_id: str, inputs: list[str], told: Callable[[Step], None]) -> JsonObject:
    """Run a conversation of one turn an input, each input the JSON body of a request; a waiting flow takes the next one.

    `told` is given each step as it is done.
    """
    bodies = [_body(text) for text in inputs]
    with opened_pack(path) as (pack, _):
        flows = {flow.flow_id: flow for flow in pack.flows}
        if flow_id not in flows:
            known = ", ".join(sorted(flows)) or "none"
            raise NotFound(f"`{path}` has no flow `{flow_id}`; there are: {known}")
        values = MemoryStore()
        state = StoredState(values)
        logged: list[str] = []
        runtime = ComponentRuntime(None, state, lambda source, text: logged.append(f"{source}: {text}"))
        components = RevisionComponents((pack,), runtime)
        only = tuple((h._replace(entry=True), flow) for h, flow in flow_index((pack,)) if h.flow_id == flow_id)
        revision = ActiveRevision("local", "local", "local", pack.digest, None, (pack,), only, components)
        services = TurnServices(
            "local", Conversations(values, "run"), state, SystemClock(), SystemRandom(), logged.append, _Tracer(told)
        )
        turns: list[Json] = []
        for body in bodies:
            activity = Activity(activity_of(body).payload, None)
            answer = in_place(turn(revision, Message(activity, TENANT, None, Identity(session="run")), services))
            row: JsonObject = {"output": _json(answer.output), "waiting": answer.parked}
            turns.append(row if answer.failed is None else row | {"failed": answer.failed})
        return {
            "pack": pack.manifest_id,
            "flow": flow_id,
            "turns": turns,
            "log": [*logged],
            "warnings": [*components.told((pack,))[0].warnings],
        }


def lint(paths: list[Path]) -> JsonObject:
    """The findings about flow sources, packs and pack directories. Raises `InvalidArgument` for what does not compile."""
    rows: list[Json] = []
    for path in paths:
        if ends_with(path, ".ygtc"):
            rows.append({"path": str(path), "findings": [*_lint_source(path)]})
        else:
            with opened_pack(path) as (pack, stand):
                told = unanswerable(headers([pack]), pack.manifest_id)
                rows.append({"path": str(path), "findings": [*looked_into((pack,), stand)[0].warnings, *told]})
    return {
        "checked": rows,
        "findings": sum(len(r["findings"]) for r in rows if isinstance(r, dict) and isinstance(r["findings"], list)),
    }


def _lint_source(path: Path) -> list[str]:
    source = read_flow(path)
    plan = plan_flow(read_graph(source.flow_id, source.compiled))
    # A single file does not know its pack: components and other flows are taken to be there.
    named = [
        str(n.mapping.get("flow_id") or n.mapping.get("flow"))
        for n in plan.nodes.values()
        if isinstance(n.mapping, dict)
    ]
    known = Known(lambda name, operation: True, frozenset(named), where=where([source]))
    return [*source.unheard, *lint_flow(plan, known)]


def _body(text: str) -> object:
    if text.startswith("@"):
        try:
            text = unmarked(read_authored(Path(text[1:]), MAX_BYTES)).decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"`{text[1:]}` is no text in UTF-8") from None
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidArgument(
            f"--input is no JSON: {error}", hint="""such as --input '{"text": "hi"}' or --input @file.json"""
        ) from None


def _json(value: object) -> Json:
    return cast(Json, msgspec.to_builtins(value))
