"""What users of Stable-Baselines3 set, under its names and with its defaults (version 2.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from agents.hyper import BadValue, at_least, check, positive, unit

if TYPE_CHECKING:
    from envs.contract import Spec
    from runners.sb3.policy import SB3Actor

GROUP = 1  # seeds trained together: each has a loop of its own

Schedule = Literal["constant", "linear"]
Widths = tuple[Annotated[int, at_least(1)], ...]
Updates = Annotated[int, at_least(-1)]


@dataclass(frozen=True)
class SB3DQNConfig:
    """DQN; the actions are discrete."""

    algorithm: ClassVar[str] = "DQN"
    actions: ClassVar[tuple[str, ...]] = ("discrete",)

    learning_rate: Annotated[float, positive()] = 1e-4
    """Adam's learning rate"""
    learning_rate_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    buffer_size: Annotated[int, at_least(1)] = 1_000_000
    """transitions kept"""
    learning_starts: Annotated[int, at_least(0)] = 100
    """environment steps of random actions before the first gradient step"""
    batch_size: Annotated[int, at_least(1)] = 32
    """transitions in a gradient step"""
    tau: Annotated[float, positive(1)] = 1.0
    """step towards the online network at a target update; 1 copies"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    train_freq: Annotated[int, at_least(1)] = 4
    """steps of the vector environment between trainings"""
    gradient_steps: Updates = 1
    """gradient steps in a training; -1: as many as steps of the vector environment since the last"""
    target_update_interval: Annotated[int, at_least(1)] = 10_000
    """environment steps between target updates"""
    exploration_fraction: Annotated[float, positive(1)] = 0.1
    """share of the run over which epsilon falls"""
    exploration_initial_eps: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    exploration_final_eps: Annotated[float, unit()] = 0.05
    """share of random actions in the end"""
    max_grad_norm: Annotated[float, positive()] = 10.0
    """bound on the gradient's norm"""
    net_arch: Widths = (64, 64)
    """widths of the hidden layers, behind the convolutions where observations are images"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the network looks at, where they are images without channels"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on a reward's magnitude in training; 0 for none"""
    normalize: bool = False
    """running mean and deviation of observations and returns, as of VecNormalize"""

    def __post_init__(self) -> None:
        check(self)
        _check_updates(self.gradient_steps)

    @property
    def rollout_rows(self) -> int:
        """Steps of the vector environment that are collected between trainings."""
        return self.train_freq


@dataclass(frozen=True)
class SB3PPOConfig:
    """PPO; actions are discrete or continuous."""

    algorithm: ClassVar[str] = "PPO"
    actions: ClassVar[tuple[str, ...]] = ("discrete", "continuous")

    learning_rate: Annotated[float, positive()] = 3e-4
    """Adam's learning rate"""
    learning_rate_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    n_steps: Annotated[int, at_least(2)] = 2_048
    """steps of the vector environment in a rollout"""
    batch_size: Annotated[int, at_least(2)] = 64
    """steps in a gradient step"""
    n_epochs: Annotated[int, at_least(1)] = 10
    """passes over a rollout"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    gae_lambda: Annotated[float, unit()] = 0.95
    """bias against variance of advantages (Schulman et al. 2016, arXiv:1506.02438)"""
    clip_range: Annotated[float, positive()] = 0.2
    """how far the ratio of new and old policy counts"""
    clip_range_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    normalize_advantage: bool = True
    """advantages of a batch get mean 0 and deviation 1"""
    ent_coef: Annotated[float, at_least(0)] = 0.0
    """weight of the entropy"""
    vf_coef: Annotated[float, at_least(0)] = 0.5
    """weight of the value loss"""
    max_grad_norm: Annotated[float, positive()] = 0.5
    """bound on the gradient's norm"""
    net_arch: Widths = (64, 64)
    """widths of the hidden layers of policy and value each"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the network looks at, where they are images without channels"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on a reward's magnitude in training; 0 for none"""
    normalize: bool = False
    """running mean and deviation of observations and returns, as of VecNormalize"""

    def __post_init__(self) -> None:
        check(self)

    @property
    def rollout_rows(self) -> int:
        """Steps of the vector environment that are collected between trainings."""
        return self.n_steps


@dataclass(frozen=True)
class SB3A2CConfig:
    """A2C; actions are discrete or continuous."""

    algorithm: ClassVar[str] = "A2C"
    actions: ClassVar[tuple[str, ...]] = ("discrete", "continuous")

    learning_rate: Annotated[float, positive()] = 7e-4
    """RMSprop's learning rate"""
    learning_rate_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    n_steps: Annotated[int, at_least(1)] = 5
    """steps of the vector environment in a rollout"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    gae_lambda: Annotated[float, unit()] = 1.0
    """bias against variance of advantages; 1: n-step returns"""
    ent_coef: Annotated[float, at_least(0)] = 0.0
    """weight of the entropy"""
    vf_coef: Annotated[float, at_least(0)] = 0.5
    """weight of the value loss"""
    max_grad_norm: Annotated[float, positive()] = 0.5
    """bound on the gradient's norm"""
    normalize_advantage: bool = False
    """advantages of a batch get mean 0 and deviation 1"""
    net_arch: Widths = (64, 64)
    """widths of the hidden layers of policy and value each"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the network looks at, where they are images without channels"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on a reward's magnitude in training; 0 for none"""
    normalize: bool = False
    """running mean and deviation of observations and returns, as of VecNormalize"""

    def __post_init__(self) -> None:
        check(self)

    @property
    def rollout_rows(self) -> int:
        """Steps of the vector environment that are collected between trainings."""
        return self.n_steps


