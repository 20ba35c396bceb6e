"""Calls of components, as the flows of one pack make them (spec: packs-flows-components 3.7, 4.3, 4.6).

Rules:
1. Flows see the components of their own pack; providers are found in their pack first, then in the others.
2. On the event loop only components are called whose calls were short so far and have no effect but their answer. A call
   that takes longer there is given up, and the turn is made again elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from greentic.components.host import Grants, HostCall
from greentic.components.interfaces import invoke_node, invoke_provider
from greentic.flow.graph import FlowFailure, NotAtOnce
from greentic.flow.ports import ComponentCall, ProviderCall
from greentic.pack.components import PackComponent, Provider
from greentic.pack.load import LoadedPack, Resolver
from greentic.wasm.component import LoadedComponent
from greentic.wasm.engine import CallLimits

SECONDS_AT_ONCE = 0.01
"""How long a call may compute on the event loop."""


class ReadyComponent(NamedTuple):
    """A component that can be called, and what it may ask for."""

    loaded: LoadedComponent
    grants: Grants


class ReadyPack(NamedTuple):
    pack: LoadedPack
    components: dict[str, ReadyComponent]
    config: dict[str, object]
    """What is published for the pack."""


class PackCalls:
    """What the flows of one pack can call; `packs` has their own pack first."""

    def __init__(self, packs: list[ReadyPack], limits: CallLimits, log: Callable[[str, str], None]) -> None:
        self._packs, self._limits, self._log = packs, limits, log
        self._own, self._config = packs[0].components, packs[0].config
        self._resolver = Resolver(packs[0].pack.components)

    def call(self, call: ComponentCall) -> object:
        component = self._find(call)
        ready = self._own[component.id]
        began = time.monotonic()
        try:
            return invoke_node(
                ready.loaded,
                component.id,
                call,
                self._host(component.id, ready, call, self._config),
                self._limits,
            )
        finally:
            ready.loaded.pace.took(time.monotonic() - began)

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
        deadline = time.monotonic() + self._limits.seconds
        return HostCall(component_id, call.caller, ready.grants, deadline, self._log, config)

    def call_provider(self, call: ProviderCall) -> object:
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
            return invoke_provider(ready.loaded, component.id, call, host, self._limits)
        raise no_provider(call)


class HurriedCalls(PackCalls):
    """The same for turns on the event loop (rule 2)."""

    def __init__(self, packs: list[ReadyPack], limits: CallLimits, log: Callable[[str, str], None]) -> None:
        super().__init__(packs, limits._replace(seconds=min(limits.seconds, SECONDS_AT_ONCE)), log)

    def call(self, call: ComponentCall) -> object:
        loaded = self._own[self._find(call).id].loaded
        if not loaded.pure or not loaded.pace.quick:
            raise NotAtOnce
        began = time.monotonic()
        try:
            return super().call(call)
        except FlowFailure:
            if time.monotonic() - began >= SECONDS_AT_ONCE:
                raise NotAtOnce from None
            raise

    def call_provider(self, call: ProviderCall) -> object:
        raise NotAtOnce


def _provider(providers: tuple[Provider, ...], call: ProviderCall) -> Provider | None:
    wanted = {name for name in (call.provider_id, call.provider_type) if name}
    if not wanted:
        return providers[0] if len(providers) == 1 else None
    return next((p for p in providers if {p.provider_type, p.component} & wanted), None)


def no_provider(call: ProviderCall) -> FlowFailure:
    named = call.provider_id or call.provider_type or "of any kind"
    return FlowFailure(f"provider `{named}` not found in the packs of this revision")
