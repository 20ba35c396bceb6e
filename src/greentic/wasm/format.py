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
