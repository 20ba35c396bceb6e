"""What the verbs of this room answer about objects of a cluster: which, what was done with them, and why not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypedDict

from msgspec import UNSET, UnsetType

from greentic.ground.documents import Json
from greentic.ground.reply import Reply
from greentic.k8s.objects import KINDS, FieldConflict, Ref


class ObjectTold(Reply, frozen=True, kw_only=True):
    """The reference of an object, as reports list it (formats: cluster 5)."""

    api_version: str
    kind: str
    name: str
    namespace: str | None


class ObjectFailed(ObjectTold, frozen=True, kw_only=True):
    """An object that could not be written, or that the server would refuse."""

    message: str


class ObjectNotOurs(ObjectTold, frozen=True, kw_only=True):
    reason: str


class ObjectConflict(ObjectTold, frozen=True, kw_only=True):
    """A field that somebody else manages."""

    manager: str
    field: str


class FieldTold(Reply, frozen=True, kw_only=True):
    """A field that would change; nothing stands for absence, `(secret)` for any value of a Secret."""

    field: str
    before: Json
    after: Json


class ObjectChange(ObjectTold, frozen=True, kw_only=True):
    action: Literal["create", "update"]
    fields: list[FieldTold] | UnsetType = UNSET
    """Of an update: the first of them."""
    field_count: int | UnsetType = UNSET


class _Named(TypedDict):
    api_version: str
    kind: str
    name: str
    namespace: str | None


def _of(ref: Ref) -> _Named:
    version = KINDS[ref.kind].api_version()
    return {"api_version": version, "kind": ref.kind, "name": ref.name, "namespace": ref.namespace}


def told(ref: Ref) -> ObjectTold:
    return ObjectTold(**_of(ref))


def all_told(refs: Iterable[Ref]) -> list[ObjectTold]:
    return [told(ref) for ref in refs]


def failed(ref: Ref, message: str) -> ObjectFailed:
    return ObjectFailed(**_of(ref), message=message)


def not_ours(ref: Ref, reason: str) -> ObjectNotOurs:
    return ObjectNotOurs(**_of(ref), reason=reason)


def conflict(ref: Ref, found: FieldConflict) -> ObjectConflict:
    return ObjectConflict(**_of(ref), manager=found.manager, field=found.field)


def created(ref: Ref) -> ObjectChange:
    return ObjectChange(**_of(ref), action="create")


def updated(ref: Ref, fields: list[FieldTold], shown: int) -> ObjectChange:
    return ObjectChange(**_of(ref), action="update", fields=fields[:shown], field_count=len(fields))
