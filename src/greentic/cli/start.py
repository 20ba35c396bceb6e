"""`greentic-start`: the worker's program (formats: worker 1)."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from greentic.cli.parser import Help, Parser
from greentic.cli.traces import traced
from greentic.ground.disk import UNFORESEEN, of_the_machine
from greentic.ground.errors import GreenticError
from greentic.ground.variables import table
from greentic.terminal.output import printed, tell_people
from greentic.terminal.streams import claim_standard_streams, drop_output, say

if TYPE_CHECKING:
    from greentic.worker.settings import StartOptions

COMMANDS = ("start", "up")
_DESCRIPTION = (
    "Boot a worker that starts empty: all it needs is environment.json. It pulls the bundles that traffic is routed to, refuses any "
    "whose sha256 is not the pinned one, and serves them over HTTP."
)
_IGNORED = (
    "--tenant", "--team", "--cloudflared", "--cloudflared-binary", "--ngrok", "--ngrok-binary", "--gtunnel",
    "--gtunnel-worker-url", "--gtunnel-tunnel-id", "--nats", "--nats-url", "--runner-binary", "--restart", "--log-dir",
    "--admin-port", "--admin-certs-dir", "--admin-allowed-clients", "--locale",
)  # fmt: skip
_IGNORED_SWITCHES = ("--no-browser", "--no-updates", "--no-auto-restart", "--no-nats", "--admin")


def main() -> None:
    """Entry point of the program: exit code 0 for a clean stop, 1 for any error."""
    try:
        run(sys.argv[1:])
    except GreenticError as error:
        _told(error)
        raise SystemExit(1) from None
    except BrokenPipeError:  # who asked for help has gone
        drop_output()
        raise SystemExit(1) from None
    except UNFORESEEN as error:
        _told(of_the_machine(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        drop_output()  # what nobody took is no failure of ours


def _told(error: GreenticError) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # who cannot be told still gets the exit code
        tell_people(report(error))


def run(argv: list[str]) -> None:
    claim_standard_streams()
    arguments = _parse(argv)
    # The first process of a container ignores this signal unless it says otherwise; a boot may be left at any point.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a wish to look again: whoever begins to serve looks anyway
    gc.disable()  # a boot makes much and throws little away; collecting it would only take time
    from greentic.worker.settings import StartOptions

    level = "debug" if arguments.verbose else "warn" if arguments.quiet else "info"
    options = StartOptions(
        env=arguments.env,
        store_root=arguments.store_root,
        strict_port=arguments.strict_port,
        level=level,
        workers=arguments.workers,
        trust_anchor=arguments.trust_anchor,
        archive=arguments.archive,
        env_from=arguments.env_from,
        require_all=arguments.require == "all",
        proof_key=arguments.proof_key,
        metrics_addr=arguments.metrics_addr,
        log_format=arguments.log_format,
        access_log=arguments.access_log,
    )
    with traced("greentic-start"):
        try:
            _live(options)
        except GreenticError as error:
            from greentic.terminal.next_step import with_next_step

            with_next_step(error, options.store_root, for_people=True)
            raise


def _live(options: StartOptions) -> None:
    """Boot and serve, to the end."""
    from greentic.ground.variables import environment
    from greentic.terminal.pull_view import pull_view
    from greentic.worker.boot import boot
    from greentic.worker.server import serve

    booted = boot(options, environ := environment(), pull_view)
    gc.freeze()
    gc.enable()
    serve(booted, options, environ)


class _Parser(Parser):
    def error(self, message: str) -> NoReturn:
        """Wrong command lines exit with 1, as those of the existing worker do."""
        print(f"Error: {self.with_meaning(message)}\n\n{self.format_usage()}", file=sys.stderr, end="")
        raise SystemExit(1)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(_words(argv))
    if arguments.version:
        from greentic import __version__

        say(f"greentic-start {__version__}")
        raise SystemExit(0)
    for flag in ("bundle", "config"):
        if getattr(arguments, flag) is not None:
            parser.error(
                f"--{flag} starts a single bundle without an environment, which this worker does not do; use --env"
            )
    for flag in ("cloudflared", "ngrok", "gtunnel"):
        if getattr(arguments, flag) not in (None, "off"):
            parser.error(
                f"--{flag} {getattr(arguments, flag)}: this worker opens no tunnel; run {flag} beside it, or say off"
            )
    return arguments


def _words(argv: list[str]) -> list[str]:
    """The words behind the command, which may be left out. Ends the program for a command that is none."""
    words = argv[1:] if argv[:1] == ["demo"] else list(argv)
    if words[:1] == ["--locale"] and len(words) > 1:  # may stand before the command; nothing is said in other languages
        del words[:2]
    if words and words[0].startswith("--locale="):
        del words[0]
    if words and words[0] in COMMANDS:
        return words[1:]
    if words and not words[0].startswith("-"):
        from greentic.ground.nearest import one_of

        print(f"Error: unrecognized subcommand '{printed(words[0])}'{one_of(words[0], COMMANDS)}", file=sys.stderr)
        raise SystemExit(1)
    return words


def _parser() -> _Parser:
    parser = _Parser(
        prog="greentic-start",
        usage="greentic-start start [--env ID] [--store-root DIR] [--from FILE | --env-from PLACE] [--trust-anchor FILE]"
        " [--proof-key FILE] [--workers N|auto] [--require all] [--strict-port] [--metrics-addr ADDR]"
        " [--log-format json|text] [--access-log] [--verbose | --quiet]",
        description=_DESCRIPTION,
        epilog=f"environment variables:\n{table(('worker', 'both'))}\n\nexample:\n  greentic-start start --env prod",
        formatter_class=Help,
    )
    parser.add_argument("--env", metavar="ID", help="the environment to serve")
    parser.add_argument("--store-root", type=Path, metavar="DIR", help="default: ~/.greentic/environments")
    parser.add_argument(
        "--from", dest="archive", type=Path, metavar="FILE", help="boot from an exported environment, without a network"
    )
    parser.add_argument(
        "--env-from",
        metavar="PLACE",
        help="boot from a published environment and follow it: oci://…, https://…, a directory",
    )
    parser.add_argument("--trust-anchor", type=Path, metavar="FILE", help="keys that must have sealed environment.json")
    parser.add_argument(
        "--workers", metavar="N|auto", help="processes that serve (default: 1; auto: one for each core)"
    )
    parser.add_argument("--proof-key", type=Path, metavar="FILE", help="the key that proofs are signed with")
    parser.add_argument(
        "--require", choices=("any", "all"), default="any", help="all: end the boot if any deployment cannot be served"
    )
    parser.add_argument("--strict-port", action="store_true", help="fail if the port is taken")
    parser.add_argument(
        "--metrics-addr", metavar="ADDR", help="ip:port where anybody is told /metrics (default: nowhere)"
    )
    parser.add_argument(
        "--log-format", choices=("json", "text"), help="lines on stderr (default: text at a terminal, else json)"
    )
    parser.add_argument("--access-log", action="store_true", help="a line of the log for each request")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("--verbose", action="store_true", help="log more")
    noise.add_argument("--quiet", action="store_true", help="log warnings and errors only")
    for flag in _IGNORED:
        parser.add_argument(flag, help=argparse.SUPPRESS)
    for flag in _IGNORED_SWITCHES:
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--open-webchat", nargs="?", help=argparse.SUPPRESS)
    for flag in ("--bundle", "--config"):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    return parser


def report(error: BaseException) -> str:
    """The error and its causes as text (formats: worker 1)."""
    causes: list[str] = []
    hint = getattr(error, "hint", None)
    cause = error.__cause__
    while cause is not None:
        causes.append(str(cause))
        hint = getattr(cause, "hint", None) or hint
        cause = cause.__cause__
    text = f"Error: {error}"
    if len(causes) == 1:
        text += f"\n\nCaused by:\n    {causes[0]}"
    elif causes:
        text += "\n\nCaused by:" + "".join(f"\n    {index}: {cause}" for index, cause in enumerate(causes))
    return text if hint is None else f"{text}\n\nNext: {hint}"


if __name__ == "__main__":
    main()
