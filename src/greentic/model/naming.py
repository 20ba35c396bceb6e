"""Names for people: how a deployment or a revision may be called instead of by its ULID. Pure.

Rules:
1. A whole ULID is itself, whether or not there is such a thing: what was always taken is taken unchanged.
2. Otherwise, in this order: the bundle's id; `bundle@3`, the revision with that sequence, or `@3` where the deployment is known; the
   beginning or the end of a ULID, from `LEAST` characters.
3. A bundle's id alone names its deployment, or the one revision of it that is not archived.
4. What is archived is meant only where nothing else could be. More than one meaning is refused, and each is told.
"""

from __future__ import annotations

from collections import Counter

from greentic.ground.errors import AmbiguousName, InvalidArgument
from greentic.ground.nearest import nearest
from greentic.model.environment import BundleDeployment, Environment, Revision
from greentic.model.ids import is_ulid, shown

LEAST = 4
"""Fewest characters of a ULID that stand for it."""
_MOST_TOLD = 8


def revision_name(revision: Revision) -> str:
    """What people call a revision."""
    return f"{revision.bundle_id}@{revision.sequence}"


def names_of(env: Environment) -> dict[str, str]:
    """What people call the deployments and revisions of an environment, by ULID; a deployment whose bundle has several keeps its ULID."""
    bundles = Counter(d.bundle_id for d in env.bundles)
    names = {d.deployment_id: d.bundle_id for d in env.bundles if bundles[d.bundle_id] == 1}
    return names | {r.revision_id: revision_name(r) for r in env.revisions}


def deployment_named(env: Environment, text: str) -> str:
    """The ULID of the deployment that `text` means. Raises `InvalidArgument` for none, `AmbiguousName` for several."""
    if is_ulid(text):
        return text
    found = [d for d in env.bundles if d.bundle_id == text] or [
        d for d in env.bundles if is_part(text, d.deployment_id)
    ]
    found = [d for d in found if d.status != "archived"] or found
    if len(found) == 1:
        return found[0].deployment_id
    if found:
        raise _ambiguous("deployment_id", text, "deployment", [_told_deployment(d) for d in found])
    raise _unknown(env, "deployment_id", text, "deployment", [d.bundle_id for d in env.bundles], "bundles")


def revision_named(env: Environment, text: str, *, field: str = "revision_id", deployment_id: str | None = None) -> str:
    """The ULID of the revision that `text` means, among those of a deployment if one is given. Raises like `deployment_named`."""
    if is_ulid(text):
        return text
    own = [r for r in env.revisions if deployment_id in (None, r.deployment_id)]
    found = _revisions(own, text, deployment_id is not None)
    found = [r for r in found if r.lifecycle != "archived"] or found
    if len(found) == 1:
        return found[0].revision_id
    if found:
        raise _ambiguous(field, text, "revision", [_told_revision(r) for r in found])
    raise _unknown(env, field, text, "revision", [revision_name(r) for r in own], "revisions")


def _revisions(own: list[Revision], text: str, one_deployment: bool) -> list[Revision]:
    found = [r for r in own if r.bundle_id == text]
    if found:
        return found
    bundle, at, sequence = text.rpartition("@")
    if at and sequence.isascii() and sequence.isdigit() and (bundle or one_deployment):
        return [r for r in own if str(r.sequence) == sequence and bundle in ("", r.bundle_id)]
    return [r for r in own if is_part(text, r.revision_id)]


def is_part(text: str, ulid: str) -> bool:
    """Whether `text` is the beginning or the end of a ULID (rule 2)."""
    part = text.upper()
    return len(part) >= LEAST and (ulid.startswith(part) or ulid.endswith(part))


def _told_deployment(deployment: BundleDeployment) -> str:
    return f"{deployment.deployment_id} ({shown(deployment.bundle_id)} of {shown(deployment.customer_id)}, {deployment.status})"


def _told_revision(revision: Revision) -> str:
    return f"{revision.revision_id} ({shown(revision_name(revision))}, {revision.lifecycle})"


def _ambiguous(field: str, text: str, what: str, meanings: list[str]) -> AmbiguousName:
    told = ", ".join(meanings[:_MOST_TOLD])
    more = f" and {len(meanings) - _MOST_TOLD} more" if len(meanings) > _MOST_TOLD else ""
    return AmbiguousName(
        f"{field}: `{shown(text)}` could be any of {len(meanings)} {what}s: {told}{more}",
        hint=f"use more of the {what}'s ULID" + (", or name it BUNDLE@SEQUENCE" if what == "revision" else ""),
    )


def _unknown(env: Environment, field: str, text: str, what: str, names: list[str], noun: str) -> InvalidArgument:
    near = nearest(text, names)
    meant = f"; did you mean `{shown(near)}`?" if near is not None else ""
    form = "a ULID or its beginning or end, a bundle" + (", or bundle@3" if what == "revision" else "")
    return InvalidArgument(
        f"{field}: no {what} of env `{env.environment_id}` is called `{shown(text)}`{meant} (expected {form})",
        hint=f"gtc op {noun} list {env.environment_id}",
    )
