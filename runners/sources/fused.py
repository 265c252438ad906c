"""A tabular agent on an array MDP in one compiled loop: act, step, learn, write the row.

The source is built with its learner, whose tables it updates; `next` returns ordinary rows and the
learner's `observe` only counts them. The rows, and the tables after them, are those of the local
source at rollouts of one row: same generators, same draws, same arithmetic.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from agents.contract import Array, Params, Rollout, State
from agents.tabular import TabularLearner
from agents.tabular_kernels import DOUBLE_Q, UCB, choose, learn_row, linear
from agents.tabular_rules import count_visits, learn_further
from envs.contract import VectorSimulator
from envs.kernel import kernel
from envs.tabular import TabularVectorEnv, sample_reset, sample_step
from runners import seeding
from runners.seeding import Stream
from runners.sources import Plan
from runners.timing import Times


class FusedSource:
    """K seeds, each one block of n lanes; the seeds run side by side in threads."""

    resumable = True
    pending = replaced = 0

    def __init__(
        self,
        seeds: Sequence[int],
        simulators: Sequence[VectorSimulator],
        learner: TabularLearner,
        max_rows: int,
        threads: int,
        times: Times | None = None,
    ) -> None:
        """Take over ``simulators[k]``, reset them, and learn in place of ``learner``."""
        self.learner = learner
        learner.fused = True
        self.seeds = list(seeds)
        self.simulators = [_tabular(env) for env in simulators]
        self.generators = [seeding.generator(seed, Stream.ACTOR, 0) for seed in seeds]
        self.lanes = self.simulators[0].num_envs
        self.max_rows, self.version = max_rows, 0
        self.times = times or Times()
        self.pool = ThreadPoolExecutor(threads)
        self._allocate()
        for k, env in enumerate(self.simulators):
            self.obs[k, 0], _ = env.reset()
        self.first[:, 0] = True

    def _allocate(self) -> None:
        """Seed-major, so that a seed's rows are contiguous and no two threads share a cache line."""
        rows, shape = self.max_rows, (len(self.simulators), self.lanes)
        self.obs = np.zeros((shape[0], rows + 1, shape[1]), np.int64)
        self.first = np.zeros((shape[0], rows + 1, shape[1]), np.bool_)
        self.action = np.zeros((shape[0], rows, shape[1]), np.int64)
        self.reward = np.zeros((shape[0], rows, shape[1]))
        self.terminated = np.zeros((shape[0], rows, shape[1]), np.bool_)
        self.truncated = np.zeros((shape[0], rows, shape[1]), np.bool_)
        self.newest = 0

    def publish(self, params: Params) -> None:
        """Nothing to do: the kernel acts by the learner's own tables."""
        self.version = params.version

    def next(self, plan: Plan) -> Rollout:
        """Run and learn the next rows."""
        self.times.lap("other")
        seeds = range(len(self.simulators))
        if len(seeds) == 1:
            self._run(0, plan.rows)
        else:
            list(self.pool.map(lambda k: self._run(k, plan.rows), seeds))
        self.newest = plan.rows
        rollout = self._rollout(plan.rows)
        self.times.lap("fused")
        return rollout

    def _run(self, k: int, rows: int) -> None:
        """One seed's rows, in a kernel that holds no lock."""
        learner, env = self.learner, self.simulators[k]
        self.obs[k, 0], self.first[k, 0] = self.obs[k, self.newest], self.first[k, self.newest]
        _run_rows(learner.config.rule, learner.explore)(
            rows, learner.config.numbers(), learner.config.schedule(),
            learner.tally.lane_steps, env.tables, env.np_random, self.generators[k], env.state, env.elapsed,
            env.done, learner.q[k], learner.visits[k], learner.remembered(k), learner.coins(k, rows),
            learner.tally.sums[k],
            self.obs[k], self.first[k], self.action[k], self.reward[k],
            self.terminated[k], self.truncated[k],
        )  # fmt: skip

    def _rollout(self, rows: int) -> Rollout:
        def time_major(column: Array, length: int) -> Array:
            return column[:, :length].swapaxes(0, 1).reshape(length, -1)

        return Rollout(
            obs=time_major(self.obs, rows + 1),
            first=time_major(self.first, rows + 1),
            action=time_major(self.action, rows),
            reward=time_major(self.reward, rows),
            terminated=time_major(self.terminated, rows),
            truncated=time_major(self.truncated, rows),
            version=self.version,
        )

    def state_dict(self) -> State:
        return {
            "obs": self.obs[:, self.newest],
            "first": self.first[:, self.newest],
            "generators": [generator.bit_generator.state for generator in self.generators],
            "simulators": {str(k): env.get_state() for k, env in enumerate(self.simulators)},
            "version": self.version,
        }

    def load_state_dict(self, state: State) -> None:
        self.newest = 0
        self.obs[:, 0], self.first[:, 0] = state["obs"], state["first"]
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        for k, env in enumerate(self.simulators):
            env.set_state(state["simulators"][str(k)])
        self.version = state["version"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        kept = list(seeds)
        obs, first = self.obs[kept, self.newest], self.first[kept, self.newest]
        self.seeds = [self.seeds[k] for k in kept]
        self.simulators = [self.simulators[k] for k in kept]
        self.generators = [self.generators[k] for k in kept]
        self._allocate()
        self.obs[:, 0], self.first[:, 0] = obs, first

    def close(self) -> None:
        """Let go of the threads and the simulators."""
        self.pool.shutdown()
        for env in self.simulators:
            env.close()


def _tabular(env: VectorSimulator) -> TabularVectorEnv:
    if not isinstance(env, TabularVectorEnv):
        raise TypeError(f"a fused source steps arrays, not {type(env).__name__}")
    return env


@functools.cache
def _run_rows(rule: int, explore: int) -> Callable[..., None]:
    """The kernel of one rule and one way to explore, constants of it; see `agents.tabular_rules`."""

    @kernel()
    def run_rows(  # type: ignore[no-untyped-def]
        rows, numbers, schedule, lane_steps, tables, env_rng, actor_rng, state, elapsed, done,
        q, visits, memory, coins, sums, obs, first, action, reward, terminated, truncated,
    ):  # fmt: skip
        """The rows of one seed. Within a row: all lanes act, all step, all learn, as in the loop."""
        lr_start, lr_end, lr_steps, level_start, level_end, level_steps = schedule
        lanes = state.shape[0]
        for t in range(rows):
            level = linear(lane_steps, level_start, level_end, level_steps)
            lr = linear(lane_steps, lr_start, lr_end, lr_steps)
            for lane in range(lanes):
                explore_draw, action_draw = actor_rng.random(), actor_rng.random()
                action[t, lane] = choose(
                    explore, q, visits, obs[t, lane], level, explore_draw, action_draw
                )
            for lane in range(lanes):
                first[t + 1, lane] = done[lane]
                if done[lane]:
                    state[lane] = sample_reset(tables, env_rng)
                    elapsed[lane] = 0
                    reward[t, lane] = 0.0
                    ended, cut = False, False
                else:
                    successor, r, ended = sample_step(tables, env_rng, state[lane], action[t, lane])
                    state[lane] = successor
                    elapsed[lane] += 1
                    reward[t, lane] = r
                    cut = tables.time_limit > 0 and elapsed[lane] >= tables.time_limit
                done[lane] = ended or cut
                obs[t + 1, lane] = state[lane]
                terminated[t, lane], truncated[t, lane] = ended, cut
            if explore == UCB:
                count_visits(visits, t, obs, first, action)
            if rule <= DOUBLE_Q:
                learn_row(
                    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory,
                    numbers, lr, level, sums,
                )  # fmt: skip
            else:
                learn_further(
                    rule, explore, q, t, obs, first, action, reward, terminated, coins, memory,
                    numbers, lr, level, sums,
                )  # fmt: skip
            lane_steps += lanes

    return run_rows
