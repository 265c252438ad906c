"""The learner of agents that have a policy beside their critics: two losses, two optimizers, one clock."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
)
from agents.device import read_if_free, to_device
from agents.learner import keep_seeds, read_metrics, relative_distance, share, td_quantiles
from agents.networks import FlatParameters
from agents.optimizer import FlatAdam
from agents.policy_actor import action_units, published
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


class ActorCriticHyper(Protocol):
    """What the learner reads of an agent's configuration, and its two losses."""

    @property
    def lr(self) -> float: ...
    @property
    def policy_lr(self) -> float: ...
    @property
    def adam_beta1(self) -> float: ...
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
        self._adopt(policy, critics, copy.deepcopy(policy), copy.deepcopy(critics))
        self.units = {
            name: value.to(self.device) for name, value in action_units(spec, self.seeds).items()
        }
        self.statistics = Running(self.seeds, spec.obs_shape) if hyper.normalise_obs else None
        self.seen = self._seen()
        self.updates = self.lane_steps = self.version = 0
        self._metrics: dict[str, Tensor] = {}
        self._of_policy: dict[str, Tensor] = {}  # of its newest update

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
            name: FlatAdam(parameters, math.inf, 1e-8, h.adam_beta1)
            for name, parameters in self.fast.items()
        }
        self.optimizer = self.optimizers["critics"]
        self.device = self.online.flat.device
        self.networks = Networks(policy, critics, policy, critics)
        self.slow: dict[str, FlatParameters] = {}
        if "critics" in h.slow:
            self.slow["critics"] = FlatParameters(target_critics)
            self.networks.target_critics = target_critics
        if target_policy is not None and "policy" in h.slow:
            self.slow["policy"] = FlatParameters(target_policy)
            self.networks.target_policy = target_policy

    def _seen(self) -> dict[str, Tensor]:
        """What observations are normalised by, on the device; {} where they are not."""
        if self.statistics is None:
            return {}
        mean, scale = self.statistics.mean, 1.0 / self.statistics.deviation()
        return {
            name: torch.from_numpy(value.astype(np.float32)).to(self.device, non_blocking=True)
            for name, value in (("obs_mean", mean), ("obs_scale", scale))
        }

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
        """Lane steps since ``learning_starts`` times ``replay_ratio``, less the updates done."""
        if not self.replay.ready:
            return 0
        elapsed = self.lane_steps - self.hyper.learning_starts
        return max(0, math.floor(elapsed * self.hyper.replay_ratio) - self.updates)

    def update(self) -> None:
        """One gradient step of the critics on one batch, and of the policy where it is due.

        Raises:
            NonFiniteLoss: a loss was NaN or infinite; the parameters are spoilt.
        """
        batch = to_device(self.replay.sample(), self.device)
        total = self.step(batch, self.draw(batch))
        self.updates += 1
        if not math.isfinite(read_if_free(total)):
            raise NonFiniteLoss(self.updates, batch)

    def draw(self, batch: Batch) -> Draws:
        """All that is random in the step to come."""
        return self.hyper.draw(self.networks, batch, self.generators, self._policy_due())

    def _policy_due(self) -> bool:
        """Whether the next update is one of the policy too."""
        return "policy" in self.fast and (self.updates + 1) % self.hyper.policy_period == 0

    def step(self, batch: Batch, drawn: Draws) -> Tensor:
        """The part that runs on the device only. Returns the seeds' mean losses, summed."""
        h, number = self.hyper, self.updates + 1
        batch = self._view(batch)
        moments = Moments(renorm=number > h.renorm_after)
        out = h.critic_loss(self.networks, batch, drawn, moments)
        total = self.optimizer.step(out.loss, share(batch), h.lr)
        self._metrics = {"loss": out.loss.detach(), **out.metrics}
        if self._policy_due():
            own = h.policy_loss(self.networks, batch, drawn, moments)
            total = total + self.optimizers["policy"].step(own.loss, share(batch), h.policy_lr)
            self._of_policy = own.metrics
        moments.absorb()
        if number % h.target_period == 0:
            for name, target in self.slow.items():
                target.flat.lerp_(self.fast[name].flat, h.target_tau)
        return total

    def _view(self, batch: Batch) -> Batch:
        """Observations as they are normalised, rows of numbers; actions in [-1, 1]."""
        centre, half = (self.units[name].unsqueeze(1) for name in ("action_centre", "action_half"))
        action = (batch.action.flatten(2) - centre) / half
        obs, next_obs = (self._normalised(x) for x in (batch.obs, batch.next_obs))
        return dataclasses.replace(batch, obs=obs, next_obs=next_obs, action=action)

    def _normalised(self, obs: Tensor) -> Tensor:
        x = obs.flatten(2).to(torch.float32)
        if not self.seen:
            return x
        mean, scale = (self.seen[n].flatten(1).unsqueeze(1) for n in ("obs_mean", "obs_scale"))
        return (x - mean) * scale

    def params(self) -> Params:
        """Policy and critics in one buffer, what brings observations and actions into their units."""
        flat = published(self.fast.values(), self.seeds)
        scalars = {"uniform_actions": float(self.lane_steps < self.hyper.learning_starts)}
        return Params(
            self.version, self.lane_steps, {"flat": flat, **self.units, **self.seen}, scalars
        )

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the latest batch; waits for the device."""
        return read_metrics({**self._metrics, **self._of_policy}, 1.0)

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
            "of_policy": dict(self._of_policy),
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
        self._metrics, self._of_policy = (
            {name: torch.as_tensor(v) for name, v in state[key].items()}
            for key in ("metrics", "of_policy")
        )
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
        self._metrics, self._of_policy = (
            {name: value[kept] for name, value in metrics.items()}
            for metrics in (self._metrics, self._of_policy)
        )
        self.generators = [self.generators[k] for k in kept]
        self.replay.keep(kept)
        if self.statistics is not None:
            self.statistics.keep(kept)
            self.seen = self._seen()
