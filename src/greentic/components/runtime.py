"""The components of a revision: compiled, linked and behind the seam that flows call (formats: components 1).

Rules:
1. The host is loaded when a revision has components at all, and every component is compiled before the worker is ready.
2. What a component may ask for is decided by its manifest, its pack and the policies of this worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from greentic.flow.ports import ComponentCall, Components, Log, ProviderCall, StateStore
from greentic.ground import variables
from greentic.ground.errors import BootError, FlowFailure
from greentic.ground.extras import need
from greentic.net.egress import EgressPolicy, read_policy
from greentic.pack.archive import PackArchive
from greentic.pack.components import PackComponent
from greentic.pack.load import LoadedPack
from greentic.telemetry.tracing import within
from greentic.wasm.call_limits import CallLimits, call_limits
from greentic.wasm.format import least_memory

if TYPE_CHECKING:
    from greentic.components.calls import ReadyComponent
    from greentic.components.host import Grants

Map = dict[str, object]
EGRESS_VARIABLE = "GREENTIC_HTTP_EGRESS"


class Allowance(NamedTuple):
    """What the components of this worker may reach and cost."""

    egress: EgressPolicy
    limits: CallLimits


def read_allowance(environ: Mapping[str, str] | None = None) -> Allowance:
    """What the variables say. Raises `BootError` or `InvalidArgument`."""
    return Allowance(egress_policy(environ), call_limits(environ))


class CompileReport(msgspec.Struct, frozen=True):
    """What loading the components of a revision took."""

    components: int
    compiled: int
    seconds: float


class NoComponents:
    """The components of a revision that has none."""

    async def call(self, call: ComponentCall) -> object:
        raise FlowFailure(f"component '{call.component}' not found in pack")

    async def call_provider(self, call: ProviderCall) -> object:
        named = call.provider_id or call.provider_type or "of any kind"
        raise FlowFailure(f"provider `{named}` not found in the packs of this revision")


class RevisionComponents:
    """The components of every pack of a revision."""

    def __init__(
        self,
        packs: tuple[LoadedPack, ...],
        runtime: ComponentRuntime,
        config: dict[str, Map] | None = None,
        lane: str = "",
    ) -> None:
        """`config` is what is published for each pack, by its id in the lock; `lane` is the deployment.

        Raises as `ComponentRuntime.load`.
        """
        self._calls: dict[str, Components] = {}
        self._foreseen: dict[str, tuple[str, ...]] = {}
        self.report = CompileReport(0, 0, 0.0)
        if not any(pack.components for pack in packs):
            nothing = NoComponents()
            self._calls = {pack.manifest_id: nothing for pack in packs}
            return
        from greentic.components.calls import PackCalls, ReadyPack
        from greentic.components.foreseen import foreseen

        ready: list[ReadyPack] = []
        for pack in packs:
            components, report = runtime.load(pack)
            self.report = CompileReport(
                self.report.components + report.components,
                self.report.compiled + report.compiled,
                self.report.seconds + report.seconds,
            )
            self._foreseen[pack.manifest_id] = tuple(foreseen(pack, components, runtime.made.limits))
            ready.append(ReadyPack(pack, components, (config or {}).get(pack.pack_id, {})))
        for own in ready:
            seen = [own, *(other for other in ready if other is not own)]
            self._calls[own.pack.manifest_id] = PackCalls(seen, runtime.made.limits, runtime.log, lane)

    def of_pack(self, manifest_id: str) -> Components:
        return self._calls[manifest_id]

    def told(self, packs: tuple[LoadedPack, ...]) -> tuple[LoadedPack, ...]:
        """The packs of the revision, with what can never work of their components among their warnings."""
        return tuple(
            p._replace(warnings=(*p.warnings, *self._foreseen[p.manifest_id])) if p.manifest_id in self._foreseen else p
            for p in packs
        )


class ComponentRuntime:
    """The host of components: engine, cache, imports and policies of this worker, made when the first one is loaded."""

    def __init__(
        self, env_directory: Path | None, state: StateStore, log: Log, allowance: Allowance | None = None
    ) -> None:
        """`allowance` is what the variables say, where that was read already."""
        self._env_directory, self._state, self.log = env_directory, state, log
        self._allowance = allowance
        self._made: _Made | None = None

    @property
    def made(self) -> _Made:
        if self._made is None:
            self._made = _Made(self._env_directory, self._state, self._allowance or read_allowance())
        return self._made

    @property
    def held_bytes(self) -> int:
        """Memory of the calls that are suspended, about; nothing where nothing was loaded."""
        share = None if self._made is None else self._made.engine.share
        return max(share.held(), 0) if share is not None and share.suspended else 0

    def load(self, pack: LoadedPack) -> tuple[dict[str, ReadyComponent], CompileReport]:
        """Compile the components of a pack, or load them compiled. Raises `MalformedArtifact` or `BootError`."""
        found: dict[str, ReadyComponent] = {}
        if not pack.components:
            return found, CompileReport(0, 0, 0.0)
        compiled, seconds = 0, 0.0
        with pack.place.path.open("rb") as file:
            archive = PackArchive(file)
            for component in pack.components:
                data = archive.read(component.path)
                with within("compile", **{"greentic.component": component.id}) as span:
                    result = self.made.cache.load(self.made.engine, data, component.id, sha256=component.sha256)
                    if span is not None:
                        span.attributes["greentic.compiled_before"] = not result.seconds
                compiled += result.seconds > 0
                seconds += result.seconds
                found[component.id] = self.made.link(result.component, pack, component, least_memory(data))
        return found, CompileReport(len(found), compiled, seconds)


class _Made:
    """What is made once the first component is loaded."""

    def __init__(self, env_directory: Path | None, state: StateStore, allowance: Allowance) -> None:
        need("wasmtime", "running components")
        from greentic.components.calls import ReadyComponent
        from greentic.components.host import HostImports
        from greentic.components.http_client import PolicedHttp
        from greentic.components.secret_files import SecretFiles
        from greentic.wasm.compile_cache import CompileCache
        from greentic.wasm.component import LoadedComponent
        from greentic.wasm.engine import engine

        self._loaded, self._ready = LoadedComponent, ReadyComponent
        self.policy, self.limits = allowance
        self.engine = engine()
        self.cache = CompileCache()
        self.host = HostImports(PolicedHttp(self.policy), SecretFiles(env_directory), state)
        self._assets: dict[str, str] = {}

    def link(self, component: object, pack: LoadedPack, described: PackComponent, memory: int) -> ReadyComponent:
        grants = grants_of(described.manifest, pack.secrets)
        loaded = self._loaded(
            self.engine,
            component,  # type: ignore[arg-type]  # its type would have to be imported with the library
            self.host,
            assets=lambda: self._assets_of(pack, described),
            environment=_environment(described.manifest),
        )
        return self._ready(loaded, grants, memory)

    def _assets_of(self, pack: LoadedPack, described: PackComponent) -> str | None:
        """A directory with the pack's assets, for a component that may read files; made once a pack."""
        if not reads_assets(described.manifest) or not pack.assets.names():
            return None
        if pack.digest not in self._assets:
            from greentic.wasm.scratch import scratch_directory

            directory = scratch_directory("greentic-assets-")
            pack.assets.extract(Path(directory))
            self._assets[pack.digest] = directory
        return self._assets[pack.digest]


