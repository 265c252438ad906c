"""Members of SAC's family that have a paper and a name: each is SAC with its switches set.

A switch may be set otherwise by its flag; what differs from the paper besides is said by `agents.sac`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from agents.hyper import Range, Search, at_least, positive
from agents.sac import GROUP as GROUP  # the agents' interface, which they share
from agents.sac import SACConfig
from agents.sac import make_actor as make_actor
from agents.sac import make_learner as make_learner


@dataclass(frozen=True)
class REDQConfig(SACConfig):
    """Chen et al. 2021, arXiv:2101.05982: ten critics, two of which make a target, twenty updates a step."""

    critics: Annotated[int, at_least(1)] = 10
    """critics in the ensemble"""
    target_critics: Annotated[int, at_least(0)] = 2
    """how many of them, drawn anew each time, make a target; 0: all"""
    policy_value: Literal["min", "mean"] = "mean"
    """which of the critics' values the policy climbs"""
    replay_ratio: Annotated[float, positive()] = 20.0
    """gradient steps of the critics per lane step"""
    policy_period: Annotated[int, at_least(1)] = 20
    """gradient steps of the critics for one of the policy"""


@dataclass(frozen=True)
class DroQConfig(SACConfig):
    """Hiraoka et al. 2022, arXiv:2110.02034: dropout and LayerNorm for REDQ's many critics."""

    policy_value: Literal["min", "mean"] = "mean"
    """which of the critics' values the policy climbs"""
    norm: Literal["none", "layer", "batch"] = "layer"
    """LayerNorm in the critics, or batch renormalisation in critics and policy"""
    dropout: Annotated[float, Range(0, 0.95)] = 0.01
    """share of the critics' hidden numbers that is dropped while learning"""
    replay_ratio: Annotated[float, positive()] = 20.0
    """gradient steps of the critics per lane step"""
    policy_period: Annotated[int, at_least(1)] = 20
    """gradient steps of the critics for one of the policy"""


@dataclass(frozen=True)
class CrossQConfig(SACConfig):
    """Bhatt et al. 2024, arXiv:1902.05605: batch renormalisation instead of a target network.

    Their critics are 2,048 wide; here as wide as SAC's. Until ``renorm_after``, which is beyond the end of a
    run of 100,000 steps, it is batch normalisation, as theirs.
    """

    lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 1e-3
    """Adam's learning rate of the critics"""
    policy_lr: Annotated[float, positive(), Search("log", 1e-4, 3e-3)] = 1e-3
    """that of the policy and its temperature"""
    adam_beta1: Annotated[float, Range(0.0, 0.999)] = 0.5
    """decay of Adam's mean"""
    norm: Literal["none", "layer", "batch"] = "batch"
    """LayerNorm in the critics, or batch renormalisation in critics and policy"""
    target_network: bool = False
    """targets by slow copies of the critics"""
    policy_period: Annotated[int, at_least(1)] = 3
    """gradient steps of the critics for one of the policy"""


@dataclass(frozen=True)
class TQCConfig(SACConfig):
    """Kuznetsov et al. 2020, arXiv:2005.04269: five critics of 25 quantiles, of whose 125 the ten largest are left out.

    Their critics have three layers of 512; here they are SAC's.
    """

    critics: Annotated[int, at_least(1)] = 5
    """critics in the ensemble"""
    quantiles: Annotated[int, at_least(0)] = 25
    """quantiles that each critic learns of the return; 0: its mean"""
    policy_value: Literal["min", "mean"] = "mean"
    """which of the critics' values the policy climbs"""
