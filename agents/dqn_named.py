"""Members of DQN's family that have a paper and a name: each is DQN with its switches set.

A switch may be set otherwise by its flag; what differs from the paper besides is said by `agents.dqn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from agents.dqn import GROUP as GROUP  # the agents' interface, which they share
from agents.dqn import DQNConfig
from agents.dqn import make_actor as make_actor
from agents.dqn import make_learner as make_learner
from agents.hyper import Search, at_least, positive, unit


@dataclass(frozen=True)
class DoubleDQNConfig(DQNConfig):
    """van Hasselt, Guez & Silver 2016, arXiv:1509.06461."""

    double: bool = True
    """choose the next action by the online network"""


@dataclass(frozen=True)
class DuelingDQNConfig(DQNConfig):
    """Wang et al. 2016, arXiv:1511.06581, which is double too."""

    double: bool = True
    """choose the next action by the online network"""
    dueling: bool = True
    """value and advantage streams"""


@dataclass(frozen=True)
class C51Config(DQNConfig):
    """Bellemare, Dabney & Munos 2017, arXiv:1707.06887."""

    distributional: Literal["none", "c51", "qr", "iqn"] = "c51"
    """what is learned of a return beyond its mean"""


@dataclass(frozen=True)
class QRDQNConfig(DQNConfig):
    """Dabney et al. 2018, arXiv:1710.10044."""

    distributional: Literal["none", "c51", "qr", "iqn"] = "qr"
    """what is learned of a return beyond its mean"""


@dataclass(frozen=True)
class IQNConfig(DQNConfig):
    """Dabney et al. 2018, arXiv:1806.06923; policies go by 32 even fractions, not by drawn ones."""

    distributional: Literal["none", "c51", "qr", "iqn"] = "iqn"
    """what is learned of a return beyond its mean"""
    atoms: Annotated[int, at_least(1)] = 32
    """places (c51), quantiles (qr) or sampled fractions (iqn)"""


@dataclass(frozen=True)
class MunchausenDQNConfig(DQNConfig):
    """Vieillard, Pietquin & Geist 2020, arXiv:2007.14430."""

    munchausen: bool = True
    """a softmax policy, whose log-probability is added to the reward"""


@dataclass(frozen=True)
class RainbowConfig(DQNConfig):
    """Hessel et al. 2018, arXiv:1710.02298: double, dueling, C51, noisy, prioritized, three steps."""

    n_step: Annotated[int, at_least(1), Search("linear", 1, 10)] = 3
    """rewards summed before bootstrapping"""
    double: bool = True
    """choose the next action by the online network"""
    dueling: bool = True
    """value and advantage streams"""
    distributional: Literal["none", "c51", "qr", "iqn"] = "c51"
    """what is learned of a return beyond its mean"""
    prioritized: bool = True
    """sample transitions by their last error"""
    priority_alpha: Annotated[float, unit()] = 0.5
    """0 samples uniformly, 1 in proportion to the error"""
    noisy: bool = True
    """learned noise in the linear layers, also while acting"""
    epsilon_start: Annotated[float, unit()] = 0.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.0
    """share of random actions in the end"""
    adam_eps: Annotated[float, positive()] = 1.5e-4
    """Adam's epsilon"""


@dataclass(frozen=True)
class R2D2Config(DQNConfig):
    """Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning".

    Double, dueling, prioritized, five steps, squashed values, an LSTM learned from sequences with stored
    states and a burn-in; as many exploration rates as lanes. The last action and reward are no inputs here,
    importance weights rise to full correction where theirs stay at 0.6, and ``replay_ratio`` is `DQNConfig`'s:
    a batch of 64 sequences is 5,120 rows, of which theirs learn about one a lane step.
    """

    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.997
    """discount per step"""
    n_step: Annotated[int, at_least(1), Search("linear", 1, 10)] = 5
    """rewards summed before bootstrapping"""
    double: bool = True
    """choose the next action by the online network"""
    dueling: bool = True
    """value and advantage streams"""
    value_rescale: bool = True
    """learn squashed values, which come closer the larger they are"""
    prioritized: bool = True
    """sample transitions by their last error"""
    priority_alpha: Annotated[float, unit()] = 0.9
    """0 samples uniformly, 1 in proportion to the error"""
    priority_beta: Annotated[float, unit()] = 0.6
    """how much importance weights correct at the start; 1 in full"""
    memory: Literal["none", "lstm", "attention"] = "lstm"
    """what of the episode's past the network goes by, behind the hidden layers"""
    sequence_length: Annotated[int, at_least(1)] = 80
    """rows learned of each of batch_size sequences, where there is a memory"""
    burn_in: Annotated[int, at_least(0)] = 40
    """rows before them that bring the memory up to date; for attention at least context - 1"""
    epsilon_start: Annotated[float, unit()] = 0.4
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.4
    """share of random actions in the end"""
    epsilon_ladder: Annotated[float, at_least(0)] = 7.0
    """α: lane i of N takes the share to the power 1 + α i / (N - 1); 0: all lanes the same"""
    adam_eps: Annotated[float, positive()] = 1e-3
    """Adam's epsilon"""
