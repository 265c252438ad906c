"""NAF: Q-learning with continuous actions, by values that are quadratic in the action.

Gu et al. 2016, "Continuous Deep Q-Learning with Model-based Acceleration", arXiv:1603.00748, Algorithm 1,
without the model. The best action is where the square has its top, so the maximum of Q-learning is at hand.

Deviations: Gaussian exploration around it; no batch normalisation; the logarithms of L's diagonal are kept
within -10 and 5, for the paper's exponential of a large number would end in infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch

from agents.actor_critic import ActorCriticLearner, Draws, Networks, assemble
from agents.batch_renorm import Moments
from agents.continuous_networks import MLP, QuadraticCritic
from agents.contract import Batch, LossOut
from agents.hyper import BadValue, Range, Search, at_least, check, positive, unit
from agents.policy_actor import PolicyActor, width_of
from agents.replay.frames import MakeFrames
from agents.rules import td
from envs.contract import Spec

GROUP = 4  # seeds trained together


@dataclass(frozen=True)
class NAFConfig:
    """Hyperparameters of NAF; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 1e-3
    """Adam's learning rate"""
    adam_beta1: Annotated[float, Range(0.0, 0.999)] = 0.9
    """decay of Adam's mean"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    batch_size: Annotated[int, at_least(1)] = 128
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 1_000_000
    """transitions kept, a seed"""
    replay_ratio: Annotated[float, positive()] = 1.0
    """gradient steps per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 1_000
    """lane steps before the first gradient step, with actions drawn uniformly"""
    n_step: Annotated[int, at_least(1), Search("linear", 1, 5)] = 1
    """rewards summed before bootstrapping"""
    exploration: Annotated[float, at_least(0), Search("log", 0.03, 0.5)] = 0.2
    """deviation of the noise on actions in [-1, 1] while learning"""
    target_period: Annotated[int, at_least(1)] = 1
    """gradient steps between target updates"""
    target_tau: Annotated[float, positive(1), Search("log", 1e-3, 5e-2)] = 0.005
    """step towards the online network at a target update; 1 copies"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (200, 200)
    """widths of the hidden layers"""
    norm: Literal["none", "layer"] = "none"
    """LayerNorm behind every hidden layer"""
    normalise_obs: bool = False
    """observations by their mean and deviation so far, within 10 deviations"""
    bf16: bool = False
    """hidden layers compute in bfloat16"""

    slow: ClassVar[tuple[str, ...]] = ("critics",)
    policy_period: ClassVar[int] = 1
    policy_lr: ClassVar[float] = 0.0
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
        """``½ (Q(s, a) - r - γ V⁻(s'))²``."""
        del noise, moments
        with torch.no_grad():
            v_t = networks.target_critics.value(batch.next_obs)
            goal = td.bootstrap(batch.reward, batch.discount, v_t)
        q_tm1 = networks.critics(batch.obs, batch.action)[:, 0, :, 0]
        q_mean = q_tm1.detach()
        metrics = {"td_error": (goal - q_mean).abs(), "q_mean": q_mean, "target_mean": goal}
        return LossOut(td.squared(q_tm1, goal), metrics)

    def policy_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """None: the policy is the critic's own."""
        raise NotImplementedError  # a learner whose critics hold the policy asks for none

    def draw(
        self,
        networks: Networks,
        batch: Batch,
        generators: Sequence[torch.Generator],
        policy_due: bool,
    ) -> dict[str, torch.Tensor]:
        """Nothing is random in the loss."""
        del networks, batch, generators, policy_due
        return {}


def make_network(
    config: NAFConfig, spec: Spec, seeds: int, device: torch.device
) -> QuadraticCritic:
    """The network of K seeds, not yet initialised."""
    inputs, a = width_of(spec)
    outputs = 1 + a + a * (a + 1) // 2
    mlp = MLP(seeds, inputs, config.hidden, outputs, device, norm=config.norm, bf16=config.bf16)
    return QuadraticCritic(mlp, a, config.exploration)


def make_actor(
    config: NAFConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> PolicyActor:
    """An actor with Gaussian noise, for as many seeds as there are generators."""
    network = make_network(config, spec, len(generators), torch.device("cpu"))
    return PolicyActor(spec, None, network, generators)


def make_learner(
    config: NAFConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> ActorCriticLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    networks = (None, make_network(config, spec, len(learner_seeds), device))
    return assemble(config, spec, lanes, networks, learner_seeds, replay_generators, frames)
