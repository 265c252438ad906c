"""DQN: Q-learning with a neural network, a replay and a target network.

Mnih et al. 2015, "Human-level control through deep reinforcement learning", Algorithm 1.
Parts that are switches here: double (van Hasselt et al. 2016, arXiv:1509.06461), dueling (Wang et
al. 2016, arXiv:1511.06581), n-step returns (Hessel et al. 2018, arXiv:1710.02298, section "Multi-step
learning"), soft target updates (Lillicrap et al. 2016, arXiv:1509.02971, Algorithm 1).
Deviations from 2015: Adam for RMSProp, gradient clipping; where observations are no images, an MLP
for the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from agents.contract import (
    Batch,
    LossOut,
    Network,
    Noise,
    group_generators,
)
from agents.hyper import at_least, check, positive, unit
from agents.learner import GradientLearner
from agents.networks import QNetwork, initialise
from agents.q_actor import QActor
from agents.replay.ring import RingReplay
from agents.rules import td
from envs.contract import Spec

GROUP = 8  # seeds trained together: more no longer fit the cache at batch 128


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN; all steps are lane steps of one seed."""

    lr: Annotated[float, positive()] = 1e-3
    """Adam's learning rate"""
    gamma: Annotated[float, unit()] = 0.99
    """discount per step"""
    batch_size: Annotated[int, at_least(1)] = 64
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 100_000
    """transitions kept, a seed"""
    replay_ratio: Annotated[float, positive()] = 0.5
    """gradient steps per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 1_000
    """lane steps before the first gradient step"""
    n_step: Annotated[int, at_least(1)] = 1
    """rewards summed before bootstrapping"""
    double: bool = True
    """choose the next action by the online network"""
    dueling: bool = False
    """value and advantage streams"""
    layer_norm: bool = False
    """LayerNorm after every hidden layer"""
    target_period: Annotated[int, at_least(1)] = 500
    """lane steps between target updates"""
    target_tau: Annotated[float, positive(1)] = 1.0
    """step towards the online network at a target update; 1 copies"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.05
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 10_000
    """lane steps over which it falls"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (64, 64)
    """widths of the hidden layers"""
    huber: Annotated[float, positive()] = 1.0
    """where the loss turns from quadratic to linear"""
    max_grad_norm: Annotated[float, positive()] = 10.0
    """bound on a seed's gradient norm"""
    adam_eps: Annotated[float, positive()] = 1e-8
    """Adam's epsilon"""
    reward_scale: Annotated[float, positive()] = 1.0
    """factor on rewards, for the learner only"""
    reward_clip: Annotated[float, at_least(0)] = 0.0
    """bound on scaled rewards' magnitude; 0 for none"""
    frame_stack: Annotated[int, at_least(1)] = 1
    """newest observations that the network looks at"""
    end_on_life_loss: bool = False
    """a lost life ends the episode for the learner"""

    def __post_init__(self) -> None:
        check(self)
        if self.replay_size < self.batch_size:
            raise ValueError(
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}"
            )

    def loss(self, online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        """The TD error of each transition, by Huber's loss (Mnih et al. 2015, Algorithm 1)."""
        del noise  # plain DQN draws none in its loss
        q_tm1 = td.select(online(batch.obs), batch.action)
        with torch.no_grad():
            q_t = td.legal(target(batch.next_obs), batch.next_action_mask)
            if self.double:
                selector = td.legal(online(batch.next_obs), batch.next_action_mask)
                goal = td.double_q_learning_target(batch.reward, batch.discount, q_t, selector)
            else:
                goal = td.q_learning_target(batch.reward, batch.discount, q_t)
        td_error = (goal - q_tm1.detach()).abs()
        metrics = {"td_error": td_error, "q_mean": q_tm1.detach(), "target_mean": goal}
        return LossOut(td.huber(q_tm1, goal, self.huber), metrics, priority=td_error)


def make_network(config: DQNConfig, spec: Spec, seeds: int, device: torch.device) -> QNetwork:
    """The network of K seeds, not yet initialised."""
    return QNetwork(
        spec,
        seeds,
        config.hidden,
        layer_norm=config.layer_norm,
        dueling=config.dueling,
        device=device,
        frame_stack=config.frame_stack,
    )


def make_actor(config: DQNConfig, spec: Spec, generators: Sequence[np.random.Generator]) -> QActor:
    """An ε-greedy actor for as many seeds as there are generators."""
    network = make_network(config, spec, len(generators), torch.device("cpu"))
    return QActor(network, generators)


def make_learner(
    config: DQNConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> GradientLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each."""
    network = make_network(config, spec, len(learner_seeds), device)
    initialise(network, group_generators(learner_seeds, device))
    replay = RingReplay(
        spec,
        replay_generators,
        lanes,
        capacity=config.replay_size,
        batch_size=config.batch_size,
        n_step=config.n_step,
        gamma=config.gamma,
        reward_scale=config.reward_scale,
        reward_clip=config.reward_clip or np.inf,
        frame_stack=config.frame_stack,
        end_on_life_loss=config.end_on_life_loss,
    )
    return GradientLearner(config, config.loss, network, replay)
