"""A run's configuration: everything that can change a bit of the result, and nothing else.

`RunConfig` is resolved: no ``auto`` and no "0 for all" is left in it, so its JSON means the same on
every machine. `runners.resolve.make_config` builds one from Python, `runners.command_line` from flags.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import re
import tomllib
import typing
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from agents import AGENTS as OURS
from agents import AgentEntry
from agents.hyper import Kind, Later, at_least, check_value, kind_of, kinds
from runners import conflicts, provenance, sb3
from runners.errors import BadInput, nearest

Scalar = bool | int | float | str | None
Json = dict[str, Any]

DEFAULT_AGENT, DEFAULT_ENV = "pqn", "CartPole-v1"
FILE_LIMIT = 1_000_000  # bytes; a configuration is a few hundred
BITS = ("torch", "gymnasium", "mujoco")  # whose major versions may change bits
AGENTS: Mapping[str, AgentEntry] = ChainMap(sb3.AGENTS, OURS)
"""The lab's own agents, then Stable-Baselines3's."""
_PATH_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One configuration; with a seed it says all that a result depends on."""

    agent: str
    """name of the agent"""
    hyper: Any
    """its hyperparameters: the agent's own config dataclass"""
    env: str = DEFAULT_ENV
    """environment id"""
    env_options: Mapping[str, Scalar] = field(default_factory=dict)
    """options of the environment, as in size=20 is_slippery=false"""
    steps: Annotated[int, at_least(1)]
    """lane steps per seed; 0: as the preset says"""
    until_solved: bool = False
    """stop a seed once it has solved the environment"""
    eval_every: Annotated[int, at_least(1)]
    """lane steps between evaluations; 0: a twentieth of the run"""
    eval_episodes: Annotated[int, at_least(1)] = 20
    """episodes in an evaluation"""
    final_episodes: Annotated[int, at_least(1)] = 100
    """episodes of the last and of the best weights in the end"""
    checkpoint_every: Annotated[int, at_least(1)]
    """lane steps between checkpoints; 0: every second evaluation"""
    rollout_length: Annotated[int, at_least(1)]
    """time steps in a rollout; 0: what suits the source"""
    lanes: Annotated[int, at_least(1)]
    """parallel environments per seed"""
    block_size: Annotated[int, at_least(1)]
    """lanes in one vector environment; 0: all of them"""
    backend: str
    """what simulates: auto, or one that the environment has"""
    source: Literal["local", "fused", "ray"]
    """where rollouts come from: auto, local, fused, or ray, which --ray sets"""
    lag: Literal[0, 1] = 0
    """rollouts between the parameters that act and the newest"""
    async_: bool = False
    """workers begin rollouts as soon as they can, whatever the learner does"""
    max_lag: Annotated[int, at_least(0)] = 0
    """rollouts that they may be ahead of it; 0: 4, where async"""
    device: Literal["cpu", "cuda"]
    """where the learner computes: auto, cpu or cuda"""
    actor_device: Literal["cpu", "cuda"] = "cpu"
    """where actions are computed: auto, cpu or cuda; auto: on cuda where the learner is and a block is large"""
    threads: Annotated[int, at_least(1)] = 1
    """in which the learner computes: more of them pay for wide networks where cores are idle"""
    fast_matmul: bool = False
    """float32 products by torch's "medium" kernels: pays for wide layers, costs for narrow ones"""
    compile: bool = False
    """compile the gradient step: pays for long runs of few seeds with small networks; on cuda it is
    recorded as one CUDA graph, which pays always"""
    learners: Annotated[int, at_least(1), Later()] = 1
    """processes that learn as one, each with its own lanes, replay and batch; torchrun starts them"""

    @property
    def lanes_of_all(self) -> int:
        """A seed's lanes at all learners, by which the clock goes."""
        return self.lanes * self.learners

    @property
    def ahead(self) -> int:
        """Rollouts that may be begun before the learner asks for them."""
        return self.max_lag if self.async_ else self.lag

    def __post_init__(self) -> None:
        """Refuse what cannot be run, whoever wrote it."""
        for name, kind in RUN_KINDS.items():
            check_value(name, getattr(self, name), kind)
        for name, value in self.env_options.items():
            finite = not isinstance(value, float) or math.isfinite(value)
            if not isinstance(value, bool | int | float | str | None) or not finite:
                raise BadInput(
                    f"env_options.{name}: got {value!r}, takes a text or a finite number"
                )
        if type(self.hyper) is not hyper_class(self.agent):
            raise BadInput(f"hyper: got {type(self.hyper).__name__}, not {self.agent}'s own")
        if AGENTS[self.agent].own_loop:
            sb3.check_settings(self)
        conflicts.check(self, AGENTS)


