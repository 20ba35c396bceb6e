"""`gtc cache`: list, verify, prune."""

from __future__ import annotations

import argparse
from pathlib import Path

from greentic.cli.output import chosen_form, print_failure, print_success
from greentic.ground.documents import JsonObject
from greentic.ground.errors import GreenticError

_EXAMPLES = """examples:
  gtc cache list
  gtc cache verify
  gtc cache prune --max-bytes 1000000000"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gtc cache",
        description="The bundles that this user's workers share, by content.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|verify|prune")
    verbs.add_parser("list", help="what is there, and which revisions need it")
    verbs.add_parser("verify", help="hash everything anew; what is damaged is deleted")
    prune = verbs.add_parser("prune", help="delete what was not used for longest; what a revision needs stays")
    prune.add_argument("--max-bytes", type=int, metavar="N", help="default: GREENTIC_CACHE_MAX_BYTES, else 3 GiB")
    for verb in verbs.choices.values():
        verb.add_argument("--store-root", type=Path, metavar="DIR", help="default: ~/.greentic/environments")
        verb.add_argument("--output", choices=("json", "table"), help="default: a table at a terminal, else JSON")
    arguments = parser.parse_args(argv)
    form = chosen_form(arguments.output)
    try:
        print_success(form, "cache", arguments.verb, _run(arguments), "")
    except GreenticError as error:
        print_failure(form, "cache", arguments.verb, error)
        return 1
    return 0


def _run(arguments: argparse.Namespace) -> JsonObject:
    from greentic.materialize import shared_bundles as cache
    from greentic.store.environments import EnvironmentStore
    from greentic.store.layout import default_store_root

    store = EnvironmentStore(arguments.store_root or default_store_root())
    if arguments.verb == "list":
        return cache.list_entries(store)
    return cache.verify(store) if arguments.verb == "verify" else cache.prune(store, arguments.max_bytes)
