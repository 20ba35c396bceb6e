"""The least rights for fetching and unpacking, as far as the system gives them without root.

Rules:
1. The threads that fetch and unpack may write below the environment's directory and the cache, and nowhere else (Landlock). They
   get no privileges by executing anything. Reading stays open: sources may be files, and names must be resolved.
2. What the kernel does not have is not pretended: `/status` says which protections are on.
3. The process writes no core files, which would hold secrets.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_BENEATH, _VERSION = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_REMOVE_MAKE_AND_REFER = sum(1 << bit for bit in range(4, 14))
_DIRECTORY = _WRITE_FILE | _REMOVE_MAKE_AND_REFER
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    if sys.platform != "linux":
        return 0  # the same number asks another kernel for something else
    found = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(int(found), 0)


def restrict_writes(directories: Sequence[Path]) -> str:
    """Let this thread, and those that it starts, write below these directories alone. What is on now, in words."""
    version = landlock_version()
    if version < 2:
        return "landlock: not available in this kernel"
    writes = _DIRECTORY | (_TRUNCATE if version >= 3 else 0)
    attribute = struct.pack("<Q", writes)
    ruleset = _libc.syscall(_CREATE, attribute, ctypes.c_size_t(len(attribute)), ctypes.c_uint32(0))
    if ruleset < 0:
        return f"landlock: refused ({os.strerror(ctypes.get_errno())})"
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
            _allow(ruleset, directory, writes)
        _allow(ruleset, Path("/dev/null"), _WRITE_FILE | (writes & _TRUNCATE))
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)):
            return f"landlock: refused ({os.strerror(ctypes.get_errno())})"
    except OSError as error:
        return f"landlock: refused ({error.strerror})"
    finally:
        os.close(ruleset)
    return f"landlock: fetching and unpacking write below {len(directories)} directories only (interface {version})"


def _allow(ruleset: int, path: Path, access: int) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", access, opened)
        if _libc.syscall(_ADD, ruleset, _BENEATH, rule, ctypes.c_uint32(0)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(opened)


def forbid_core_files() -> str:
    """Rule 3; what is on now, in words."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (OSError, ValueError) as error:
        return f"limits: refused ({error})"
    return "limits: no core files"
