"""Which `op` verbs exist: the rows of `verbs.py` of six rooms, joined. Whoever looks for a row looks there."""

from __future__ import annotations

from greentic.deployer.verbs import VERBS as DEPLOYER
from greentic.deployments.verbs import VERBS as DEPLOYMENTS
from greentic.examine.verbs import VERBS as EXAMINE
from greentic.manifests.verbs import VERBS as MANIFESTS
from greentic.operate.verb import Verb
from greentic.operate.verbs import VERBS as OPERATE
from greentic.release.verbs import VERBS as RELEASE

_NOUNS = (
    "env",
    "trust-root",
    "credentials",
    "delivery",
    "bundles",
    "revisions",
    "traffic",
    "env-packs",
    "config",
    "operator",
    "deploy",
)
"""In the order in which help tells them."""

_FIRST = (
    ("revisions", "stage"),
    ("revisions", "warm"),
    ("revisions", "drain"),
    ("env-packs", "add"),
    ("env-packs", "update"),
)
"""Verbs that people need before the others of their noun, whichever room they come from."""


def _place(row: Verb) -> tuple[int, int]:
    key = (row.noun, row.verb)
    return _NOUNS.index(row.noun), _FIRST.index(key) if key in _FIRST else len(_FIRST)


VERBS: tuple[Verb, ...] = tuple(sorted((*OPERATE, *EXAMINE, *DEPLOYMENTS, *MANIFESTS, *DEPLOYER, *RELEASE), key=_place))

DEPLOY = next(row for row in VERBS if row.noun == "deploy")
"""The one verb of its noun, which nobody says."""


def nouns() -> list[str]:
    return list(dict.fromkeys(v.noun for v in VERBS))


_INSTEAD = {("env", "diff"): (("--from", "--to"), ("env", "changes"))}
"""What is meant by a verb behind which one of these flags stands: between generations, not between document and cluster."""


def named(noun: str, verb: str, words: list[str]) -> Verb | None:
    """The row that a verb means with the words behind it."""
    flags, instead = _INSTEAD.get((noun, verb), ((), (noun, verb)))
    given = {word.partition("=")[0] for word in words}
    return find(*instead) if given & set(flags) else find(noun, verb)


def find(noun: str, verb: str) -> Verb | None:
    return next((v for v in VERBS if (v.noun, v.verb) == (noun, verb)), None)
