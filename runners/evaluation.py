"""Greedy episodes on simulators that nothing else steps, with seeds that nothing else draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np

from envs.contract import Array, SimulatorError, Spec, VectorSimulator, observation_facts
from runners import seeding
from runners.checked import CheckedSimulator, finite, making
from runners.journal import Block, Field, new_journal
from runners.journal import Purpose as For
from runners.seeding import Stream

if TYPE_CHECKING:
    from agents.contract import Actor, Params
    from runners.recorder import Recorder
    from runners.worker import MakeActor

MAX_LANES = 100
EPISODE_LIMIT = 1_000
"""Steps after which an evaluation ends an episode of an environment that has no limit itself."""


class Purpose(IntEnum):
    """What an evaluation is for: each has its own episodes."""

    SCHEDULED = 0
    CONFIRMATION = 1
    FINAL = 2
    BEST = 3
    COMMAND = 4
    SIMULATION = 5


class Evaluates(Protocol):
    """Whoever gives the returns of greedy episodes, as `Evaluator` does."""

    @property
    def regret(self) -> Callable[[Params], Array] | None:
        """What a policy loses, where that can be computed."""

    def returns(
        self,
        params: Params,
        seeds: Sequence[int],
        episodes: int,
        purpose: Purpose,
        number: int = 0,
        recorders: Sequence[Recorder] = (),
    ) -> Array:
        """Undiscounted returns [K, episodes] of the greedy policies."""

    def close(self) -> None:
        """Close the simulators."""


class Evaluator:
    """Evaluates groups of seeds, each on its own simulator; nothing is carried between calls."""

    def __init__(
        self,
        env_id: str,
        spec: Spec,
        make_simulator: Callable[[int], VectorSimulator],
        make_actor: MakeActor,
        time_limit: int | None,
        regret: Callable[[Params], Array] | None = None,
    ) -> None:
        """``make_simulator(lanes)`` is called when a seed is first evaluated with so many lanes.

        ``regret(params) -> [K]`` is there where what a policy loses can be computed exactly.
        """
        self.env_id, self.spec = env_id, spec
        self.make_simulator, self.make_actor = make_simulator, make_actor
        self.regret = regret
        self.limit = math.inf if time_limit else EPISODE_LIMIT
        self.simulators: dict[tuple[int, int], CheckedSimulator] = {}

    def returns(
        self,
        params: Params,
        seeds: Sequence[int],
        episodes: int,
        purpose: Purpose,
        number: int = 0,
        recorders: Sequence[Recorder] = (),
    ) -> Array:
        """Undiscounted returns [K, episodes] of the greedy policies.

        Every lane plays one episode a round (surplus lanes of the last one are not counted), so
        short episodes do not count more often than long ones. Seed k's episodes depend on (seed,
        purpose, number) alone. ``recorders``, one a seed, keep some of the first
        round.

        Raises:
            SimulatorError: a simulator raised, or returned a wrong shape, dtype or number.
        """
        actor = self.make_actor(
            [seeding.generator(s, Stream.EVALUATION, purpose, number) for s in seeds]
        )
        actor.load_params(params)
        count = -(-episodes // MAX_LANES)
        lanes = -(-episodes // count)
        rounds = [
            self._round(actor, seeds, lanes, purpose, number, i, () if i else recorders)
            for i in range(count)
        ]
        return np.concatenate(rounds, axis=1)[:, :episodes]

    def _round(
        self,
        actor: Actor,
        seeds: Sequence[int],
        lanes: int,
        purpose: Purpose,
        number: int,
        index: int,
        recorders: Sequence[Recorder],
    ) -> Array:
        """The first episode [K, lanes] of every lane after a reset."""
        envs = [self._simulator(i, lanes, seed) for i, seed in enumerate(seeds)]
        obs = np.zeros((len(seeds), lanes, *self.spec.obs_shape), self.spec.obs_dtype)
        observed: list[dict[str, Array]] = [{} for _ in seeds]
        for k, seed in enumerate(seeds):
            episode_seed = seeding.integer(seed, Stream.EVALUATION, purpose, number, index)
            obs[k], infos = envs[k].reset(0, episode_seed)
            observed[k] = observation_facts(infos)
        first = np.ones((len(seeds), lanes), np.bool_)
        totals = np.zeros((len(seeds), lanes))
        playing = np.ones((len(seeds), lanes), np.bool_)
        self._check_numbers(0, obs, totals)
        state = actor.initial_state(lanes)
        steps = 0
        while playing.any() and steps < self.limit:
            facts = {name: np.stack([of[name] for of in observed]) for name in observed[0]}
            actions, state, extras = actor.act(obs, first, facts, state, False)
            for k in np.flatnonzero(playing.any(axis=1)).tolist():
                if recorders:
                    recorders[k].before(extras, facts, k, playing[k])
                obs[k], reward, terminated, truncated, infos = envs[k].step(steps, actions[k])
                observed[k] = observation_facts(infos)
                np.add(totals[k], reward, out=totals[k], where=playing[k])
                if recorders:
                    recorders[k].after(reward, terminated, infos)
                playing[k] &= ~(terminated | truncated)
            self._check_numbers(steps, obs, totals)
            first[:] = False
            steps += 1
        return totals

    def _check_numbers(self, step: int, obs: Array, totals: Array) -> None:
        """Name the first lane of the first seed whose observation or reward is not finite."""
        if finite(obs) and finite(totals):
            return
        sound = np.asarray(np.isfinite(obs).reshape(*totals.shape, -1).all(axis=-1))
        k, lane = np.argwhere(~(sound & np.isfinite(totals)))[0].tolist()
        what = (
            "the reward is not finite" if sound[k, lane] else f"the observation is {obs[k, lane]}"
        )
        error = SimulatorError(self.env_id, lane, step, f"in an evaluation {what}")
        error.journal = self.simulators[k, len(totals[k])].journal
        raise error

    def _simulator(self, position: int, lanes: int, seed: int) -> CheckedSimulator:
        """The simulator of the seed that is now at this position of the group."""
        block = Block(lanes, 0, seed, purpose=For.EVALUATION)
        if (position, lanes) not in self.simulators:
            with making(self.env_id, block):
                env = self.make_simulator(lanes)
            journal = new_journal(block, self.spec.action_shape, self.spec.action_dtype)
            self.simulators[position, lanes] = CheckedSimulator(env, self.env_id, journal=journal)
        checked = self.simulators[position, lanes]
        assert checked.journal is not None
        checked.journal.header[Field.SEED] = seed
        return checked

    def close(self) -> None:
        """Close the simulators."""
        for checked in self.simulators.values():
            checked.env.close()
