"""What the type of a struct tells about a value that does not fit it: which words a field takes, which members no field takes. Pure."""

from __future__ import annotations

import types
import typing
from typing import Annotated, get_args, get_origin

import msgspec

from greentic.ground.documents import Json


def allowed_words(form: object, path: str) -> list[str]:
    """The words that a field takes; `path` is where it is, such as `.bundles[0].status`."""
    place: object = form
    for step in path.replace("[", ".[").split(".")[1:]:
        place = _bare(place)
        inner = get_args(place)
        place = inner[-1] if inner else {f.encode_name: f.type for f in msgspec.structs.fields(place)}[step]  # type: ignore[arg-type]
    return [str(word) for word in get_args(_bare(place))]


def unknown_keys(form: object, raw: Json) -> list[str]:
    """Paths of what no field takes, in the payload and in the objects inside it."""
    form = _bare(form)
    if get_origin(form) is list and isinstance(raw, list):
        return sorted({path for item in raw for path in unknown_keys(get_args(form)[0], item)})
    if not (isinstance(form, type) and issubclass(form, msgspec.Struct) and isinstance(raw, dict)):
        return []
    known = {f.encode_name: f.type for f in msgspec.structs.fields(form)}
    inside = (f"{key}.{path}" for key in raw if key in known for path in unknown_keys(known[key], raw[key]))
    return sorted([*(raw.keys() - known.keys()), *inside])


def _bare(kind: object) -> object:
    """A type without what is said about it, and without `None`."""
    while get_origin(kind) in (Annotated, types.UnionType, typing.Union):
        parts = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
        kind = next(part for part in parts if part is not types.NoneType)
    return kind
