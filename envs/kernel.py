"""How this lab compiles: `kernel` is numba's njit with a cache that notices every change.

Numba keeps compiled functions on disk and looks only at the file a function stands in. A kernel that
calls one from another file would go on with the old one after that file has changed. So the cache's
folder is named after the sources of all kernels.
"""

from __future__ import annotations

import functools
import os
import shutil
import zlib
from pathlib import Path

import numba

_ROOT = Path(__file__).resolve().parents[1]
_SOURCES = ("envs/*.py", "agents/*.py", "agents/replay/*.py", "runners/sources/*.py")


def _cache_folder() -> Path | None:
    """Where compiled kernels of just these sources go; None where nothing can be written."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    parent = Path(given) if given else Path(__file__).parent / "__pycache__"
    stamp = 0
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            stamp = zlib.crc32(path.read_bytes(), stamp)
    folder = parent / f"kernels-{stamp:08x}"
    try:
        if not folder.is_dir():
            for old in parent.glob("kernels-*"):
                shutil.rmtree(old, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


if (_folder := _cache_folder()) is not None:
    numba.config.CACHE_DIR = str(_folder)  # type: ignore[attr-defined]

kernel = functools.partial(numba.njit, cache=True, nogil=True, error_model="numpy")
"""``@kernel()``: compiled without the interpreter and its lock, division as numpy divides."""

inlined = functools.partial(numba.njit, inline="always", error_model="numpy")
"""``@inlined()``: becomes part of the kernel that calls it; worth it for what runs in every row."""
