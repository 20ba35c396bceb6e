"""What of a flow's source does nothing, as warnings: words that compile, and that no worker here acts on (formats: flows 1, 12). Pure."""

from __future__ import annotations

_RESERVED = ("retry", "timeout", "when")
_KEPT = ("err_map", "out_map", "output")
_BESIDE = frozenset({*_RESERVED, *_KEPT, "routing", "telemetry", "in_map", "operation", "annotations", "meta"})


def unheard(source: dict[str, object]) -> list[str]:
    """The warnings about a source that compiles."""
    found: list[str] = []
    version = source.get("schema_version", 2)
    if isinstance(version, bool) or version not in (1, 2):
        found.append(f"schema_version {version!r} is not known, and read as 2")
    if not isinstance(source.get("tags") or [], list):
        found.append("`tags` is no list, and left out")
    nodes = source.get("nodes")
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        found += [f"node {name}: {text}" for text in _node(node)] if isinstance(node, dict) else []
    return found


def _node(node: dict[str, object]) -> list[str]:
    found: list[str] = []
    for words, why in ((_RESERVED, "reserved, and does nothing"), (_KEPT, "kept, and no worker here acts on it")):
        found += [f"`{word}` is {why}" for word in words if node.get(word)]
    given = [key for key in node if key not in _BESIDE and node[key]]
    if node.get("in_map") and given:
        found.append(f"what stands under `{given[0]}` is left out: `in_map` takes its place")
    return found
