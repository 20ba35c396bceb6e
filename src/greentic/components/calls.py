"""Calls of components, as the flows of one pack make them (formats: flows 8; components 1, 2).

Rules:
1. Flows see the components of their own pack; providers are found in their pack first, then in the others.
2. A call is awaited where its flow runs: on the worker's loop, or in place where there is none.
3. Each call is counted, with what it computed and how it ended.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import NamedTuple

import msgspec

from greentic.components.host import Grants, HostCall
from greentic.components.interfaces import invoke_node, invoke_provider
from greentic.flow.ports import ComponentCall, Log, ProviderCall
from greentic.ground.clock import CLOCK
from greentic.ground.errors import FlowFailure
from greentic.pack.components import PackComponent, Provider
from greentic.pack.load import LoadedPack, Resolver
from greentic.telemetry import tracing
from greentic.telemetry.tallies import TALLIES
from greentic.wasm.call_limits import CallLimits
from greentic.wasm.component import LoadedComponent


class ReadyComponent(msgspec.Struct, frozen=True):
    """A component that can be called, and what it may ask for."""

    loaded: LoadedComponent
    grants: Grants
    least_memory: int = 0
    """Bytes of memory that each instance begins with."""


class ReadyPack(NamedTuple):
    pack: LoadedPack
    components: dict[str, ReadyComponent]
    config: dict[str, object]
    """What is published for the pack."""


class PackCalls:
    """What the flows of one pack can call; `packs` has their own pack first, `lane` is whose share of computing they take."""

    def __init__(self, packs: list[ReadyPack], limits: CallLimits, log: Log, lane: str) -> None:
        self._packs, self._limits, self._log, self._lane = packs, limits, log, lane
        self._own, self._config = packs[0].components, packs[0].config
        self._resolver = Resolver(packs[0].pack.components)

    async def call(self, call: ComponentCall) -> object:
        component = self._find(call)
        ready = self._own[component.id]
        host = self._host(component.id, ready, call, self._config)
        return await _counted(host, invoke_node(ready.loaded, component.id, call, host, self._limits))

    def _find(self, call: ComponentCall) -> PackComponent:
        component = self._resolver.find(call.component, call.operation)
        if component is None:
            raise FlowFailure(f"component '{call.component}' not found in pack")
        return component

    def _host(
        self,
        component_id: str,
        ready: ReadyComponent,
        call: ComponentCall | ProviderCall,
        config: dict[str, object],
    ) -> HostCall:
        log = self._log if call.trace is None else _both(self._log, call.trace.said)
        return HostCall(component_id, call.caller, ready.grants, self._limits.seconds, log, config, self._lane)

    async def call_provider(self, call: ProviderCall) -> object:
        for pack, components, config in self._packs:
            provider = _provider(pack.providers, call)
            component = None if provider is None else Resolver(pack.components).find(provider.component, None)
            if provider is None or component is None:
                continue
            if "schema-core" not in provider.world:
                raise FlowFailure(
                    f"provider {provider.provider_type} has the world `{provider.world}`, which is not supported"
                )
            ready = components[component.id]
            host = self._host(component.id, ready, call, config)
            return await _counted(host, invoke_provider(ready.loaded, component.id, call, host, self._limits))
        raise no_provider(call)


def _both(first: Log, second: Log) -> Log:
    """Two listeners as one."""

    def told(component: str, stream: str, text: str) -> None:
        first(component, stream, text)
        second(component, stream, text)

    return told


async def _counted(host: HostCall, calling: Coroutine[object, object, object]) -> object:
    """What a call comes to, counted under its deployment and component (rule 3)."""
    labels, began, kind = (host.lane, host.component), CLOCK.monotonic(), None
    span = tracing.begin(f"component {host.component}")
    try:
        return await calling
    except FlowFailure:
        kind = "trap" if host.trapped else "failure"
        raise
    except BaseException:
        kind = "gone"
        raise
    finally:
        TALLIES.observe("greentic_component_call_duration_seconds", labels, CLOCK.monotonic() - began)
        computed = ("greentic_component_compute_seconds", host.computed)
        TALLIES.add_all(labels, (("greentic_component_calls", 1), computed))
        if kind is not None:
            TALLIES.add("greentic_component_failures", (*labels, kind))
        if span is not None:
            span.attributes |= {"greentic.component": host.component, "greentic.compute_seconds": host.computed}
            tracing.end(span, kind)


def _provider(providers: tuple[Provider, ...], call: ProviderCall) -> Provider | None:
    wanted = {name for name in (call.provider_id, call.provider_type) if name}
    if not wanted:
        return providers[0] if len(providers) == 1 else None
    return next((p for p in providers if {p.provider_type, p.component} & wanted), None)


def no_provider(call: ProviderCall) -> FlowFailure:
    named = call.provider_id or call.provider_type or "of any kind"
    return FlowFailure(f"provider `{named}` not found in the packs of this revision")
