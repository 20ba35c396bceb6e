"""YAML as people write it: answers, manifests, sources, flows, kubeconfigs.

Rules:
1. All YAML of the project is read and written here, with the safe constructors only.
2. A text is bounded in bytes. What it stands for is bounded in values and depth after every alias was written out, and before
   anything is built: nine lines of aliases can stand for a billion values, and merge keys multiply the same way.
3. A key that stands twice in one mapping is damage: the library would take the last one without a word.
4. Every damage is a `ValueError` with one line of text; an alias to what it stands in is one.
5. What is written for this project is read by the core schema of YAML 1.2: `NO`, `12:30`, `1_000` and dates are texts, `017` is
   seventeen, `1e3` a number. A key is a text, and what JSON has no value for is refused: `.nan`, `!!binary`. What is written for
   other programs is read as those read it, by YAML 1.1 (`parse_yaml_1_1`).
6. What is written here means the same to readers of YAML 1.1, 1.2 and what lies between.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NoReturn

import yaml

from greentic.ground.documents import JsonObject

MAX_BYTES = 4 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 100
_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"

if TYPE_CHECKING:
    from yaml import SafeDumper, SafeLoader
else:
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    """The library's safe loader, the quick one where it is built in."""
    SafeDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

__all__ = ["MAX_BYTES", "SafeLoader", "parse_yaml", "parse_yaml_1_1", "text_in_yaml", "yaml_of"]

_TRUTH = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NOTHING = re.compile(r"(?:~|null|Null|NULL|)\Z")
_WHOLE = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_WORD = re.compile(
    r"(?!(?:y|n|yes|no|on|off|true|false|null)\Z)[A-Za-z/][A-Za-z0-9 _./@-]*[A-Za-z0-9/]\Z", re.IGNORECASE
)
"""Texts that no reader of YAML takes for a number, a date, a truth or nothing."""


class _Core(SafeLoader):
    """The core schema of YAML 1.2, and the merge keys of 1.1, which many write (rule 5)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def truth(self, node: yaml.ScalarNode) -> bool:
        return _told(node, _TRUTH).lower() == "true"

    def whole(self, node: yaml.ScalarNode) -> int:
        text = _told(node, _WHOLE)
        value = int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(
                f"line {node.start_mark.line + 1}: `{text[:60]}` does not fit into 64 bits; is a text meant? Then in quotes"
            )
        return value

    def number(self, node: yaml.ScalarNode) -> float:
        text = _told(node, _FLOAT)
        value = float(text.replace(".", "", 1) if "n" in text.lower() else text)
        if not math.isfinite(value):
            raise ValueError(
                f"line {node.start_mark.line + 1}: `{text[:60]}` is no number that JSON has; is a text meant? Then in quotes"
            )
        return value

    def refused(self, node: yaml.Node) -> NoReturn:
        raise ValueError(
            f"line {node.start_mark.line + 1}: `!!{node.tag.rpartition(':')[2]}` is no value that JSON has"
        )


for _name, _pattern, _first in (
    ("bool", _TRUTH, "tTfF"),
    ("null", _NOTHING, ("~", "n", "N", "")),
    ("int", _WHOLE, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", re.compile(r"<<\Z"), "<"),
):
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))
_Core.add_constructor("tag:yaml.org,2002:bool", _Core.truth)
_Core.add_constructor("tag:yaml.org,2002:int", _Core.whole)
_Core.add_constructor("tag:yaml.org,2002:float", _Core.number)
for _name in ("binary", "timestamp", "omap", "pairs", "set"):
    _Core.add_constructor(f"tag:yaml.org,2002:{_name}", _Core.refused)


def _told(node: yaml.ScalarNode, pattern: re.Pattern[str]) -> str:
    """The text of a scalar. Raises `ValueError` if it is not what its tag says: a tag can be written to any text."""
    if not isinstance(node, yaml.ScalarNode) or not pattern.match(node.value):
        raise ValueError(
            f"line {node.start_mark.line + 1}: `{str(node.value)[:60]}` is no {node.tag.rpartition(':')[2]}"
        )
    return str(node.value)


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


def parse_yaml(data: bytes, *, limit: int = MAX_BYTES) -> object:
    """The one document in `data`, of at most `limit` bytes. Raises `ValueError`."""
    return _parse(data, limit, _Core)


def parse_yaml_1_1(data: bytes) -> object:
    """The same of what another program has written for its own kind (rule 5)."""
    return _parse(data, MAX_BYTES, SafeLoader)


def yaml_of(thing: JsonObject) -> str:
    """An object as YAML (rule 6)."""
    return yaml.dump(thing, Dumper=_Plain, sort_keys=True, default_flow_style=False, allow_unicode=False, width=10_000)


class _Plain(SafeDumper):
    """Writes without quotes only what no reader takes for something else than a text, and each value out, wherever else it stands."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        return self.represent_scalar(_TEXT, value, style=None if _WORD.match(value) else "'")


_Plain.add_representer(str, _Plain.text)


def text_in_yaml(text: str) -> str:
    """A text as it stands behind a key of a block: as it is where it is read back as itself, else in quotes."""
    if _WORD.match(text):
        return text
    return yaml.dump(text, Dumper=SafeDumper, default_style='"', allow_unicode=True, width=10_000).strip()


def _parse(data: bytes, limit: int, loader: type[SafeLoader]) -> object:
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    try:
        _check_text(data, loader)
        reader = loader(data)
        try:
            node = reader.get_single_node()
            if node is None:
                return None
            _check(node, keys_are_texts=loader is _Core)
            value: object = reader.construct_document(node)
        finally:
            reader.dispose()
    except _DAMAGE as error:
        raise ValueError(
            " ".join(str(error).replace('"<byte string>", ', "").split()) or type(error).__name__
        ) from None
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


def _check(root: yaml.Node, *, keys_are_texts: bool) -> None:
    """Raise `ValueError` for a document that stands for too much with its aliases written out (rule 2), or has a key twice (rule 3)."""
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
        if keys_are_texts and isinstance(node, yaml.MappingNode):
            node.value = [(_text_key(key), value) for key, value in node.value]
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


def _text_key(key: yaml.Node) -> yaml.Node:
    """A key as JSON has it: `1`, `true` and `null` are texts (rule 5)."""
    if not isinstance(key, yaml.ScalarNode) or key.tag in (_MERGE, _TEXT):
        return key
    return yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark)


def _check_keys(node: yaml.Node) -> None:
    """Raise `ValueError` for a mapping with the same plain key twice (rule 3)."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(
                f"line {key.start_mark.line + 1}: a mapping or list stands where a key is expected; is a template meant? Then in quotes"
            )
        if key.tag == _MERGE:
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
