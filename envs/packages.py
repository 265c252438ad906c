"""Optional packages: a simulator that needs one says how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from envs.contract import UnsupportedEnv


def require(env_id: str, package: str, extra: str) -> Any:
    """The module ``package``, imported.

    Raises:
        UnsupportedEnv: it cannot be imported; the message has the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnsupportedEnv(
            f"{env_id} needs {package} ({error}): {install_line(extra)}"
        ) from error


def install_line(extra: str) -> str:
    """The command that installs the packages of an extra, at the versions that are tested."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"
