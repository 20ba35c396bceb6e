"""`gtc cache`: list, verify, prune."""

from __future__ import annotations

import argparse
from pathlib import Path

from greentic.cli.command import Command, answered, command, number
from greentic.ground.documents import JsonObject

_EXAMPLES = """examples:
  gtc cache list
  gtc cache verify
  gtc cache prune --max-bytes 1000000000"""


def parser() -> Command:
    """The words that it takes."""
    cache = command("cache", "The bundles that this user's workers share, by content.", _EXAMPLES, "list|verify|prune")
    verbs = cache.verbs
    verbs.add_parser("list", help="what is there, and which revisions need it")
    verbs.add_parser("verify", help="hash everything anew; what is damaged is deleted")
    prune = verbs.add_parser("prune", help="delete what was not used for longest; what a revision needs stays")
    prune.add_argument(
        "--max-bytes", type=number(0, 1 << 60), metavar="N", help="default: GREENTIC_CACHE_MAX_BYTES, else 3 GiB"
    )
    for verb in verbs.choices.values():
        verb.add_argument("--store-root", type=Path, metavar="DIR", help="default: ~/.greentic/environments")
    return cache


def main(argv: list[str]) -> int:
    arguments = parser().parsed(argv)
    return answered("cache", arguments, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> JsonObject:
    from greentic.materialize import shared_bundles as cache
    from greentic.store.environments import EnvironmentStore
    from greentic.store.layout import looked_into

    store = EnvironmentStore(looked_into(arguments.store_root))
    if arguments.verb == "list":
        return cache.list_entries(store)
    return cache.verify(store) if arguments.verb == "verify" else cache.prune(store, arguments.max_bytes)
