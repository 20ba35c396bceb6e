"""Where names become ULIDs: once, before a verb's function is called, whoever calls it (`cli/op.py`, `api.py`).

The rule is in `model/naming.py`. The environment is read only if something in the payload is no whole ULID.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from greentic.model.environment import Environment
from greentic.model.ids import check_env_id, is_ulid
from greentic.model.naming import deployment_named, revision_named
from greentic.operate.change import Context
from greentic.operate.payload import Payload

P = TypeVar("P", bound=Payload)

DEPLOYMENT = "deployment_id"
REVISIONS = ("revision_id", "survivor", "to")
"""Members of payloads that name a revision."""
ENTRIES = "entries"
"""The member that is a list of payloads, each of which names one."""


def with_ulids(context: Context, payload: P) -> P:
    """The payload with ULIDs where it names deployments and revisions. Raises `InvalidArgument` or `AmbiguousName`."""
    given = {name: getattr(payload, name) for name in payload.__struct_fields__}
    entries = [e for e in given.get(ENTRIES) or [] if isinstance(e, Payload)]
    named = {k: v for k, v in given.items() if k in (DEPLOYMENT, *REVISIONS) and isinstance(v, str)}
    if all(is_ulid(text) for text in (*named.values(), *(getattr(e, REVISIONS[0]) for e in entries))):
        return payload
    env = context.store.load(check_env_id(str(given.get("environment_id", ""))))
    changes: dict[str, object] = {}
    deployment = named.pop(DEPLOYMENT, None)
    if deployment is not None:
        changes[DEPLOYMENT] = deployment = deployment_named(env, deployment).upper()
    for field, text in named.items():
        changes[field] = revision_named(env, text, field=field, deployment_id=deployment)
    if entries:
        changes[ENTRIES] = [_entry(env, entry, deployment) for entry in entries]
    return replace(payload, **changes)


def _entry(env: Environment, entry: Payload, deployment: str | None) -> Payload:
    text = getattr(entry, REVISIONS[0])
    return replace(entry, **{REVISIONS[0]: revision_named(env, text, deployment_id=deployment)})


def revision_ulid(context: Context, env_id: str, text: str, deployment: str) -> str:
    """The ULID of a revision that stands beside a payload, such as that of `rollback --to`."""
    if is_ulid(text):
        return text
    env = context.store.load(check_env_id(env_id))
    return revision_named(env, text, field="to", deployment_id=deployment_named(env, deployment).upper())
