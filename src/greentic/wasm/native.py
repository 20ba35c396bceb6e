"""The functions of the wasmtime library that a call goes through, bound for speed (formats: components 7).

Rules:
1. What is short keeps the interpreter's lock; what may run a component's code gives it back (`CDLL`), so that a computing
   component never stops other threads.
2. Handles are plain integers here. Who makes one frees it; everything else uses the library's own classes.
3. This relies on the layout of one version of the package, which is pinned, and on functions that only its C interface has;
   `check` says so when another version is installed or one of them is missing.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import wasmtime
from wasmtime import _ffi

SUPPORTED = "50.0.1"

library = _ffi
"""The library's own bindings, for what happens once a component."""

_quick = ctypes.PyDLL(str(_ffi.filename))
_long = ctypes.CDLL(str(_ffi.filename))
_missing: list[str] = []


def _bind(library: ctypes.CDLL, name: str, result: type | None, *arguments: type):  # type: ignore[no-untyped-def]  # noqa: ANN202
    try:
        function = library[name]
    except AttributeError:
        _missing.append(name)
        return None
    function.restype = result
    function.argtypes = list(arguments)
    return function


_P = c_void_p

async_callback = ctypes.CFUNCTYPE(None, _P, _P, _P, _P, c_size_t, _P, c_size_t, _P, _P)
"""A host function: data, context, type, arguments and their count, results and their count, where an error goes, continuation."""
continuation = ctypes.CFUNCTYPE(c_bool, _P)
"""Asked at every poll of a call that a host function has suspended: whether the results are there."""
output = ctypes.CFUNCTYPE(ctypes.c_ssize_t, _P, _P, c_size_t)
"""Takes what a component writes: data, bytes and their count; how many were taken."""

store_new = _bind(_quick, "wasmtime_store_new", _P, _P, _P, _P)
store_context = _bind(_quick, "wasmtime_store_context", _P, _P)
store_limiter = _bind(_quick, "wasmtime_store_limiter", None, _P, c_int64, c_int64, c_int64, c_int64, c_int64)
store_delete = _bind(_long, "wasmtime_store_delete", None, _P)
set_epoch_deadline = _bind(_quick, "wasmtime_context_set_epoch_deadline", None, _P, c_uint64)
yield_at_deadline = _bind(_quick, "wasmtime_context_epoch_deadline_async_yield_and_update", _P, _P, c_uint64)
increment_epoch = _bind(_long, "wasmtime_engine_increment_epoch", None, _P)

wasi_new = _bind(_quick, "wasi_config_new", _P)
wasi_preopen = _bind(_quick, "wasi_config_preopen_dir", c_bool, _P, c_char_p, c_char_p, c_bool)
wasi_environment = _bind(_quick, "wasi_config_set_env", c_bool, _P, c_size_t, _P, _P)
wasi_stdout = _bind(_quick, "wasi_config_set_stdout_custom", None, _P, output, _P, _P)
wasi_stderr = _bind(_quick, "wasi_config_set_stderr_custom", None, _P, output, _P, _P)
wasi_delete = _bind(_quick, "wasi_config_delete", None, _P)
set_wasi = _bind(_quick, "wasmtime_context_set_wasi", _P, _P, _P)

linker_add_wasi = _bind(_quick, "wasmtime_component_linker_add_wasip2_async", _P, _P)
linker_add_function = _bind(
    _quick, "wasmtime_component_linker_instance_add_func_async", _P, _P, c_char_p, c_size_t, async_callback, _P, _P
)
instantiate = _bind(_long, "wasmtime_component_linker_instantiate", _P, _P, _P, _P, _P)
instantiate_async = _bind(_quick, "wasmtime_component_linker_instantiate_async", _P, _P, _P, _P, _P, _P)
get_func = _bind(_quick, "wasmtime_component_instance_get_func", c_bool, _P, _P, _P, _P)
func_call = _bind(_long, "wasmtime_component_func_call", _P, _P, _P, _P, c_size_t, _P, c_size_t)
func_call_async = _bind(_quick, "wasmtime_component_func_call_async", _P, _P, _P, _P, c_size_t, _P, c_size_t, _P)
future_poll = _bind(_long, "wasmtime_call_future_poll", c_bool, _P)
future_delete = _bind(_long, "wasmtime_call_future_delete", None, _P)

val_clone = _bind(_quick, "wasmtime_component_val_clone", None, _P, _P)
val_delete = _bind(_quick, "wasmtime_component_val_delete", None, _P)
error_delete = _bind(_quick, "wasmtime_error_delete", None, _P)
error_message = _bind(_quick, "wasmtime_error_message", None, _P, _P)
byte_vec_delete = _bind(_quick, "wasm_byte_vec_delete", None, _P)

config_async_stack = _bind(_quick, "wasmtime_config_async_stack_size_set", None, _P, c_size_t)
config_pool = _bind(_quick, "wasmtime_pooling_allocation_strategy_set", None, _P, _P)
pool_new = _bind(_quick, "wasmtime_pooling_allocation_config_new", _P)
pool_delete = _bind(_quick, "wasmtime_pooling_allocation_config_delete", None, _P)

_VECTOR = 16


def set_pool(pool: int, name: str, value: int) -> None:
    """Set one number of the pooling allocator."""
    wide = name.endswith(("_size", "_resident", "elements"))
    _bind(_quick, f"wasmtime_pooling_allocation_config_{name}_set", None, _P, c_size_t if wide else c_uint32)(
        pool, value
    )


def address(handle: object) -> int:
    """The address of a handle of the library's own classes."""
    found = ctypes.cast(handle.ptr(), c_void_p).value  # type: ignore[attr-defined]
    if found is None:
        raise ValueError("a handle of the component host is gone")
    return found


def take_error(error: int) -> str:
    """The text of an error, which is freed."""
    vector = ctypes.create_string_buffer(_VECTOR)
    error_message(error, vector)
    size = int.from_bytes(vector.raw[:8], "little")
    data = int.from_bytes(vector.raw[8:16], "little")
    text = ctypes.string_at(data, size).decode(errors="replace") if size else ""
    byte_vec_delete(vector)
    error_delete(error)
    return text


def installed_version() -> str:
    """The version of the installed package, from the name of its record; `importlib.metadata` would take longer to import."""
    package = Path(wasmtime.__file__).parent
    records = [entry.name for entry in package.parent.glob("wasmtime-*.dist-info")]
    return records[0].removeprefix("wasmtime-").removesuffix(".dist-info") if len(records) == 1 else "unknown"


def check() -> str | None:
    """Why this host cannot be used with the installed package, or nothing."""
    if installed_version() != SUPPORTED:
        return f"wasmtime {installed_version()} is installed, and this host is made for {SUPPORTED}"
    if _missing:
        return f"the installed wasmtime library lacks {', '.join(_missing)}: calls that give way cannot be made with it"
    if ctypes.sizeof(_ffi.wasmtime_component_val_t) != 32:
        return "the installed wasmtime lays out its values in another way"
    return None
