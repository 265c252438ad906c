"""The learner with a replay: sample, one gradient step, target network."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import nn

from agents.contract import (
    Array,
    Batch,
    Draws,
    Loss,
    LossOut,
    Network,
    Noise,
    NonFiniteLoss,
    Params,
    Reducer,
    Rollout,
    State,
)
from agents.device import priority_lag, read_if_free
from agents.device.graph import GraphedStep, Step
from agents.device.homeward import HostCopy, Post
from agents.device.machine import machine_of
from agents.device.staging import Feed
from agents.exploration import linear
from agents.networks import FlatParameters
from agents.optimizer import FlatAdam, Rule

if TYPE_CHECKING:  # a learner without replay shares this module and need not wait for numba
    from agents.large_batch import Scaling
    from agents.replay.ring import RingReplay
    from agents.replay.sequence import SequenceReplay


class ReplayHyper(Protocol):
    """The hyperparameters that any learner with a replay reads."""

    @property
    def lr(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def replay_ratio(self) -> float: ...
    @property
    def learning_starts(self) -> int: ...
    @property
    def n_step(self) -> int: ...
    @property
    def target_period(self) -> int: ...
    @property
    def target_tau(self) -> float: ...
    @property
    def reward_scale(self) -> float: ...
    @property
    def epsilon_start(self) -> float: ...
    @property
    def epsilon_end(self) -> float: ...
    @property
    def epsilon_steps(self) -> int: ...


TD_POINTS = {"td_p5": 0.05, "td_p50": 0.5, "td_p95": 0.95}
"""Quantiles of TD errors that tell of an agent's health."""


class NoiseSource(Protocol):
    """All that is random in a loss."""

    def draw(self, batch: Batch, generators: Sequence[torch.Generator]) -> Draws:
        """The numbers for a batch, each seed's from its own generator, on the batch's device."""

    def named(self, drawn: Draws) -> Noise:
        """What the loss takes of them; part of the step, so it reads nothing."""


DrawnLoss = Callable[[Network, Network, Batch, Draws], LossOut]


