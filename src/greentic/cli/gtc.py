"""`gtc`: the operator's program. Finds the command and loads only what it needs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress

from greentic.ground.disk import UNFORESEEN, of_the_machine
from greentic.ground.errors import GreenticError
from greentic.terminal.streams import answering, claim_standard_streams, drop_output, say

YOUNG = 100_000
"""Objects that a command makes before it looks for what it threw away: most end earlier, and looking took a tenth of them."""

COMMANDS = {
    "op": ("greentic.cli.op", "author environments (env, trust-root, bundles, revisions, traffic, …)"),
    "bundle": ("greentic.cli.bundle", "build, sign, verify, publish and export .gtbundle files"),
    "pack": ("greentic.cli.pack", "start, build, sign and inspect .gtpack files"),
    "flow": ("greentic.cli.flow", "run a flow on the spot, and find what is wrong with it"),
    "cache": ("greentic.cli.cache", "the bundles that this user's workers share"),
    "console": ("greentic.cli.console", "a page on this machine: what runs, why, how well, what changed, and a chat"),
    "completion": ("greentic.cli.completion", "completing commands in a shell: bash, zsh or fish"),
    "distributor": ("greentic.cli.distributor", "serve a directory of bundles to workers"),
}

USAGE = """usage: gtc COMMAND …

Digital workers that start empty: author what runs, build bundles, serve them to workers.

{commands}

  --version     print the version
  --help        this text; `gtc COMMAND --help` and `gtc help COMMAND …` tell more

examples:
  gtc op env create prod --name Production
  gtc bundle build ./my-bundle --out my.gtbundle
  gtc distributor serve ./bundles --port 8090"""


def usage() -> str:
    width = max(len(name) for name in COMMANDS) + 2
    return USAGE.format(commands="\n".join(f"  {name:<{width}}{summary}" for name, (_, summary) in COMMANDS.items()))


def main() -> None:
    """Entry point of the program."""
    argv = sys.argv[1:]
    gc.set_threshold(YOUNG)
    claim_standard_streams()
    try:
        try:
            raise SystemExit(_dispatch(argv))
        finally:  # help is printed by whoever reads the words
            with answering():
                pass
    except BrokenPipeError:
        drop_output()
        raise SystemExit(1) from None
    except (GreenticError, *UNFORESEEN) as found:
        from greentic.terminal.output import print_failure

        with suppress(OSError):  # who cannot be told still gets the exit code
            print_failure("table", "", "", found if isinstance(found, GreenticError) else of_the_machine(found))
        drop_output()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] in ("--version", "-V"):
        from greentic import __version__

        say(f"gtc {__version__}")
        return 0
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        from greentic.terminal.fitted import fitted_here

        say(fitted_here(usage()))
        return 0 if argv else 2
    if argv[0] == "complete":  # asked by the scripts of `gtc completion`
        from greentic.cli.completion import complete

        return complete(argv[1:], COMMANDS)
    if argv[0] not in COMMANDS:
        from greentic.ground.nearest import did_you_mean
        from greentic.terminal.fitted import fitted_here
        from greentic.terminal.output import printed

        meant = did_you_mean(argv[0], COMMANDS)
        print(f"error: unrecognized subcommand '{printed(argv[0])}'{meant}\n\n{fitted_here(usage())}", file=sys.stderr)
        return 2
    import importlib

    from greentic.cli.traces import traced

    with traced("gtc"):
        main: Callable[[list[str]], int] = importlib.import_module(COMMANDS[argv[0]][0]).main
        if argv[0] == "op":  # its verbs have names of their own
            return main(argv[1:])
        from greentic.telemetry.tracing import whole

        with whole(f"gtc {argv[0]}"):
            return main(argv[1:])


if __name__ == "__main__":
    main()
