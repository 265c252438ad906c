"""Q-learning with UCB-Hoeffding: a table for each step of an episode, and a bonus for what is rare.

Jin, Allen-Zhu, Bubeck & Jordan 2018, "Is Q-learning provably efficient?", arXiv:1807.03765, Algorithm 1.
An episode has H steps and rewards are in [0, 1]; for the t-th visit of (s, a) at step h

    Q_h(s, a) ← (1 - α_t) Q_h(s, a) + α_t (r + V_{h+1}(s') + b_t)
    α_t = (H + 1) / (H + t),    b_t = c √(H³ ι / t),    ι = ln(S A T / p)
    V_h(s) = min(H, max_a Q_h(s, a)),    V_{H+1} = 0,    Q_h = H at first

and the policy is greedy. Its regret grows with √T (Theorem 1), where ε-greedy's may grow with T. Where
an episode goes on for more than H steps, step 1 follows step H: the theorem allows any start. Where one
is cut short, as at a forced reset, the value of the next step is what it expects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch

from agents import planning
from agents.contract import Array, Params, Rollout, State
from agents.exploration import greedy
from agents.hyper import Search, at_least, check, positive
from agents.tabular import by_seed, choose_legal, some_legal, two_draws
from agents.tabular_kernels import count
from agents.tally import Tally
from envs.contract import FiniteMDP, Spec
from envs.kernel import inlined, kernel

GROUP = 64  # seeds in one process


@dataclass(frozen=True)
class UCBHoeffdingConfig:
    """Hyperparameters of UCB-Hoeffding; all steps are lane steps of one seed."""

    horizon: Annotated[int, at_least(0)] = 0
    """H, steps of an episode; 0: the environment's time limit"""
    bonus: Annotated[float, at_least(0), Search("log", 1e-4, 1.0)] = 0.01
    """c, width of the bonus; theory knows only that some constant will do"""
    failure: Annotated[float, positive(1)] = 0.1
    """p, how likely the bounds may be to fail"""
    total_steps: Annotated[int, at_least(0)] = 0
    """T, lane steps that the bounds hold for; 0: all of the run"""
    reward_scale: Annotated[float, positive()] = 1.0
    """factor that brings rewards into [0, 1], for the learner only"""

    def __post_init__(self) -> None:
        check(self)

    def numbers(self, spec: Spec) -> Numbers:
        """What the kernel is told."""
        iota = math.log(spec.num_states * spec.num_actions * self.total_steps / self.failure)
        return Numbers(self.bonus * math.sqrt(self.horizon**3 * iota), float(self.reward_scale))


class Numbers(NamedTuple):
    """Of the update."""

    bonus: float  # c √(H³ ι): the bonus of a first visit
    reward_scale: float


@inlined()
def value_of(q, h, state, legal, t, lane):  # type: ignore[no-untyped-def]
    """``V_h(s) = min(H, max_a Q_h(s, a))`` over legal actions, ``V_{H+1} = 0``."""
    value = 0.0
    if h < q.shape[0]:
        value = -np.inf
        for a in range(q.shape[2]):
            if legal[t, lane, a]:
                value = max(value, q[h, state, a])
        value = min(value, float(q.shape[0]))
    return value


@kernel()
def learn_rows(  # type: ignore[no-untyped-def]
    q, visits, steps, obs, first, action, reward, terminated, legal, numbers, sums
):
    """Learn one seed's rows [T, n] in order of time, lane after lane (Algorithm 1, lines 6 to 9).

    Args:
        q: [H, S, A] float64, changed in place.
        visits: [H, S, A] int64, N_h(s, a), changed in place.
        steps: [n] int64, the step of the episode in which each lane is, from 0; changed in place.
        obs: [T+1, n] int64.
        first: [T+1, n] bool; row t is an ignored one where ``first[t + 1]``.
        action: [T, n] int64.
        reward: [T, n] float64, raw.
        terminated: [T, n] bool.
        legal: [T+1, n, A] bool.
        numbers: a `Numbers`.
        sums: [4] float64 of the metrics, see `tabular_kernels.count`.
    """
    horizon = q.shape[0]
    for row in range(reward.shape[0]):
        for lane in range(reward.shape[1]):
            if first[row, lane]:
                steps[lane] = 0
            if first[row + 1, lane]:
                continue
            h, s, a = steps[lane], obs[row, lane], action[row, lane]
            visits[h, s, a] += 1
            t = visits[h, s, a]
            goal = numbers.reward_scale * reward[row, lane] + numbers.bonus / np.sqrt(t)
            if not terminated[row, lane]:
                goal += value_of(q, h + 1, obs[row + 1, lane], legal, row + 1, lane)
            error = goal - q[h, s, a]
            q[h, s, a] += (horizon + 1.0) / (horizon + t) * error
            steps[lane] = (h + 1) % horizon
            count(sums, goal, error)


