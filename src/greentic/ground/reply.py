"""What a verb answers: a value with names and types. JSON is made of it at the edge, by `reply_json` alone.

Rules:
1. A reply is a frozen struct; its field names are the members that programs read. A field is always told, as `null` where there is
   nothing, but for one that is `UNSET`: that is left out.
2. Replies hold replies, documents, and plain values. Documents keep what they do not know (`ground/documents.py`).
"""

from __future__ import annotations

from typing import cast

import msgspec

from greentic.ground.documents import Document, Json, JsonObject, to_json


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what verbs answer, and of the records inside."""


def reply_json(value: object) -> Json:
    """The JSON of a reply, or of a list, an object or a plain value that may hold replies."""
    if isinstance(value, Reply):
        told = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: reply_json(item) for name, item in told if item is not msgspec.UNSET}
    if isinstance(value, Document):
        return to_json(value)
    if isinstance(value, list | tuple):
        return [reply_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): reply_json(item) for key, item in value.items()}
    return cast(Json, value)


def reply_object(reply: object) -> JsonObject:
    """`reply_json` of a reply, which is always an object."""
    return cast(JsonObject, reply_json(reply))
