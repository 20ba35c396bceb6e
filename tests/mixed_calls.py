"""Many calls of all kinds at once, in a process of its own: what they leave behind is printed as JSON.

    python mixed_calls.py NUMBER

Every fifth or so is abandoned while it is suspended; others trap, run out of their time or stack, ask a host that raises, waits or never
answers, or import WASI. `calls` and `suspended` are what the engine still counts afterwards, `grown` the KiB that the process took more in
the second half than in the first.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys

from wasmtime import wat2wasm

import wat
from greentic.ground.errors import FlowFailure
from greentic.wasm.call_limits import DEFAULT_LIMITS
from greentic.wasm.component import HostFailure, LoadedComponent, Trap
from greentic.wasm.engine import engine
from test_wasm import READ, READS, RUN, SHORT, STATE, WASI, context, loaded, says

AT_ONCE = 64


class Moody:
    """A host that answers at once, later, never, or with an error."""

    def __init__(self, mood: str) -> None:
        self.mood = mood

    def function(self, interface: str, name: str) -> object:
        answer = 7 if name == "ask" else ("ok", b'"v"')

        async def later() -> object:
            await asyncio.sleep(0)
            return answer

        async def never() -> object:
            return await asyncio.get_running_loop().create_future()

        def asked(where: object, arguments: object) -> object:
            if self.mood == "raises":
                raise ValueError("a host function that breaks")
            return answer if self.mood == "now" else later() if self.mood == "later" else never()

        return asked


def kinds() -> dict[str, tuple[LoadedComponent, object, list[object]]]:
    """Each kind of call: its component, its export, its arguments."""
    reads = wat.node_06(READS, {STATE: [READ]}, says("abc"))
    nodes = {
        "echo": loaded(wat.node_06()),
        "trap": loaded(wat.trapping()),
        "spin": loaded(wat.spinning()),
        "hungry": loaded(wat.hungry()),
        **{mood: loaded(reads, Moody(mood)) for mood in ("now", "later", "never", "raises")},
    }
    found: dict[str, tuple[LoadedComponent, object, list[object]]] = {
        name: (component, component.entry_point[1], RUN)  # type: ignore[index]
        for name, component in nodes.items()
    }
    for mood in ("now", "later"):
        component = loaded(bytes(wat2wasm(WASI)), Moody(mood))
        found[f"wasi {mood}"] = (component, component.find("test:api/run@1.0.0", "run"), [])
    return found


DEALT = {
    "echo": 40,
    "now": 20,
    "later": 15,
    "wasi now": 5,
    "wasi later": 5,
    "trap": 5,
    "raises": 5,
    "never": 4,
    "hungry": 0.1,
    "spin": 0.1,
}
"""How often each kind is drawn."""


async def run(number: int) -> dict[str, int]:
    drawn, made = random.Random(1), kinds()
    names, weights = list(DEALT), list(DEALT.values())
    ended: dict[str, int] = {}

    async def one() -> None:
        name = drawn.choices(names, weights)[0]
        component, export, arguments = made[name]
        limits = SHORT._replace(seconds=0.005) if name in ("spin", "hungry", "never") else DEFAULT_LIMITS
        calling = asyncio.ensure_future(component.invoke(export, arguments, context(), limits))  # type: ignore[arg-type]
        if drawn.random() < 0.2:
            for _ in range(drawn.randrange(4)):
                await asyncio.sleep(0)
            calling.cancel()
        try:
            await calling
            how = "answered"
        except asyncio.CancelledError:
            how = "abandoned"
        except (Trap, HostFailure, FlowFailure) as error:
            how = type(error).__name__
        ended[how] = ended.get(how, 0) + 1

    left = iter(range(number))

    async def line() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(line() for _ in range(AT_ONCE)))
    return ended


def main() -> None:
    number = int(sys.argv[1])
    first = asyncio.run(run(number // 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    second = asyncio.run(run(number - number // 2))
    gc.collect()
    host = engine()
    print(
        json.dumps(
            {
                "calls": host.calls,
                "suspended": host.share.suspended,
                "grown": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
                "ended": {how: first.get(how, 0) + second.get(how, 0) for how in first | second},
            }
        )
    )


if __name__ == "__main__":
    main()
