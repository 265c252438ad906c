"""PQN: Q(λ) on many parallel lanes, without replay or target network.

Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning", arXiv:2407.04811, Algorithm 1.
LayerNorm takes the place of the target network. Each rollout's targets are computed once, with the
newest parameters, then fitted for a few epochs of shuffled minibatches.
Deviations: Adam for RAdam; truncation bootstraps from the true final observation; behind convolutions LayerNorm
takes a whole image with a gain for each of its numbers (theirs: the channels at each place); with a memory an LSTM
that sees no last action (theirs: a GRU that does), and targets that stay for the epochs of a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from agents import large_batch
from agents.contract import (
    Array,
    Batch,
    Draws,
    LossOut,
    Noise,
    NonFiniteLoss,
    Params,
    Reducer,
    Rollout,
    State,
    group_generators,
)
from agents.device import read_if_free
from agents.device.graph import GraphedStep, Step
from agents.device.homeward import Post
from agents.device.machine import machine_of
from agents.device.staging import Feed
from agents.exploration import linear
from agents.layers import NO_NOISE
from agents.learner import keep_seeds, read_metrics, share, td_quantiles
from agents.networks import FlatParameters, QNetwork, initialise
from agents.optimizer import FlatAdam
from agents.pqn_config import PQNConfig as PQNConfig
from agents.q_actor import QActor
from agents.replay.stack import stacks, stacks_there, visible
from agents.replay.view import lambda_view
from agents.rules import multistep, td
from agents.sequences import joined_blocks, pack, unrolled
from envs.contract import Spec

GROUP = 10  # seeds trained together
_TINY = torch.finfo(torch.float32).tiny


class PQNLearner:
    """Targets once a rollout, then epochs of minibatches; no memory between rollouts."""

    def __init__(
        self,
        config: PQNConfig,
        network: QNetwork,
        generators: Sequence[np.random.Generator],
        lanes: int,
    ) -> None:
        self.config, self.lanes = config, lanes
        self.generators = list(generators)
        self._compiled: Step | None = None
        self.reducer: Reducer | None = None
        self.scaling = large_batch.scaling_of(config, config.minibatch_size)
        self._adopt(network)
        self.updates = self.lane_steps = self.version = 0
        self._rows: dict[str, torch.Tensor] = {}  # of the newest rollout, each [K, T n, ...]
        self._pending: list[Array] = []  # minibatches still to be fitted, each [K, B] row numbers
        self._metrics: dict[str, torch.Tensor] = {}
        self._weight = torch.ones(len(self.generators), 1)  # of the rows behind the metrics
        self._memory: dict[
            str, torch.Tensor
        ] = {}  # before the rollout's first row, [K, n, ...] each
        self._frames = self._no_frames()  # of the rows before the next rollout's, and their `first`

    def _adopt(self, network: QNetwork) -> None:
        self.online = FlatParameters(network)
        self.network = network
        c = self.config
        rule = large_batch.RULES[c.optimizer]
        self.optimizer = FlatAdam(self.online, c.max_grad_norm, c.adam_eps, rule)
        self.optimizer.average = self.reducer.average if self.reducer else None
        self.device = self.online.flat.device
        self.feed, self.places = Feed(self.device), Feed(self.device)  # of rollouts, of minibatches
        self.post = Post(self.device)
        if self._compiled is not None:
            self.compile()

    def compile(self) -> None:
        """From now on take steps as one recorded graph, which is for GPUs."""
        machine = machine_of(self.device)
        assert machine is not None
        self._compiled = GraphedStep(self.eager, machine)

    def join(self, reducer: Reducer) -> None:
        """From now on be one of several learners with lanes of their own.

        Gradients are averaged over all before they are clipped: the step is that of one learner with all
        minibatches in one. The clock counts the lane steps of all.
        """
        self.reducer = reducer
        self.optimizer.average = reducer.average

    @property
    def learners(self) -> int:
        """How many learn together."""
        return self.reducer.learners if self.reducer else 1

    def _no_frames(self) -> dict[str, Array]:
        """Zeros [S-1, K, n, ...] where the network looks at S observations, S > 1."""
        if self.config.frame_stack == 1:
            return {}
        spec = self.network.spec
        shape = (self.config.frame_stack - 1, len(self.generators), self.lanes)
        obs = np.zeros((*shape, *spec.obs_shape), spec.obs_dtype)
        return {"obs": obs, "first": np.zeros(shape, np.bool_)}

    @property
    def replay(self) -> None:
        """None: nothing outlives a rollout."""
        return

    def observe(self, rollout: Rollout) -> None:
        """Compute the λ-returns of the rollout and shuffle its rows into minibatches."""
        seeds, rows = len(self.generators), rollout.rows
        self.lane_steps += rows * self.lanes * self.learners
        self.version += 1
        there = self.feed.move(self._columns(rollout))
        first = there["first"]
        obs = there["obs"] if "obs" in there else stacks_there(there["frames"], there["seen"])
        mask = there["mask"].flatten(1, 2) if "mask" in there else None
        self._memory = {n.removeprefix("m."): m for n, m in there.items() if n.startswith("m.")}
        with torch.no_grad():
            q = td.legal(self._values(obs, first), mask)
            v = q.amax(-1).view(seeds, rows + 1, self.lanes).transpose(0, 1)
        returns = multistep.lambda_returns(
            there["reward"], there["discount"], v[1:], there["trace"]
        )
        self._rows = {
            "obs": obs[:, :-1].flatten(1, 2),
            "action": there["action"].flatten(1, 2),
            "returns": returns.transpose(0, 1).flatten(1, 2),
            "weight": there["valid"].to(torch.float32).flatten(1, 2),
        }
        if self.network.memory is not None:
            self._rows["first"] = first[:, :-1].flatten(1, 2)
        self._pending = self._minibatches(rows)

    def _values(self, obs: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Action values [K, (T+1) n, A] of a whole rollout [K, T+1, n, ...]."""
        if self.network.memory is None:
            features = self.network.encode(obs.flatten(1, 2))
        else:
            features, _ = self.network.remember(obs, first, self._memory)
        return self.network.decode(features)

    def _stacked(self, rollout: Rollout) -> Array:
        """The observations [T+1, K n, ...], each with the frames before it where there is a stack."""
        if not self._frames:
            return rollout.obs
        columns = self._with_past(rollout)
        return stacks(columns["obs"], columns["first"], self.config.frame_stack)

    def _with_past(self, rollout: Rollout) -> dict[str, Array]:
        """Observations and ``first`` [S-1+T+1, K n, ...], those of the S-1 rows before among them."""
        columns, rows = {"obs": rollout.obs, "first": rollout.first}, rollout.rows
        for name, before in self._frames.items():
            now = columns[name]
            columns[name] = np.concatenate([before.reshape(len(before), *now.shape[1:]), now])
            # row T comes again, as row 0 of the next rollout
            kept = columns[name][rows : rows + len(before)]
            self._frames[name] = kept.reshape(before.shape).copy()
        return columns

    def _columns(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        """What is learned of a rollout, [K, T, n, ...] each; rewards, discounts and λ [T, K, n]; "m." memories."""
        columns = {
            **self._observed(rollout),
            "first": self._seed_major(rollout.first),
            "action": self._seed_major(rollout.action),
            "valid": self._seed_major(rollout.valid),
        }
        if (legal := rollout.facts.get("action_mask")) is not None:
            columns["mask"] = self._seed_major(legal != 0)
        memory = joined_blocks(rollout.actor_state)
        columns |= {f"m.{name}": torch.from_numpy(value) for name, value in memory.items()}
        return columns | self._view(rollout)

    def _observed(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        """Observations as the network takes them; where they travel single frames, to be stacked there."""
        if not self._frames or self.feed.staging is None:
            return {"obs": self._seed_major(self._stacked(rollout))}
        columns = self._with_past(rollout)
        seen = visible(columns["first"], self.config.frame_stack)
        return {"frames": self._seed_major(columns["obs"]), "seen": self._seed_major(seen)}

    def _seed_major(self, column: Array) -> torch.Tensor:
        """[T, K n, ...] to [K, T, n, ...], on the host."""
        shape = (column.shape[0], len(self.generators), self.lanes, *column.shape[2:])
        major = np.ascontiguousarray(column.reshape(shape).swapaxes(0, 1))
        return torch.from_numpy(major)

    def _view(self, rollout: Rollout) -> dict[str, torch.Tensor]:
        """What λ-returns are made of: rewards, discounts and λ [T, K, n]."""
        parts = lambda_view(rollout, self.config)
        shape = (-1, len(self.generators), self.lanes)
        return {name: torch.from_numpy(part).view(shape) for name, part in parts.items()}

    def _minibatches(self, time: int) -> list[Array]:
        """Shuffled numbers t n + lane, each epoch cut into whole minibatches; a remainder is left out.

        With a memory lanes are shuffled, and a minibatch is all rows of some, in order.
        """
        rows = time * self.lanes
        units, each = (rows, 1) if self.network.memory is None else (self.lanes, time)
        size = max(1, min(self.config.minibatch_size // each, units))
        within = np.arange(each)[:, None] * self.lanes  # 0 where a unit is a row
        minibatches = []
        for _ in range(self.config.epochs):
            order = np.stack([generator.permutation(units) for generator in self.generators])
            for i in range(0, units - size + 1, size):
                part = order[:, None, i : i + size] + within
                minibatches.append(part.reshape(len(order), -1))
        return minibatches

    def updates_due(self) -> int:
        """The minibatches of the rollout just observed."""
        return len(self._pending)

    def update(self) -> None:
        """Fit one minibatch.

        Raises:
            NonFiniteLoss: the loss was NaN or infinite; the parameters are spoilt.
        """
        batch = self._gather(self._pending.pop(0))
        total = self.step(batch, {})
        self.updates += 1
        if not math.isfinite(read_if_free(total)):
            raise NonFiniteLoss(self.updates, batch)

    def _gather(self, rows: Array) -> Batch:
        taken = self._take(self._rows, rows)
        obs, unused = taken["obs"], taken["returns"]  # the returns hold all else already
        extras = {"returns": taken["returns"]}
        if self.network.memory is not None:
            lanes = rows[:, rows[0] < self.lanes]  # of row 0
            shape = (len(rows), -1, lanes.shape[1])
            sequence = obs.view(*shape, *obs.shape[2:])
            first = taken["first"].view(shape)
            extras |= pack(sequence, first, self._take(self._memory, lanes))
            obs = torch.arange(rows.shape[1], device=self.device).expand(len(rows), -1)
        return Batch(
            obs, taken["action"], unused, unused, obs, weight=taken["weight"], extras=extras
        )

    def _take(self, columns: Mapping[str, torch.Tensor], index: Array) -> dict[str, torch.Tensor]:
        """Of columns [K, R, ...] what stands at [K, B] of the second axis."""
        length = next(iter(columns.values())).shape[1]
        flat = (index + np.arange(len(index))[:, None] * length).reshape(-1)
        at = self.places.move({"at": torch.from_numpy(flat)})["at"]
        return {
            name: column.flatten(0, 1)[at].view(*index.shape, *column.shape[2:])
            for name, column in columns.items()
        }

    def eager(
        self, batch: Batch, share: torch.Tensor, drawn: Draws, lr: float | torch.Tensor
    ) -> tuple[torch.Tensor, LossOut]:
        """One step down the gradient of ``sum(share * loss)``; that sum, and what the loss gave."""
        del drawn  # nothing is
        online = self.network
        prediction = online if online.memory is None else unrolled(online, batch, 0, NO_NOISE)
        out = self.config.loss(prediction, online, batch, {})
        return self.optimizer.step(out.loss, share, lr), out

    def step(self, batch: Batch, noise: Noise) -> torch.Tensor:
        """The part that runs on the device only. Ignored rows have weight 0. Returns the seeds' mean losses, summed."""
        del noise  # there is none
        c = self.config
        lr = linear(self.lane_steps, c.lr, c.lr_end, c.lr_steps)
        if self.scaling is not None:
            lr *= self.scaling.factor(self.lane_steps, self.learners)
        take = self._compiled or self.eager
        total, out = take(batch, share(batch), {}, lr)
        self._metrics = {"loss": out.loss.detach(), **out.metrics}
        self._weight = torch.ones_like(out.loss) if batch.weight is None else batch.weight
        return total

    def params(self) -> Params:
        """The parameters and ε at the clock."""
        c = self.config
        epsilon = linear(self.lane_steps, c.epsilon_start, c.epsilon_end, c.epsilon_steps)
        tensors = self.post({"flat": self.online.flat})
        return Params(self.version, self.lane_steps, tensors, {"epsilon": epsilon})

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows of the latest minibatch that count, 0 where none does.

        Waits for the device.
        """
        share = self._weight / self._weight.mean(-1, keepdim=True).clamp(min=_TINY)
        counted = {name: value * share for name, value in self._metrics.items()}
        return read_metrics(counted, self.config.reward_scale)

    def health(self) -> dict[str, torch.Tensor]:
        """[K] each: quantiles of the newest minibatch's TD errors. There is no target to drift from."""
        return td_quantiles(self._metrics, self.config.reward_scale, self._weight)

    def state_dict(self) -> State:
        """Taken between rollouts: all minibatches are fitted."""
        return {
            "online": self.online.flat,
            "optimizer": self.optimizer.state_dict(),
            "generators": [generator.bit_generator.state for generator in self.generators],
            "metrics": dict(self._metrics),
            "weight": self._weight,
            "frames": dict(self._frames),
            "updates": self.updates,
            "lane_steps": self.lane_steps,
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        self.online.flat.copy_(torch.as_tensor(state["online"]))
        self.optimizer.load_state_dict(state["optimizer"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self._metrics = {name: torch.as_tensor(v) for name, v in state["metrics"].items()}
        self._weight = torch.as_tensor(state["weight"])
        self._frames = dict(state["frames"])
        self.updates, self.lane_steps = state["updates"], state["lane_steps"]
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        before, kept = self.optimizer, list(seeds)
        network = keep_seeds(self.online, kept)
        assert isinstance(network, QNetwork)
        self._adopt(network)
        self.optimizer.keep_from(before, kept)
        self.generators = [self.generators[k] for k in kept]
        self._metrics = {name: value[kept] for name, value in self._metrics.items()}
        self._weight = self._weight[kept]
        self._frames = {name: frames[:, kept] for name, frames in self._frames.items()}


def make_network(config: PQNConfig, spec: Spec, seeds: int, device: torch.device) -> QNetwork:
    """The network of K seeds, not yet initialised."""
    return QNetwork(
        spec, seeds, config.hidden, layer_norm=config.layer_norm, dueling=False, device=device,
        frame_stack=config.frame_stack, memory=config.memory, memory_size=config.memory_size,
        bf16=config.bf16,
    )  # fmt: skip


def make_actor(config: PQNConfig, spec: Spec, generators: Sequence[np.random.Generator]) -> QActor:
    """An ε-greedy actor for as many seeds as there are generators."""
    return QActor(make_network(config, spec, len(generators), torch.device("cpu")), generators)


def make_learner(
    config: PQNConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> PQNLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each.

    The replay's generators shuffle the minibatches here: both decide what is learned from.
    """
    network = make_network(config, spec, len(learner_seeds), device)
    initialise(network, group_generators(learner_seeds, device))
    return PQNLearner(config, network, replay_generators, lanes)
