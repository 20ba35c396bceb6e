"""A server's refusal of an object, as people are told it. Pure.

Rules:
1. It says what the server said, of which object, and the next step where there is a known one.
2. What a Secret holds is never in it: a webhook may repeat what it refuses, decoded or not.
"""

from __future__ import annotations

import base64

from greentic.ground.documents import JsonObject
from greentic.k8s.health import OVER_QUOTA
from greentic.k8s.objects import ApiRefused, member
from greentic.k8s.plan import Item

STAYING = "wait until it is gone; if it does not go: kubectl get namespace {namespace} -o yaml says what holds it"
"""What to do about a namespace that is being deleted."""
SECRET_KINDS = frozenset({"Secret"})
_TELLING = 6
"""So long is a part of a secret that says something; without shorter ones a message could not be read."""


def explained(item: Item, error: ApiRefused) -> ApiRefused:
    """The server's refusal, with the next step where there is a known one, and without what a Secret holds."""
    hint = error.hint
    if error.immutable:
        hint = f"a field cannot be changed in place; gtc op env reconcile ENV --recreate deletes {item.ref} and makes it again"
    elif error.conflicts:
        told = "; ".join(f"{c.field} is managed by `{c.manager}`" for c in error.conflicts)
        return ApiRefused(
            f"{item.ref}: {told}",
            status=error.status,
            reason=error.reason,
            conflicts=error.conflicts,
            hint="gtc op env reconcile ENV --force takes the fields over",
        )
    elif error.another:
        hint = "it was changed by somebody else while this ran; run the same again, which looks at it anew"
    elif error.over_quota:
        hint = OVER_QUOTA
    elif error.leaving:
        hint = STAYING.format(namespace=item.ref.namespace)
    elif error.denied:
        hint = "an admission webhook or policy of the cluster refuses it; its message says what it wants"
    told = without_secrets(error.message, item.stated)
    return ApiRefused(told, status=error.status, reason=error.reason, conflicts=error.conflicts, hint=hint)


def without_secrets(message: str, stated: JsonObject) -> str:
    """A server's words about an object, without what it holds if it is a Secret (rule 2)."""
    if stated.get("kind") not in SECRET_KINDS:
        return message
    texts: set[str] = set()
    for value in (*member(stated, "data").values(), *member(stated, "stringData").values()):
        if isinstance(value, str):
            plain = _decoded(value)
            parts = [part.strip() for line in plain.splitlines() for part in (line, line.partition("=")[2])]
            texts |= {value, plain, plain.strip(), *(part for part in parts if len(part) >= _TELLING)}
    for text in sorted(texts - {""}, key=len, reverse=True):
        message = message.replace(text, "(secret)")
    return message


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        return value
