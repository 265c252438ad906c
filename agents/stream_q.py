"""Stream Q(λ): one update a step from what was just seen, without replay, batch or target network.

Elsayed, Vasan & Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works", arXiv:2410.14606,
with the settings of the authors' code (github.com/mohmdelsayed/streaming-drl, stream_q.py). Each step

    δ = r + γ maxₐ q(s', a) - q(s, a),    z ← γλ z + ∇q(s, a),    θ ← θ + α' δ z,

where α' is bounded by `agents.obgd`, rewards are scaled and observations normalised by `agents.running`, and
the network is `agents.stream_network`'s. The trace is forgotten after an action that is not greedy and
after an episode's end. Unlike Watkins's Q(λ), the δ of that action still goes to the pairs before it. Greedy
is what has the highest value when it is learned: with rollouts of one row, the values that were acted by.
Deviations: truncation bootstraps from the true final observation, and the time within the episode is no
part of the observation; finite states are one-hot and not normalised. Images go through the Nature network's strides
(theirs: 5, 3, 2), and nothing stacks frames.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from agents.contract import (
    Array,
    Batch,
    Noise,
    NonFiniteLoss,
    Params,
    Rollout,
    State,
    group_generators,
)
from agents.device import read_if_free
from agents.device.staging import Feed
from agents.exploration import epsilon_greedy, greedy, linear
from agents.hyper import Search, at_least, check, positive, unit
from agents.learner import keep_seeds, td_quantiles
from agents.networks import FlatParameters
from agents.obgd import ObGD
from agents.rules import td
from agents.running import RewardScale, Running, normalised
from agents.stream_network import StreamNetwork, sparse_initialise
from envs.contract import Spec

GROUP = 10  # seeds trained together
RECENT = 128  # rows that metrics and health are means and quantiles of


@dataclass(frozen=True)
class StreamQConfig:
    """Hyperparameters of stream Q(λ); all steps are lane steps of one seed."""

    lr: Annotated[float, positive(), Search("log", 0.1, 10.0)] = 1.0
    """α, the step size where the bound does not bite"""
    kappa: Annotated[float, positive(), Search("log", 1.0, 10.0)] = 2.0
    """κ of the bound: a step corrects at most about 1 / κ of the error"""
    gamma: Annotated[float, unit(), Search("linear", 0.95, 0.999)] = 0.99
    """discount per step"""
    lambda_: Annotated[float, unit(), Search("linear", 0.0, 0.95)] = 0.8
    """λ of the trace: 0 credits the last pair only"""
    epsilon_start: Annotated[float, unit()] = 1.0
    """share of random actions at the start"""
    epsilon_end: Annotated[float, unit()] = 0.01
    """share of random actions in the end"""
    epsilon_steps: Annotated[int, at_least(0)] = 25_000
    """lane steps over which it falls"""
    hidden: tuple[Annotated[int, at_least(1)], ...] = (32, 32)
    """widths of the hidden layers"""
    sparsity: Annotated[float, unit()] = 0.9
    """share of a unit's weights, rounded up, that are 0 at the start"""

    def __post_init__(self) -> None:
        check(self)


