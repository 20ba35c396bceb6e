"""How many cores, and how much memory, this process may use.

Rules:
1. What the scheduler allows (affinity) and what a control group pays for (quota) both count; the smaller is the answer, and part of
   a core counts as one.
2. A system that tells neither has as many as it says it has, and one at least.
3. Memory is what a control group allows. One that tells nothing, or a number that no machine has, allows any.
4. The control group is the process's own and each around it, as `/proc/self/cgroup` names them: that of a container is the root of what it
   sees, that of a service of the host is below. A name that is not to be seen (the host's, in a container) leaves the root.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_ANY_MEMORY = 1 << 50


def usable_cores() -> int:
    """How many cores this process may use (rules 1 and 2)."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([allowed, *quotas(_ROOT, _read(_OWN))]))


def memory_limit() -> int | None:
    """The bytes that this process and those beside it in its control group may use; nothing where there is no limit (rule 3)."""
    return min(limits(_ROOT, _read(_OWN)), default=None)


def quotas(root: Path, own: str) -> Iterator[int]:
    """The whole cores of each quota around a process whose control groups are `own` (rule 4)."""
    for group in _groups(root, own, "cpu"):
        period = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        quota = quota_of(_read(group / "cpu.max") or period)
        if quota is not None:
            yield quota


def limits(root: Path, own: str) -> Iterator[int]:
    """The bytes of each limit around it."""
    for group in _groups(root, own, "memory"):
        limit = limit_of(_read(group / "memory.max") or _read(group / "memory.limit_in_bytes"))
        if limit is not None:
            yield limit


def quota_of(text: str) -> int | None:
    """The whole cores of a quota as `cpu.max` tells it, "microseconds period" or "max period"; nothing for none."""
    words = text.split()
    if len(words) != 2 or not all(w.isascii() and w.isdigit() and len(w) < 16 for w in words) or int(words[1]) == 0:
        return None
    return max(1, math.ceil(int(words[0]) / int(words[1])))


def limit_of(text: str) -> int | None:
    """A limit as `memory.max` tells it: bytes, or `max`."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 and int(text) < _ANY_MEMORY else None


def _groups(root: Path, own: str, controller: str) -> Iterator[Path]:
    """Directories of the control groups around a process: of the one tree of today, and of a controller's own of before."""
    for line in own.splitlines() or ["0::/"]:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        tree = root / controller if controllers else root
        inside = PurePosixPath("" if ".." in path else path.lstrip("/"))
        yield from (tree / part for part in (inside, *inside.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
