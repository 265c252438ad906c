"""What is known to work: settings of an agent on an environment, and what to take where nothing is.

Every table maps flag names to values, hyperparameters and the run's own settings alike; a flag or a
``--config`` file goes over them. A 0 or ``auto`` is worked out by `runners.resolve`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from runners import sb3
from runners.sb3 import presets as sb3_presets

Value = bool | int | float | str | tuple[int, ...] | tuple[float, ...]
Settings = Mapping[str, Value]

RUN_DEFAULTS: Settings = {
    "steps": 0,
    "until_solved": False,
    "eval_every": 0,
    "eval_episodes": 20,
    "final_episodes": 100,
    "checkpoint_every": 0,
    "rollout_length": 0,
    "lanes": 8,
    "block_size": 0,
    "backend": "auto",
    "source": "auto",
    "lag": 0,
    "async_": False,
    "max_lag": 0,
    "device": "auto",
    "actor_device": "auto",
    "threads": 1,
    "fast_matmul": False,
    "compile": False,
    "learners": 1,
}
"""Of any agent that `AGENT_DEFAULTS` says nothing else about."""

_TABULAR_AGENTS = (
    "q_learning", "sarsa", "expected_sarsa", "double_q", "n_step_sarsa", "tree_backup", "q_sigma",
    "sarsa_lambda", "watkins_q", "peng_q", "dyna_q", "dyna_q_plus", "prioritized_sweeping",
    "monte_carlo", "r_max",
)  # fmt: skip
_TABULAR: Settings = {"lanes": 1}  # one lane: each update sees the table the last one left

_CONTINUOUS = ("sac", "redq", "droq", "crossq", "tqc", "td3", "ddpg", "naf")

AGENT_DEFAULTS: Mapping[str, Settings] = {
    **dict.fromkeys((*_TABULAR_AGENTS, "ucb_hoeffding"), _TABULAR),
    "dqn": {"lanes": 8, "rollout_length": 16},
    "r2d2": {"lanes": 8, "rollout_length": 40},  # sequences of 80 rows overlap by half
    "pqn": {"lanes": 128, "rollout_length": 16},
    "stream_q": {"lanes": 1, "rollout_length": 1},  # each step is learned before the next is taken
    # as published: a gradient step after every step of one lane
    **{name: {"lanes": 1, "rollout_length": 1} for name in _CONTINUOUS},
    # as Stable-Baselines3 does where nobody says otherwise
    **{name: {"lanes": 1} for name in sb3.AGENTS},
}


def _table(steps: int, gamma: float = 0.99) -> Settings:
    """Explore for half of the run; a step size that falls lets the table settle on its mean."""
    return {
        "steps": steps, "gamma": gamma, "lr": 0.5, "lr_end": 0.005, "lr_steps": steps,
        "epsilon_steps": steps // 2, "epsilon_end": 0.05,
    }  # fmt: skip


_TABLES: Mapping[str, Settings] = {
    "FrozenLake-v1": _table(500_000),
    # of all discounts that whose best policy is worth most under the limit of 200 steps, 0.8936; the
    # optimum of 0.9132 takes a policy that knows how many are left
    "FrozenLake8x8-v1": _table(5_000_000, gamma=0.995),
    "Taxi-v4": _table(2_000_000),
    "CliffWalking-v1": _table(500_000),
}

# 40 million frames. On one core these take from some hours to days (`python -m runners.bench advise`).
_ATARI: Settings = {
    "steps": 10_000_000, "hidden": (512,), "frame_stack": 4, "reward_clip": 1.0, "epsilon_steps": 250_000,
    "eval_every": 250_000, "eval_episodes": 5, "final_episodes": 5, "checkpoint_every": 50_000,
}  # fmt: skip

_MINIGRID: Settings = {"double": True, "hidden": (64,), "epsilon_steps": 20_000, "gamma": 0.95}

_DQN_CARTPOLE: Settings = {
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
}
_CARTPOLE: Mapping[str, Settings] = {
    "dqn": {**_DQN_CARTPOLE, "double": True},
    # a scaled return is at most 10 at the discount of 0.99
    **dict.fromkeys(("double_dqn", "dueling_dqn", "qrdqn"), _DQN_CARTPOLE),
    "iqn": {**_DQN_CARTPOLE, "atoms": 8},  # more fractions take longer in proportion
    "munchausen_dqn": _DQN_CARTPOLE,
    "bootstrapped_dqn": {**_DQN_CARTPOLE, "epsilon_start": 0.0, "epsilon_end": 0.0},
    "rnd": {**_DQN_CARTPOLE, "n_step": 1},
    "c51": {**_DQN_CARTPOLE, "v_min": 0.0},
    "rainbow": {
        **{name: value for name, value in _DQN_CARTPOLE.items() if name != "epsilon_steps"},
        "v_min": 0.0,
    },
}

# Memory tasks: found on seeds 100 and 101. burn_in serves a context of 16 as well, --memory attention.
_MEMORY: Settings = {
    "lanes": 16, "rollout_length": 16, "sequence_length": 16, "burn_in": 15, "context": 16,
    "batch_size": 16, "replay_ratio": 0.05, "learning_starts": 2_000, "target_period": 400, "lr": 2e-3,
    "hidden": (64,),
}  # fmt: skip
_REPEAT_PREVIOUS: Settings = {
    **_MEMORY, "steps": 40_960, "gamma": 0.9, "epsilon_steps": 10_000, "reward_scale": 20.0,
}  # fmt: skip
_TMAZE: Settings = {**_MEMORY, "steps": 81_920, "gamma": 0.98, "epsilon_steps": 30_000}

# Found on seeds 100 to 103, at size 20.
_DEEP_SEA: Settings = {
    "steps": 40_000, "lanes": 1, "learning_starts": 100, "target_period": 100, "hidden": (32,),
    "replay_ratio": 0.25, "eval_every": 2_000, "eval_episodes": 1,
}  # fmt: skip

# Of one lane, as published; 100,000 steps are where sample-efficient agents are compared.
_MUJOCO: Settings = {
    "steps": 100_000, "eval_every": 5_000, "eval_episodes": 10, "final_episodes": 20, "checkpoint_every": 10_000,
}  # fmt: skip
_MUJOCO_TASKS = (
    "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "HumanoidStandup-v5",
    "Reacher-v5", "Pusher-v5", "Swimmer-v5",
)  # fmt: skip
# The authors' own, task by task: REDQ's and DroQ's code says them for each action as a whole.
_TARGET_ENTROPY = {
    "Hopper-v5": 1.0 / 3.0, "HalfCheetah-v5": 0.5, "Walker2d-v5": 0.5, "Ant-v5": 0.5, "Humanoid-v5": 2.0 / 17.0,
}  # fmt: skip
_TQC_DROPPED = {"HalfCheetah-v5": 0, "Hopper-v5": 5}


def _mujoco(agent: str, env: str) -> Settings:
    own: dict[str, Any] = {}
    if agent in ("redq", "droq") and env in _TARGET_ENTROPY:
        own["target_entropy"] = _TARGET_ENTROPY[env]
    if agent == "tqc" and env in _TQC_DROPPED:
        own["dropped"] = _TQC_DROPPED[env]
    if env == "Swimmer-v5":
        own["gamma"] = 0.9999  # it glides: what an action does shows late
    return {**_MUJOCO, **own}


# Small networks learn these as well, in a tenth of the time.
_SWING_UP: Settings = {
    "steps": 10_000, "eval_every": 1_000, "hidden": (64, 64), "batch_size": 128, "lr": 1e-3,
    "policy_lr": 1e-3, "learning_starts": 1_000, "replay_size": 10_000,
}  # fmt: skip
# A value of a hundred steps ahead is a hundred times 1 / tau updates away.
_BALANCE: Settings = {**_SWING_UP, "target_tau": 0.02}
_OF_THEIR_OWN: Mapping[str, Settings] = {
    "tqc": {"steps": 8_000, "critics": 2, "target_tau": 0.02},
    # its targets move at every second update; found on seeds 100 to 103
    "td3": {"target_tau": 0.04, "exploration": 0.2},
    "redq": {"steps": 4_000, "replay_ratio": 5.0, "policy_period": 5, "critics": 5},
    "droq": {"steps": 4_000, "replay_ratio": 5.0, "policy_period": 5},
}

_PQN_MINATAR: Settings = {
    "steps": 1_000_448,
    "hidden": (128,),
    "lanes": 128,
    "rollout_length": 32,
    "minibatch_size": 256,
    "epochs": 2,
    "lambda_": 0.65,
    "lr": 5e-4,
    "lr_end": 5e-5,
    "lr_steps": 1_000_000,
    "epsilon_steps": 100_000,
    "eval_episodes": 10,
}

PRESETS: Mapping[tuple[str, str], Settings] = {
    ("pqn", "CartPole-v1"): {
        "steps": 307_200,
        "eval_every": 8_192,
        "lanes": 32,
        "rollout_length": 32,
        "lr": 1.5e-3,
        "reward_scale": 0.1,
    },
    ("pqn", "Acrobot-v1"): {
        "steps": 307_200,
        "eval_every": 16_384,
        "lanes": 32,
        "rollout_length": 32,
        "lr": 1.5e-3,
        "reward_scale": 0.1,
    },
    **{(agent, "CartPole-v1"): table for agent, table in _CARTPOLE.items()},
    # Elsayed et al. 2024, whose runs are longer; found on seeds 100 to 107, which all hold the pole at
    # 30,000. A policy may still be lost later: the best weights are the ones to take.
    ("stream_q", "CartPole-v1"): {"steps": 40_000, "eval_every": 2_000},
    # An episode ends beyond 2.4 and 0.2095 rad; velocities, which have no bounds, rarely pass these.
    ("linear_q", "CartPole-v1"): {
        "steps": 102_400,
        "eval_every": 4_096,
        "lanes": 8,
        "rollout_length": 8,
        "low": (-2.4, -3.0, -0.2095, -3.5),
        "high": (2.4, 3.0, 0.2095, 3.5),
        "tilings": 16,
        "tiles": 4,
        "lr": 0.5,
        "lr_end": 0.05,
        "lr_steps": 100_000,
        "epsilon_steps": 10_000,
        "epsilon_end": 0.02,
    },
    # Sutton & Barto 2018, example 10.1: no exploration but that weights of 0 are optimistic
    ("linear_q", "MountainCar-v0"): {
        "steps": 200_000,
        "eval_every": 4_800,
        "lanes": 4,
        "rollout_length": 4,
        "gamma": 1.0,
        "tilings": 16,
        "lr": 0.8,
        "lr_end": 0.02,
        "lr_steps": 200_000,
        "epsilon_start": 0.0,
        "epsilon_end": 0.0,
    },
    # found on seeds 100 to 103
    ("dqn", "Acrobot-v1"): {**_DQN_CARTPOLE, "double": True, "n_step": 3},
    ("dqn", "MountainCar-v0"): {**_DQN_CARTPOLE, "double": True, "epsilon_steps": 20_000},
    # Mnih et al. 2015 and Castro et al. 2018 (Dopamine), with Adam; a lane step is four frames. An
    # untrained greedy policy may stand still until the time limit, so evaluations are few.
    ("dqn", "ALE/*"): {
        **_ATARI,
        "replay_size": 200_000,
        "replay_ratio": 0.25,
        "batch_size": 32,
        "learning_starts": 5_000,
        "target_period": 8_000,
        "lr": 1e-4,
        "adam_eps": 1.5e-4,
        "double": True,
        "epsilon_end": 0.01,
    },
    # Gallici et al. 2024, as far as one process goes
    ("pqn", "ALE/*"): {
        **_ATARI,
        "lanes": 32,
        "rollout_length": 32,
        "minibatch_size": 256,
        "epochs": 2,
        "lambda_": 0.65,
        "lr": 2.5e-4,
        "lr_end": 2.5e-5,
        "lr_steps": 10_000_000,
        "epsilon_end": 0.001,
    },
    # Young & Tian 2019: 5 million frames, epsilon to 0.1 over 100,000
    ("dqn", "MinAtar/*"): {
        "double": True,
        "hidden": (128,),
        "batch_size": 32,
        "replay_ratio": 0.25,
        "learning_starts": 5_000,
        "target_period": 1_000,
        "lr": 2.5e-4,
        "epsilon_steps": 100_000,
        "epsilon_end": 0.1,
        "eval_episodes": 10,
    },
    # its reward is rare: of 25 seeds that explored for 100,000 steps two never crossed the road, and of 25 that did
    # for 300,000 the slowest began to cross after 700,000
    ("pqn", "MinAtar/Freeway"): {
        **_PQN_MINATAR,
        "steps": 2_000_896,
        "lr_steps": 2_000_000,
        "epsilon_steps": 300_000,
    },
    ("pqn", "MinAtar/*"): _PQN_MINATAR,
    ("dqn", "MiniGrid-Empty-5x5-v0"): {**_MINIGRID, "steps": 20_480, "epsilon_steps": 10_000},
    ("dqn", "MiniGrid-*"): _MINIGRID,
    ("dqn", "LunarLander-v3"): {
        "steps": 204_800,
        "double": True,
        "hidden": (128, 128),
        "n_step": 3,
        "batch_size": 128,
        "replay_ratio": 0.25,
        "lr": 5e-4,
        "target_period": 100,
        "target_tau": 0.05,
        "epsilon_steps": 30_000,
        "reward_scale": 0.1,
    },
    ("dqn", "DeepSea-v0"): _DEEP_SEA,
    # as many as bsuite's agent has: with ten, 1 run of 55 believes that there is no treasure before it is found
    ("bootstrapped_dqn", "DeepSea-v0"): {**_DEEP_SEA, "heads": 20},
    # a bonus looks ahead half a dive; at 0.99 it is the same wherever one dives
    ("rnd", "DeepSea-v0"): {
        **_DEEP_SEA,
        "batch_size": 128,
        "lr": 2e-3,
        "target_period": 50,
        "bonus_scale": 10.0,
        "gamma_int": 0.9,
        "epsilon_start": 0.1,
        "epsilon_end": 0.1,
    },
    ("dqn", "popgym-RepeatPreviousEasy-v0"): {**_REPEAT_PREVIOUS, "double": True, "memory": "lstm"},
    ("dqn", "TMaze-v0"): {**_TMAZE, "double": True, "memory": "lstm"},
    ("pqn", "popgym-RepeatPreviousEasy-v0"): {
        "steps": 102_400,
        "lanes": 32,
        "rollout_length": 32,
        "memory": "lstm",
        "hidden": (64,),
        "gamma": 0.9,
        "lambda_": 0.5,
        "reward_scale": 20.0,
        "lr": 2e-3,
        "lr_steps": 102_400,
        "minibatch_size": 256,
    },
    ("r2d2", "popgym-RepeatPreviousEasy-v0"): {**_REPEAT_PREVIOUS, "adam_eps": 1e-6},
    ("r2d2", "TMaze-v0"): _TMAZE,
    # rewards are at most 10,000
    ("ucb_hoeffding", "RiverSwim-v0"): {"steps": 84_000, "reward_scale": 1e-4, "bonus": 1e-3},
    # whole episodes: no more than a start on longer ones
    ("monte_carlo", "FrozenLake-v1"): {**_TABLES["FrozenLake-v1"], "step": "lr"},
    # V_max is the largest return; what is deterministic is known at once
    ("r_max", "FrozenLake-v1"): {"steps": 100_000, "known_after": 100},
    ("r_max", "FrozenLake8x8-v1"): {"steps": 1_000_000, "gamma": 0.995, "known_after": 100},
    ("r_max", "Taxi-v4"): {"steps": 200_000, "known_after": 1, "initial_value": 20.0},
    ("r_max", "CliffWalking-v1"): {"steps": 20_000, "known_after": 1, "initial_value": 0.0},
    **{(agent, env): _mujoco(agent, env) for agent in _CONTINUOUS for env in _MUJOCO_TASKS},
    **{
        (agent, env): {
            name: value
            for name, value in {**table, **_OF_THEIR_OWN.get(agent, {})}.items()
            if agent != "naf" or name != "policy_lr"
        }
        for agent in _CONTINUOUS
        for env, table in (("Pendulum-v1", _SWING_UP), ("InvertedPendulum-v5", _BALANCE))
    },
    **{
        (agent, env): table
        for agent in _TABULAR_AGENTS
        if agent not in ("r_max", "monte_carlo")
        for env, table in _TABLES.items()
    },
    # 0.02 of what is there to win, for what was not tried for five million steps
    ("dyna_q_plus", "FrozenLake8x8-v1"): {**_TABLES["FrozenLake8x8-v1"], "kappa": 1e-5},
    **sb3_presets.PRESETS,
}
"""By agent and environment id; ``ALE/*`` stands for all ids that begin so."""

THRESHOLDS: Mapping[str, float] = {
    "CliffWalking-v1": -13.0,  # the shortest safe path
}
"""Mean returns that count as solved, where Gymnasium names none."""


def preset(agent: str, env: str) -> tuple[str | None, Settings]:
    """The preset's name and its settings; None and nothing where there is none."""
    for (name, pattern), known in PRESETS.items():
        if name == agent and fnmatch.fnmatchcase(env, pattern):
            return f"{agent} on {pattern}", known
    return None, {}
