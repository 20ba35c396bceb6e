"""Where the library's own WASI can wait: polls that run inside its reactor.

Rules:
1. WASI that suspends a call (sleeping, polling, files) needs the library's reactor around the poll, and the C interface offers
   no way to enter it. But what a component writes to its standard output is handed to us inside of it. So a small component
   of our own, the carrier, writes one byte whenever a call is to be polled, and the poll happens in there. The library does so in
   a thread of its own, while the thread that asked waits: nothing that a thread keeps for itself is the same in there.
2. There is one carrier a thread, made when the first component that imports WASI is called. It costs about 8 µs a poll;
   components that import no WASI are polled without it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from wasmtime import component as c

from greentic.ground.errors import BootError
from greentic.wasm import native
from greentic.wasm.engine import ComponentEngine

_NEVER = 1 << 62

_TEXT = """
(component
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $err))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (alias outer 1 $err (type $e0)) (export "error" (type $e (eq $e0)))
    (export "output-stream" (type $out (sub resource)))
    (type $failed (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $se (eq $failed)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $se)))))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $s0)) (export "output-stream" (type $s (eq $s0)))
    (export "get-stdout" (func (result (own $s))))))
  (core module $memory (memory (export "memory") 1))
  (core instance $memory (instantiate $memory))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $memory "memory"))))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core module $main
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "get" (func $get (result i32)))
    (global $out (mut i32) (i32.const 0))
    (global $have (mut i32) (i32.const 0))
    (func (export "carry")
      (if (i32.eqz (global.get $have))
        (then (global.set $out (call $get)) (global.set $have (i32.const 1))))
      (call $write (global.get $out) (i32.const 0) (i32.const 1) (i32.const 64))))
  (core instance $main (instantiate $main (with "host" (instance (export "write" (func $write)) (export "get" (func $get))))))
  (func (export "carry") (canon lift (core func $main "carry"))))
"""


class Carrier:
    """Polls futures of the library inside its reactor, for one thread."""

    def __init__(self, engine: ComponentEngine) -> None:
        self._work: Callable[[], bool] = lambda: True
        self._done, self._ran = False, False
        linker = c.Linker(engine.engine)
        linker.add_wasip2()
        component = c.Component(engine.engine, _TEXT)
        self._store = native.store_new(engine.address, None, None)
        self._context = native.store_context(self._store)
        native.set_epoch_deadline(self._context, _NEVER)
        self._output = native.output(self._poll)
        wasi = native.wasi_new()
        native.wasi_stdout(wasi, self._output, None, None)
        self._function = ctypes.create_string_buffer(32)
        instance = ctypes.create_string_buffer(16)
        failed = native.set_wasi(self._context, wasi) or native.instantiate(
            native.address(linker), self._context, native.address(component), instance
        )
        index = component.get_export_index("carry")
        if failed or index is None:
            raise BootError(f"the library's reactor cannot be entered: {native.take_error(failed) if failed else ''}")
        native.get_func(instance, self._context, native.address(index), self._function)

    def _poll(self, data: object, written: object, size: int) -> int:
        self._ran = True
        self._done = self._work()
        return size

    def poll(self, work: Callable[[], bool]) -> bool:
        """What a poll of a future comes to, done inside the reactor; it must not raise."""
        self._work, self._ran = work, False
        failed = native.func_call(self._function, self._context, None, 0, None, 0)
        if failed or not self._ran:
            raise RuntimeError(f"the library's reactor was not entered: {native.take_error(failed) if failed else ''}")
        return self._done

    def close(self) -> None:
        """Give its instance back."""
        native.store_delete(self._store)
