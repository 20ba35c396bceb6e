"""The source of a flow: what it compiles to, where things stand in it, and what of it does nothing (formats: flows 1, 12).

Rules:
1. What is told of a source begins with `FILE:LINE:COLUMN`, of the node where that is all that is known.
2. Words that compile, and that no worker here acts on, are warnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from greentic.author.flow_compile import TELEMETRY, FlowSourceError, Map, compile_flow
from greentic.author.source_files import MAX_SOURCE, parsed, read_authored
from greentic.author.yaml_places import Way, YamlPlaces
from greentic.flow.lint import Where
from greentic.ground.errors import InvalidArgument

_RESERVED = ("retry", "timeout", "when")
_KEPT = ("err_map", "out_map", "output")
_BESIDE = frozenset({*_RESERVED, *_KEPT, "routing", "telemetry", "in_map", "operation", "annotations", "meta"})


class FlowSource(NamedTuple):
    """A source that compiles."""

    path: Path
    places: YamlPlaces
    compiled: Map
    unheard: list[str]
    """What of it does nothing (rule 2)."""

    @property
    def flow_id(self) -> str:
        return str(self.compiled["id"])

    def at(self, *way: str | int, about: str = "") -> str:
        """Where something stands (rule 1)."""
        return _at(self.path, self.places, way, about)


def read_flow(path: Path) -> FlowSource:
    """The source in a file. Raises `NotFound`, `IoError`, or `InvalidArgument` for what does not compile."""
    data = read_authored(path, MAX_SOURCE)
    source, places = parsed(path, data), YamlPlaces(data)
    try:
        compiled = compile_flow({} if source is None else source)
    except FlowSourceError as error:
        raise InvalidArgument(f"failed to compile flow {_at(path, places, error.way)}: {error}") from None
    unheard = (
        [f"{_at(path, places, way)}: {told}" for way, told in _unheard(source)] if isinstance(source, dict) else []
    )
    return FlowSource(path, places, compiled, unheard)


def where(sources: Iterable[FlowSource]) -> Where:
    """Where findings about the flows of some sources stand."""
    by_id = {source.flow_id: source for source in sources}

    def told(flow_id: str, node_id: str | None, about: str) -> str:
        source = by_id.get(flow_id)
        way = () if node_id is None else ("nodes", node_id)
        return "" if source is None else f"{source.at(*way, about=about)}: "

    return told


def _at(path: Path, places: YamlPlaces, way: Way, about: str = "") -> str:
    return f"{path}:{places.place(way, about)}"


def _unheard(source: Map) -> Iterator[tuple[Way, str]]:
    version = source.get("schema_version", 2)
    if isinstance(version, bool) or version not in (1, 2):
        yield ("schema_version",), f"schema_version {version!r} is not known, and read as 2"
    if not isinstance(source.get("tags") or [], list):
        yield ("tags",), "`tags` is no list, and left out"
    for word in ("title", "description"):
        if not isinstance(source.get(word) or "", str):
            yield (word,), f"`{word}` is no text, and left out"
    parameters = source.get("parameters")
    if isinstance(parameters, dict) and not isinstance(parameters.get("vars_init") or {}, dict):
        yield ("parameters", "vars_init"), "`vars_init` is no mapping, and sets nothing"
    nodes = source.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        for word, told in _of_node(node) if isinstance(node, dict) else ():
            yield ("nodes", name, word), f"node {name}: {told}"


def _of_node(node: Map) -> Iterator[tuple[str, str]]:
    for words, why in ((_RESERVED, "reserved, and does nothing"), (_KEPT, "kept, and no worker here acts on it")):
        for word in words:
            if node.get(word):
                yield word, f"`{word}` is {why}"
    if not isinstance(node.get("operation") or "", str):
        yield "operation", "`operation` is no text, and left out"
    yield from (("telemetry", told) for told in _of_telemetry(node.get("telemetry") or {}))
    given = [key for key in node if key not in _BESIDE and node[key]]
    mapping = node[given[0]] if given else None
    if isinstance(mapping, dict) and not isinstance(mapping.get("vars_out") or {}, dict):
        yield given[0], "`vars_out` is no mapping, and sets nothing"
    if node.get("in_map") and given:
        yield given[0], f"what stands under `{given[0]}` is left out: `in_map` takes its place"


def _of_telemetry(telemetry: object) -> Iterator[str]:
    if not isinstance(telemetry, dict):
        yield "`telemetry` is no mapping, and left out"
        return
    for word, value in telemetry.items():
        texts = value.values() if word == "attributes" and isinstance(value, dict) else [value]
        if word not in TELEMETRY:
            yield f"`{word}` of `telemetry` is not known, and left out"
        elif not all(text is None or isinstance(text, str) for text in texts):
            yield f"`{word}` of `telemetry` is no text, and left out"