class StreamActor:
    """ε-greedy on a network and on observation statistics of its own, both as they were published."""

    stored = looks_back = False  # it has no state

    def __init__(self, network: StreamNetwork, generators: Sequence[np.random.Generator]) -> None:
        """An actor of as many seeds as there are generators."""
        self.parameters = FlatParameters(network)
        self.network = network.requires_grad_(False)
        self.generators = generators
        self.epsilon = 1.0
        shape = _normalised_shape(network.spec)
        self.mean = self.scale = np.zeros((len(generators), 1, *shape))
        self.unit = np.ones((len(generators), 1, 1), np.float32)

    def initial_state(self, lanes: int) -> State:
        """None: the observation is all there is."""
        del lanes
        return {}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for observations [K, n, ...]; legal ones where a mask is among the facts."""
        del first
        values, mask = self._scaled_values(obs), facts.get("action_mask")
        if explore:
            return epsilon_greedy(values, self.epsilon, self.generators, mask), state, {}
        return greedy(values, mask), state, {"seen": obs}

    def values(self, seen: Array) -> Array:
        """Action values [K, n, A] of observations, in raw reward units."""
        values: Array = self._scaled_values(seen) * self.unit
        return values

    def members(self, seen: Array) -> Array:
        """The same as [K, 1, n, A]: of an ensemble of one."""
        return self.values(seen)[:, None]

    def activations(self, seen: Array) -> list[Array]:
        """What every LeakyReLU gives, [K, n, units, ...] each, for observations."""
        with torch.inference_mode():
            found = self.network.activations(self._input(seen))
        return [layer.numpy() for layer in found]

    def _scaled_values(self, obs: Array) -> Array:
        with torch.inference_mode():
            values: Array = self.network(self._input(obs)).numpy()
        return values

    def _input(self, obs: Array) -> Tensor:
        if self.network.spec.num_states:
            return torch.from_numpy(obs)
        return torch.from_numpy(normalised(obs, self.mean, self.scale))

    def load_params(self, params: Params) -> None:
        """Copy the weights, and take the statistics and ε."""
        self.parameters.flat.copy_(params.tensors["flat"])
        self.mean, self.scale = (params.tensors[n].numpy()[:, None] for n in ("mean", "scale"))
        self.unit = params.tensors["unit"].numpy().astype(np.float32)[:, None, None]
        self.epsilon = params.scalars["epsilon"]


class StreamQLearner:
    """One update a row, in order of time; nothing is kept but the trace and running statistics."""

    def __init__(self, config: StreamQConfig, network: StreamNetwork) -> None:
        self.config = config
        self._adopt(network)
        seeds, spec = len(self.online.flat), network.spec
        self.observations = Running(seeds, _normalised_shape(spec))
        self.rewards = RewardScale(seeds, config.gamma)
        self.newest_first = np.zeros(seeds, np.bool_)  # `first` of the newest observation
        self.updates = self.lane_steps = self.version = 0
        self._batch: Batch | None = None  # the rollout just observed, to be learned
        self._recent: deque[Tensor] = deque(maxlen=RECENT)  # each [4, K]: q, target, weight, unit

    def _adopt(self, network: StreamNetwork) -> None:
        c = self.config
        self.network, self.online = network, FlatParameters(network)
        self.optimizer = ObGD(self.online, c.lr, c.kappa, c.gamma * c.lambda_)
        self.device = self.online.flat.device
        self.feed = Feed(self.device)

    @property
    def replay(self) -> None:
        """None: every row is learned once and forgotten."""
        return

    def observe(self, rollout: Rollout) -> None:
        """Take the rows into the statistics, and see them as they were at the time of each."""
        first, reward = rollout.first, rollout.reward.astype(np.float64)
        obs = self._normalise(rollout.obs, first)
        self.newest_first = first[-1].copy()
        unit = np.empty_like(reward)
        for t in range(rollout.rows):
            self.rewards.add(reward[t], rollout.done[t], rollout.valid[t])
            unit[t] = self.rewards.unit()
        mask = rollout.facts.get("action_mask")
        legal = None if mask is None else torch.from_numpy(mask.swapaxes(0, 1) != 0)
        batch = Batch(
            obs[:, :-1],
            torch.from_numpy(rollout.action.T.astype(np.int64)),
            _rows(reward / unit),
            _rows(self.config.gamma * ~rollout.terminated),
            obs[:, 1:],
            None if legal is None else legal[:, 1:],
            _rows(rollout.valid),
            {"unit": _rows(unit), "before": _rows(~first[:-1])},
            None if legal is None else legal[:, :-1],
        )
        self._batch = self.feed.batch(batch)
        self.lane_steps += rollout.rows
        self.version += 1

    def _normalise(self, obs: Array, first: Array) -> Tensor:
        """Observations [T+1, K, ...] as [K, T+1, ...], each by the statistics up to itself.

        Row 0 is known already, as the newest one of the rollout before, unless a lane starts anew.
        """
        if self.network.spec.num_states:
            return torch.from_numpy(obs.T.copy())
        seen = np.empty((obs.shape[1], obs.shape[0], *obs.shape[2:]), np.float32)
        counts = first[0] & ~self.newest_first
        for t, row in enumerate(obs):
            if counts.any():
                self.observations.add(row[None], counts[None])
            seen[:, t] = normalised(row, self.observations.mean, self._scale())
            counts = np.ones_like(counts)
        return torch.from_numpy(seen)

    def _scale(self) -> Array:
        """1 / the observations' standard deviations; 0 before there is one, for nothing is known then."""
        scale: Array = np.sign(self.observations.count) / self.observations.deviation()
        return scale

    def updates_due(self) -> int:
        """One call of `update` for each rollout."""
        return int(self._batch is not None)

    def update(self) -> None:
        """Learn the rows of the rollout, each in a gradient step of its own.

        Raises:
            NonFiniteLoss: a loss was NaN or infinite; the parameters are spoilt.
        """
        assert self._batch is not None
        batch, self._batch = self._batch, None
        total = self.step(batch, {})
        self.updates += batch.action.shape[1]
        if not math.isfinite(read_if_free(total)):
            raise NonFiniteLoss(self.updates, batch)

    def step(self, batch: Batch, noise: Noise) -> Tensor:
        """The part that runs on the device only: the rows [K, B] of a batch in order, one step each.

        Returns the sum of the losses ½δ².
        """
        del noise  # nothing is random
        total = torch.zeros((), device=self.device)
        for t in range(batch.action.shape[1]):
            total = total + self._learn_row(batch, t)
        return total

    def _learn_row(self, batch: Batch, t: int) -> Tensor:
        """The update of row t; on an ignored row δ is 0, and what it leaves in the trace is forgotten next."""
        weight, extras = batch.weight, batch.extras
        assert weight is not None
        pair = torch.cat((batch.obs[:, t : t + 1], batch.next_obs[:, t : t + 1]), 1)
        q_pair = self.network(pair)
        q_tm1 = td.select(q_pair[:, 0], batch.action[:, t])
        with torch.no_grad():
            q_t = td.legal(q_pair[:, 1], _row(batch.next_action_mask, t))
            goal = td.bootstrap(batch.reward[:, t], batch.discount[:, t], q_t.amax(-1))
            delta = (goal - q_tm1) * weight[:, t]
            best = td.legal(q_pair[:, 0], _row(batch.action_mask, t)).amax(-1)
            is_greedy = (q_tm1 >= best).to(torch.float32)  # so is each of several that are best
        before, unit = _row(extras.get("before"), t), _row(extras.get("unit"), t)
        one = torch.ones_like(delta)
        self.optimizer.step(q_tm1, delta, one if before is None else before, is_greedy)
        self._recent.append(
            torch.stack((q_tm1.detach(), goal, weight[:, t], one if unit is None else unit))
        )
        return 0.5 * delta.square().sum()

    def params(self) -> Params:
        """The weights, the statistics that observations and values are read with, and ε at the clock."""
        c = self.config
        epsilon = linear(self.lane_steps, c.epsilon_start, c.epsilon_end, c.epsilon_steps)
        tensors = {
            "flat": self.online.flat.clone(),
            "mean": torch.from_numpy(self.observations.mean),
            "scale": torch.from_numpy(self._scale()),
            "unit": torch.from_numpy(self.rewards.unit()),
        }
        return Params(self.version, self.lane_steps, tensors, {"epsilon": epsilon})

    def _measured(self) -> tuple[dict[str, Tensor], Tensor]:
        """Of the newest rows: what was measured in raw reward units, and their weights, [K, R] each."""
        if not self._recent:
            return {}, torch.ones(len(self.online.flat), 1)
        q, goal, weight, unit = torch.stack(tuple(self._recent), -1).unbind()
        loss = 0.5 * (goal - q).square()  # of what the learner sees
        q, goal = q * unit, goal * unit
        errors = (goal - q).abs()
        return {"loss": loss, "td_error": errors, "q_mean": q, "target_mean": goal}, weight

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the newest rows that count, 0 without any; waits for the device."""
        measured, weight = self._measured()
        share = weight / weight.sum(-1, keepdim=True).clamp(min=1.0)
        return {
            name: (value * share).sum(-1).cpu().numpy().astype(np.float64)
            for name, value in measured.items()
        }

    def health(self) -> dict[str, Tensor]:
        """[K] each: quantiles of the newest rows' TD errors. There is no target to drift from."""
        measured, weight = self._measured()
        return td_quantiles(measured, 1.0, weight)

    def state_dict(self) -> State:
        """Taken between rollouts: all rows are learned."""
        recent = {"rows": torch.stack(tuple(self._recent))} if self._recent else {}
        return {
            "online": self.online.flat,
            "optimizer": self.optimizer.state_dict(),
            "observations": self.observations.state_dict(),
            "rewards": self.rewards.state_dict(),
            "newest_first": self.newest_first,
            "recent": recent,
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        self.online.flat.copy_(torch.as_tensor(state["online"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.observations.load_state_dict(state["observations"])
        self.rewards.load_state_dict(state["rewards"])
        self.newest_first = state["newest_first"]
        self._recent.clear()
        for rows in state["recent"].values():
            self._recent.extend(torch.as_tensor(rows).to(self.device))
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        before, kept = self.optimizer, list(seeds)
        network = keep_seeds(self.online, kept)
        assert isinstance(network, StreamNetwork)
        self._adopt(network)
        self.optimizer.keep_from(before, kept)
        self.observations.keep(kept)
        self.rewards.keep(kept)
        self.newest_first = self.newest_first[kept]
        self._recent = deque((row[:, kept] for row in self._recent), RECENT)


def _rows(column: Array) -> Tensor:
    """[T, K] to [K, T] float32."""
    return torch.from_numpy(np.ascontiguousarray(column.T, np.float32))


def _row(column: Tensor | None, t: int) -> Tensor | None:
    """[K, T, ...] at t; None stays None."""
    return None if column is None else column[:, t]


def _normalised_shape(spec: Spec) -> tuple[int, ...]:
    """Of an observation's statistics; none where states are a finite set."""
    return () if spec.num_states else spec.obs_shape


def make_actor(
    config: StreamQConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> StreamActor:
    """An ε-greedy actor for as many seeds as there are generators."""
    network = StreamNetwork(spec, len(generators), config.hidden, torch.device("cpu"))
    return StreamActor(network, generators)


def make_learner(
    config: StreamQConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> StreamQLearner:
    """A learner for a group of K seeds of one lane each, which the run's configuration sees to."""
    del lanes, replay_generators
    network = StreamNetwork(spec, len(learner_seeds), config.hidden, device)
    sparse_initialise(network, group_generators(learner_seeds, device), config.sparsity)
    return StreamQLearner(config, network)
