"""DQN and its family: Q-learning with a neural network, a replay and a target network.

Mnih et al. 2015, "Human-level control through deep reinforcement learning", Algorithm 1. Each switch is
one paper's part, and all that make sense together compose:

* how the successor is valued: the maximum, double (van Hasselt et al. 2016, arXiv:1509.06461),
  Munchausen (Vieillard et al. 2020, arXiv:2007.14430);
* what is learned of a return (`agents.heads`): its mean, or its distribution, as C51 (Bellemare et al.
  2017, arXiv:1707.06887), by quantiles (Dabney et al. 2018, arXiv:1710.10044) or implicit ones (IQN,
  Dabney et al. 2018, arXiv:1806.06923);
* the network: dueling (Wang et al. 2016, arXiv:1511.06581), noisy (Fortunato et al. 2018,
  arXiv:1706.10295), LayerNorm, dropout;
* the replay: n-step returns (Hessel et al. 2018, arXiv:1710.02298), prioritized (Schaul et al. 2016,
  arXiv:1511.05952);
* value rescaling (Pohlen et al. 2018, arXiv:1805.11593), soft target updates (Lillicrap et al. 2016,
  arXiv:1509.02971, Algorithm 1).

Deviations from 2015: Adam for RMSProp, gradient clipping; where observations are no images, an MLP
for the convolutions. Of the parts: dueling splits the last linear layer alone, where Wang et al. give value
and advantages a hidden layer each; of an n-step window Munchausen adds the first action's bonus only; R2D2's
priorities are of errors in units of reward; with a memory double's and IQN's choice is by the pass that values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from agents import large_batch
from agents.contract import Batch, Loss, LossOut, Network, Noise, group_generators
from agents.heads import Categorical, Head, Quantile, Scalar, Target
from agents.hyper import BadValue, Later, Range, Search, at_least, check, positive, unit
from agents.layers import NO_NOISE
from agents.learner import GradientLearner
from agents.networks import QNetwork, initialise
from agents.noise import NetworkNoise
from agents.q_actor import QActor
from agents.replay.frames import MakeFrames
from agents.replay.prioritized import Priorities
from agents.replay.ring import RingReplay
from agents.replay.sequence import SequenceReplay
from agents.rules import munchausen, td
from agents.sequences import over_sequences
from envs.contract import Spec

GROUP = 8  # seeds trained together: more no longer fit the cache at batch 128


@dataclass(frozen=True)
class DQNConfig:
    """Hyperparameters of DQN; all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 1e-4, 1e-2)] = 1e-3
    """Adam's learning rate"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    batch_size: Annotated[int, at_least(1)] = 64
    """transitions in a gradient step"""
    replay_size: Annotated[int, at_least(2)] = 100_000
    """transitions kept, a seed"""
    replay_compression: Literal["none", "lz4"] = "none"
    """how the replay keeps images; the bits are the same"""
    replay_ratio: Annotated[float, positive()] = 0.5
    """gradient steps per lane step"""
    learning_starts: Annotated[int, at_least(0)] = 1_000
    """lane steps before the first gradient step"""
    n_step: Annotated[int, at_least(1), Search("linear", 1, 10)] = 1
    """rewards summed before bootstrapping"""
    double: bool = False
    """choose the next action by the online network"""
    munchausen: bool = False
    """a softmax policy, whose log-probability is added to the reward"""
    munchausen_alpha: Annotated[float, unit()] = 0.9
    """factor on that log-probability"""
    munchausen_tau: Annotated[float, positive()] = 0.03
    """temperature of the softmax"""
    munchausen_floor: Annotated[float, Range(high=0.0)] = -1.0
    """bound on what is added, before the factor"""
    distributional: Literal["none", "c51", "qr", "iqn"] = "none"
    """what is learned of a return beyond its mean"""
    atoms: Annotated[int, at_least(1)] = 51
    """places (c51), quantiles (qr) or sampled fractions (iqn)"""
    v_min: float = -10.0
    """lowest place of c51, in the learner's reward units"""
    v_max: float = 10.0
    """highest place of c51"""
    value_rescale: bool = False
    """learn squashed values, which come closer the larger they are"""
    prioritized: bool = False
    """sample transitions by their last error"""
    priority_alpha: Annotated[float, unit()] = 0.6
    """0 samples uniformly, 1 in proportion to the error"""
    actor_priorities: bool = False
    """a first priority is the error by the values that acted; else the largest so far"""
    priority_beta: Annotated[float, unit()] = 0.4
    """how much importance weights correct at the start; 1 in full"""
    priority_beta_steps: Annotated[int, at_least(0)] = 100_000
    """lane steps over which that rises to 1"""
    noisy: bool = False
    """learned noise in the linear layers, also while acting"""
    noisy_sigma: Annotated[float, positive()] = 0.5
    """its scale at the start"""
    dueling: bool = False
    """value and advantage streams"""
    dropout: Annotated[float, Range(0, 0.95)] = 0.0
    """share of hidden numbers dropped from a prediction; none while acting and in targets"""
    layer_norm: bool = False
    """LayerNorm after every hidden layer"""
    target_period: Annotated[int, at_least(1), Search("log", 50, 2_000)] = 500
    """lane steps between target updates"""
    target_tau: Annotated[float, positive(1)] = 1.0
    """step towards the online network at a target update; 1 copies"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit(), Search("linear", 0.0, 0.1)] = 0.05
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 10_000
    """lane steps over which it falls"""
    epsilon_ladder: Annotated[float, at_least(0)] = 0.0
    """α: lane i of N takes the share to the power 1 + α i / (N - 1); 0: all lanes the same"""
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
    memory: Literal["none", "lstm", "attention"] = "none"
    """what of the episode's past the network goes by, behind the hidden layers"""
    memory_size: Annotated[int, at_least(1)] = 64
    """numbers in it; for attention a multiple of 4, its heads"""
    context: Annotated[int, at_least(1)] = 32
    """newest steps that attention looks at"""
    sequence_length: Annotated[int, at_least(1)] = 16
    """rows learned of each of batch_size sequences, where there is a memory"""
    burn_in: Annotated[int, at_least(0)] = 8
    """rows before them that bring the memory up to date; for attention at least context - 1"""
    end_on_life_loss: bool = False
    """a lost life ends the episode for the learner"""
    bf16: bool = False
    """convolutions and the layer behind in bfloat16, on a GPU all hidden layers; else float32"""
    optimizer: Annotated[Literal["adam", "lars", "lamb"], Later()] = "adam"
    """rule of a gradient step; lars and lamb bound each layer's by the size of its weights"""
    lr_scaling: Annotated[Literal["none", "linear", "sqrt"], Later()] = "none"
    """how lr grows with the batch of all learners over reference_batch"""
    reference_batch: Annotated[int, at_least(0), Later()] = 0
    """the batch that lr was found with, for lr_scaling"""
    warmup_steps: Annotated[int, at_least(0), Later()] = 0
    """lane steps of learning over which lr rises to the scaled one"""

    def __post_init__(self) -> None:
        check(self)
        for wrong, reason in self._conflicts():
            if wrong:
                raise BadValue(reason)

    def _conflicts(self) -> list[tuple[bool, str]]:
        """What makes no sense together, and why."""
        return [
            (
                self.replay_size < self.batch_size,
                f"replay_size: got {self.replay_size}, takes at least batch_size = {self.batch_size}",
            ),
            (
                self.double and self.munchausen,
                "double: munchausen takes a mean over actions, there is no maximum to split; --no-double",
            ),
            (
                self.distributional == "c51" and self.atoms < 2,
                f"atoms: got {self.atoms}, takes at least 2 places for c51",
            ),
            (
                self.distributional == "c51" and self.v_min >= self.v_max,
                f"v_min: got {self.v_min}, takes less than v_max = {self.v_max}",
            ),
            (
                self.distributional == "c51" and self.value_rescale,
                "value_rescale: c51's values have bounds already, which would be squashed; --no-value-rescale",
            ),
            (
                self.dropout > 0 and not self.hidden,
                f"dropout: got {self.dropout}, takes 0 where there are no hidden layers to drop from",
            ),
            *self._priority_conflicts(),
            *large_batch.conflicts(self),
            (
                self.memory != "none" and self.frame_stack > 1,
                f"frame_stack: got {self.frame_stack}, takes 1 with a memory, which has the past already",
            ),
            (
                self.memory != "none" and self.replay_compression != "none",
                f"replay_compression: got {self.replay_compression}, takes none with a memory, "
                "whose sequences are of many frames each",
            ),
            (
                self.memory == "attention" and self.memory_size % 4 > 0,
                f"memory_size: got {self.memory_size}, takes a multiple of 4, the heads of attention",
            ),
            (
                self.memory == "attention" and self.burn_in < self.context - 1,
                f"burn_in: got {self.burn_in}, takes at least context - 1 = {self.context - 1} for attention, "
                f"which looks that far back while acting; or --context {self.burn_in + 1}",
            ),
        ]

    def _priority_conflicts(self) -> list[tuple[bool, str]]:
        asked, no = self.actor_priorities, "--no-actor-priorities"
        return [
            (
                asked and not self.prioritized,
                "actor_priorities: is for --prioritized, without which there are no priorities",
            ),
            (
                asked and self.memory != "none",
                f"actor_priorities: a sequence's is of all its errors, which acting does not know; {no}",
            ),
            (
                asked and self.distributional == "c51",
                f"actor_priorities: c51's are divergences, and acting knows means alone; {no}",
            ),
            (
                asked and self.munchausen,
                f"actor_priorities: munchausen's target is not the best action's value, which acting tells; {no}",
            ),
        ]

    @functools.cached_property
    def head(self) -> Head:
        """What the network's outputs mean."""
        if self.distributional == "none":
            return Scalar(self.huber)
        if self.distributional == "c51":
            return Categorical(self.atoms, self.v_min, self.v_max)
        return Quantile(self.atoms, self.huber)

    def loss(self, online: Network, target: Network, batch: Batch, noise: Noise) -> LossOut:
        """The distance of each transition's prediction from its target (Mnih et al. 2015, Algorithm 1)."""
        head, own = self.head, noise.get("online", NO_NOISE)
        out_tm1 = td.select(online(batch.obs, own), batch.action)
        with torch.no_grad():
            values, weights = self.goal(head, online, target, batch, noise)
            said = self._raw(out_tm1)
            q_tm1 = head.values(said.unsqueeze(-2)).squeeze(-1) if head.outputs else said
            v_tm1 = head.mean((values, weights))
            td_error = (v_tm1 - q_tm1).abs()
            learned = td.squash(values) if self.value_rescale else values
        loss = head.loss(out_tm1, (learned, weights), own)
        metrics = {"td_error": td_error, "q_mean": q_tm1.detach(), "target_mean": v_tm1}
        # Rainbow goes by the divergence (Hessel et al. 2018, section "Prioritized replay")
        priority = loss.detach() if self.distributional == "c51" else td_error
        return LossOut(loss, metrics, priority)

    def goal(
        self, head: Head, online: Network, target: Network, batch: Batch, noise: Noise
    ) -> Target:
        """``r + γ`` times what the successor is worth, in the units of the learner's rewards."""
        out_t = self._raw(target(batch.next_obs, noise.get("target", NO_NOISE)))
        reward = batch.reward
        if self.munchausen:
            q_t = head.values(out_t)
            log_pi = munchausen.log_policy(q_t, self.munchausen_tau, batch.next_action_mask)
            cost = self.munchausen_tau * log_pi
            values, weights = head.mixture(out_t, log_pi.exp(), cost)
            reward = reward + self._bonus(target, batch, noise)
        elif self._chooses_apart:
            selector = online if self.double else target
            chooses = self.action_values(selector(batch.next_obs, noise.get("selector", NO_NOISE)))
            a_t = td.greedy_action(chooses, batch.next_action_mask)
            values, weights = head.successor(td.select(out_t, a_t))
        else:
            values, weights = head.best(out_t, batch.next_action_mask)
        return td.bootstrap(head.column(reward), head.column(batch.discount), values), weights

    @property
    def _chooses_apart(self) -> bool:
        """Whether the next action is chosen in a pass of its own: by the other network, or by other fractions.

        Drawn ones favour an action by chance; valued by the same, it would be valued too high (IQN, Algorithm 1).
        """
        return self.double or self.distributional == "iqn"

    def _bonus(self, target: Network, batch: Batch, noise: Noise) -> Tensor:
        """Munchausen's: the scaled log-probability of the action taken."""
        q_tm1 = self.action_values(target(batch.obs, noise.get("bonus", NO_NOISE)))
        log_pi = td.select(
            munchausen.log_policy(q_tm1, self.munchausen_tau, batch.action_mask), batch.action
        )
        return munchausen.bonus(
            log_pi, self.munchausen_alpha, self.munchausen_tau, self.munchausen_floor
        )

    def _raw(self, out: Tensor) -> Tensor:
        """Outputs in the units of the learner's rewards: before a mean is taken, which squashing bends."""
        return td.unsquash(out) if self.value_rescale else out

    def action_values(self, out: Tensor) -> Tensor:
        """[K, n, A] what the policy goes by, of the network's outputs."""
        return self.head.values(self._raw(out))

    def passes(self) -> list[str]:
        """The passes through a network that a loss makes, by the names of their noise."""
        second = ["bonus"] if self.munchausen else ["selector"] if self._chooses_apart else []
        # over a sequence each network goes once
        return ["online", "target", *(second if self.memory == "none" else [])]


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
        outputs=config.head.outputs,
        implicit=config.distributional == "iqn",
        noisy_sigma=config.noisy_sigma if config.noisy else 0.0,
        dropout=config.dropout,
        memory=config.memory,
        memory_size=config.memory_size,
        context=config.context,
        bf16=config.bf16,
    )


