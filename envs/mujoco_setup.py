"""MuJoCo as the lab wants it: off-screen rendering without a display, no notes on old models."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envs.contract import UnsupportedEnv
from envs.packages import require

# What MuJoCo can render with off-screen, the faster first, and the names of its library.
_OFF_SCREEN = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_PACKAGES = (
    "install the Debian packages libegl1 and libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa, with "
    "MUJOCO_GL=osmesa)"
)


def mujoco_module(env_id: str) -> Any:
    """The package ``mujoco``, imported. Whoever draws calls `require_off_screen` before.

    Raises:
        UnsupportedEnv: it is not installed, or does not come up with the MUJOCO_GL that is set.
    """
    try:
        return require(env_id, "mujoco", "mujoco")
    except (AttributeError, OSError, RuntimeError) as error:  # what it imports for MUJOCO_GL
        backend = os.environ.get("MUJOCO_GL")
        raise UnsupportedEnv(
            f"{env_id}: mujoco cannot be imported with MUJOCO_GL={backend} ({error}); {_PACKAGES}"
        ) from error


def choose_gl() -> None:
    """Set MUJOCO_GL to what can render without a display, where nobody has said anything.

    An environment variable that is set, and a display, are left alone: MuJoCo then does as it always
    does. Where neither EGL nor OSMesa is there, nothing is set. To be called before mujoco is first
    imported; Gymnasium's renderer looks at the variable only when it draws. Training does without:
    it shall not depend on a graphics driver.
    """
    if "MUJOCO_GL" in os.environ or os.environ.get("DISPLAY") or sys.platform != "linux":
        return
    for backend, libraries in _OFF_SCREEN.items():
        if any(map(_loads, libraries)):
            os.environ["MUJOCO_GL"] = backend
            return


def require_off_screen(env_id: str) -> None:
    """Make sure that a frame can be drawn without a window; calls `choose_gl`.

    Raises:
        UnsupportedEnv: no context can be made; the message names the packages that are missing.
    """
    choose_gl()
    backend = os.environ.get("MUJOCO_GL")
    if backend is None and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        raise UnsupportedEnv(
            f"{env_id} cannot be drawn: there is no display, and neither EGL nor OSMesa can be "
            f"loaded; {_PACKAGES}"
        )
    mujoco_module(env_id)
    if backend in _OFF_SCREEN:
        try:
            importlib.import_module(f"mujoco.{backend}").GLContext(16, 16).free()
        except Exception as error:  # PyOpenGL and MuJoCo raise all kinds, AttributeError too
            raise UnsupportedEnv(
                f"{env_id} cannot be drawn with MUJOCO_GL={backend} ({type(error).__name__}); "
                f"{_PACKAGES}"
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


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
