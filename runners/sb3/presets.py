"""What RL Zoo publishes for Stable-Baselines3, under the names of its agents here.

Raffin, "RL Baselines3 Zoo", hyperparams/{dqn,ppo,a2c,sac,td3}.yml at commit
22e3ff2450fd92033f7f032915e1f64894a09584 of github.com/DLR-RM/rl-baselines3-zoo. ``n_envs`` is lanes,
``n_timesteps`` steps, ``lin_x`` a linear schedule from x, ``normalize`` VecNormalize.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = bool | int | float | str | tuple[int, ...]
Settings = Mapping[str, Value]

_ACROBOT_DQN: Settings = {
    "steps": 100_000, "learning_rate": 6.3e-4, "batch_size": 128, "buffer_size": 50_000,
    "learning_starts": 0, "gamma": 0.99, "target_update_interval": 250, "train_freq": 4,
    "gradient_steps": -1, "exploration_fraction": 0.12, "exploration_final_eps": 0.1,
    "net_arch": (256, 256),
}  # fmt: skip

# Evaluations as our own agents' on Atari have them. The Zoo's AtariWrapper clips rewards, too; it also ends
# episodes at a lost life and begins them by pressing fire, which the lab's presets of Atari do not.
_ATARI: Settings = {
    "steps": 10_000_000, "eval_every": 250_000, "eval_episodes": 5, "final_episodes": 5,
    "frame_stack": 4, "reward_clip": 1.0, "net_arch": (),
}  # fmt: skip

PRESETS: Mapping[tuple[str, str], Settings] = {
    ("sb3:dqn", "CartPole-v1"): {
        "steps": 50_000, "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000,
        "learning_starts": 1_000, "gamma": 0.99, "target_update_interval": 10, "train_freq": 256,
        "gradient_steps": 128, "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
        "net_arch": (256, 256),
    },
    ("sb3:dqn", "Acrobot-v1"): _ACROBOT_DQN,
    ("sb3:dqn", "LunarLander-v3"): _ACROBOT_DQN,
    ("sb3:dqn", "MountainCar-v0"): {
        "steps": 120_000, "learning_rate": 4e-3, "batch_size": 128, "buffer_size": 10_000,
        "learning_starts": 1_000, "gamma": 0.98, "target_update_interval": 600, "train_freq": 16,
        "gradient_steps": 8, "exploration_fraction": 0.2, "exploration_final_eps": 0.07,
        "net_arch": (256, 256),
    },
    ("sb3:ppo", "CartPole-v1"): {
        "steps": 100_000, "lanes": 8, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8,
        "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0, "learning_rate": 1e-3,
        "learning_rate_schedule": "linear", "clip_range": 0.2, "clip_range_schedule": "linear",
    },
    ("sb3:ppo", "Acrobot-v1"): {
        "steps": 1_000_000, "lanes": 16, "normalize": True, "n_steps": 256, "gae_lambda": 0.94,
        "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0,
    },
    ("sb3:ppo", "MountainCar-v0"): {
        "steps": 1_000_000, "lanes": 16, "normalize": True, "n_steps": 16, "gae_lambda": 0.98,
        "gamma": 0.99, "n_epochs": 4, "ent_coef": 0.0,
    },
    ("sb3:ppo", "LunarLander-v3"): {
        "steps": 1_000_000, "lanes": 16, "n_steps": 1_024, "batch_size": 64, "gae_lambda": 0.98,
        "gamma": 0.999, "n_epochs": 4, "ent_coef": 0.01,
    },
    ("sb3:a2c", "CartPole-v1"): {"steps": 500_000, "lanes": 8, "ent_coef": 0.0},
    ("sb3:a2c", "Acrobot-v1"): {"steps": 500_000, "lanes": 16, "normalize": True, "ent_coef": 0.0},
    ("sb3:a2c", "MountainCar-v0"): {
        "steps": 1_000_000, "lanes": 16, "normalize": True, "ent_coef": 0.0,
    },
    ("sb3:a2c", "LunarLander-v3"): {
        "steps": 200_000, "lanes": 8, "gamma": 0.995, "n_steps": 5, "learning_rate": 8.3e-4,
        "learning_rate_schedule": "linear", "ent_coef": 1e-5,
    },
    ("sb3:dqn", "ALE/*"): {
        **_ATARI, "buffer_size": 100_000, "learning_rate": 1e-4, "batch_size": 32,
        "learning_starts": 100_000, "target_update_interval": 1_000, "train_freq": 4,
        "gradient_steps": 1, "exploration_fraction": 0.1, "exploration_final_eps": 0.01,
    },
    ("sb3:ppo", "ALE/*"): {
        **_ATARI, "lanes": 8, "n_steps": 128, "n_epochs": 4, "batch_size": 256,
        "learning_rate": 2.5e-4, "learning_rate_schedule": "linear", "clip_range": 0.1,
        "clip_range_schedule": "linear", "vf_coef": 0.5, "ent_coef": 0.01,
    },
    ("sb3:sac", "Pendulum-v1"): {"steps": 20_000, "learning_rate": 1e-3},
    ("sb3:td3", "Pendulum-v1"): {
        "steps": 20_000, "gamma": 0.98, "buffer_size": 200_000, "learning_starts": 10_000,
        "action_noise": 0.1, "gradient_steps": 1, "train_freq": 1, "learning_rate": 1e-3,
        "net_arch": (400, 300),
    },
}  # fmt: skip
"""By agent and environment id; ``ALE/*`` stands for all ids that begin so."""
