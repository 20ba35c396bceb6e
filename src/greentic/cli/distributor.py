"""`gtc distributor serve DIR`: bundles over HTTP."""

from __future__ import annotations

import argparse
from pathlib import Path

from greentic.cli.command import PORT
from greentic.cli.parser import Help, Parser
from greentic.ground.digits import whole_number
from greentic.ground.errors import Conflict, InvalidArgument
from greentic.terminal.output import printed, tell_error


def _rate(text: str) -> int:
    number = text.removesuffix("MiB").removesuffix("KiB")
    unit = 1 << 20 if text.endswith("MiB") else 1 << 10 if text.endswith("KiB") else 1
    size = whole_number(number, 1 << 40)
    if not size:
        raise argparse.ArgumentTypeError(f"`{text[:60]}` is no size; expected such as 20MiB, 512KiB or 4096")
    return size * unit


def parser() -> argparse.ArgumentParser:
    """The words that it takes."""
    parser = Parser(
        prog="gtc distributor",
        description="Serve a directory of bundles to workers: GET, HEAD, Range, ETag, and a page for people.",
        epilog="example:\n  gtc distributor serve ./bundles --port 8090",
        formatter_class=Help,
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", required=True, metavar="serve")
    serve = verbs.add_parser("serve", help="serve a directory until Ctrl+C")
    serve.add_argument("directory", type=Path, metavar="DIR")
    serve.add_argument("--port", type=PORT, default=8090, help="default: 8090; 0 takes a free one")
    serve.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    serve.add_argument(
        "--rate",
        type=_rate,
        metavar="SIZE",
        help="bytes a second for each connection, such as 20MiB, to try a thin line",
    )
    return parser


def _tell(line: str) -> None:
    """A line for a request, which is a stranger's: it steers no terminal and makes no second line."""
    print(printed(line).replace("\n", "\\n"), flush=True)


def main(argv: list[str]) -> int:
    arguments = parser().parse_args([*argv[1:], "--help"] if argv[:1] == ["help"] else argv)
    directory = printed(str(arguments.directory))
    if not arguments.directory.is_dir():
        tell_error(InvalidArgument(f"`{directory}` is not a directory", hint="gtc distributor serve DIR"))
        return 1
    from greentic.distribute.serve_directory import DirectoryServer

    try:
        server = DirectoryServer(arguments.directory, arguments.host, arguments.port, arguments.rate, _tell)
    except OSError as error:
        where = f"{arguments.host}:{arguments.port}"
        tell_error(
            Conflict(f"cannot listen on {where}: {error.strerror}", hint="choose another --port, or 0 for a free one")
        )
        return 1
    host, port = server.server_address[:2]
    print(f"distributor: serving {directory} on http://{host!s}:{port}/ — press Ctrl+C to stop", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0
