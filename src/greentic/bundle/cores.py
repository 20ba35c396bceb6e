"""How many cores this process may use.

Rules:
1. What the scheduler allows (affinity) and what a control group pays for (quota) both count; the smaller is the answer, and part of
   a core counts as one.
2. A system that tells neither has as many as it says it has, and one at least.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_cores() -> int:
    """How many cores this process may use (rules 1 and 2)."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    newer, older = (_read(path) for path in _QUOTAS)
    return max(1, min(allowed, quota_of(newer or f"{older} {_read(_PERIOD)}") or allowed))


def quota_of(text: str) -> int | None:
    """The whole cores of a quota as `cpu.max` tells it, "microseconds period" or "max period"; nothing for none."""
    words = text.split()
    if len(words) != 2 or not all(w.isascii() and w.isdigit() and len(w) < 16 for w in words) or int(words[1]) == 0:
        return None
    return max(1, math.ceil(int(words[0]) / int(words[1])))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
