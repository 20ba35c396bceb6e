"""A loaded component: what it exports and imports, and calls in fresh instances (spec: packs-flows-components 8.7).

Rules:
1. Every call gets a new store and instance, with limits; nothing of it survives the call, and nothing of a trapped one is
   used again.
2. Exports and imports are found by asking the component, never by the `world` that a manifest claims.
3. Imports are answered by the functions of a host for the interface and version that is asked for. A function that nobody
   answers is linked to one that says so when it is called.
4. Type-only imports need no definition. WASI is the library's own, without sockets to anywhere and with a read-only `/assets`
   at most.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

from wasmtime import WasiConfig, WasmtimeError
from wasmtime import component as c
from wasmtime.component._types import ComponentExtern

from greentic.ground.errors import MalformedArtifact
from greentic.wasm import native
from greentic.wasm.engine import TICK_SECONDS, CallLimits, ComponentEngine
from greentic.wasm.values import VALUE_BYTES, Keep, Signature, ValueMismatch, signature_of

NODE_06, RUNTIME = "greentic:component/node@0.6.0", "greentic:component/component-runtime@0.6.0"
ENTRY_POINTS = (
    (NODE_06, "invoke"),
    ("greentic:component/node@0.5.0", "invoke"),
    ("greentic:component/node@0.4.0", "invoke"),
    (RUNTIME, "run"),
)
MAX_OUTPUT = 64 << 10
"""Bytes of standard output and error that a call may log."""


class Trap(Exception):
    """A call that ended in a trap, or could not begin; the text says why."""


class HostFailure(Exception):
    """A host function that ends the call: its text is what the caller of the component is told."""


class CallContext(Protocol):
    """For whom a call runs; host functions get it."""

    def log(self, stream: str, text: str) -> None: ...


HostFunction = Callable[[CallContext, list[object]], object]
"""Answers one call of an import with a value of its declared result type."""


class Host(Protocol):
    """Answers imports."""

    def function(self, interface: str, name: str) -> HostFunction | None:
        """The function behind `interface` and `name`, or nothing if nobody answers it."""
        ...


class Pace:
    """Whether a component's calls are short; a few must have been seen, and a long one is remembered for a while."""

    QUICK_SECONDS = 0.003
    SEEN, REMEMBERED = 3, 1000

    def __init__(self) -> None:
        self._left = self.SEEN

    @property
    def quick(self) -> bool:
        return self._left <= 0

    def took(self, seconds: float) -> None:
        if seconds > self.QUICK_SECONDS:
            self._left = self.REMEMBERED
        elif self._left > 0:
            self._left -= 1


class Export(NamedTuple):
    """A function that a component exports."""

    handle: c.ExportIndex
    address: int
    signature: Signature


