"""MuJoCo as the lab wants it: imported with a clear word where it cannot be, no notes on old models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envs.contract import UnsupportedEnv
from envs.offscreen import PACKAGES
from envs.packages import require


def mujoco_module(env_id: str) -> Any:
    """The package ``mujoco``, imported. Whoever draws calls `offscreen.require_renderer` before.

    Raises:
        UnsupportedEnv: it is not installed, or does not come up with the MUJOCO_GL that is set.
    """
    try:
        return require(env_id, "mujoco", "mujoco")
    except (AttributeError, OSError, RuntimeError) as error:  # what it imports for MUJOCO_GL
        backend = os.environ.get("MUJOCO_GL")
        raise UnsupportedEnv(
            f"{env_id}: mujoco cannot be imported with MUJOCO_GL={backend} ({error}); {PACKAGES}"
        ) from error


@contextmanager
def no_deprecations() -> Iterator[None]:
    """Models are compiled without MuJoCo's notes on attributes that will go; other notes stay."""
    mujoco: Any = sys.modules.get("mujoco")
    if mujoco is None or not hasattr(mujoco, "set_mju_user_warning"):
        yield
        return
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_note)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _note(text: str) -> None:
    if "deprecated" not in text:
        sys.stderr.write(f"WARNING: {text}\n")
