"""From what somebody asked for to a configuration that leaves nothing open.

Precedence: the defaults of run and agent, under the preset of (agent, environment), under what was
asked for. Settings are flat here and named as the flags are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agents import AgentEntry
from agents.hyper import check_value, kinds
from runners import presets, sb3
from runners.config import (
    AGENTS,
    DEFAULT_AGENT,
    DEFAULT_ENV,
    RUN_KINDS,
    RunConfig,
    agent_entry,
    hyper_class,
    make_hyper,
)
from runners.errors import BadInput, nearest

if TYPE_CHECKING:
    from envs.contract import Spec

FUSED_ROWS = 16_384  # of a fused source's rollouts; more gain nothing
MANY_LANES = 64  # of a block: from so many on a GPU acts sooner than a core does, copies included
MAX_LAG = 4  # of async workers: more than two learners' steps rarely differ by
OPEN = {
    **dict.fromkeys(("steps", "eval_every", "checkpoint_every", "rollout_length", "block_size"), 0),
    **dict.fromkeys(("backend", "source", "device", "actor_device"), "auto"),
}
"""The settings that may be left open, and the value that leaves them so."""


def make_config(agent: str = DEFAULT_AGENT, env: str = DEFAULT_ENV, **settings: Any) -> RunConfig:
    """A resolved configuration: defaults, under the preset, under ``settings``.

    ``settings`` are named as the flags are: ``make_config("dqn", lr=1e-3, lanes=4)``.
    """
    return resolve(agent, env, {**default_settings(agent, env), **settings})


def default_settings(agent: str, env: str) -> dict[str, Any]:
    """Every setting of the run and the agent where nobody says otherwise, by name."""
    cls = hyper_class(agent)
    return {
        "env_options": {},
        **presets.RUN_DEFAULTS,
        **{name: getattr(cls(), name) for name in kinds(cls)},
        **presets.AGENT_DEFAULTS.get(agent, {}),
        **presets.preset(agent, env)[1],
    }


def resolve(agent: str, env: str, settings: Mapping[str, Any]) -> RunConfig:
    """Work out every ``auto`` and 0; a pure function of its arguments and the device at hand."""
    own = {"env_options", *RUN_KINDS} - {"env"}
    run = {name: value for name, value in settings.items() if name in own}
    rest = {name: value for name, value in settings.items() if name not in own}
    known = [*own, *kinds(hyper_class(agent))]
    for name in rest:
        if name not in known:
            raise BadInput(f"{name}: no such setting of {agent}{nearest(name, known)}")
    _check_loosely(run)
    run["backend"] = _backend(env, run["backend"])
    if run["steps"] == 0:
        preset, _ = presets.preset(agent, env)
        lacks = (
            f"the preset {preset} says none"
            if preset
            else f"there is no preset of {agent} on {env}"
        )
        raise BadInput(f"steps: {lacks}; say how long: --steps 100000")
    entry = agent_entry(agent)
    if entry.stepwise:
        rest["horizon"] = _horizon(env, run["env_options"], rest["horizon"])
        rest["total_steps"] = rest["total_steps"] or run["steps"]
    run["device"] = _device(run["device"], entry)
    if run["source"] == "auto":
        run["source"] = "fused" if entry.fused and run["backend"] == "tabular" else "local"
    if run["source"] == "ray":
        run["async_"] = True
    if run["async_"] and not run["max_lag"]:
        run["max_lag"] = MAX_LAG
    hyper = make_hyper(agent, rest)
    if entry.own_loop:
        sb3.settle(run, hyper)
    _resolve_lengths(run, entry)
    _resolve_actor(run, entry)
    config = RunConfig(agent=agent, hyper=hyper, env=env, **run)
    if config.until_solved and threshold(env) is None:
        raise BadInput(f"until_solved: {env} has no reward threshold; give --steps instead")
    _check_room(config)
    return config


def _check_room(config: RunConfig) -> None:
    """Refuse a replay in which no sequence would ever be whole; begun at a rollout, its rows may lie behind it."""
    h = config.hyper
    if getattr(h, "memory", "none") == "none" or not hasattr(h, "burn_in"):
        return
    least = (h.burn_in + h.sequence_length + config.rollout_length) * config.lanes
    if h.replay_size < least:
        raise BadInput(
            f"replay_size: got {h.replay_size}, takes at least {least}: burn_in, sequence_length and a rollout of "
            "all lanes"
        )


def _resolve_actor(run: dict[str, Any], entry: AgentEntry) -> None:
    if run["actor_device"] == "auto":
        moves = run["device"] == "cuda" and entry.records and run["block_size"] >= MANY_LANES
        run["actor_device"] = "cuda" if moves else "cpu"


def _check_loosely(run: Mapping[str, Any]) -> None:
    """Check types before anything is computed from them; 0 and auto are still allowed."""
    for name, value in run.items():
        if name == "env_options":
            if not isinstance(value, Mapping):
                raise BadInput(f"env_options: got {value!r}, takes a table of options")
        elif not (name in OPEN and value == OPEN[name] and type(value) is type(OPEN[name])):
            check_value(name, value, RUN_KINDS[name])


def _resolve_lengths(run: dict[str, Any], entry: AgentEntry) -> None:
    fused = run["source"] == "fused"
    length = FUSED_ROWS if fused else 1 if entry.tabular else 16
    run["rollout_length"] = run["rollout_length"] or length
    run["block_size"] = run["block_size"] or run["lanes"]
    # Whole rollouts between evaluations, or every evaluation would cut one short. A fused source
    # does not care: its learner sees single steps; nor does a loop of its own, which nothing cuts.
    whole = run["lanes"] * run["learners"] * (1 if entry.own_loop else run["rollout_length"])
    unit = 1 if fused else whole
    run["eval_every"] = run["eval_every"] or math.ceil(run["steps"] / 20 / unit) * unit
    run["checkpoint_every"] = run["checkpoint_every"] or 2 * run["eval_every"]


def _horizon(env: str, options: Mapping[str, Any], asked: Any) -> Any:
    """The steps of an episode: its time limit, or what was asked for where it has none."""
    import envs

    limit = envs.time_limit(env, **options)
    if asked == 0 and not limit:
        raise BadInput(f"horizon: {env} has no time limit; say how long: --horizon 20")
    if asked and limit and asked != limit:
        raise BadInput(
            f"horizon: got {asked}, takes the time limit of {env}, {limit}; for another one: "
            f"--env-options max_episode_steps={asked}"
        )
    return asked or limit


def _backend(env: str, backend: str) -> str:
    import envs
    from envs.contract import UnsupportedEnv

    try:
        return envs.resolve_backend(env, backend)
    except UnsupportedEnv as error:
        raise BadInput(str(error)) from error


def _device(device: str, entry: AgentEntry) -> str:
    if device == "cpu" or not entry.gradient:
        if device == "cuda":
            kind = "tabular" if entry.tabular else "linear"
            raise BadInput(f"device: a {kind} agent computes on the cpu; take --device cpu")
        return "cpu"
    from agents.device.machine import available

    if device == "cuda" and not available():
        raise BadInput("device: no CUDA device is at hand; take --device cpu or auto")
    return "cuda" if available() else "cpu"


def threshold(env: str) -> float | None:
    """The mean return that counts as solved: the environment's own, else the presets'."""
    import envs

    own = envs.reward_threshold(env)
    return presets.THRESHOLDS.get(env) if own is None else own


def check_fit(config: RunConfig, spec: Spec) -> None:
    """Refuse an agent that cannot act in the environment or cannot read what it shows."""
    if AGENTS[config.agent].own_loop:
        sb3.check_fit(config, spec)
    else:
        _check_actions(config, spec)
    if getattr(config.hyper, "end_on_life_loss", False) and not spec.life_loss:
        raise BadInput(f"end_on_life_loss: {config.env} tells no lost lives; leave it out")
    if getattr(config.hyper, "replay_compression", "none") != "none" and not _bytes_images(spec):
        raise BadInput(
            f"replay_compression: {config.env}'s observations are no images of bytes, which is what "
            "gains by it; take --replay-compression none"
        )
    used = len(spec.obs_shape) in (2, 3) or config.device != "cpu"
    if getattr(config.hyper, "bf16", False) and not (used or AGENTS[config.agent].continuous):
        raise BadInput(f"bf16: {config.env} shows no images, so nothing would use it; leave it out")
    if AGENTS[config.agent].tabular and not spec.num_states:
        others = ", ".join(name for name, entry in AGENTS.items() if entry.gradient)
        raise BadInput(
            f"{config.agent} keeps a table of states; {config.env}'s observations are no finite set: "
            f"take one of {others}"
        )
    if AGENTS[config.agent].linear:
        config.hyper.tiling(spec)


def _check_actions(config: RunConfig, spec: Spec) -> None:
    import numpy as np

    continuous = AGENTS[config.agent].continuous
    if continuous == bool(spec.num_actions):
        kind, other = ("continuous", "discrete") if continuous else ("discrete", "continuous")
        able = [n for n, e in AGENTS.items() if e.continuous != continuous and not e.own_loop]
        hint = f"take {', '.join(able)}" if not continuous else "take --env Pendulum-v1, or dqn"
        raise BadInput(f"{config.agent} takes {kind} actions; {config.env}'s are {other}: {hint}")
    if not continuous:
        return
    assert spec.action_low is not None
    assert spec.action_high is not None
    if not math.prod(spec.action_shape) or not spec.action_shape:
        raise BadInput(
            f"{config.agent} takes actions of one number or more in a row; {config.env}'s have shape "
            f"{spec.action_shape}"
        )
    if not (np.isfinite(spec.action_low).all() and np.isfinite(spec.action_high).all()):
        raise BadInput(
            f"{config.agent} takes actions within bounds; {config.env}'s have none: wrap it in "
            "gymnasium.wrappers.RescaleAction or give its Box a low and a high"
        )
    width = (spec.action_high.astype(np.float64) - spec.action_low).ravel()
    narrow = np.flatnonzero(~((width > 0) & (width < np.finfo(np.float32).max)))
    if narrow.size:
        raise BadInput(
            f"{config.agent} takes actions between a low and a higher high; {config.env}'s number {narrow[0]} is "
            f"within {spec.action_low.ravel()[narrow[0]]:g} .. {spec.action_high.ravel()[narrow[0]]:g}"
        )
    if np.dtype(spec.action_dtype).kind != "f":
        raise BadInput(
            f"{config.agent} takes actions of floats; {config.env}'s are {np.dtype(spec.action_dtype)}"
        )
    if spec.num_states or len(spec.obs_shape) != 1 or not spec.obs_shape[0]:
        shown = f"observations of shape {spec.obs_shape}"
        raise BadInput(
            f"{config.agent} takes observations that are rows of numbers; {config.env} shows "
            f"{'states by number' if spec.num_states else shown}"
        )


def _bytes_images(spec: Spec) -> bool:
    return len(spec.obs_shape) in (2, 3) and spec.obs_dtype == "uint8"
