"""YAML as people write it: answers, manifests, sources, flows, kubeconfigs.

Rules:
1. All YAML of the project is read here, with the safe constructors only.
2. A text is bounded in bytes. What it stands for is bounded in values and depth after every alias was written out, and before
   anything is built: nine lines of aliases can stand for a billion values, and merge keys multiply the same way.
3. A key that stands twice in one mapping is damage: the library would take the last one without a word.
4. Every damage is a `ValueError` with one line of text; an alias to what it stands in is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

MAX_BYTES = 4 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 100
_MERGE = "tag:yaml.org,2002:merge"

if TYPE_CHECKING:
    from yaml import SafeLoader
else:
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    """The library's safe loader, the quick one where it is built in."""

__all__ = ["MAX_BYTES", "SafeLoader", "parse_yaml"]

_DAMAGE = (
    yaml.YAMLError,
    # What the constructors of numbers, times and tagged scalars raise for texts that are none.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def parse_yaml(data: bytes, *, limit: int = MAX_BYTES, loader: type[SafeLoader] = SafeLoader) -> object:
    """The one document in `data`, of at most `limit` bytes. Raises `ValueError`."""
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    try:
        _check_text(data, loader)
        reader = loader(data)
        try:
            node = reader.get_single_node()
            if node is None:
                return None
            _check(node)
            value: object = reader.construct_document(node)
        finally:
            reader.dispose()
    except _DAMAGE as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return value


def _check_text(data: bytes, loader: type[SafeLoader]) -> None:
    """Raise `ValueError` for a text with too much in it, at the first event that is too much: composing it would cost more."""
    depth = values = 0
    for event in yaml.parse(data, Loader=loader):
        if isinstance(event, yaml.NodeEvent):
            values += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH + 1:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        if values > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")


def _check(root: yaml.Node) -> None:
    """Raise `ValueError` for a document that stands for too much with its aliases written out (rule 2)."""
    measured: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """How many values a node stands for, and how deep they go."""
        known = measured.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise ValueError("an alias stands for what it stands in")
        open_nodes.add(id(node))
        total, depth = 1, 0
        _check_keys(node)
        for child in _children(node):
            inner, below = measure(child)
            total, depth = total + inner, max(depth, below + 1)
            if total > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES} values, aliases written out")
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} levels deep, aliases written out")
        open_nodes.discard(id(node))
        measured[id(node)] = total, depth
        return total, depth

    measure(root)


def _check_keys(node: yaml.Node) -> None:
    """Raise `ValueError` for a mapping with the same plain key twice (rule 3)."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        if (key.tag, key.value) in seen:
            raise ValueError(
                f"the key `{key.value}` stands twice in one mapping, again in line {key.start_mark.line + 1}"
            )
        seen.add((key.tag, key.value))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return []
