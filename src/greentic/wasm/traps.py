"""Why a call ended: in a trap, or by what a host function said; told in one line.

The library tells a trap with the backtrace of the wasm, its reason somewhere between; a caller is told the reason alone.
"""

from __future__ import annotations

import re

MAX_BYTES_OUT = (128 << 20) // 48
"""Bytes of one `list<u8>` that a component may hand over: the engine counts 48 for each, and takes 128 MiB at once."""
_EXITED = re.compile("Exited with i32 exit status ([0-9]+)")
_UNREACHABLE = "`unreachable` instruction executed"
_TOO_MUCH = "fuel allocated for hostcalls has been exhausted"


class Trap(Exception):
    """A call that ended in a trap, or could not begin; the text says why."""


class HostFailure(Exception):
    """A host function that ends the call: its text is what the caller of the component is told."""


class Waited(HostFailure):
    """A call that waited for longer than it may."""


def reason_of(text: str) -> str:
    """A trap as one line: the reason, without the backtrace of the wasm."""
    if _TOO_MUCH in text:
        return (
            f"it hands over too much at once; a list of bytes, such as an answer of node@0.6, may have {MAX_BYTES_OUT}"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [
        line for line in lines if "wasm trap:" in line or "exceeds memory limits" in line or "unknown import:" in line
    ]
    told = reasons[-1] if reasons else lines[-1] if lines else "unknown failure"
    told = told.split(": ", 1)[1] if told[:2] in ("0:", "1:", "2:") else told
    if exited := _EXITED.fullmatch(told):
        return f"it exited with status {exited[1]}, and gave no answer"
    if told.startswith("unknown import: ") and told.endswith(" has not been defined"):
        return not_provided(told.removeprefix("unknown import: ").removesuffix(" has not been defined").strip("`"))
    return f"{told} (mostly a panic or an abort; the log has what it printed)" if told.endswith(_UNREACHABLE) else told


def not_provided(name: str) -> str:
    """What a component is told that calls an import which nobody answers."""
    if name.startswith("wasi:http/"):
        return (
            f"the import `{name}` is not provided by this worker, whose rules of egress it would go past; "
            "ask through `greentic:http/http-client`"
        )
    return f"the import `{name}` is not provided by this worker"