_current = threading.local()


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
        wasi_http: bool = False,
    ) -> None:
        self._engine, self._component = engine, component
        self._environment = environment or {}
        kind = component.type
        self.exports: dict[str, dict[str, Export]] = {}
        self._read_exports(kind)
        self.imports: dict[str, tuple[str, ...]] = {}
        self.unanswered: list[str] = []
        self.blocked: str | None = None
        """Why no call can be made, for a component that imports what this worker cannot stand in for."""
        self._callbacks: list[object] = []
        self._linker = c.Linker(engine.engine)
        self._linker.allow_shadowing = True
        self._linker.add_wasip2()
        imports = kind.imports(engine.engine)
        self._wasi_http = wasi_http and any(name.startswith("wasi:http/") for name in imports)
        self._wasi = any(name.startswith("wasi:") for name in imports)
        self._outputs = [s for s in ("stdout", "stderr") if any(name.startswith(f"wasi:cli/{s}@") for name in imports)]
        self._assets = assets() if any(name.startswith("wasi:filesystem/") for name in imports) else None
        if self._wasi_http:
            self._linker.add_wasi_http()
        self._link(imports, host)
        self.pace = Pace()
        self.pure = all(
            name.startswith("greentic:component/control@")
            or (name.startswith("wasi:") and not name.startswith("wasi:http/") and not functions)
            for name, functions in self.imports.items()
            if functions or name.startswith("wasi:")
        )
        """Whether a call has no effect but its answer and never sleeps, so that one that was given up can be made again."""
        self._linker_address = native.address(self._linker)
        self._address = native.address(component)

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
        """The newest interface that a node calls, and its function (spec: packs-flows-components 4.4)."""
        for interface, function in ENTRY_POINTS:
            export = self.find(interface, function)
            if export is not None:
                return interface, export
        return None

    def find(self, interface: str, function: str) -> Export | None:
        """An exported function of an interface with its version, such as `greentic:component/node@0.6.0`."""
        return self.exports.get(interface, {}).get(function)

    # -- linking ----------------------------------------------------------------------------------------------------

    def _link(self, imports: dict[str, ComponentExtern], host: Host) -> None:
        engine = self._engine.engine
        with self._linker.root() as root:
            for interface, extern in imports.items():
                item = extern.ty
                if interface.startswith("wasi:") and not (interface.startswith("wasi:http/") and not self._wasi_http):
                    members = item.exports(engine) if isinstance(item, c.ComponentInstanceType) else {}
                    self.imports[interface] = tuple(name for name in members if name.startswith("subscribe-"))
                    continue
                if isinstance(item, c.FuncType):
                    self._define(root, "", interface, item, host)
                    continue
                if not isinstance(item, c.ComponentInstanceType):
                    continue
                members = item.exports(engine)
                functions = {n: m.ty for n, m in members.items() if isinstance(m.ty, c.FuncType)}
                self.imports[interface] = tuple(functions)
                if any(isinstance(member.ty, c.ResourceType) for member in members.values()):
                    # There is no neutral stand-in for a resource, so the component cannot be instantiated.
                    self.unanswered += [f"{interface}#{name}" for name in functions]
                    self.blocked = _blocked(interface)
                    continue
                if functions:
                    with root.add_instance(interface) as instance:
                        for name, kind in functions.items():
                            self._define(instance, interface, name, kind, host)

    def _define(self, where: c.LinkerInstance, interface: str, name: str, kind: c.FuncType, host: Host) -> None:
        function = host.function(interface, name)
        full = f"{interface}#{name}" if interface else name
        if function is None:
            self.unanswered.append(full)

            def function(context: CallContext, arguments: list[object]) -> object:
                raise HostFailure(f"the import `{full}` is not provided by this worker")

        callback = native.library.wasmtime_component_func_callback_t(_host_callback(function, signature_of(kind)))
        self._callbacks.append(callback)
        raw = name.encode()
        error = native.library.wasmtime_component_linker_instance_add_func(
            where.ptr(), ctypes.create_string_buffer(raw), len(raw), callback, None, _NO_FINALIZER
        )
        if error:
            raise MalformedArtifact(f"the import `{full}` cannot be linked: {WasmtimeError._from_ptr(error)}")

    # -- calling ----------------------------------------------------------------------------------------------------

    def call(self, export: Export, arguments: list[object], context: CallContext, limits: CallLimits) -> object:
        """Call an export in a fresh instance. Raises `Trap`, `HostFailure` or `ValueMismatch`."""
        if self.blocked is not None:
            raise Trap(self.blocked)
        keep: Keep = []
        parameters = export.signature.parameters
        if len(parameters) != len(arguments):
            raise Trap(f"the function takes {len(parameters)} arguments, not {len(arguments)}")
        packed = b"".join([p.lower(a, keep) for (_, p), a in zip(parameters, arguments, strict=True)])
        store = native.store_new(self._engine.address, None, None)
        try:
            return self._run(store, export, packed, len(arguments), context, limits)
        finally:
            native.store_delete(store)

    def _run(
        self, store: int, export: Export, packed: bytes, count: int, context: CallContext, limits: CallLimits
    ) -> object:
        native.store_limiter(
            store,
            limits.memory_bytes,
            limits.table_elements,
            limits.instances,
            limits.instances,
            limits.memories,
        )
        inner = native.store_context(store)
        native.set_epoch_deadline(inner, max(1, round(limits.seconds / TICK_SECONDS)) + 1)
        if self._wasi:
            failed = native.set_wasi(inner, ctypes.cast(self._wasi_config(context)._consume(), ctypes.c_void_p))
            if failed:
                raise Trap(native.take_error(failed))
            if self._wasi_http:
                native.set_wasi_http(inner)
        with _calling(context):
            instance = ctypes.create_string_buffer(16)
            failed = native.instantiate(self._linker_address, inner, self._address, instance)
            if failed:
                raise self._failure(failed)
            function = ctypes.create_string_buffer(32)
            if not native.get_func(instance, inner, export.address, function):
                raise Trap("the component does not export the function")
            result = ctypes.create_string_buffer(VALUE_BYTES)
            answers = export.signature.result is not None
            failed = native.func_call(function, inner, packed, count, result if answers else None, int(answers))
            if failed:
                raise self._failure(failed)
        if export.signature.result is None:
            return None
        try:
            return export.signature.result.lift(result.raw, 0)
        finally:
            native.val_delete(result)

    def _wasi_config(self, context: CallContext) -> WasiConfig:
        wasi = WasiConfig()
        if self._assets is not None:
            try:
                wasi.preopen_dir(self._assets, "/assets", False)
            except WasmtimeError as error:
                raise Trap(f"the assets of the pack cannot be opened: {_short(str(error))}") from None
        if self._environment:
            wasi.env = list(self._environment.items())
        if "stdout" in self._outputs:
            wasi.stdout_custom = _output(context, "stdout")
        if "stderr" in self._outputs:
            wasi.stderr_custom = _output(context, "stderr")
        return wasi

    @staticmethod
    def _failure(error: int) -> BaseException:
        """What ended a call: the exception of a host function, else a trap."""
        text = native.take_error(error)
        failure: BaseException | None = getattr(_current, "failure", None)
        _current.failure = None
        return Trap(_short(text)) if failure is None else failure