class Statistics(Protocol):
    """Running numbers of all that came, which the loss finds among each batch's extras."""

    def observe(self, rollout: Rollout, network: nn.Module) -> None:
        """Take in a rollout, as the online network sees it now."""

    def extras(self) -> dict[str, torch.Tensor]:
        """The numbers, ``[K, ...]`` each, on the learner's device."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...
    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""


class GradientLearner:
    """Q-learning from replay for a group of K seeds, with the agent's loss and network handed in.

    Update number u (from 1) belongs to lane step ``learning_starts + u / replay_ratio`` of each seed.
    Every schedule goes by that clock, so all seeds and all rollout lengths keep the same one.
    """

    def __init__(
        self,
        hyper: ReplayHyper,
        loss: Loss,
        network: nn.Module,
        replay: RingReplay | SequenceReplay,
        noise: NoiseSource | None = None,
        generators: Sequence[torch.Generator] = (),
        statistics: Statistics | None = None,
        rule: Rule | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        """``rule`` of a step, None: Adam's; ``scaling`` of the learning rate."""
        self.rule, self.scaling = rule, scaling
        self.hyper, self.replay, self.noise = hyper, replay, noise
        self.loss = _drawn(loss, noise)
        self.statistics = statistics
        self.generators = list(generators) if noise else []
        self._compiled: Step | None = None
        self.reducer: Reducer | None = None
        self._adopt(network, copy.deepcopy(network))
        self.updates = 0
        self.lane_steps = 0
        self.version = 0
        self._metrics: dict[str, torch.Tensor] = {}
        self._priority: torch.Tensor | None = None  # of the batch just learned, [K, B]
        self._waiting: list[tuple[Array, HostCopy]] = []  # to be written into the replay

    def _adopt(self, online: nn.Module, target: nn.Module) -> None:
        self.online, self.target = FlatParameters(online), FlatParameters(target)
        h = self.hyper
        self.optimizer = FlatAdam(self.online, h.max_grad_norm, h.adam_eps, self.rule)
        self.optimizer.average = self.reducer.average if self.reducer else None
        self.device = self.online.flat.device
        self.feed, self.post = Feed(self.device), Post(self.device)
        if self._compiled is not None:
            self.compile()

    def join(self, reducer: Reducer) -> None:
        """From now on be one of several learners, each with lanes, a replay and batches of its own.

        Gradients are averaged over all before they are clipped, and importance weights are over the largest
        of all batches: the step is that of one learner with all batches in one. The clock counts the lane
        steps of all.
        """
        self.reducer = reducer
        self.optimizer.average = reducer.average
        self.replay.lanes_of_all = self.replay.lanes * reducer.learners

    def compile(self) -> None:
        """From now on take steps as one graph: compiled on a CPU, recorded on a GPU."""
        if machine := machine_of(self.device):
            self._compiled = GraphedStep(self.eager, machine)
            return
        from agents.compiled import CompiledStep

        self._compiled = CompiledStep(self.loss, self.online, self.target, self.optimizer)

    def eager(
        self, batch: Batch, share: torch.Tensor, drawn: Draws, lr: float | torch.Tensor
    ) -> tuple[torch.Tensor, LossOut]:
        """One step down the gradient of ``sum(share * loss)``; that sum, and what the loss gave."""
        out = self.loss(self.online.network, self.target.network, batch, drawn)
        return self.optimizer.step(out.loss, share, lr), out

    def observe(self, rollout: Rollout) -> None:
        """Put the rows into the replay and move the clock on."""
        self.replay.add(rollout)
        if self.statistics:
            self.statistics.observe(rollout, self.online.network)
        self.lane_steps += rollout.rows * self.replay.lanes_of_all
        self.version += 1

    def updates_due(self) -> int:
        """By the clock; 0 while the replay has no row to learn."""
        due = updates_by(self.lane_steps, self.hyper) - self.updates
        return max(0, due) if self.replay.ready else 0

    def update(self) -> None:
        """One gradient step on one batch.

        Raises:
            NonFiniteLoss: the loss was NaN or infinite; the parameters are spoilt.
        """
        batch = self.feed.batch(self.replay.sample())
        total = self.step(batch, self.draw(batch))
        self.updates += 1
        if not math.isfinite(read_if_free(total)):
            raise NonFiniteLoss(self.updates, batch)
        if self._priority is not None and self.replay.priorities:
            self._waiting.append((self.replay.sampled.copy(), HostCopy(self._priority)))
            self._write_priorities(priority_lag(self.device))
        if self._target_is_due():
            self.target.flat.lerp_(self.online.flat, self.hyper.target_tau)

    def draw(self, batch: Batch) -> Draws:
        """All that is random in the step to come."""
        return self.noise.draw(batch, self.generators) if self.noise else {}

    def step(self, batch: Batch, drawn: Draws) -> torch.Tensor:
        """The part that runs on the device only: loss, gradient, optimizer. Returns the seeds' mean losses, summed."""
        if self.statistics:
            extras = {**batch.extras, **self.statistics.extras()}
            batch = dataclasses.replace(batch, extras=extras)
        if self.reducer and batch.weight is not None:
            heaviest = batch.extras["heaviest"]
            over_all = batch.weight * (heaviest / self.reducer.largest(heaviest))
            batch = dataclasses.replace(batch, weight=over_all)
        take = self._compiled or self.eager
        total, out = take(batch, share(batch), drawn, self._rate())
        self._metrics = {"loss": out.loss.detach(), **out.metrics}
        self._priority = out.priority
        return total

    def _rate(self) -> float:
        """The step size of the update to come; a warm-up begins with learning."""
        h, learners = self.hyper, self.reducer.learners if self.reducer else 1
        if self.scaling is None:
            return h.lr
        return h.lr * self.scaling.factor(self.updates / h.replay_ratio, learners)

    def _write_priorities(self, lag: int) -> None:
        """Into the replay, all but those of the newest ``lag`` updates."""
        while len(self._waiting) > lag:
            sampled, errors = self._waiting.pop(0)
            self.replay.set_priorities(sampled, errors.read())

    def _target_is_due(self) -> bool:
        """Whether this update's lane step is the first past a multiple of ``target_period``."""
        return self._periods(self.updates) > self._periods(self.updates - 1)

    def _periods(self, updates: int) -> float:
        """How many of ``target_period`` lane steps have gone by then."""
        h = self.hyper
        return (h.learning_starts + updates / h.replay_ratio) // h.target_period

    def params(self) -> Params:
        """The online parameters and ε at the clock."""
        h = self.hyper
        epsilon = linear(self.lane_steps, h.epsilon_start, h.epsilon_end, h.epsilon_steps)
        tensors = self.post({"flat": self.online.flat})
        return Params(self.version, self.lane_steps, tensors, {"epsilon": epsilon})

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the latest batch; waits for the device."""
        return read_metrics(self._metrics, self.hyper.reward_scale)

    def health(self) -> dict[str, torch.Tensor]:
        """[K] each: quantiles of the newest batch's TD errors, and how far the target has stayed behind."""
        drift = relative_distance(self.online.flat, self.target.flat)
        return {**td_quantiles(self._metrics, self.hyper.reward_scale), "target_drift": drift}

    def state_dict(self) -> State:
        self._write_priorities(0)
        return {
            "online": self.online.flat,
            "target": self.target.flat,
            "optimizer": self.optimizer.state_dict(),
            "replay": self.replay.state_dict(),
            "generators": [generator.get_state() for generator in self.generators],
            "statistics": self.statistics.state_dict() if self.statistics else {},
            "metrics": dict(self._metrics),
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        self.online.flat.copy_(torch.as_tensor(state["online"]))
        self.target.flat.copy_(torch.as_tensor(state["target"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.replay.load_state_dict(state["replay"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(torch.as_tensor(saved))
        if self.statistics:
            self.statistics.load_state_dict(state["statistics"])
        self._metrics = {name: torch.as_tensor(v) for name, v in state["metrics"].items()}
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self._write_priorities(0)
        before = self.optimizer
        kept = list(seeds)
        self._adopt(keep_seeds(self.online, kept), keep_seeds(self.target, kept))
        self.optimizer.keep_from(before, kept)
        self._metrics = {name: value[kept] for name, value in self._metrics.items()}
        self.generators = [self.generators[k] for k in kept] if self.generators else []
        self.replay.keep(kept)
        if self.statistics:
            self.statistics.keep(kept)


class Clock(Protocol):
    """When a learner with a replay learns."""

    @property
    def replay_ratio(self) -> float: ...
    @property
    def learning_starts(self) -> int: ...


def updates_by(lane_steps: int, clock: Clock) -> int:
    """Lane steps since ``learning_starts`` times ``replay_ratio``: the updates that are due by then."""
    return math.floor((lane_steps - clock.learning_starts) * clock.replay_ratio)


def _drawn(loss: Loss, noise: NoiseSource | None) -> DrawnLoss:
    """The loss, of numbers as they are drawn."""
    if noise is None:
        return lambda online, target, batch, _: loss(online, target, batch, {})
    return lambda online, target, batch, drawn: loss(online, target, batch, noise.named(drawn))


def share(batch: Batch) -> torch.Tensor:
    """[K, B] what each sample's loss counts: a mean over B, importance weights included."""
    if batch.weight is None:
        return _equal(batch.reward.shape, batch.reward.device)
    return batch.weight / batch.weight.shape[-1]


@functools.lru_cache
def _equal(shape: torch.Size, device: torch.device) -> torch.Tensor:
    """[K, B] all 1 / B; kept, for most updates ask for the same. Nobody writes to it."""
    return torch.full(shape, 1.0 / shape[-1], device=device)


def read_metrics(metrics: dict[str, torch.Tensor], reward_scale: float) -> dict[str, Array]:
    """Means [K] of per-sample metrics [K, B], of rows that are not NaN, 0 without any; all but the loss in raw reward units."""
    units = {name: 1.0 if name == "loss" else reward_scale for name in metrics}
    return {
        name: value.nanmean(-1)
        .nan_to_num(0.0, math.inf, -math.inf)
        .cpu()
        .numpy()
        .astype(np.float64)
        / units[name]
        for name, value in metrics.items()
    }


def td_quantiles(
    metrics: dict[str, torch.Tensor], reward_scale: float, weight: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The 5, 50 and 95 % points [K] of target - prediction over a batch, in raw reward units.

    Rows of weight 0 do not count; {} before the first update.
    """
    if not metrics:
        return {}
    errors = (metrics["target_mean"] - metrics["q_mean"]) / reward_scale
    if weight is not None:
        errors = errors.masked_fill(weight == 0, torch.nan)
    points = torch.tensor(list(TD_POINTS.values()), device=errors.device)
    return dict(zip(TD_POINTS, torch.nanquantile(errors, points, dim=-1), strict=True))


def relative_distance(online: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[K] ``|θ - θ⁻| / |θ⁻|`` of two flat buffers [K, D]."""
    behind, target_norm = (torch.linalg.vector_norm(x, dim=-1) for x in (online - target, target))
    distance: torch.Tensor = behind / target_norm
    return distance


def keep_seeds(parameters: FlatParameters, seeds: list[int]) -> nn.Module:
    """A copy of the network with only these seeds' parameters."""
    network = copy.deepcopy(parameters.network)
    for leaf in network.parameters():
        leaf.data = leaf.data[seeds].clone()
    return network