_OWN = ("agent", "hyper", "env_options")  # not scalars: no flag of their own kind
RUN_KINDS: dict[str, Kind] = {
    name: kind_of(hint)
    for name, hint in typing.get_type_hints(RunConfig, include_extras=True).items()
    if name not in _OWN
}
"""What each of the run's scalar settings takes."""


def agent_entry(agent: str) -> AgentEntry:
    """The agent's line in AGENTS, or the nearest right name."""
    if agent not in AGENTS:
        raise BadInput(
            f"agent {agent!r}: unknown{nearest(agent, AGENTS)}; agents: {', '.join(AGENTS)}"
        )
    return AGENTS[agent]


def hyper_class(agent: str) -> type:
    """The agent's config dataclass; imports the agent, and torch with it."""
    entry = agent_entry(agent)
    cls: type = getattr(importlib.import_module(entry.module), entry.config)
    clash = set(kinds(cls)) & {field.name for field in dataclasses.fields(RunConfig)}
    if clash:
        raise TypeError(f"{entry.config}: {clash} are names of the run's own settings")
    return cls


def check_hyper_names(agent: str, names: Iterable[str]) -> None:
    """Refuse what the agent has no hyperparameter for, with the nearest that it has."""
    known = kinds(hyper_class(agent))
    for name in names:
        if name not in known:
            raise BadInput(f"{name}: {agent} has no such hyperparameter{nearest(name, known)}")


def make_hyper(agent: str, values: Mapping[str, Any]) -> Any:
    """The agent's hyperparameters; JSON's lists and whole numbers become what the fields take."""
    cls = hyper_class(agent)
    known = kinds(cls)
    check_hyper_names(agent, values)
    try:
        return cls(**{name: _coerce(value, known[name]) for name, value in values.items()})
    except ValueError as error:
        raise BadInput(str(error)) from error


def _coerce(value: Any, kind: Kind) -> Any:
    if kind.many and isinstance(value, list | tuple):
        return tuple(_coerce(item, dataclasses.replace(kind, many=False)) for item in value)
    if kind.scalar is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf  # refused with the field's name
    return value


# -- Configurations as JSON ----------------------------------------------------------------------


def to_json(config: RunConfig) -> Json:
    """The configuration as JSON values; equal configurations give equal values."""
    run = _told(config, RUN_KINDS)
    if config.device == "cpu":
        del run["actor_device"]  # which can be no other: configurations of old keep their identity
    return {
        "agent": config.agent,
        **run,
        "env_options": dict(config.env_options),
        "hyper": _told(config.hyper, kinds(type(config.hyper))),
    }


def _told(settings: Any, known: Mapping[str, Kind]) -> Json:
    """All but those that came `Later` and have their default."""
    values = {name: getattr(settings, name) for name in known}
    return {
        name: _plain(values[name], kind)
        for name, kind in known.items()
        if not (kind.later and values[name] == _default(settings, name))
    }


def _default(settings: Any, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(settings) if field.name == name)


def _plain(value: Any, kind: Kind) -> Any:
    if kind.many:
        return [_plain(item, dataclasses.replace(kind, many=False)) for item in value]
    # 1 and 1.0, 0.0 and -0.0 are one setting and must get one config_id
    return float(value) + 0.0 if kind.scalar is float else value


