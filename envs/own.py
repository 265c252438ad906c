"""Environments of one's own: ``module:Id-v0``, whose import registers the id, or ``path.py:Class``.

The class is a `gymnasium.Env`, of which each lane has one, or a `gymnasium.vector.VectorEnv` in
NEXT_STEP mode, made with ``num_envs``, which is all lanes. Options go to its constructor;
``max_episode_steps`` is Gymnasium's time limit around an Env, and a VectorEnv's own argument. Without
it the environment truncates by itself, or never.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from envs.contract import UnsupportedEnv
from envs.options import did_you_mean

Environment = type[gymnasium.Env[Any, Any]] | type[VectorEnv[Any, Any, Any]]


def registered(env_id: str) -> str:
    """The key under which `gymnasium.registry` has ``env_id``, after it has been imported.

    That of ``module:id`` is the id; that of ``path.py:Class`` is the whole text.

    Raises:
        UnsupportedEnv: there is no such module, file or class, or its import raises.
    """
    place, colon, name = env_id.rpartition(":")
    if not colon and env_id.endswith(".py"):
        raise UnsupportedEnv(f"{env_id}: write which of its classes, as {env_id}:MyEnv")
    if not colon:
        return env_id
    if place.endswith(".py"):
        _register(env_id, place, name)
        return env_id
    try:
        importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise UnsupportedEnv(f"{env_id}: {place!r} cannot be imported: {_told(error)}") from error
    return name


@dataclass(frozen=True)
class FromFile:
    """An entry point: makes the environment; a lane's own process loads the file for itself."""

    env_id: str
    path: str  # absolute
    name: str

    def __call__(self, **options: Any) -> Any:
        """The environment with these options."""
        return self.environment(**options)

    @property
    def environment(self) -> Environment:
        """The class itself.

        Raises:
            UnsupportedEnv: the file has no such class, or it is no environment.
        """
        return _class(self.env_id, _load(self.env_id, Path(self.path)), self.name)

    @property
    def __signature__(self) -> inspect.Signature:
        """The constructor's, so that an option that it does not take is refused with its names."""
        return inspect.signature(self.environment)


def _register(env_id: str, path: str, name: str) -> None:
    file = Path(path)
    if not file.is_file():
        raise UnsupportedEnv(f"{env_id}: there is no file {path!r}{_beside(file)}")
    entry = FromFile(env_id, str(file.resolve()), name)
    vector = issubclass(entry.environment, VectorEnv)
    # Gymnasium allows no folder in an id, so its own name for it is shorter than the key
    short = re.sub(r"[^\w.-]", "-", file.name) + f":{name}"
    gymnasium.registry[env_id] = EnvSpec(
        short,
        entry_point=None if vector else entry,
        vector_entry_point=entry if vector else None,
    )


def _load(env_id: str, file: Path) -> ModuleType:
    """The file as a module, run once in a process; its name is the same in every process."""
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    name = f"own_environment_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise UnsupportedEnv(f"{env_id}: the file raises {_told(error)}") from error
    return module


def _class(env_id: str, module: ModuleType, name: str) -> Environment:
    kinds = (gymnasium.Env, VectorEnv)
    there = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, kinds)
        and value.__module__ == module.__name__
    ]
    found: Any = getattr(module, name, None)
    if inspect.isclass(found) and issubclass(found, kinds):
        return found
    hint = did_you_mean(name, there) or f"; its environments are {', '.join(there) or 'none'}"
    if found is None:
        raise UnsupportedEnv(f"{env_id}: the file has no class {name!r}{hint}")
    raise UnsupportedEnv(
        f"{env_id}: {name!r} is neither a gymnasium.Env nor a gymnasium.vector.VectorEnv{hint}"
    )


def _beside(file: Path) -> str:
    """The nearest name of a file in the folder where it was looked for."""
    if not file.parent.is_dir():
        return ""
    return did_you_mean(file.name, (other.name for other in file.parent.glob("*.py")))


def _told(error: BaseException) -> str:
    """An exception in one line: its type, its text, and the line of code that it came from."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    machinery = (__file__, importlib.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename not in machinery and not frame.filename.startswith("<frozen"):
            return f"{what} ({Path(frame.filename).name}, line {frame.lineno})"
    return what