def _blocked(interface: str) -> str:
    if interface.startswith("wasi:http/"):
        return (
            f"the component imports `{interface}`, which is there only with GREENTIC_HTTP_EGRESS=unrestricted "
            "and a manifest that does not forbid http"
        )
    return f"the component imports `{interface}`, which this worker does not provide"


def _short(text: str) -> str:
    """A trap as one line: the reason, without the backtrace of the wasm."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if "wasm trap:" in line or "exceeds memory limits" in line]
    told = reasons[-1] if reasons else lines[-1] if lines else "unknown failure"
    return told.split(": ", 1)[1] if told[:2] in ("0:", "1:", "2:") else told


def _output(context: CallContext, stream: str) -> Callable[[bytes], int]:
    left = MAX_OUTPUT

    def write(data: bytes) -> int:
        nonlocal left
        if left > 0:
            context.log(stream, data[:left].decode(errors="replace"))
            left -= len(data)
        return len(data)

    return write


@contextlib.contextmanager
def _calling(context: CallContext) -> Iterator[None]:
    """Make the context known to the host functions of this thread's call."""
    before = getattr(_current, "context", None)
    _current.context, _current.failure = context, None
    try:
        yield
    finally:
        _current.context = before


def _host_callback(function: HostFunction, signature: Signature) -> Callable[..., int]:
    lifts = [converter.lift for _, converter in signature.parameters]
    result = signature.result

    def callback(
        data: object, context: object, kind: object, arguments: object, count: int, results: object, result_count: int
    ) -> int:
        try:
            raw = ctypes.string_at(arguments, count * VALUE_BYTES) if count else b""  # type: ignore[arg-type]
            values = [lift(raw, index * VALUE_BYTES) for index, lift in enumerate(lifts)]
            answer = function(_current.context, values)
            if result is not None:
                keep: Keep = []
                packed = result.lower(answer, keep)
                native.val_clone(packed, ctypes.cast(results, ctypes.c_void_p))  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001  nothing may unwind through the library
            told = error
            if isinstance(error, Exception) and not isinstance(error, HostFailure | ValueMismatch):
                told = HostFailure(f"a host function failed: {type(error).__name__}")
            _current.failure = told
            return int(native.error_new(b"a host function failed"))
        return 0

    return callback


_NO_FINALIZER = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
