"""`greentic-operator`: keeps one namespace as its `Environment` says (formats: operator 1)."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from greentic.cli.command import PORT
from greentic.cli.parser import Help, Parser
from greentic.cli.traces import traced
from greentic.ground.disk import UNFORESEEN, of_the_machine
from greentic.ground.errors import GreenticError, InvalidArgument
from greentic.ground.optional import on_lack
from greentic.ground.variables import environment, home_directory
from greentic.telemetry.log import tell
from greentic.terminal.output import printed
from greentic.terminal.streams import claim_standard_streams, drop_output, say

_DESCRIPTION = (
    "Watch an Environment of this cluster, and keep its namespace as what is published says: the same plan and apply as `gtc op env "
    "reconcile`, without a shell or a kubeconfig. Several of them take turns by a Lease."
)
RECONNECT_SECONDS = 600.0
"""A pod's token is exchanged while it runs; a new connection reads the new one."""


def main() -> None:
    """Entry point of the program: exit code 0 for a clean stop, 1 for any error."""
    claim_standard_streams()
    try:
        with traced("greentic-operator"):
            _run(sys.argv[1:])
    except BrokenPipeError:  # who asked for help has gone
        drop_output()
        raise SystemExit(1) from None
    except (GreenticError, *UNFORESEEN) as found:
        error = found if isinstance(found, GreenticError) else of_the_machine(found)
        hint = f"\n\nNext: {error.hint}" if error.hint else ""
        tell(sys.stderr, printed(f"Error: {error}{hint}") + "\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        drop_output()


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="greentic-operator",
        description=_DESCRIPTION,
        epilog="gtc op operator render makes the objects that it needs in a cluster.",
        formatter_class=Help,
    )
    parser.add_argument("--name", metavar="NAME", help="the Environment, or the ConfigMap, that says what is wanted")
    parser.add_argument("--namespace", metavar="NS", help="its namespace, which is kept (default: that of the pod)")
    parser.add_argument(
        "--kind", choices=("Environment", "ConfigMap"), default="Environment", help="where the wish stands"
    )
    parser.add_argument("--identity", metavar="ID", help="who this process is among several (default: the host's name)")
    parser.add_argument(
        "--metrics-port", type=PORT, default=8081, metavar="PORT", help="for /metrics, /livez, /readyz; 0: none"
    )
    parser.add_argument("--context", metavar="CONTEXT", help="a kubeconfig's context, outside of a cluster")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    return parser.parse_args(argv)


def _run(argv: list[str]) -> None:
    arguments = _parse(argv)
    if arguments.version:
        from greentic import __version__

        say(f"greentic-operator {__version__}")
        return
    if not arguments.name:
        raise InvalidArgument("--name is missing: which Environment of the namespace says what is wanted")
    import socket

    from greentic.cluster.api_server import ApiServer
    from greentic.cluster.connect import connect
    from greentic.controller.election import WRITING
    from greentic.controller.loop import Operator
    from greentic.controller.metrics import serve
    from greentic.ground.clock import CLOCK, RANDOM, timestamp
    from greentic.k8s.objects import Cluster, Ref
    from greentic.net.terms import own_terms

    class Reached:
        """The API server over a connection that is renewed now and then."""

        def __init__(self) -> None:
            self._connect()

        def _connect(self) -> None:
            self._born = CLOCK.monotonic()
            self._api = ApiServer(connect(arguments.context), writing=WRITING)

        def __call__(self) -> Cluster:
            if CLOCK.monotonic() - self._born > RECONNECT_SECONDS:
                self._connect()
            return self._api

    def log(text: str) -> None:
        tell(sys.stderr, f"{timestamp(CLOCK.now_ns())} {printed(' '.join(text.splitlines()))}\n")

    on_lack(log)
    namespace = arguments.namespace or _own_namespace()
    above = home_directory(environment()) or Path("/tmp")  # noqa: S108
    home = above / ".greentic" / "operator" / namespace / arguments.name
    me = f"{arguments.identity or socket.gethostname()}-{RANDOM.octets(4).hex()}"
    operator = Operator(
        Reached(), Ref(arguments.kind, arguments.name, namespace), me, home, CLOCK, RANDOM, log, own_terms()
    )
    if arguments.metrics_port:
        try:
            serve(arguments.metrics_port, operator.metrics, operator.alive)
        except OSError as error:
            raise InvalidArgument(f"--metrics-port {arguments.metrics_port}: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: operator.stop())
    log(f"keeping namespace `{namespace}` as {arguments.kind} `{arguments.name}` says, as `{me}`")
    operator.run()


def _own_namespace() -> str:
    """The namespace of the pod that this runs in. Raises `InvalidArgument` elsewhere."""
    try:
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    except OSError:
        raise InvalidArgument("--namespace is missing, and this is no pod") from None


if __name__ == "__main__":
    main()
