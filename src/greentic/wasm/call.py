"""One call of a component: a fresh instance, run piece by piece by whoever drives it (formats: components 7).

Rules:
1. A call runs on a stack of its own. `advance` runs it until it is done or pauses: it gave way at a tick (`computes`), it waits
   for the answer of a host function (`asks`), or it sleeps in WASI (`sleeps`).
2. What a host function does never happens on that stack: its arguments are noted there, the call is suspended, and the
   function runs where `advance` was called. If its answer has to be awaited, the driver awaits it.
3. The call's own computing is limited by the processor time that it took, whatever others did meanwhile. Its waiting is
   limited by the clock, and dropped there.
4. Whatever ends a call, its driver closes it: the future goes first, then the store, and nothing of it is used again.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Literal, Protocol, cast

import msgspec

from greentic.ground.clock import cpu_seconds
from greentic.wasm import native
from greentic.wasm.call_limits import CallLimits
from greentic.wasm.carrier import Carrier
from greentic.wasm.engine import ComponentEngine
from greentic.wasm.printed import MAX_OUTPUT, Output
from greentic.wasm.traps import HostFailure, Trap, Waited, reason_of
from greentic.wasm.values import VALUE_BYTES, Converter, Keep, Signature

Pause = Literal["computes", "asks", "sleeps"]
HARDLY = 0.0002
"""Seconds of computing below which a pause of a component that imports WASI is taken for sleeping."""
_Instance, _Function, _Value = ctypes.c_char * 16, ctypes.c_char * 32, ctypes.c_char * VALUE_BYTES
"""Where the library puts what it makes."""


class CallContext(Protocol):
    """For whom a call runs; host functions get it."""

    @property
    def lane(self) -> str:
        """With whom it shares its turns to compute; lanes take turns."""
        ...

    def log(self, stream: str, text: str) -> bool:
        """Log what it says; whether it is taken."""
        ...

    def over(self, computed: float, *, trapped: bool) -> None:
        """Told once a call is over how many seconds it computed, and whether it ended in a trap."""
        ...


HostFunction = Callable[[CallContext, list[object]], object]
"""Answers one call of an import with a value of its declared result type, or with a coroutine that comes to one."""


class Target(msgspec.Struct, frozen=True):
    """What a call is a call of; made once a component and export."""

    engine: ComponentEngine
    linker: int
    component: int
    function: int
    result: Converter | None
    wasi: Callable[[int], int] | None
    """Makes the configuration of WASI, for a component that imports it."""
    memories: list[int]
    """How many memories an instance has, as far as that is known; one number, which calls correct."""


class Request(msgspec.Struct, frozen=True):
    """What a component asks a host function."""

    function: HostFunction
    arguments: list[object]
    result: Converter | None
    results: int | None
    """Where the library wants the result."""


class _Here(threading.local):
    """Whose call this thread is polling."""

    call: Call | None = None
    carrier: Carrier | None = None


_here = _Here()
_calls: weakref.WeakValueDictionary[int, Call] = weakref.WeakValueDictionary()
"""Calls that may write output, by the number that it carries."""


class Call:
    """One call. Used by one thread at a time."""

    __slots__ = (
        "__weakref__",
        "_carrier",
        "_context",
        "_error",
        "_failure",
        "_function",
        "_future",
        "_instance",
        "_keep",
        "_limits",
        "_packed",
        "_raw",
        "_reply",
        "_request",
        "_store",
        "_target",
        "asked",
        "computed",
        "context",
        "output",
        "result",
        "suspended",
        "waited",
    )  # fmt: skip

    def __init__(self, target: Target, packed: bytes, keep: Keep, context: CallContext, limits: CallLimits) -> None:
        """`packed` are the arguments as C values, and `keep` what they point to."""
        self._target, self._packed, self._keep, self.context, self._limits = target, packed, keep, context, limits
        self._request: Request | None = None
        self._reply: bytes | None = None
        self._failure: BaseException | None = None
        self.asked: Coroutine[object, object, object] | None = None
        """What the driver is to await, after the pause `asks`."""
        self.result: object = None
        self.computed = self.waited = 0.0
        self.suspended = False
        self.output = None if target.wasi is None else Output(context.log)
        self._future = self._store = 0
        self._function: ctypes.Array[ctypes.c_char] | None = None
        target.engine.began()
        if target.wasi is not None:
            _calls[id(self)] = self
        try:
            self._carrier = None if target.wasi is None else _carrier(target.engine)
            self._instantiate()
        except BaseException:
            self._ended()
            raise

    def _instantiate(self) -> None:
        target, limits = self._target, self._limits
        self._store = store = native.store_new(target.engine.address, None, None)
        (memories,) = target.memories
        native.store_limiter(
            store, limits.memory_bytes // memories, limits.table_elements, limits.instances, limits.instances, memories
        )
        self._context = context = native.store_context(store)
        native.set_epoch_deadline(context, 1)
        native.yield_at_deadline(context, 1)
        if target.wasi is not None:
            failed = native.set_wasi(context, target.wasi(id(self)))
            if failed:
                raise Trap(native.take_error(failed))
        self._error = ctypes.c_void_p()
        self._instance = _Instance()
        self._future = native.instantiate_async(
            target.linker, context, target.component, self._instance, ctypes.byref(self._error)
        )

    def advance(self) -> Pause | None:
        """Run on, until the call is done (nothing) or pauses. Raises `Trap`, `HostFailure` or `ValueMismatch`."""
        carrier, before = self._carrier, self.computed
        while True:
            if self._poll() if carrier is None else carrier.poll(self._poll):
                if self._finished():
                    return None
            elif self._request is not None:
                if self._ask():
                    return self._paused("asks")
            elif self._failure is not None:
                raise self._failure
            else:
                self._check()
                hardly = carrier is not None and self.computed - before < HARDLY
                return self._paused("sleeps" if hardly else "computes")

    def _poll(self) -> bool:
        """Run it in this thread, which may be one of the library's; whether its future is done."""
        before, _here.call = _here.call, self
        began = cpu_seconds()
        try:
            return bool(native.future_poll(self._future))
        finally:
            self.computed += cpu_seconds() - began
            _here.call = before

    def _finished(self) -> bool:
        """A future is done: whether that was the last one."""
        native.future_delete(self._future)
        self._future = 0
        if self._failure is not None:
            if self._error.value:
                native.take_error(self._error.value)
            raise self._failure
        if self._error.value:
            text = native.take_error(self._error.value)
            if self._function is None and self._more_memories(text):
                return False
            raise Trap(reason_of(text))
        target = self._target
        if self._function is None:
            self._function = _Function()
            if not native.get_func(self._instance, self._context, target.function, self._function):
                raise Trap("the component does not export the function")
            self._raw = _Value()
            answers = target.result is not None
            self._future = native.func_call_async(
                self._function, self._context, self._packed, len(self._packed) // VALUE_BYTES,
                self._raw if answers else None, int(answers), ctypes.byref(self._error),
            )  # fmt: skip
            return False
        if target.result is not None:
            try:
                self.result = target.result.lift(self._raw.raw, 0)
            finally:
                native.val_delete(self._raw)
        return True

    def _more_memories(self, text: str) -> bool:
        """Begin again if the component has more memories than was known; they then share what the call may use."""
        (memories,) = self._target.memories
        if "memory count too high" not in text or memories >= self._limits.memories:
            return False
        self._target.memories[0] = memories + 1
        native.store_delete(self._store)
        self._store = 0
        self._error.value = None
        self._instantiate()
        return True

    def _ask(self) -> bool:
        """Answer what the component asks; whether the answer has to be awaited."""
        request = cast(Request, self._request)
        try:
            answer = request.function(self.context, request.arguments)
        except HostFailure:
            raise
        except Exception as error:
            raise HostFailure(f"a host function failed: {type(error).__name__}") from error
        if isinstance(answer, CoroutineType):
            self.asked = answer
            return True
        self.answer(answer)
        return False

    def answer(self, value: object) -> None:
        """The answer to what was asked. Raises `ValueMismatch`."""
        request = cast(Request, self._request)
        self._request = self.asked = None
        self._reply = b"" if request.result is None else request.result.lower(value, self._keep)
        if request.result is not None and request.results:
            native.val_clone(self._reply, request.results)

    def _paused(self, pause: Pause) -> Pause:
        share = self._target.engine.share
        if not self.suspended:
            self.suspended = True
            share.begin()
        if pause != "asks" and share.held() > self._limits.total_bytes:
            raise Trap(f"all running components together use more than {self._limits.total_bytes >> 20} MiB")
        return pause

    def _check(self) -> None:
        if self.computed > self._limits.seconds:
            raise Trap(f"wasm trap: interrupt (it computed longer than {self._limits.seconds:g} s)")

    def left(self) -> float:
        """Seconds that the call may still wait. Raises `Waited` if there are none."""
        left = self._limits.seconds - self.waited
        if left <= 0:
            raise Waited(f"it waited longer than {self._limits.seconds:g} s")
        return left

    @property
    def limit(self) -> float:
        """Seconds that the call may compute, and wait."""
        return self._limits.seconds

    def close(self) -> None:
        """End the call, wherever it is, and free what it holds. More than once is fine."""
        if self.asked is not None:
            self.asked.close()
        self.asked = None
        if self._future:
            native.future_delete(self._future)
            self._future = 0
        if self._store:
            self._ended()

    def _ended(self) -> None:
        if self._store:
            native.store_delete(self._store)
            self._store = 0
        self._target.engine.ended()
        if self.suspended:
            self._target.engine.share.end()
        if self.output is not None:
            self.output.over()

    def wrote(self) -> bool:
        """Whether it wrote output since this was asked last."""
        if self.output is None or not self.output.written:
            return False
        self.output.written = False
        return True


