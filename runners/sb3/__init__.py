"""Stable-Baselines3's agents as agents of the lab: the same environments, evaluations and run folder.

Raffin et al. 2021, "Stable-Baselines3: Reliable Reinforcement Learning Implementations", JMLR 22(268).
It runs its own loop once: its schedules span one call of ``learn``. It cannot go on from a checkpoint, so a
seed that was stopped begins again from zero; seeds that are done are kept. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agents import AgentEntry
from runners.errors import BadInput

if TYPE_CHECKING:
    from envs.contract import Spec
    from runners.config import RunConfig

_MODULE = "runners.sb3.agents"

AGENTS: dict[str, AgentEntry] = {
    "sb3:dqn": AgentEntry(
        _MODULE, "SB3DQNConfig", "Stable-Baselines3's DQN", "Mnih et al. 2015", own_loop=True
    ),
    "sb3:ppo": AgentEntry(
        _MODULE, "SB3PPOConfig", "Stable-Baselines3's PPO: clipped policy gradients",
        "Schulman et al. 2017, arXiv:1707.06347", own_loop=True,
    ),
    "sb3:a2c": AgentEntry(
        _MODULE, "SB3A2CConfig", "Stable-Baselines3's A2C: advantage actor-critic",
        "Mnih et al. 2016, arXiv:1602.01783", own_loop=True,
    ),
    "sb3:sac": AgentEntry(
        _MODULE, "SB3SACConfig", "Stable-Baselines3's SAC: soft actor-critic, continuous actions",
        "Haarnoja et al. 2018, arXiv:1801.01290", own_loop=True,
    ),
    "sb3:td3": AgentEntry(
        _MODULE, "SB3TD3Config", "Stable-Baselines3's TD3: twin critics, continuous actions",
        "Fujimoto et al. 2018, arXiv:1802.09477", own_loop=True,
    ),
}  # fmt: skip
"""By name, as `agents.AGENTS` has the lab's own."""


def settle(run: dict[str, Any], hyper: Any) -> None:
    """Work out the run's settings that are left open (0), as they are in a loop that is not ours."""
    run["rollout_length"] = run["rollout_length"] or hyper.rollout_rows
    run["block_size"] = run["block_size"] or 1  # its vector environments have single lanes
    run["checkpoint_every"] = run["checkpoint_every"] or run["steps"]  # at the end, that is never


def check_settings(config: RunConfig) -> None:
    """Refuse what a loop of its own has no use for.

    Raises:
        BadInput: which setting, and why.
    """
    name = config.agent
    if config.source == "ray":
        raise BadInput(f"ray: is not for {name}, which simulates in this process; leave --ray out")
    takes: Mapping[str, tuple[Any, str]] = {
        "async_": (False, "it simulates in this process"),
        "lag": (0, "it acts with the newest parameters"),
        "block_size": (1, "it steps every lane by itself"),
        "rollout_length": (config.hyper.rollout_rows, "it comes of its own --n-steps or --train-freq"),
        "checkpoint_every": (config.steps, "it cannot go on from a checkpoint"),
        "compile": (False, "its gradient step is not the lab's"),
    }  # fmt: skip
    for setting, (value, why) in takes.items():
        if getattr(config, setting) != value:
            raise BadInput(
                f"{setting.strip('_')}: is not for {name}, which runs a loop of its own: {why}; leave it out"
            )
    if config.backend == "async":
        raise BadInput(f"backend: got async, takes sync: {name} steps its lanes in this process")


def check_fit(config: RunConfig, spec: Spec) -> None:
    """Refuse what Stable-Baselines3 cannot act in or cannot read.

    Raises:
        BadInput: what it takes instead.
    """
    import numpy as np

    kind = "discrete" if spec.num_actions else "continuous"
    if kind not in config.hyper.actions:
        able = ", ".join(name for name in AGENTS if _takes(name, kind))
        raise BadInput(
            f"{config.agent} takes {config.hyper.actions[0]} actions; {config.env}'s are {kind}, which "
            f"{able} take"
        )
    bounds = [bound for bound in (spec.action_low, spec.action_high) if bound is not None]
    if not np.isfinite(bounds).all():
        raise BadInput(
            f"{config.agent} takes actions within finite bounds; those of {config.env} have none"
        )
    whole = np.dtype(spec.obs_dtype).kind != "f"
    if config.hyper.normalize and whole:
        raise BadInput(f"normalize: {config.env}'s observations are whole numbers; leave it out")
    images = len(spec.obs_shape) == 2 and spec.obs_dtype == np.uint8
    if getattr(config.hyper, "frame_stack", 1) > 1 and not images:
        raise BadInput(f"frame_stack: {config.env} shows no images without channels; leave it out")
    if images and not hasattr(config.hyper, "frame_stack"):
        raise BadInput(f"{config.agent} takes rows of numbers; {config.env} shows images")


def _takes(agent: str, kind: str) -> bool:
    from runners.config import hyper_class

    return kind in hyper_class(agent).actions  # type: ignore[attr-defined]
