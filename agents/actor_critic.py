"""The learner of agents that have a policy beside their critics: two losses, two optimizers, one clock."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from agents.batch_renorm import Moments
from agents.contract import (
    Array,
    Batch,
    LossOut,
    NonFiniteLoss,
    Params,
    Rollout,
    State,
    group_generators,
)
from agents.device import read_if_free
from agents.device.graph import GraphedStep
from agents.device.homeward import Post
from agents.device.machine import machine_of
from agents.device.staging import Feed
from agents.learner import (
    keep_seeds,
    read_metrics,
    relative_distance,
    share,
    td_quantiles,
    updates_by,
)
from agents.networks import FlatParameters, initialise
from agents.optimizer import FlatAdam
from agents.policy_actor import OBS_BOUND, action_units
from agents.replay.frames import MakeFrames
from agents.replay.ring import RingReplay
from agents.running import Running
from envs.contract import Spec


@dataclass
class Networks:
    """What a loss computes with. A target is a slow copy, or the network itself where there is none."""

    policy: Any
    critics: Any
    target_policy: Any
    target_critics: Any


Draws = Mapping[str, Tensor]


class Due(NamedTuple):
    """What an update does besides the critics' gradient step; its number tells, so the host knows."""

    policy: bool
    targets: bool
    renorm: bool  # batch statistics are corrected by moving ones