def from_json(data: Any) -> RunConfig:
    """The inverse of `to_json`; refuses what it does not know, in one line."""
    check_names(data)
    for one in dataclasses.fields(RunConfig):
        optional = one.default is not dataclasses.MISSING or one.name == "env_options"
        if one.name not in data and not optional:
            raise BadInput(f"{one.name}: missing from the configuration")
    run = {name: value for name, value in data.items() if name not in ("agent", "hyper")}
    hyper = make_hyper(data["agent"], data["hyper"])
    return RunConfig(agent=data["agent"], hyper=hyper, **run)


def check_names(data: Any) -> None:
    """Refuse a file whose keys are not those of a configuration."""
    if not isinstance(data, dict):
        raise BadInput(f"a configuration is a table of settings, not {type(data).__name__}")
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for name in data:
        if name not in known:
            hint = nearest(name, known) or "; hyperparameters belong under hyper"
            raise BadInput(f"{name}: no such setting{hint}")
    for name in ("hyper", "env_options"):
        if not isinstance(data.get(name, {}), dict):
            raise BadInput(f"{name}: got {data[name]!r}, takes a table")
    for name in ("agent", "env"):
        if not isinstance(data.get(name, ""), str):
            raise BadInput(f"{name}: got {data[name]!r}, takes a text")


def load_file(path: str | Path) -> Json:
    """The settings in a JSON or TOML file; it may leave settings out."""
    path = Path(path)
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise BadInput(f"larger than {FILE_LIMIT} bytes, so no configuration")
        text = path.read_text(encoding="utf-8")
        data: Json = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        check_names(data)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a JSON or TOML file") from error
    except RecursionError as error:
        raise BadInput(f"{path}: nested too deeply for a configuration") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    except ValueError as error:  # of either parser, or of the text's encoding
        raise BadInput(f"{path}: not valid {path.suffix or 'JSON'}: {error}") from error
    return data


def flatten(data: Mapping[str, Any]) -> dict[str, Any]:
    """A file's settings by flag name."""
    run = {name: value for name, value in data.items() if name != "hyper"}
    return {**run, **data.get("hyper", {})}


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Which settings differ: ``lr: 0.001 here, 0.0005 there``. Empty for equal configurations."""
    here, there, absent = flatten(a), flatten(b), "absent"
    return [
        f"{name}: {here.get(name, absent)} here, {there.get(name, absent)} there"
        for name in sorted(here.keys() | there.keys())
        if here.get(name, absent) != there.get(name, absent)
    ]


def config_id(config: RunConfig, versions: Mapping[str, str | None] | None = None) -> str:
    """Ten hex digits over all that can change a bit, major versions included; never a seed."""
    found = provenance.versions() if versions is None else versions
    others = ("stable_baselines3",) if AGENTS[config.agent].own_loop else ()
    majors = {name: (found.get(name) or "").partition(".")[0] for name in (*BITS, *others)}
    text = json.dumps(
        {"config": to_json(config), "versions": majors},
        sort_keys=True, separators=(",", ":"), allow_nan=False,
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_name(config: RunConfig, versions: Mapping[str, str | None] | None = None) -> str:
    """The run folder's name, ``<agent>-<env>-<config_id>``, safe as a part of a path."""
    digits = config_id(config, versions)
    agent = config.agent.replace(":", "-")
    room = 100 - len(agent) - len(digits) - 2
    env = re.sub(r"[^A-Za-z0-9._-]", "-", config.env)[:room]
    name = f"{agent}-{env}-{digits}"
    if not is_path_safe(name):
        raise BadInput(f"agent {config.agent!r}: a folder cannot be called {name!r}")
    return name


def is_path_safe(name: str) -> bool:
    """Whether a name is one harmless part of a path."""
    return _PATH_SAFE.fullmatch(name) is not None
