"""What the type of a struct tells about a value that does not fit it: which words a field takes, which members no field takes. Pure."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, get_args, get_origin

import msgspec

from greentic.ground.documents import Json
from greentic.ground.nearest import nearest


def allowed_words(form: object, path: str) -> list[str]:
    """The words that a field takes; `path` is where it is, such as `.bundles[0].status`."""
    return [str(word) for word in get_args(_at(form, path))]


def members(form: object, path: str) -> list[str]:
    """The members that the object at a place may have."""
    place = _at(form, path)
    return [f.encode_name for f in msgspec.structs.fields(place)] if _is_struct(place) else []  # type: ignore[arg-type]


def unknown_told(form: object, raw: Json) -> list[str]:
    """Paths of what no field takes, in the payload and in the objects inside it, each with the member that may have been meant."""
    found = dict(_unknown(form, raw, ""))
    return [f"{path} (did you mean `{found[path]}`?)" if found[path] else path for path in sorted(found)]


def _unknown(form: object, raw: Json, before: str) -> Iterator[tuple[str, str | None]]:
    """What no field takes, with the nearest that is one."""
    form = _bare(form)
    if get_origin(form) is list and isinstance(raw, list):
        for item in raw:
            yield from _unknown(get_args(form)[0], item, before)
    if not _is_struct(form) or not isinstance(raw, dict):
        return
    known = {f.encode_name: f.type for f in msgspec.structs.fields(form)}  # type: ignore[arg-type]
    for key, value in raw.items():
        if key in known:
            yield from _unknown(known[key], value, f"{before}{key}.")
        else:
            yield f"{before}{key}", nearest(key, known)


def _at(form: object, path: str) -> object:
    """The type of what is at a place."""
    place: object = form
    for step in path.replace("[", ".[").split(".")[1:]:
        place = _bare(place)
        inner = get_args(place)
        place = inner[-1] if inner else {f.encode_name: f.type for f in msgspec.structs.fields(place)}[step]  # type: ignore[arg-type]
    return _bare(place)


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _bare(kind: object) -> object:
    """A type without what is said about it, and without `None`."""
    while get_origin(kind) in (Annotated, types.UnionType, typing.Union):
        parts = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
        kind = next(part for part in parts if part is not types.NoneType)
    return kind