def make_actor(config: DQNConfig, spec: Spec, generators: Sequence[np.random.Generator]) -> QActor:
    """An ε-greedy actor for as many seeds as there are generators."""
    network = make_network(config, spec, len(generators), torch.device("cpu"))
    return QActor(
        network, generators, config.action_values, config.epsilon_ladder,
        tells_values=config.actor_priorities,
    )  # fmt: skip


def make_learner(
    config: DQNConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
    frames: MakeFrames | None = None,
) -> GradientLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; ``frames``: where its replay keeps observations."""
    network = make_network(config, spec, len(learner_seeds), device)
    generators = group_generators(learner_seeds, device)
    initialise(network, generators)
    replay = _replay(config, spec, replay_generators, lanes, frames)
    loss: Loss = config.loss
    if config.memory != "none":
        loss = over_sequences(loss, config.burn_in)
    fractions = config.atoms if config.distributional == "iqn" else 0
    noise = NetworkNoise(network, config.passes(), fractions)
    return GradientLearner(
        config, loss, network, replay, noise or None, generators,
        rule=large_batch.RULES[config.optimizer],
        scaling=large_batch.scaling_of(config, config.batch_size),
    )  # fmt: skip


def _replay(
    config: DQNConfig,
    spec: Spec,
    generators: Sequence[np.random.Generator],
    lanes: int,
    frames: MakeFrames | None,
) -> RingReplay | SequenceReplay:
    """Of sequences where there is a memory, else of transitions."""
    common: dict[str, Any] = {
        "capacity": config.replay_size,
        "batch_size": config.batch_size,
        "n_step": config.n_step,
        "gamma": config.gamma,
        "reward_scale": config.reward_scale,
        "reward_clip": config.reward_clip or np.inf,
        "end_on_life_loss": config.end_on_life_loss,
        "priorities": _priorities(config),
        "frames": frames,
    }
    if config.memory != "none":
        burn_in, length = config.burn_in, config.sequence_length
        return SequenceReplay(spec, generators, lanes, burn_in=burn_in, length=length, **common)
    return RingReplay(
        spec, generators, lanes, frame_stack=config.frame_stack, compression=config.replay_compression,
        acted_values=config.actor_priorities, **common,
    )  # fmt: skip


def _priorities(config: DQNConfig) -> Callable[[int, int], Priorities] | None:
    if not config.prioritized:
        return None
    settings = config.priority_alpha, config.priority_beta, config.priority_beta_steps
    return lambda seeds, places: Priorities(seeds, places, *settings)
