"""The functions of the wasmtime library that a call goes through, bound for speed (spec: packs-flows-components 8.4).

Rules:
1. What is short keeps the interpreter's lock; what may run a component's code gives it back (`CDLL`), so that a computing
   component never stops other threads.
2. Handles are plain integers here. Who makes one frees it; everything else uses the library's own classes.
3. This relies on the layout of one version of the package, which is pinned; `check` says so when another one is installed.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

import wasmtime
from wasmtime import _ffi

SUPPORTED = "50.0.1"

library = _ffi
"""The library's own bindings, for what happens once a component."""

_quick = ctypes.PyDLL(str(_ffi.filename))
_long = ctypes.CDLL(str(_ffi.filename))


def _bind(library: ctypes.CDLL, name: str, result: type | None, *arguments: type):  # type: ignore[no-untyped-def]  # noqa: ANN202
    function = library[name]
    function.restype = result
    function.argtypes = list(arguments)
    return function


_P = c_void_p
store_new = _bind(_quick, "wasmtime_store_new", _P, _P, _P, _P)
store_context = _bind(_quick, "wasmtime_store_context", _P, _P)
store_limiter = _bind(_quick, "wasmtime_store_limiter", None, _P, c_int64, c_int64, c_int64, c_int64, c_int64)
store_delete = _bind(_long, "wasmtime_store_delete", None, _P)
set_epoch_deadline = _bind(_quick, "wasmtime_context_set_epoch_deadline", None, _P, c_uint64)
set_wasi = _bind(_quick, "wasmtime_context_set_wasi", _P, _P, _P)
set_wasi_http = _bind(_quick, "wasmtime_context_set_wasi_http", None, _P)
instantiate = _bind(_long, "wasmtime_component_linker_instantiate", _P, _P, _P, _P, _P)
get_func = _bind(_quick, "wasmtime_component_instance_get_func", c_bool, _P, _P, _P, _P)
func_call = _bind(_long, "wasmtime_component_func_call", _P, _P, _P, _P, c_size_t, _P, c_size_t)
increment_epoch = _bind(_long, "wasmtime_engine_increment_epoch", None, _P)
val_clone = _bind(_quick, "wasmtime_component_val_clone", None, _P, _P)
val_delete = _bind(_quick, "wasmtime_component_val_delete", None, _P)
error_new = _bind(_quick, "wasmtime_error_new", _P, c_char_p)
error_delete = _bind(_quick, "wasmtime_error_delete", None, _P)
error_message = _bind(_quick, "wasmtime_error_message", None, _P, _P)
byte_vec_delete = _bind(_quick, "wasm_byte_vec_delete", None, _P)

_VECTOR = 16


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
    if ctypes.sizeof(_ffi.wasmtime_component_val_t) != 32:
        return "the installed wasmtime lays out its values in another way"
    return None
