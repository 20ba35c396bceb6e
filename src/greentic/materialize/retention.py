"""What may go of what is kept, and why: what there is × what is needed × rules ► what goes. Pure (threats: needed-gone).

Rules:
1. Needed is every revision that some split names, that the split before it names (one step back), that a ramp which runs may give back
   to, that is not archived, that is one of the newest archived ones that retention keeps, or that a process holds. Without a number,
   every revision of the document is kept.
2. What is unpacked and not needed goes. Bundles go only where there are too many bytes, least used first, and never one of a needed
   revision.
3. Compiled code is made again from what is kept, so it goes by its size alone, least used first; not what the asker has loaded.
4. Of the audit log and of backups goes what is older than retention keeps: of the log from its beginning, of a document never the
   newest backup. Without a number of days both stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from greentic.ground.errors import SpecViolation
from greentic.ground.least_used import Item, beyond
from greentic.model.environment import Environment
from greentic.model.ramp_record import ramps_of
from greentic.model.traffic import unstash

DAY = 86_400
Kind = Literal["revision", "bundle", "partial", "component", "backup", "audit"]


class There(msgspec.Struct, frozen=True):
    """What there is."""

    revisions: tuple[Item, ...] = ()
    """Unpacked, by id."""
    bundles: tuple[Item, ...] = ()
    """In the cache, by digest."""
    partials: tuple[Item, ...] = ()
    """Downloads that are not done, by digest."""
    components: tuple[Item, ...] = ()
    backups: Mapping[str, tuple[Item, ...]] = {}
    """By document, oldest first."""
    audit: tuple[Item, ...] = ()
    """Line by line."""


class Needed(msgspec.Struct, frozen=True):
    """What must stay, whatever the rules say."""

    revisions: Mapping[str, str]
    """Why, by id."""
    bundles: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()


class Rules(NamedTuple):
    """How much is kept of what is not needed."""

    now: float
    bundle_bytes: int
    component_bytes: int
    partial_seconds: float
    days: int | None = None
    """Of the audit log and of backups."""


class Goes(msgspec.Struct, frozen=True):
    """One thing that goes."""

    kind: Kind
    name: str
    size: int
    reason: str


def needed_revisions(env: Environment, held: frozenset[str] = frozenset()) -> dict[str, str]:
    """The revisions that must stay where they are unpacked, each with why (rule 1)."""
    keep = env.retention.keep_revisions
    found = dict.fromkeys(sorted(held), "held by a process")
    archived: dict[str, list[tuple[int, str]]] = {}
    for revision in env.revisions:
        if revision.lifecycle != "archived" or keep is None:
            found[revision.revision_id] = revision.lifecycle
        else:
            archived.setdefault(revision.deployment_id, []).append((revision.sequence, revision.revision_id))
    for entries in archived.values():
        found |= {i: "retained" for _, i in sorted(entries, reverse=True)[:keep]}
    try:
        for ramp in ramps_of(env).values():
            if ramp.state == "running":
                found |= {ramp.old: "of a ramp", ramp.to: "of a ramp"}
    except SpecViolation:  # what cannot be read may need anything
        found |= {r.revision_id: "of a ramp that does not parse" for r in env.revisions}
    for split in env.traffic_splits:
        found |= dict.fromkeys(_previous(split.previous_split_ref), "one step back")
        found |= {entry.revision_id: "routed" for entry in split.entries}
    return found


def _previous(token: str | None) -> list[str]:
    """The revisions of the split before, whatever else its token holds."""
    raw = unstash(token)
    entries = raw.get("entries") if isinstance(raw, dict) else None
    told = [e.get("revision_id") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return [i.upper() for i in told if isinstance(i, str)]


def needed_bundles(env: Environment, held: frozenset[str] = frozenset()) -> frozenset[str]:
    """The bundles of needed revisions."""
    needed = needed_revisions(env, held)
    return frozenset(r.bundle_digest for r in env.revisions if r.revision_id in needed)


def plan(there: There, needed: Needed, rules: Rules) -> list[Goes]:
    """What goes, in the order in which it should."""
    goes = [
        Goes("revision", item.name, item.size, "no document needs it, and nobody holds it")
        for item in there.revisions
        if item.name not in needed.revisions
    ]
    goes += [
        Goes("partial", item.name, item.size, f"nobody went on with it for {_days(rules.now - item.used)}")
        for item in there.partials
        if rules.now - item.used >= rules.partial_seconds
    ]
    too_many = f"more than {rules.bundle_bytes} bytes of bundles, and it was not used for longest"
    goes += [
        Goes("bundle", i.name, i.size, too_many) for i in beyond(there.bundles, rules.bundle_bytes, needed.bundles)
    ]
    too_many = f"more than {rules.component_bytes} bytes of compiled components, and it was not used for longest"
    gone = beyond(there.components, rules.component_bytes, needed.components)
    goes += [Goes("component", item.name, item.size, too_many) for item in gone]
    return goes if rules.days is None else goes + _old(there, rules.now - rules.days * DAY, rules.days)


def _old(there: There, since: float, days: int) -> list[Goes]:
    """What is older than retention keeps (rule 4)."""
    why = f"older than {days} days"
    goes = [
        Goes("backup", item.name, item.size, why)
        for backups in there.backups.values()
        for item in backups[:-1]
        if item.used < since
    ]
    for line in there.audit:
        if line.used >= since:
            break
        goes.append(Goes("audit", line.name, line.size, why))
    return goes


def _days(seconds: float) -> str:
    return f"{int(seconds // DAY)} days"
