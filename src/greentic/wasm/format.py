"""What bytes are: a component, a core module, or neither."""

from __future__ import annotations

from greentic.ground.errors import MalformedArtifact

COMPONENT_MAGIC = b"\0asm\x0d\0\x01\0"
CORE_MODULE_MAGIC = b"\0asm\x01\0\0\0"


def check_component(data: bytes, name: str) -> None:
    """Raise `MalformedArtifact` for what is no WebAssembly component."""
    if data.startswith(CORE_MODULE_MAGIC):
        raise MalformedArtifact(
            f"component {name} is a core WebAssembly module, expected a component",
            hint="wrap it: wasm-tools component new",
        )
    if not data.startswith(COMPONENT_MAGIC):
        raise MalformedArtifact(f"component {name} is no WebAssembly component")


PAGE = 65536
_MODULE, _COMPONENT, _MEMORIES = 1, 4, 5
"""Sections: a core module and a component within a component, the memories of a core module."""
_MAX_NESTING = 16


def assembled(text: bytes) -> bytes:
    """A component from its text form (`.wat`). Raises `MalformedArtifact`."""
    from wasmtime import WasmtimeError, wat2wasm  # who reads no text needs no library

    try:
        return bytes(wat2wasm(text))
    except WasmtimeError as error:
        raise MalformedArtifact(str(error)) from None


def least_memory(data: bytes) -> int:
    """How many bytes of memory an instance of a component begins with at the least: what its largest core module declares.

    Bytes that are no component, or end too early, count for nothing: the engine tells what is wrong with them.
    """
    try:
        return _least(memoryview(data), 0)
    except (IndexError, ValueError):
        return 0


def _least(data: memoryview, depth: int) -> int:
    """Raises `IndexError` or `ValueError` for what ends too early."""
    inside, found, at = bytes(data[:8]) == COMPONENT_MAGIC, 0, 8
    while at < len(data):
        kind = data[at]
        size, begin = _number(data, at + 1)
        at = begin + size
        if inside and kind in (_MODULE, _COMPONENT) and depth < _MAX_NESTING:
            found = max(found, _least(data[begin:at], depth + 1))
        elif not inside and kind == _MEMORIES:
            found = _declared(data[begin:at])
    return found


def _declared(section: memoryview) -> int:
    count, at = _number(section, 0)
    pages = 0
    for _ in range(count):
        flags = section[at]
        least, at = _number(section, at + 1)
        if flags & 1:
            _, at = _number(section, at)
        if flags & 8:  # pages of another size are so small that they count for nothing
            _, at = _number(section, at)
            least = 0
        pages += least
    return pages * PAGE


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """A number in LEB128, and where it ends."""
    found = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
    raise ValueError("a number without an end")
