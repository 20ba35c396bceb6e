"""The members of a payload in words, from its JSON schema: for the help of a verb. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from greentic.ground.documents import JsonObject

_KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "JSON",
}


def as_rows(schema: JsonObject, filled: Collection[str]) -> list[str]:
    """Lines that tell the members which nothing else fills, those inside of objects by their path; none where none is left."""
    rows = [(name, kind) for name, kind in _rows(schema, "") if name.rstrip("*") not in filled]
    width = max((len(name) for name, _ in rows), default=0) + 2
    listed = [f"  {name:<{width}}{kind}" for name, kind in rows]
    return ["key=value (* has to be there):", *listed, ""] if rows else []


def _rows(schema: JsonObject, before: str) -> Iterator[tuple[str, str]]:
    properties, required = schema.get("properties"), schema.get("required")
    for name, member in properties.items() if isinstance(properties, dict) else ():
        assert isinstance(member, dict)
        if member.get("properties"):
            yield from _rows(member, f"{before}{name}.")
            continue
        starred = "*" if isinstance(required, list) and name in required else ""
        described = member.get("description")
        yield before + name + starred, f"{_kind(member)}{f': {described}' if described else ''}"


def _kind(member: JsonObject) -> str:
    """What a member holds, in words."""
    words, kind, items = member.get("enum"), member.get("type"), member.get("items")
    if isinstance(words, list):
        return " or ".join(str(word) for word in words if word is not None)
    if "const" in member:
        return f"`{member['const']}`"
    if isinstance(items, dict):
        inner = items.get("properties")
        return f"a list of {{{', '.join(inner)}}}" if isinstance(inner, dict) else "a list, such as '[\"…\"]'"
    return _KINDS.get(str(kind[0] if isinstance(kind, list) else kind), "JSON")
