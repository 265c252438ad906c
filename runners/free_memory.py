"""How much memory this process may still take."""

from __future__ import annotations

import contextlib
from pathlib import Path

MEMINFO, CGROUP, LIMITS = (
    Path(path) for path in ("/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup")
)


def available() -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    found = [size for size in (_meminfo(), _cgroup()) if size is not None]
    return min(found, default=None)


def _meminfo() -> int | None:
    """What the kernel could give without swapping."""
    try:
        lines = MEMINFO.read_text().splitlines()
        return next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")
        )
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _cgroup() -> int | None:
    """What the control groups (version 2) that we are in leave us at least; a container has one."""
    try:
        line = next(x for x in CGROUP.read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return None
    inner = LIMITS / line.removeprefix("0::").strip("/")
    left = []
    for folder in (inner, *inner.parents):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max", which is none
            limit = int((folder / "memory.max").read_text())
            left.append(max(0, limit - _held(folder)))
        if folder == LIMITS:
            break
    return min(left, default=None)


def _held(group: Path) -> int:
    """What all processes of a group hold; files that nobody has read of late make room."""
    try:
        held = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return held - int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0
