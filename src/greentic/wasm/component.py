"""A loaded component: what it exports and imports, and calls in fresh instances (formats: components 7).

Rules:
1. Every call gets a new store and instance, with limits; nothing of it survives the call, and nothing of a trapped one is
   used again.
2. Exports and imports are found by asking the component, never by the `world` that a manifest claims.
3. Imports are answered by the functions of a host for the interface and version that is asked for. One that nobody answers is
   linked to a trap that names it: components of common toolchains import much that they never call. `explain` tells of it early.
4. Type-only imports need no definition. WASI is the library's own, without sockets to anywhere and with a read-only `/assets`
   at most. WASI HTTP would go past the rules of egress, so nobody answers it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import msgspec
from wasmtime import component as c
from wasmtime.component._types import ComponentExtern

from greentic.ground.errors import MalformedArtifact
from greentic.ground.going import in_place
from greentic.wasm import native
from greentic.wasm.call import Call, CallContext, HostFunction, Target, host_callback, stderr_callback, stdout_callback
from greentic.wasm.call_limits import CallLimits
from greentic.wasm.drive import finish
from greentic.wasm.engine import ComponentEngine
from greentic.wasm.traps import HostFailure, Trap, not_provided
from greentic.wasm.values import Keep, Signature, signature_of

__all__ = ["CallContext", "Export", "Host", "HostFailure", "HostFunction", "LoadedComponent", "Trap"]

NODE_06, RUNTIME = "greentic:component/node@0.6.0", "greentic:component/component-runtime@0.6.0"
ENTRY_POINTS = (
    (NODE_06, "invoke"),
    ("greentic:component/node@0.5.0", "invoke"),
    ("greentic:component/node@0.4.0", "invoke"),
    (RUNTIME, "run"),
)

_PROVIDED = tuple(f"wasi:{package}/" for package in ("cli", "clocks", "filesystem", "io", "random", "sockets"))
"""Interfaces that the library answers by itself."""


class Host(Protocol):
    """Answers imports."""

    def function(self, interface: str, name: str) -> HostFunction | None:
        """The function behind `interface` and `name`, or nothing if nobody answers it."""
        ...


class Export(msgspec.Struct, frozen=True):
    """A function that a component exports."""

    handle: c.ExportIndex
    address: int
    signature: Signature


class LoadedComponent:
    """A compiled component with its linker, for calls from any thread."""

    def __init__(
        self,
        engine: ComponentEngine,
        component: c.Component,
        host: Host,
        *,
        assets: Callable[[], str | None] = lambda: None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Raises `MalformedArtifact` for imports that cannot be linked at all."""
        self._engine, self._component = engine, component
        self._environment = environment or {}
        kind = component.type
        self.exports: dict[str, dict[str, Export]] = {}
        self._read_exports(kind)
        self.imports: dict[str, tuple[str, ...]] = {}
        self.unanswered: list[str] = []
        """Functions that are imported and that nobody answers; a call of one ends the call of the component."""
        self._callbacks: list[object] = []
        self._linker = c.Linker(engine.engine)
        self._linker.allow_shadowing = True
        self._linker_address = native.address(self._linker)
        self._address = native.address(component)
        imports = kind.imports(engine.engine)
        self._wasi = any(name.startswith("wasi:") for name in imports)
        self._outputs = [s for s in ("stdout", "stderr") if any(name.startswith(f"wasi:cli/{s}@") for name in imports)]
        self._assets = assets() if any(name.startswith("wasi:filesystem/") for name in imports) else None
        if self._wasi:
            self._refuse(native.linker_add_wasi(self._linker_address), "WASI")
        self._link(imports, host)
        self._memories = [1]

    # -- what it is -------------------------------------------------------------------------------------------------

    def _read_exports(self, kind: c.ComponentType) -> None:
        engine = self._engine.engine
        for name, extern in kind.exports(engine).items():
            item = extern.ty
            if not isinstance(item, c.ComponentInstanceType):
                continue
            outer = self._component.get_export_index(name)
            functions: dict[str, Export] = {}
            for inner, member in item.exports(engine).items():
                if isinstance(member.ty, c.FuncType) and outer is not None:
                    index = self._component.get_export_index(inner, outer)
                    if index is not None:
                        functions[inner] = Export(index, native.address(index), signature_of(member.ty))
            self.exports[name] = functions

    @cached_property
    def entry_point(self) -> tuple[str, Export] | None:
        """The newest interface that a node calls, and its function (formats: components 1)."""
        for interface, function in ENTRY_POINTS:
            export = self.find(interface, function)
            if export is not None:
                return interface, export
        return None

    def find(self, interface: str, function: str) -> Export | None:
        """An exported function of an interface with its version, such as `greentic:component/node@0.6.0`."""
        return self.exports.get(interface, {}).get(function)

    def explain(self) -> list[str]:
        """What will never work, or end a call that needs it: no function to call, and interfaces that nobody answers, each once."""
        found: list[str] = []
        if self.entry_point is None and not self.exports:
            found.append("it exports no function")
        interfaces = dict.fromkeys(name.partition("#")[0] for name in self.unanswered)
        return found + [f"{not_provided(name)}; a call that needs it fails" for name in interfaces]

    # -- linking ----------------------------------------------------------------------------------------------------

    def _link(self, imports: dict[str, ComponentExtern], host: Host) -> None:
        engine = self._engine.engine
        with self._linker.root() as root:
            for interface, extern in imports.items():
                item = extern.ty
                if isinstance(item, c.FuncType):
                    self._define(root, "", interface, item, host)
                    continue
                if not isinstance(item, c.ComponentInstanceType):
                    continue
                members = item.exports(engine)
                functions = {n: m.ty for n, m in members.items() if isinstance(m.ty, c.FuncType)}
                self.imports[interface] = tuple(functions)
                if interface.startswith(_PROVIDED):
                    continue  # the library finds it whatever its patch version; naming it here would hide what answers
                resources = {n: m.ty for n, m in members.items() if isinstance(m.ty, c.ResourceType)}
                if resources:
                    with root.add_instance(interface) as instance:
                        for name, resource in resources.items():
                            instance.add_resource(name, resource, lambda store, number: None)
                        for name in functions:
                            self._refuse_call(instance, interface, name)
                    continue
                if functions:
                    with root.add_instance(interface) as instance:
                        for name, kind in functions.items():
                            self._define(instance, interface, name, kind, host)

    def _define(self, where: c.LinkerInstance, interface: str, name: str, kind: c.FuncType, host: Host) -> None:
        function = host.function(interface, name)
        if function is None:
            self._refuse_call(where, interface, name)
        else:
            self._answer(where, interface, name, host_callback(function, signature_of(kind)))

    def _refuse_call(self, where: c.LinkerInstance, interface: str, name: str) -> None:
        """A function that nobody answers: the call of it ends with the sentence of which it was."""
        full = f"{interface}#{name}" if interface else name
        self.unanswered.append(full)

        def refuse(context: CallContext, arguments: list[object]) -> object:
            raise HostFailure(not_provided(full))

        self._answer(where, interface, name, host_callback(refuse, Signature((), None)))

    def _answer(self, where: c.LinkerInstance, interface: str, name: str, callback: object) -> None:
        full = f"{interface}#{name}" if interface else name
        self._callbacks.append(callback)
        raw = name.encode()
        failed = native.linker_add_function(native.address(where), raw, len(raw), callback, None, None)
        self._refuse(failed, f"the import `{full}`")

    @staticmethod
    def _refuse(failed: int | None, what: str) -> None:
        if failed:
            raise MalformedArtifact(f"{what} cannot be linked: {native.take_error(failed)}")

    # -- calling ----------------------------------------------------------------------------------------------------

    def begin(self, export: Export, arguments: list[object], context: CallContext, limits: CallLimits) -> Call:
        """A call of an export in a fresh instance, not advanced yet. Raises `Trap` or `ValueMismatch`."""
        keep: Keep = []
        parameters = export.signature.parameters
        if len(parameters) != len(arguments):
            raise Trap(f"the function takes {len(parameters)} arguments, not {len(arguments)}")
        packed = b"".join([p.lower(a, keep) for (_, p), a in zip(parameters, arguments, strict=True)])
        target = Target(
            self._engine, self._linker_address, self._address, export.address, export.signature.result,
            self._wasi_config if self._wasi else None, self._memories,
        )  # fmt: skip
        return Call(target, packed, keep, context, limits)

    async def invoke(self, export: Export, arguments: list[object], context: CallContext, limits: CallLimits) -> object:
        """What an export answers. Raises `Trap`, `HostFailure` or `ValueMismatch`."""
        return await finish(
            self.begin(export, arguments, context, limits)
        )  # begun only by who awaits it, so that it is closed

    def call(self, export: Export, arguments: list[object], context: CallContext, limits: CallLimits) -> object:
        """The same in a thread without an event loop."""
        return in_place(self.invoke(export, arguments, context, limits))

    def _wasi_config(self, call: int) -> int:
        wasi: int = native.wasi_new()
        if self._assets is not None and not native.wasi_preopen(wasi, self._assets.encode(), b"/assets", False):
            native.wasi_delete(wasi)
            raise Trap("the assets of the pack cannot be opened")
        if self._environment:
            names = (ctypes.c_char_p * len(self._environment))(*(name.encode() for name in self._environment))
            values = (ctypes.c_char_p * len(self._environment))(
                *(value.encode() for value in self._environment.values())
            )
            native.wasi_environment(wasi, len(names), names, values)
        if "stdout" in self._outputs:
            native.wasi_stdout(wasi, stdout_callback, call, None)
        if "stderr" in self._outputs:
            native.wasi_stderr(wasi, stderr_callback, call, None)
        return wasi
