"""`python -m demo STEP [WORD…]`: do one step of the demo; its name and words are those that demo.sh lists."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from demo import canary, delivery, host, outage, processes, talk


def field(name: str) -> None:
    """A member of the result in the envelope on standard input."""
    print(json.load(sys.stdin)["result"][name])


STEPS: dict[str, Callable[..., object]] = {
    "say": host.say,
    "show": host.show,
    "prepare": host.prepare,
    "author": host.author,
    "strip": host.strip,
    "distributor": host.distributor,
    "worker": host.worker,
    "ask": host.ask,
    "console": host.console,
    "running": host.running_worker,
    "get": host.get,
    "stop": host.halt,
    "flip": delivery.flip,
    "refused": delivery.refused,
    "registry": delivery.registry,
    "origin": delivery.origin,
    "large": delivery.large,
    "half": delivery.half,
    "rest": delivery.rest,
    "revoke": delivery.revoke,
    "two": outage.author,
    "dead": outage.dead,
    "back": outage.back,
    "canary": canary.canary,
    "talk": talk.talk,
    "field": field,
}


def main(words: list[str]) -> int:
    try:
        STEPS[words[0]](*words[1:])
    except processes.Failed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