class UCBHoeffdingActor:
    """Takes the action whose bound is highest, ties at random while it learns, else to the lowest.

    Its state is the step of the episode in which each lane is.
    """

    stored = False  # the step follows from where episodes begin
    looks_back = True  # a value is of a step too

    def __init__(
        self, config: UCBHoeffdingConfig, spec: Spec, generators: Sequence[np.random.Generator]
    ) -> None:
        self.q = np.zeros((len(generators), config.horizon, spec.num_states, spec.num_actions))
        self.generators = generators

    def initial_state(self, lanes: int) -> State:
        """{"step": [K, n] int64}, from 0 on."""
        return {"step": np.zeros((len(self.generators), lanes), np.int64)}

    def act(
        self, obs: Array, first: Array, facts: Mapping[str, Array], state: State, explore: bool
    ) -> tuple[Array, State, dict[str, Array]]:
        """Actions [K, n] for states [K, n]."""
        step, mask = np.where(first, 0, state["step"]), facts.get("action_mask")
        values = self.q[np.arange(len(obs))[:, None], step, obs]
        state = {"step": (step + 1) % self.q.shape[1]}
        if not explore:
            return greedy(values, mask), state, {}
        draws = two_draws(self.generators, obs.shape[1])
        legal = np.ones(values.shape, np.bool_) if mask is None else mask
        return choose_legal(values, legal, 0.0, draws), state, {}

    def load_params(self, params: Params) -> None:
        """Copy the tables."""
        np.copyto(self.q, params.tensors["q"].numpy())


class UCBHoeffdingLearner:
    """The tables of K seeds; learns as it observes, so there is never an update due."""

    def __init__(self, config: UCBHoeffdingConfig, spec: Spec, lanes: int, seeds: int) -> None:
        self.config, self.numbers = config, config.numbers(spec)
        shape = (seeds, config.horizon, spec.num_states, spec.num_actions)
        self.q = np.full(shape, float(config.horizon))
        self.visits = np.zeros(shape, np.int64)
        self.steps = np.zeros((seeds, lanes), np.int64)
        self.tally = Tally(seeds, lanes)

    @property
    def updates(self) -> int:
        """Rows learned, a lane."""
        return self.tally.updates

    @property
    def replay(self) -> None:
        """None: every row is learned once and forgotten."""
        return

    def observe(self, rollout: Rollout) -> None:
        """Learn the rows."""
        all_legal = np.ones((*rollout.first.shape, self.q.shape[3]), np.bool_)
        columns = [
            by_seed(column, len(self.q))
            for column in (
                rollout.obs, rollout.first, rollout.action, rollout.reward, rollout.terminated,
                some_legal(rollout.facts.get("action_mask", all_legal)),
            )
        ]  # fmt: skip
        for q, visits, steps, obs, first, action, reward, terminated, legal, sums in zip(
            self.q, self.visits, self.steps, *columns, self.tally.sums, strict=True
        ):
            learn_rows(
                q, visits, steps, obs, first, action, reward, terminated, legal, self.numbers, sums
            )
        self.tally.observe(rollout)

    def updates_due(self) -> int:
        """None: `observe` has learned."""
        return 0

    def update(self) -> None:
        """Nothing is ever due."""

    def params(self) -> Params:
        """Copies of the tables; nothing is done at random, so ε is 0."""
        tensors = {"q": torch.from_numpy(self.q.copy())}
        return Params(self.tally.version, self.tally.lane_steps, tensors, {"epsilon": 0.0})

    def metrics(self) -> dict[str, Array]:
        """Means [K] over the rows learned since this was last asked for; the last ones without any."""
        scaled = self.tally.metrics()
        return {name: value / self.config.reward_scale for name, value in scaled.items()}

    def state_dict(self) -> State:
        return {
            "q": self.q,
            "visits": self.visits,
            "steps": self.steps,
            **self.tally.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.q[:], self.visits[:], self.steps[:] = state["q"], state["visits"], state["steps"]
        self.tally.load_state_dict(state)

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        self.q, self.visits, self.steps = self.q[kept], self.visits[kept], self.steps[kept]
        self.tally.keep(kept)


def regret(mdp: FiniteMDP, params: Params) -> Array:
    """What an episode of H steps loses by the policy that learns: V*_1 - V^π_1 at its start, exactly.

    Args:
        mdp: the task, of which the agent knows nothing.
        params: of K seeds.

    Returns:
        [K] float64, in raw reward units. Summed over the episodes of a run it is Jin et al.'s regret.
    """
    q = params.tensors["q"].numpy()
    best = q == q.max(axis=-1, keepdims=True)
    policy = best / best.sum(axis=-1, keepdims=True)  # ties at random
    lost: Array = planning.optimal_value(mdp, q.shape[1]) - planning.stepwise_value(mdp, policy)
    return lost


def make_actor(
    config: UCBHoeffdingConfig, spec: Spec, generators: Sequence[np.random.Generator]
) -> UCBHoeffdingActor:
    """An actor for as many seeds as there are generators."""
    return UCBHoeffdingActor(config, spec, generators)


def make_learner(
    config: UCBHoeffdingConfig,
    spec: Spec,
    lanes: int,
    learner_seeds: Sequence[np.random.SeedSequence],
    replay_generators: Sequence[np.random.Generator],
    device: torch.device,
) -> UCBHoeffdingLearner:
    """A learner for a group of K seeds of ``lanes`` lanes each; always on the CPU, in float64."""
    del replay_generators, device
    return UCBHoeffdingLearner(config, spec, lanes, len(learner_seeds))
