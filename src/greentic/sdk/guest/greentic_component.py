"""Inside a component: functions become operations that flows call.

    from greentic_component import Failure, Node, operation

    @operation("greet")
    def greet(payload, call):
        return {"text": f"Hello, {payload['name']}!"}

A payload and an answer are JSON values. `call` tells for whom the operation runs. A `Failure` is told to the flow with its
code, where an error route can catch it, and is tried again only with `retryable=True`. Any other exception is told with the
code `exception`, an answer that is no JSON value with `internal` and its place; neither is ever tried again. Whatever an
operation does, its component answers: a trap would tell the author nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import node

Operation = Callable[[Any, "Call"], Any]
_operations: dict[str, Operation] = {}


@dataclass(frozen=True)
class Call:
    """For whom an operation runs."""

    operation: str
    tenant: str
    env: str
    user: str | None
    session: str
    flow: str
    node: str
    attempt: int


class Failure(Exception):
    """What went wrong, for the flow. `retryable` says whether trying again may help, `backoff_ms` after how long."""

    def __init__(self, code: str, message: str, *, retryable: bool = False, backoff_ms: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retryable, self.backoff_ms = code, message, retryable, backoff_ms


def operation(name: str) -> Callable[[Operation], Operation]:
    """Offer a function as an operation. What is wrong with its name is told when the component is built."""
    if not isinstance(name, str) or not name:
        raise TypeError('`@operation` takes the name that flows call, such as @operation("greet")')
    if name in _operations:
        raise ValueError(f"two functions are offered as `{name}`: flows would call the second only")

    def offer(function: Operation) -> Operation:
        _check(function, name)
        _operations[name] = function
        return function

    return offer


def _check(function: Operation, name: str) -> None:
    """Raise `TypeError` for a function that cannot be called as an operation is."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    if code.co_flags & 0x80:
        raise TypeError(f"the operation `{name}` is an `async def`; operations are plain functions")
    needed = code.co_argcount - len(getattr(function, "__defaults__", None) or ())
    if needed > 2 or (code.co_argcount < 2 and not code.co_flags & 0x04):
        raise TypeError(
            f"the operation `{name}` takes (payload, call), and its function {code.co_argcount} argument(s)"
        )


class Node(exports.Node):
    """The exported interface; the application imports it so that it is found."""

    def invoke(self, op: str, envelope: node.InvocationEnvelope) -> node.InvocationResult:
        function = _operations.get(op)
        if function is None:
            known = ", ".join(sorted(_operations)) or "none"
            raise _error(Failure("unknown_operation", f"there is no operation `{op}`; there are: {known}"))
        context = envelope.ctx
        call = Call(
            op,
            context.tenant_id,
            context.env_id,
            context.user_id,
            context.correlation_id,
            envelope.flow_id,
            envelope.step_id,
            envelope.attempt,
        )
        try:
            answer = encode(function(decode(envelope.payload_cbor), call))
        except Failure as failure:
            raise _error(failure) from None
        except BadValue as error:
            raise _error(Failure("internal", f"the answer of `{op}` has {error}")) from None
        except BaseException as error:
            raise _error(Failure("exception", f"{type(error).__name__}: {_text(error)}{_place(error)}")) from None
        return node.InvocationResult(True, answer, None)


def _error(failure: Failure) -> Err:
    code, message = (_whole(_text(text)) for text in (failure.code, failure.message))
    return Err(node.NodeError(code, message, bool(failure.retryable), _milliseconds(failure.backoff_ms), None))


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException:
        return "(what cannot be told as a text)"