def _carrier(engine: ComponentEngine) -> Carrier:
    if _here.carrier is None:
        _here.carrier = Carrier(engine)
    return _here.carrier


# -- callbacks: what the library calls while a call is polled -------------------------------------------------------


def host_callback(function: HostFunction, signature: Signature) -> object:
    """The callback behind an import; it must live as long as the linker."""
    lifts = [converter.lift for _, converter in signature.parameters]
    result = signature.result

    def callback(
        data: int,
        context: int,
        kind: int,
        arguments: int,
        count: int,
        results: int,
        result_count: int,
        error: int,
        then: int,
    ) -> None:
        # Nothing may unwind through the library; what fails here is told when the poll comes back.
        ctypes.c_void_p.from_address(then).value = _ANSWERED
        call = _here.call
        if call is None:
            return
        try:
            raw = ctypes.string_at(arguments, count * VALUE_BYTES) if count else b""
            values = [lift(raw, index * VALUE_BYTES) for index, lift in enumerate(lifts)]
            call._reply = None
            call._request = Request(function, values, result, results)
        except BaseException as failure:  # noqa: BLE001
            call._failure = (
                failure if isinstance(failure, Exception) else HostFailure("a host function was interrupted")
            )

    return native.async_callback(callback)


def _answered(data: object) -> bool:
    call = _here.call
    return call is not None and call._reply is not None


_answered_callback = native.continuation(_answered)
_ANSWERED = ctypes.cast(_answered_callback, ctypes.c_void_p).value


def _written(stream: str) -> object:
    def write(data: int | None, address: int, size: int) -> int:
        call = _calls.get(data or 0)  # the library writes from threads of its own
        if call is not None and call.output is not None:
            try:
                call.output.write(stream, ctypes.string_at(address, min(size, MAX_OUTPUT + 1)))
            except BaseException as failure:  # noqa: BLE001  as above
                call._failure = HostFailure(f"its output cannot be logged: {type(failure).__name__}")
        return size

    return native.output(write)


stdout_callback, stderr_callback = _written("stdout"), _written("stderr")
