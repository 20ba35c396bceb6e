"""`gtc console ENV`: a page on this machine that shows what runs, and talks to it."""

from __future__ import annotations

import argparse
from pathlib import Path

from greentic.cli.command import PORT
from greentic.cli.parser import Help, Parser

_EXAMPLES = """examples:
  gtc console prod --at http://127.0.0.1:8080
  gtc console prod --at http://10.0.0.7:8080 --at http://10.0.0.8:8080 --port 8070
  gtc console prod --at http://127.0.0.1:8080 --allow-changes"""


def parser() -> argparse.ArgumentParser:
    """The words that it takes."""
    parser = Parser(
        prog="gtc console",
        description="Serve a page on 127.0.0.1: deployments and revisions with live rates, why each may run, what changed, "
        "ramps, and a chat. It only shows, unless changes are allowed.",
        epilog=_EXAMPLES,
        formatter_class=Help,
    )
    parser.add_argument("env", metavar="ENV", help="the environment to show first")
    parser.add_argument("--at", action="append", default=[], metavar="URL", help="the address of a worker to watch")
    parser.add_argument(
        "--proof-key", action="append", default=[], metavar="FILE|ID",
        help="who must have signed what workers prove: a key id, or a file of public keys",
    )  # fmt: skip
    parser.add_argument("--port", type=PORT, default=0, help="default: a free one")
    parser.add_argument(
        "--allow-changes", action="store_true", help="let the page warm, set traffic, ramp and roll back"
    )
    parser.add_argument("--store-root", type=Path, metavar="DIR", help="default: ~/.greentic/environments")
    return parser


def main(argv: list[str]) -> int:
    arguments = parser().parse_args(argv)
    from greentic.console.serve_console import ConsoleOptions, serve_console
    from greentic.ground.errors import GreenticError
    from greentic.store.environments import EnvironmentStore
    from greentic.store.layout import worked_on
    from greentic.terminal.next_step import with_next_step
    from greentic.terminal.output import tell_error

    def ready(address: str) -> None:
        print(f"console: {address}\nWhoever has this address may look. Press Ctrl+C to stop.", flush=True)

    try:
        store = EnvironmentStore(worked_on(arguments.store_root))
        options = ConsoleOptions(
            arguments.env, arguments.at, arguments.port, arguments.allow_changes, tuple(arguments.proof_key)
        )
        serve_console(store, options, ready)
    except GreenticError as error:
        with_next_step(error, arguments.store_root, for_people=True)
        tell_error(error)
        return 1
    return 0