@dataclass(frozen=True)
class SB3SACConfig:
    """SAC; actions are continuous."""

    algorithm: ClassVar[str] = "SAC"
    actions: ClassVar[tuple[str, ...]] = ("continuous",)

    learning_rate: Annotated[float, positive()] = 3e-4
    """Adam's learning rate"""
    learning_rate_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    buffer_size: Annotated[int, at_least(1)] = 1_000_000
    """transitions kept"""
    learning_starts: Annotated[int, at_least(0)] = 100
    """environment steps of random actions before the first gradient step"""
    batch_size: Annotated[int, at_least(1)] = 256
    """transitions in a gradient step"""
    tau: Annotated[float, positive(1)] = 0.005
    """step towards the online network at a target update; 1 copies"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    train_freq: Annotated[int, at_least(1)] = 1
    """steps of the vector environment between trainings"""
    gradient_steps: Updates = 1
    """gradient steps in a training; -1: as many as steps of the vector environment since the last"""
    ent_coef: str = "auto"
    """weight of the entropy: a number, auto to learn it, or auto_0.1 to learn it from there"""
    target_update_interval: Annotated[int, at_least(1)] = 1
    """gradient steps between target updates"""
    net_arch: Widths = (256, 256)
    """widths of the hidden layers of actor and critics each"""
    normalize: bool = False
    """running mean and deviation of observations and returns, as of VecNormalize"""

    def __post_init__(self) -> None:
        check(self)
        _check_updates(self.gradient_steps)
        number = self.ent_coef.removeprefix("auto").removeprefix("_")
        try:
            right = self.ent_coef == "auto" or float(number) in positive()
        except ValueError:
            right = False
        if not right:
            raise BadValue(f"ent_coef: got {self.ent_coef!r}, takes auto, auto_0.1 or 0.1")

    @property
    def rollout_rows(self) -> int:
        """Steps of the vector environment that are collected between trainings."""
        return self.train_freq


@dataclass(frozen=True)
class SB3TD3Config:
    """TD3; actions are continuous."""

    algorithm: ClassVar[str] = "TD3"
    actions: ClassVar[tuple[str, ...]] = ("continuous",)

    learning_rate: Annotated[float, positive()] = 1e-3
    """Adam's learning rate"""
    learning_rate_schedule: Schedule = "constant"
    """linear: it falls to 0 at the end of the run"""
    buffer_size: Annotated[int, at_least(1)] = 1_000_000
    """transitions kept"""
    learning_starts: Annotated[int, at_least(0)] = 100
    """environment steps of random actions before the first gradient step"""
    batch_size: Annotated[int, at_least(1)] = 256
    """transitions in a gradient step"""
    tau: Annotated[float, positive(1)] = 0.005
    """step towards the online network at a target update; 1 copies"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    train_freq: Annotated[int, at_least(1)] = 1
    """steps of the vector environment between trainings"""
    gradient_steps: Updates = 1
    """gradient steps in a training; -1: as many as steps of the vector environment since the last"""
    action_noise: Annotated[float, at_least(0)] = 0.0
    """deviation of normal noise on actions in [-1, 1] while exploring; Stable-Baselines3 adds none by itself"""
    policy_delay: Annotated[int, at_least(1)] = 2
    """gradient steps of the critics for one of the actor"""
    target_policy_noise: Annotated[float, at_least(0)] = 0.2
    """deviation of the noise on the actions in targets"""
    target_noise_clip: Annotated[float, at_least(0)] = 0.5
    """bound on that noise"""
    net_arch: Widths = (400, 300)
    """widths of the hidden layers of actor and critics each"""
    normalize: bool = False
    """running mean and deviation of observations and returns, as of VecNormalize"""

    def __post_init__(self) -> None:
        check(self)
        _check_updates(self.gradient_steps)

    @property
    def rollout_rows(self) -> int:
        """Steps of the vector environment that are collected between trainings."""
        return self.train_freq


Config = SB3DQNConfig | SB3PPOConfig | SB3A2CConfig | SB3SACConfig | SB3TD3Config


def _check_updates(gradient_steps: int) -> None:
    if not gradient_steps:
        raise BadValue("gradient_steps: got 0, takes 1 or more, or -1")


def make_actor(config: Config, spec: Spec, generators: Sequence[np.random.Generator]) -> SB3Actor:
    """Greedy policies, one a generator; nothing is drawn from them."""
    from runners.sb3 import policy  # and torch with it: the help need not wait for it

    policies = [policy.make_policy(config, spec) for _ in generators]
    return policy.SB3Actor(policies, spec, policy.frames_of(config))
