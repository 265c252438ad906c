"""What all tests share: one thread, the same examples every time, no GPU no ``cuda`` tests."""

from __future__ import annotations

import os

# Before torch and numpy are loaded: two threads on a busy core are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A failure is to be found again by everyone; how long an example takes depends on the machine.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped, and said to be, where there is none."""
    need = [item for item in items if item.get_closest_marker("cuda")]
    if not need:
        return
    import torch

    if not torch.cuda.is_available():
        for item in need:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
