"""What of a pack's components can never work, told before anybody calls it (formats: components 1, 2, 7).

Rules:
1. It is told wherever a pack is looked at whole: `gtc pack build` and `inspect`, `gtc flow lint` of a pack, `gtc bundle build`,
   `inspect` and `verify`, `warm`, and `/status`. All of them ask here.
2. Each is a warning, since a flow may never get there: real packs import what they do not call. What keeps a worker from loading a
   pack at all is an error of the loading, not told here.
"""

from __future__ import annotations

from greentic.components.calls import ReadyComponent
from greentic.components.interfaces import PROVIDER
from greentic.pack.load import LoadedPack, Resolver
from greentic.wasm.call_limits import CallLimits
from greentic.wasm.component import ENTRY_POINTS


def foreseen(pack: LoadedPack, components: dict[str, ReadyComponent], limits: CallLimits) -> list[str]:
    """The warnings about the components of a pack, in their order, and about the providers that it declares."""
    resolver = Resolver(pack.components)
    provided = {own.id for p in pack.providers if (own := resolver.find(p.component, None)) is not None}
    found: list[str] = []
    for name, one in components.items():
        told = one.loaded.explain()
        if one.loaded.entry_point is None and one.loaded.exports and name not in provided:
            called = ", ".join(f"`{interface}`" for interface, _ in ENTRY_POINTS)
            told.append(f"no node can call it: it exports none of {called}")
        if one.least_memory > limits.memory_bytes:
            told.append(
                f"it begins with {one.least_memory >> 20} MiB of memory, and a call may have {limits.memory_bytes >> 20}: no call of it "
                "works; GREENTIC_COMPONENT_MEMORY_MB is the limit"
            )
        found += [f"component {name}: {text}" for text in told]
    for provider in pack.providers:
        component = resolver.find(provider.component, None)
        if component is None:
            found.append(f"provider {provider.provider_type}: the pack has no component `{provider.component}`")
        elif "schema-core" not in provider.world:
            found.append(f"provider {provider.provider_type}: its world `{provider.world}` is not supported")
        elif components[component.id].loaded.find(PROVIDER, "invoke") is None:
            found.append(f"provider {provider.provider_type}: component {component.id} does not export `{PROVIDER}`")
    return found
