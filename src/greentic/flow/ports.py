"""What a run needs from outside, as small seams (formats: flows 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from greentic.expressions.handlebars_render import Pause
from greentic.flow.nodes import FlowPlan

Log = Callable[[str, str, str], None]
"""Takes component, stream and text of a line that a component writes."""


class Caller(msgspec.Struct, frozen=True):
    """For whom a run works: what components are told."""

    env: str
    tenant: str
    team: str | None = None
    user: str | None = None
    """A caller whose identity was verified."""
    session: str | None = None
    channel: str | None = None
    provider: str | None = None


class ComponentCall(msgspec.Struct, frozen=True):
    """One call of a component."""

    component: str
    operation: str
    input: object
    """What the component is given: the envelope's payload, or a card's invocation as it is."""
    config: object
    """The node's configuration, or nothing."""
    flow_id: str
    node_id: str
    caller: Caller
    attempt: int = 1
    card: bool = False
    """Whether `input` is a card's invocation, which a component gets as it is and not in an envelope."""
    trace: Trace | None = None
    """Who is told what the component writes, beside the log."""


class ProviderCall(msgspec.Struct, frozen=True):
    """One call of a provider, found by its id or type."""

    provider_id: str | None
    provider_type: str | None
    operation: str
    input: object
    caller: Caller
    trace: Trace | None = None


class Components(Protocol):
    """The components of a revision."""

    async def call(self, call: ComponentCall) -> object:
        """The answer as JSON; failures that a component reports are values. Raises `FlowFailure` for the others."""
        ...

    async def call_provider(self, call: ProviderCall) -> object:
        """The answer as JSON. Raises `FlowFailure`."""
        ...


class Assets(Protocol):
    """The assets of the pack whose flow runs."""

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of an asset, whatever number of `assets/` stands before its path. Raises `LimitExceeded` for more bytes."""
        ...


class StateStore(Protocol):
    """Values that outlive a run, kept per environment and tenant."""

    @property
    def local(self) -> bool:
        """Whether it answers without asking over a network."""
        ...

    def get(self, scope: str, key: str) -> object:
        """The value, or `MISSING`. Raises `FlowFailure`."""
        ...

    def set(self, scope: str, key: str, value: object) -> None:
        """Raises `FlowFailure`."""
        ...

    def delete(self, scope: str, key: str) -> bool: ...


def scope(*parts: str | None) -> str:
    """The name of a scope that is made of parts, `_` for one that is not there. No two lists have one, nor does a key run into it."""
    named = ("%5F" if part == "_" else part and part.replace("%", "%25").replace(":", "%3A") for part in parts)
    return ":".join("_" if part is None else part for part in named)


class Now(Protocol):
    def now_ns(self) -> int: ...

    def monotonic(self) -> float: ...


class Trace(Protocol):
    """Is told what happens in a run: each node when it begins and what it came to (of one that fails only that it began), and each line
    that a component writes."""

    def enter(self, flow_id: str, node_id: str, kind: str) -> None: ...

    def step(self, flow_id: str, node_id: str, kind: str, payload: object, output: object, then: str) -> None: ...

    def said(self, component: str, stream: str, text: str) -> None: ...


async def no_pause() -> None:
    """Where there is nobody else."""


class Ports(msgspec.Struct, frozen=True):
    """Everything that a run may reach."""

    flows: dict[str, FlowPlan]
    """The flows of the pack, by id."""
    components: Components
    assets: Assets
    state: StateStore | None
    clock: Now
    trace: Trace | None = None
    pause: Pause = no_pause
    """Lets others go on, between two pieces of what takes long."""