class ActorCriticHyper(Protocol):
    """What the learner reads of an agent's configuration, and its two losses."""

    @property
    def lr(self) -> float: ...
    @property
    def policy_lr(self) -> float: ...
    @property
    def adam_beta1(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def replay_ratio(self) -> float: ...
    @property
    def learning_starts(self) -> int: ...
    @property
    def policy_period(self) -> int: ...
    @property
    def target_period(self) -> int: ...
    @property
    def target_tau(self) -> float: ...
    @property
    def normalise_obs(self) -> bool: ...
    @property
    def gamma(self) -> float: ...
    @property
    def n_step(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def replay_size(self) -> int: ...
    @property
    def slow(self) -> tuple[str, ...]:
        """Which networks have a slow copy, of "critics" and "policy"."""

    @property
    def renorm_after(self) -> int: ...

    def draw(
        self,
        networks: Networks,
        batch: Batch,
        generators: Sequence[torch.Generator],
        policy_due: bool,
    ) -> Draws:
        """All that is random in the losses to come."""

    def critic_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """The critics' losses [K, B], summed over members."""

    def policy_loss(
        self, networks: Networks, batch: Batch, noise: Draws, moments: Moments
    ) -> LossOut:
        """The policy's losses [K, B], and its temperature's."""


class ActorCriticLearner:
    """Learns a policy and its critics from replay, for a group of K seeds.

    Update number u (from 1) belongs to lane step ``learning_starts + u / replay_ratio`` of each seed. The
    policy learns at every ``policy_period``-th update, behind the critics; targets follow at every
    ``target_period``-th. Until ``learning_starts`` actions are drawn uniformly.
    """

    def __init__(
        self,
        hyper: ActorCriticHyper,
        spec: Spec,
        policy: nn.Module | None,
        critics: nn.Module,
        replay: RingReplay,
        generators: Sequence[torch.Generator],
    ) -> None:
        """``policy`` None: the critics hold it, as their maximum."""
        self.hyper, self.spec, self.replay = hyper, spec, replay
        self.generators = list(generators)
        self.seeds = len(self.generators)
        self._recorded: dict[Due, GraphedStep] | None = None
        self._adopt(policy, critics, copy.deepcopy(policy), copy.deepcopy(critics))
        self.units = {
            name: value.to(self.device) for name, value in action_units(spec, self.seeds).items()
        }
        self.statistics = Running(self.seeds, spec.obs_shape) if hyper.normalise_obs else None
        self.seen = self._seen()
        self.updates = self.lane_steps = self.version = 0
        self._metrics: dict[str, Tensor] = {}  # the policy's of its newest update

    def _adopt(
        self,
        policy: nn.Module | None,
        critics: nn.Module,
        target_policy: nn.Module | None,
        target_critics: nn.Module,
    ) -> None:
        h = self.hyper
        self.online = FlatParameters(critics)
        self.fast = {"critics": self.online}
        if policy is not None:
            self.fast["policy"] = FlatParameters(policy)
        self.optimizers = {
            name: FlatAdam(parameters, math.inf, h.adam_eps, beta1=h.adam_beta1)
            for name, parameters in self.fast.items()
        }
        self.optimizer = self.optimizers["critics"]
        self.device = self.online.flat.device
        self.feed, self.numbers = Feed(self.device), Feed(self.device)  # of batches, of statistics
        self.post = Post(self.device)
        if self._recorded is not None:
            self.compile()
        self.networks = Networks(policy, critics, policy, critics)
        self.slow: dict[str, FlatParameters] = {}
        if "critics" in h.slow:
            self.slow["critics"] = FlatParameters(target_critics)
            self.networks.target_critics = target_critics
        if target_policy is not None and "policy" in h.slow:
            self.slow["policy"] = FlatParameters(target_policy)
            self.networks.target_policy = target_policy

    def compile(self) -> None:
        """From now on take steps as recorded graphs, one for each kind, which is for GPUs."""
        assert machine_of(self.device) is not None
        self._recorded = {}

    def _seen(self) -> dict[str, Tensor]:
        """What observations are normalised by, on the device; {} where they are not."""
        if self.statistics is None:
            return {}
        mean, scale = self.statistics.mean, 1.0 / self.statistics.deviation()
        arrays = {"obs_mean": mean.astype(np.float32), "obs_scale": scale.astype(np.float32)}
        there = self.numbers.move({name: torch.from_numpy(array) for name, array in arrays.items()})
        return {name: numbers.to(self.device) for name, numbers in there.items()}  # of meta too

    def observe(self, rollout: Rollout) -> None:
        """Put the rows into the replay and move the clock on."""
        self.replay.add(rollout)
        if self.statistics is not None:
            shape = (self.seeds, self.replay.lanes)
            obs = rollout.obs[:-1].reshape(rollout.rows, *shape, *self.spec.obs_shape)
            counts = rollout.valid.reshape(rollout.rows, *shape)
            # every lane's row is a row of its seed
            rows = np.moveaxis(obs, 2, 1).reshape(-1, self.seeds, *self.spec.obs_shape)
            self.statistics.add(rows, np.moveaxis(counts, 2, 1).reshape(-1, self.seeds))
            self.seen = self._seen()
        self.lane_steps += rollout.rows * self.replay.lanes
        self.version += 1

    def updates_due(self) -> int:
        """By the clock; 0 while the replay has no row to learn."""
        due = updates_by(self.lane_steps, self.hyper) - self.updates
        return max(0, due) if self.replay.ready else 0

    def update(self) -> None:
        """One gradient step of the critics on one batch, and of the policy where it is due.

        Raises:
            NonFiniteLoss: a loss was NaN or infinite; the parameters are spoilt.
        """
        batch = self.feed.batch(self.replay.sample())
        total = self.step(batch, self.draw(batch))
        self.updates += 1
        if not math.isfinite(read_if_free(total)):
            raise NonFiniteLoss(self.updates, batch)

    def draw(self, batch: Batch) -> Draws:
        """All that is random in the step to come."""
        return self.hyper.draw(self.networks, batch, self.generators, self._due().policy)

    def _due(self) -> Due:
        """What the next update does."""
        h, number = self.hyper, self.updates + 1
        policy = "policy" in self.fast and number % h.policy_period == 0
        return Due(policy, number % h.target_period == 0, number > h.renorm_after)

    def step(self, batch: Batch, drawn: Draws) -> Tensor:
        """The part that runs on the device only. Returns the seeds' mean losses, summed."""
        due = self._due()
        batch = dataclasses.replace(batch, extras={**batch.extras, **self.seen})
        total, out = self._step(due)(batch, share(batch), drawn, self.hyper.lr)
        self._metrics = {**self._metrics, "loss": out.loss, **out.metrics}
        return total

    def _step(self, due: Due) -> Callable[[Batch, Tensor, Draws, float], tuple[Tensor, LossOut]]:
        eager = functools.partial(self.eager, due)
        if self._recorded is None:
            return eager
        machine = machine_of(self.device)
        assert machine is not None
        return self._recorded.setdefault(due, GraphedStep(eager, machine))

    def eager(
        self, due: Due, batch: Batch, share: Tensor, drawn: Draws, lr: float | Tensor
    ) -> tuple[Tensor, LossOut]:
        """One step of the critics down their losses, then of the policy and of slow copies where due."""
        h, moments = self.hyper, Moments(due.renorm)
        batch = self._view(batch)
        out = h.critic_loss(self.networks, batch, drawn, moments)
        total = self.optimizer.step(out.loss, share, lr)
        metrics = out.metrics
        if due.policy:
            with _still(self.optimizer.leaves):  # whose gradients nobody would look at
                own = h.policy_loss(self.networks, batch, drawn, moments)
                total = total + self.optimizers["policy"].step(own.loss, share, h.policy_lr)
            metrics = {**metrics, **own.metrics}
        moments.absorb()
        if due.targets:
            for name, target in self.slow.items():
                target.flat.lerp_(self.fast[name].flat, h.target_tau)
        return total, LossOut(out.loss.detach(), metrics)

    def _view(self, batch: Batch) -> Batch:
        """Observations as they are normalised, rows of numbers; actions in [-1, 1]."""
        centre, half = (self.units[name].unsqueeze(1) for name in ("action_centre", "action_half"))
        action = (batch.action.flatten(2) - centre) / half
        obs, next_obs = (_normalised(x, batch.extras) for x in (batch.obs, batch.next_obs))
        return dataclasses.replace(batch, obs=obs, next_obs=next_obs, action=action)

    def params(self) -> Params:
        """The policy, the critics, and what brings observations and actions into their units.

        Where the critics hold the policy there are no others.
        """
        critics = self.online.flat.view(self.seeds, -1)  # members side by side
        own = {"flat": critics}
        if "policy" in self.fast:
            own = {"flat": self.fast["policy"].flat, "critics": critics}
        scalars = {"uniform_actions": float(self.lane_steps < self.hyper.learning_starts)}
        tensors = self.post({**own, **self.units, **self.seen})
        return Params(self.version, self.lane_steps, tensors, scalars)

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the latest batch; waits for the device."""
        return read_metrics(self._metrics, 1.0)

    def health(self) -> dict[str, Tensor]:
        """[K] each: quantiles of the newest batch's TD errors, and how far the target has stayed behind."""
        found = td_quantiles(self._metrics, 1.0)
        if "critics" in self.slow:
            pair = self.online, self.slow["critics"]
            online, target = (x.flat.view(self.seeds, -1) for x in pair)
            found["target_drift"] = relative_distance(online, target)
        return found

    def state_dict(self) -> State:
        return {
            "flat": {name: each.flat for name, each in self._flats().items()},
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "replay": self.replay.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "statistics": {} if self.statistics is None else self.statistics.state_dict(),
            "metrics": dict(self._metrics),
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def _flats(self) -> dict[str, FlatParameters]:
        return {**self.fast, **{f"slow_{name}": each for name, each in self.slow.items()}}

    def load_state_dict(self, state: State) -> None:
        for name, each in self._flats().items():
            each.flat.copy_(torch.as_tensor(state["flat"][name]))
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.replay.load_state_dict(state["replay"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(torch.as_tensor(saved))
        if self.statistics is not None:
            self.statistics.load_state_dict(state["statistics"])
            self.seen = self._seen()
        self._metrics = {name: torch.as_tensor(v) for name, v in state["metrics"].items()}
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept, each = list(seeds), self.online.flat.shape[0] // self.seeds
        rows = {"critics": [k * each + e for k in kept for e in range(each)], "policy": kept}
        fast = {name: keep_seeds(flat, rows[name]) for name, flat in self.fast.items()}
        slow = {name: keep_seeds(flat, rows[name]) for name, flat in self.slow.items()}
        before, all_of = self.optimizers, {**fast, **slow}
        self._adopt(fast.get("policy"), fast["critics"], all_of.get("policy"), all_of["critics"])
        for name, optimizer in self.optimizers.items():
            optimizer.keep_from(before[name], rows[name])
        self.seeds = len(kept)
        self.units = {name: value[kept] for name, value in self.units.items()}
        self._metrics = {name: value[kept] for name, value in self._metrics.items()}
        self.generators = [self.generators[k] for k in kept]
        self.replay.keep(kept)
        if self.statistics is not None:
            self.statistics.keep(kept)
            self.seen = self._seen()


@contextlib.contextmanager
def _still(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Meanwhile these are numbers like others, and no gradient of theirs is worked out."""
    for leaf in leaves:
        leaf.requires_grad_(False)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_(True)


def _normalised(obs: Tensor, statistics: Mapping[str, Tensor]) -> Tensor:
    """Rows of numbers [K, B, all] of observations [K, B, ...], by statistics where there are any."""
    x = obs.flatten(2).to(torch.float32)
    if "obs_mean" not in statistics:
        return x
    mean, scale = (statistics[n].flatten(1).unsqueeze(1) for n in ("obs_mean", "obs_scale"))
    return ((x - mean) * scale).clamp(-OBS_BOUND, OBS_BOUND)


def assemble(
    hyper: ActorCriticHyper,
    spec: Spec,
    lanes: int,
    networks: tuple[nn.Module | None, nn.Module],
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    frames: MakeFrames | None,
) -> ActorCriticLearner:
    """A learner of a policy (None: the critics hold it) and critics as they were made, and its replay.

    Each seed draws its weights from its own generator: the policy's, then its critics' side by side.
    """
    policy, critics = networks
    first = next(critics.parameters())
    generators = group_generators(learner_seeds, first.device)
    if policy is not None:
        initialise(policy, generators)
    initialise(critics, [g for g in generators for _ in range(len(first) // len(generators))])
    replay = RingReplay(
        spec, replay_generators, lanes, capacity=hyper.replay_size, batch_size=hyper.batch_size,
        n_step=hyper.n_step, gamma=hyper.gamma, frames=frames,
    )  # fmt: skip
    return ActorCriticLearner(hyper, spec, policy, critics, replay, generators)
