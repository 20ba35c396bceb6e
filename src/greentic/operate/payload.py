"""Payloads of verbs: how they are read, and the JSON schema that `--schema` prints.

Rules:
1. A payload is a struct; its fields are the contract, the schema is made from them.
2. Unknown keys do not fail a verb (older callers send them), but the reply names them in `warnings`, those inside other
   objects with their path: a mistyped route would be a route to everything. The environment manifest alone refuses them.
3. A payload that holds a private key or a password in an address, in whatever member, is refused before anything is written of it, and
   no error shows it (threats: secret-before-validation).
"""

from __future__ import annotations

import re
import types
import typing
from typing import Annotated, TypeVar, cast, get_args, get_origin

import msgspec

from greentic.ground.documents import Json, JsonObject
from greentic.ground.errors import GreenticError, InvalidArgument
from greentic.ground.field_types import allowed_words, members
from greentic.ground.nearest import did_you_mean, one_of
from greentic.model.secret_text import secret_in

_UNQUOTED = re.compile(r"Expected `str(?: \| null)?`, got `(?:int|float|bool)`")
_QUOTES = "put it in quotes: `1.0`, `017` and `true` are no texts without them"

P = TypeVar("P", bound="Payload")


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """Base of payloads and of the objects inside them."""


class ClosedPayload(Payload, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A payload whose unknown keys are refused."""


def of_ids(names: tuple[str, ...]) -> type[Payload]:
    """The payload of a verb that takes ids alone: what its plain words say may stand in a file or behind `=`, too."""
    form = msgspec.defstruct("Ids", [(name, str) for name in names], bases=(Payload,), frozen=True, kw_only=True)
    return cast("type[Payload]", form)


NullableText = Annotated[str | None, msgspec.Meta(extra_json_schema={"type": ["string", "null"]})]
Ulid = Annotated[str, msgspec.Meta(description="ULID, 26 characters")]
Key = Annotated[str, msgspec.Meta(description="makes a repeated call safe: same key and payload change nothing")]


def read(form: type[P], raw: Json, refuse: type[GreenticError], where: str = "") -> P:
    """The payload. Raises `refuse` with the place and what was expected there; `where` stands before the reason."""
    refuse_secrets(raw, where)
    try:
        return msgspec.convert(raw, form)
    except msgspec.ValidationError as error:
        text = (
            str(error)
            .replace("Object missing required field", "missing field")
            .replace("Object contains unknown", "unknown")
        )
        place = text.rpartition("$")[2].rstrip("`") if " - at `$" in text else ""
        if text.startswith("Invalid enum value"):
            text += one_of(text.split("'")[1] if "'" in text else "", allowed_words(form, place))
        elif text.startswith("unknown field `"):
            text += did_you_mean(text.split("`")[1], members(form, place))
        raise refuse(f"{where}{text}", hint=_QUOTES if _UNQUOTED.match(text) else None) from None


def refuse_secrets(raw: Json, where: str) -> None:
    """Raise `InvalidArgument` for a value that holds a secret (rule 3)."""
    found = secret_in(raw)
    if found is not None:
        from greentic.net.addresses import OF_REGISTRIES  # most payloads hold none

        place, what = found
        instead = (
            OF_REGISTRIES
            if "address" in what
            else "give the public key (the .pub file), or name where the secret is kept"
        )
        raise InvalidArgument(
            f"{where}`{place}` holds {what}; nothing was recorded of it",
            hint=f"{instead}; replace a secret that others may have seen",
        )


def schema(form: type[Payload], *, description: str | None = None) -> JsonObject:
    """The JSON schema of a payload."""
    out: JsonObject = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": getattr(form, "schema_title", form.__name__),
    }
    if description:
        out["description"] = description
    return out | _object(form, top=True)


def _object(form: type[msgspec.Struct], *, top: bool = False) -> JsonObject:
    properties: JsonObject = {}
    required: list[Json] = []
    for field in msgspec.structs.fields(form):
        described = _property(field.type)
        if field.required:
            required.append(field.encode_name)
        elif isinstance(field.default, str | int) and not isinstance(field.default, bool) and "const" not in described:
            described.setdefault("default", field.default)
        properties[field.encode_name] = described
    out: JsonObject = {"type": "object", "properties": properties}
    if top or form.__struct_config__.forbid_unknown_fields:
        out["additionalProperties"] = False
    if required:
        out["required"] = required
    return out


def _property(kind: object) -> JsonObject:
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        out = _property(inner)
        for meta in cast(list[msgspec.Meta], metas):
            if meta.description:
                out["description"] = meta.description
            if meta.ge is not None:
                out["minimum"] = meta.ge
            if meta.le is not None:
                out["maximum"] = meta.le
            out.update(cast(JsonObject, meta.extra_json_schema or {}))
        return out
    if get_origin(kind) in (types.UnionType, typing.Union):
        return _property(next(a for a in get_args(kind) if a is not types.NoneType))
    if get_origin(kind) is typing.Literal:
        values = list(get_args(kind))
        return {"const": values[0]} if len(values) == 1 else {"type": "string", "enum": cast("list[Json]", values)}
    if get_origin(kind) is list:
        return {"type": "array", "items": _property(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _property(get_args(kind)[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _object(kind)
    simple = {str: "string", int: "integer", bool: "boolean", float: "number"}
    return {"type": simple[kind]} if isinstance(kind, type) and kind in simple else {}