def egress_policy(environ: Mapping[str, str] | None = None) -> EgressPolicy:
    """The egress policy of this worker. Raises `BootError`."""
    try:
        return read_policy(variables.text(EGRESS_VARIABLE, environ))
    except ValueError as error:
        raise BootError(f"{EGRESS_VARIABLE}: {error}") from None


def grants_of(manifest: Map, secrets: tuple[str, ...]) -> Grants:
    """What a component may ask for (rule 2). What its manifest does not mention is not withheld, and what it says in an unknown form is."""
    from greentic.components.host import Grants, canonical_name

    http, state = _capability(manifest, "host", "http"), _capability(manifest, "host", "state")
    read = write = True
    if state is not None:
        read, write = _member(state, "read") is True, _member(state, "write") is True
    return Grants(
        http is None or _member(http, "client") in (None, True),
        read,
        write,
        frozenset(canonical_name(key) for key in secrets),
    )


def reads_assets(manifest: Map) -> bool:
    """Whether a component may read the assets of its pack."""
    return _member(_capability(manifest, "wasi", "filesystem"), "mode") in (None, "read_only", "sandbox")


def _capability(manifest: Map, side: str, name: str) -> object:
    capabilities = manifest.get("capabilities")
    inner = capabilities.get(side) if isinstance(capabilities, dict) else None
    return inner.get(name) if isinstance(inner, dict) else None


def _member(value: object, name: str) -> object:
    """A member of a capability; what is no mapping stands for it, such as `false`."""
    return value.get(name) if isinstance(value, dict) else value


def _environment(manifest: Map) -> dict[str, str]:
    """The variables that the manifest asks for and the operator allows; by default none."""
    wanted = _capability(manifest, "wasi", "env")
    listed = wanted.get("allow") if isinstance(wanted, dict) else None
    allowed = variables.listed("GREENTIC_COMPONENT_ENV")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    found = variables.environment()
    return {name: found[name] for name in names if name in allowed and name in found}
