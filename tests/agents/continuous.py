"""What tests of continuous agents are made of: one number to look at, one to do."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from agents import sac
from agents.batch_renorm import Moments
from agents.contract import Batch, Rollout
from envs.contract import Spec

CPU = torch.device("cpu")
SPEC = Spec(
    (1,), np.float32, 0, 0, (1,), np.float32,
    np.array([-2.0], np.float32), np.array([4.0], np.float32),
)  # fmt: skip
"""One number to look at, one to do; actions from -2 to 4, so 1 is the middle and 3 the half width."""
NO_MOMENTS = Moments(renorm=False)


def column(*numbers):
    """[1, B, 1]."""
    return torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1)


def batch(reward, discount, action=(0.0,), obs=(0.0,), next_obs=(0.0,)):
    rows = torch.tensor([reward]), torch.tensor([discount])
    return Batch(column(*obs), column(*action), *rows, column(*next_obs))


def rollout(reward, *, action=0.0, terminated=False, truncated=False, obs=0.0, rows=6):
    """Rows of one lane that all say the same; the last one ends as told."""
    shape = (rows, 1)
    ends = np.zeros(shape, np.bool_)
    ended, cut = ends.copy(), ends.copy()
    ended[-1], cut[-1] = terminated, truncated
    return Rollout(
        obs=np.full((rows + 1, 1, 1), obs, np.float32), first=np.zeros((rows + 1, 1), np.bool_),
        action=np.full((rows, 1, 1), action, np.float32), reward=np.full(shape, reward, np.float32),
        terminated=ended, truncated=cut,
    )  # fmt: skip


def learner(config, module=sac, spec=SPEC, seeds=1):
    return module.make_learner(
        dataclasses.replace(config, replay_size=64, batch_size=8, hidden=(8,), learning_starts=0),
        spec,
        1,
        [np.random.SeedSequence([k]) for k in range(seeds)],
        [np.random.default_rng(k) for k in range(seeds)],
        CPU,
    )
