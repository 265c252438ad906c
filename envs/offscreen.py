"""Rendering of MuJoCo models without a display."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys

from envs.contract import UnsupportedEnv

# What can render off-screen, the faster first, and the names of its library.
_LIBRARIES = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_OFF = ("disable", "disabled", "off", "false", "0")  # MuJoCo's words for no renderer
PACKAGES = "install the Debian packages libegl1 and libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"


def prepare() -> None:
    """Set MUJOCO_GL for a machine without a display; to be called before mujoco or dm_control is imported.

    It becomes ``egl`` or ``osmesa``, whichever can be loaded, else ``disable``: training does not need
    a graphics driver. A variable that is set, and a display, are left alone. Without it both packages
    try GLFW first, which warns that there is no display.
    """
    if "MUJOCO_GL" in os.environ or os.environ.get("DISPLAY") or sys.platform != "linux":
        return
    usable = (name for name, libraries in _LIBRARIES.items() if any(map(_loads, libraries)))
    os.environ["MUJOCO_GL"] = next(usable, "disable")


def require_renderer(env_id: str) -> None:
    """Make sure that a frame can be drawn without a window; calls `prepare`.

    Raises:
        UnsupportedEnv: it cannot; the message names the packages that are missing.
    """
    prepare()
    backend = os.environ.get("MUJOCO_GL", "").lower()
    if backend in _OFF:
        raise UnsupportedEnv(
            f"{env_id} cannot be drawn: MUJOCO_GL is {backend!r}, for want of EGL and OSMesa: {PACKAGES}"
        )
    if backend not in _LIBRARIES:
        return
    try:
        importlib.import_module(f"mujoco.{backend}").GLContext(16, 16).free()
    except Exception as error:  # PyOpenGL and MuJoCo raise all kinds, AttributeError too
        raise UnsupportedEnv(
            f"{env_id} cannot be drawn with MUJOCO_GL={backend} ({type(error).__name__}): {PACKAGES}"
        ) from error


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
