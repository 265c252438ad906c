"""DDPG and TD3: a deterministic policy that climbs its critics.

Lillicrap et al. 2016, "Continuous control with deep reinforcement learning", arXiv:1509.02971, Algorithm 1;
Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods", arXiv:1802.09477,
Algorithm 1, which is DDPG with a second critic, a smoothed target and a policy that learns more slowly.

Deviations: networks, learning rates and batch are those of TD3's authors' later code, for both (the papers have
400 and 300 units and 1e-3; DDPG a batch of 64 and a target_tau of 0.001). DDPG has Gaussian exploration for its
Ornstein-Uhlenbeck process, as TD3's authors found no need of it; takes actions at the first layer; and is
without L2 penalty, batch normalisation and a last layer that begins near 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch

from agents.actor_critic import ActorCriticLearner, Draws, Networks, assemble
from agents.batch_renorm import Moments
from agents.continuous_networks import MLP, Critics, DeterministicPolicy
from agents.contract import Batch, LossOut
from agents.hyper import BadValue, Range, Search, at_least, check, positive, unit
from agents.policy_actor import PolicyActor, width_of
from agents.replay.frames import MakeFrames
from agents.rules import td
from agents.rules.actor_critic import smoothed
from envs.contract import Spec

GROUP = 4  # seeds trained together


@dataclass(frozen=True)
class TD3Config:
    """Hyperparameters of TD3; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 3e-4
    """Adam's learning rate of the critics"""
    policy_lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 3e-4
    """that of the policy"""
    adam_beta1: Annotated[float, Range(0.0, 0.999)] = 0.9
    """decay of Adam's mean"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    batch_size: Annotated[int, at_least(1)] = 256
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 1_000_000
    """transitions kept, a seed"""
    replay_ratio: Annotated[float, positive()] = 1.0
    """gradient steps of the critics per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 5_000
    """lane steps before the first gradient step, with actions drawn uniformly"""
    n_step: Annotated[int, at_least(1), Search("linear", 1, 5)] = 1
    """rewards summed before bootstrapping"""
    critics: Annotated[int, at_least(1)] = 2
    """critics, the least of which makes the target; the policy climbs the first"""
    exploration: Annotated[float, at_least(0), Search("log", 0.03, 0.5)] = 0.1
    """deviation of the noise on actions in [-1, 1] while learning"""
    smoothing: Annotated[float, at_least(0)] = 0.2
    """deviation of the noise on the target's actions; 0: none"""
    smoothing_clip: Annotated[float, at_least(0)] = 0.5
    """bound on that noise"""
    policy_period: Annotated[int, at_least(1)] = 2
    """gradient steps of the critics for one of the policy"""
    target_period: Annotated[int, at_least(1)] = 2
    """gradient steps between target updates"""
    target_tau: Annotated[float, positive(1), Search("log", 1e-3, 5e-2)] = 0.005
    """step towards the online networks at a target update; 1 copies"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (256, 256)
    """widths of the hidden layers of the policy and of the critics"""
    norm: Literal["none", "layer"] = "none"
    """LayerNorm in the critics"""
    normalise_obs: bool = False
    """observations by their mean and deviation so far, within 10 deviations"""
    bf16: bool = False
    """hidden layers compute in bfloat16"""

    slow: ClassVar[tuple[str, ...]] = ("critics", "policy")
    renorm_after: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check(self)
        if self.replay_size < self.batch_size:
            raise BadValue(
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}"
            )

    def critic_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """``½ (Q(s, a) - r - γ min Q⁻(s', a'))²``, a' the smoothed action of the slow policy."""
        del moments
        with torch.no_grad():
            a_t = networks.target_policy(batch.next_obs)
            if self.smoothing:
                a_t = smoothed(a_t, noise["epsilon"], self.smoothing, self.smoothing_clip)
            v_t = networks.target_critics(batch.next_obs, a_t).squeeze(-1).amin(1)
            goal = td.bootstrap(batch.reward, batch.discount, v_t)
        q_tm1 = networks.critics(batch.obs, batch.action).squeeze(-1)  # [K, E, B]
        loss = td.squared(q_tm1, goal.unsqueeze(1).expand_as(q_tm1)).sum(1)
        mean = q_tm1.detach().mean(1)
        metrics = {"td_error": (goal - mean).abs(), "q_mean": mean, "target_mean": goal}
        return LossOut(loss, metrics)

    def policy_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """``-Q(s, π(s))`` of the first critic: the deterministic policy gradient."""
        del noise, moments
        first = batch.action.new_zeros((len(batch.action), 1), dtype=torch.int64)
        q = networks.critics.some(first, batch.obs, networks.policy(batch.obs))
        return LossOut(-q[:, 0, :, 0], {})

    def draw(
        self,
        networks: Networks,
        batch: Batch,
        generators: Sequence[torch.Generator],
        policy_due: bool,
    ) -> dict[str, torch.Tensor]:
        """Normal numbers [K, B, A] for the target's actions."""
        del policy_due
        if not self.smoothing:
            return {}
        shape = (batch.obs.shape[1], networks.policy.mlp.outputs)
        drawn = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        return {"epsilon": torch.stack(drawn).to(batch.obs.device)}


@dataclass(frozen=True)
class DDPGConfig(TD3Config):
    """Lillicrap et al. 2016, arXiv:1509.02971: one critic, no smoothing, all learn at every update."""

    critics: Annotated[int, at_least(1)] = 1
    """critics, the least of which makes the target; the policy climbs the first"""
    smoothing: Annotated[float, at_least(0)] = 0.0
    """deviation of the noise on the target's actions; 0: none"""
    policy_period: Annotated[int, at_least(1)] = 1
    """gradient steps of the critics for one of the policy"""
    target_period: Annotated[int, at_least(1)] = 1
    """gradient steps between target updates"""


def make_networks(
    config: TD3Config, spec: Spec, seeds: int, device: torch.device
) -> tuple[DeterministicPolicy, Critics]:
    """Policy and critics of K seeds, not yet initialised."""
    inputs, actions = width_of(spec)
    policy = MLP(seeds, inputs, config.hidden, actions, device, bf16=config.bf16)
    critics = MLP(
        seeds * config.critics, inputs + actions, config.hidden, 1, device,
        norm=config.norm, bf16=config.bf16,
    )  # fmt: skip
    return DeterministicPolicy(policy, config.exploration), Critics(critics, config.critics)


def make_actor(
    config: TD3Config, spec: Spec, generators: Sequence[np.random.Generator]
) -> PolicyActor:
    """An actor with Gaussian noise, for as many seeds as there are generators."""
    networks = make_networks(config, spec, len(generators), torch.device("cpu"))
    return PolicyActor(spec, *networks, generators)


def make_learner(
    config: TD3Config,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> ActorCriticLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    networks = make_networks(config, spec, len(learner_seeds), device)
    return assemble(config, spec, lanes, networks, learner_seeds, replay_generators, frames)
