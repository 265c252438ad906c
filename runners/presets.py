"""What is known to work: settings of an agent on an environment, and what to take where nothing is.

Every table maps flag names to values, hyperparameters and the run's own settings alike; a flag or a
``--config`` file goes over them. A 0 or ``auto`` is worked out by `runners.resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = bool | int | float | str | tuple[int, ...]
Settings = Mapping[str, Value]

RUN_DEFAULTS: Settings = {
    "steps": 0,
    "until_solved": False,
    "eval_every": 0,
    "eval_episodes": 20,
    "checkpoint_every": 0,
    "rollout_length": 0,
    "lanes": 8,
    "block_size": 0,
    "backend": "auto",
    "source": "auto",
    "lag": 0,
    "device": "auto",
}
"""Of any agent that `AGENT_DEFAULTS` says nothing else about."""

_TABULAR: Settings = {"lanes": 1}  # one lane: each update sees the table the last one left

AGENT_DEFAULTS: Mapping[str, Settings] = {
    "q_learning": _TABULAR,
    "sarsa": _TABULAR,
    "expected_sarsa": _TABULAR,
    "double_q": _TABULAR,
    "dqn": {"lanes": 8, "rollout_length": 16},
    "pqn": {"lanes": 128, "rollout_length": 16},
}


def _table(steps: int) -> Settings:
    """Explore for half of the run; a step size that falls lets the table settle on its mean."""
    return {
        "steps": steps, "lr": 0.5, "lr_end": 0.005, "lr_steps": steps,
        "epsilon_steps": steps // 2, "epsilon_end": 0.05,
    }  # fmt: skip


_TABLES: Mapping[str, Settings] = {
    "FrozenLake-v1": _table(500_000),
    "FrozenLake8x8-v1": _table(5_000_000),
    "Taxi-v4": _table(2_000_000),
    "CliffWalking-v1": _table(500_000),
}
_TABULAR_AGENTS = ("q_learning", "sarsa", "expected_sarsa", "double_q")

PRESETS: Mapping[tuple[str, str], Settings] = {
    ("pqn", "CartPole-v1"): {
        "steps": 307_200,
        "eval_every": 8_192,
        "lanes": 32,
        "rollout_length": 32,
        "lr": 1.5e-3,
        "reward_scale": 0.1,
    },
    ("dqn", "CartPole-v1"): {
        "steps": 102_400,
        "eval_every": 5_120,
        "lanes": 16,
        "n_step": 10,
        "layer_norm": True,
        "batch_size": 128,
        "replay_ratio": 0.125,
        "lr": 2e-3,
        "target_period": 64,
        "target_tau": 0.1,
        "epsilon_steps": 5_000,
        "reward_scale": 0.1,
    },
    **{(agent, env): table for agent in _TABULAR_AGENTS for env, table in _TABLES.items()},
}
"""By agent and environment id."""

THRESHOLDS: Mapping[str, float] = {
    "CliffWalking-v1": -13.0,  # the shortest safe path
}
"""Mean returns that count as solved, where Gymnasium names none."""


def preset(agent: str, env: str) -> tuple[str | None, Settings]:
    """The preset's name and its settings; None and nothing where there is none."""
    known = PRESETS.get((agent, env))
    return (None, {}) if known is None else (f"{agent} on {env}", known)