def _place(error: BaseException) -> str:
    """Where in the author's own files an exception came from, the innermost of them."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "python3" not in file and file != _place.__code__.co_filename:
            found = f" (line {trace.tb_lineno} of {file.rpartition('/')[2]})"
        trace = trace.tb_next
    return found


def _milliseconds(value: object) -> int | None:
    """A pause as the interface takes it; nothing for what is none."""
    if value is None:
        return None
    try:
        return min(max(math.ceil(value), 0), (1 << 64) - 1)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        print(f"backoff_ms is {_text(value)[:80]!a}, which is no number of milliseconds; it is left out")
        return None


def _whole(text: str) -> str:
    """A text that can be written: half a surrogate pair becomes a question mark."""
    return text.encode(errors="replace").decode()


class BadValue(ValueError):
    """A value that JSON has no word for; the text says what, and where."""


MAX_DEPTH = 128
"""How deep a value may be; flows keep nothing deeper."""


def encode(value: Any) -> bytes:
    """A JSON value as CBOR. Raises `BadValue`."""
    out = bytearray()
    _write(value, out, "", 0)
    return bytes(out)


def _write(value: Any, out: bytearray, place: str, depth: int) -> None:
    where = f" at {place}" if place else ""
    if depth > MAX_DEPTH:
        raise BadValue(f"more than {MAX_DEPTH} levels{where[:80]}")
    if value is None or isinstance(value, bool):
        out.append({None: 0xF6, True: 0xF5, False: 0xF4}[value])
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise BadValue(f"an integer{where} that does not fit into 64 bits")
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadValue(f"{value}{where}, which is no JSON number")
        out += b"\xfb" + struct.pack(">d", value)
    elif isinstance(value, str):
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise BadValue(f"half a surrogate pair{where}, which is no text") from None
        out += _head(3, len(data)) + data
    elif isinstance(value, bytes):
        out += _head(2, len(value)) + value
    elif isinstance(value, dict):
        out += _head(5, len(value))
        names = [_name(key, where) for key in value]
        if len(set(names)) < len(names):
            raise BadValue(f"names{where} that are the same as texts, such as 1 and '1'")
        for name, item in zip(names, value.values(), strict=True):
            _write(name, out, place, depth)
            _write(item, out, f"{place}.{name}", depth + 1)
    elif isinstance(value, (list, tuple)):
        out += _head(4, len(value))
        for index, item in enumerate(value):
            _write(item, out, f"{place}[{index}]", depth + 1)
    elif type(value).__name__ == "coroutine":
        value.close()
        raise BadValue("a coroutine instead of a value: operations are plain functions, not `async def`")
    else:
        raise BadValue(f"a {type(value).__name__}{where}, which is no JSON value")


def _name(key: object, where: str) -> str:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise BadValue(f"a {type(key).__name__} as a name{where}, which is no text")
    return str(key)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * width):
            return bytes([major << 5 | info]) + number.to_bytes(width, "big")
    raise ValueError(f"{number} does not fit into 64 bits")


def decode(data: bytes) -> Any:
    """The JSON value of some CBOR. Raises `ValueError`."""
    try:
        value, at = _read(data, 0)
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError, RecursionError, struct.error):
        raise ValueError("the payload is no CBOR that JSON has words for") from None
    if at != len(data):
        raise ValueError("there is more behind the value")
    return value


def _read(data: bytes, at: int) -> tuple[Any, int]:
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return _simple(data, at, info)
    if info < 24:
        number = info
    else:
        width = {24: 1, 25: 2, 26: 4, 27: 8}[info]
        number = int.from_bytes(data[at : at + width], "big")
        at += width
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        part = data[at : at + number]
        return (part if major == 2 else part.decode()), at + number
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _read(data, at)
            items.append(item)
        return items, at
    if major == 5:
        members = {}
        for _ in range(number):
            key, at = _read(data, at)
            members[key], at = _read(data, at)
        return members, at
    raise ValueError(f"the tag {number} is not known: nothing that JSON has a word for")


def _simple(data: bytes, at: int, info: int) -> tuple[Any, int]:
    if info in (25, 26, 27):
        form, width = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}[info]
        return struct.unpack(form, data[at : at + width])[0], at + width
    return {20: False, 21: True}.get(info), at
