"""Where something stands in a source that was parsed (rule 1 of `author/flow_source.py`). Pure.

A way is followed as far as it leads: what a merge key brings in is told by the mapping that it is brought into.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from yaml import MappingNode, Node, ScalarNode, SequenceNode, compose

from greentic.ground.yaml import SafeLoader

Way = tuple[str | int, ...]
"""The keys and indexes that lead to a value of a document."""


class YamlPlaces:
    """The places in one text."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def _root(self) -> Node | None:
        return compose(self._data, Loader=SafeLoader)

    def place(self, way: Way = (), about: str = "") -> str:
        """`LINE:COLUMN` of what a way leads to; of the first text there that is `about`, if one is."""
        node = found = self._root
        for step in way:
            entry = _entry(node, step)
            if entry is None:
                break
            found, node = entry
        if about and node is not None:
            found = next((text for text in _texts(node) if text.value == about), found)
        mark = None if found is None else found.start_mark
        return "1:1" if mark is None else f"{mark.line + 1}:{mark.column + 1}"


def _entry(node: Node | None, step: str | int) -> tuple[Node, Node] | None:
    """What is pointed to for a step of a way, and the value there."""
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    pairs = node.value if isinstance(node, MappingNode) else []
    return next(((key, value) for key, value in pairs if key.value == str(step)), None)


def _texts(node: Node) -> Iterator[ScalarNode]:
    """The scalars in a node, in their order and each once, whatever aliases stand for it."""
    waiting, seen = [node], set[int]()
    while waiting:
        at = waiting.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        if isinstance(at, ScalarNode):
            yield at
        elif isinstance(at, MappingNode):
            waiting += (part for pair in reversed(at.value) for part in reversed(pair))
        else:
            waiting += reversed(at.value)
