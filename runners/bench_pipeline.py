"""One learner and where its rollouts come from: sources side by side, and what handing over costs.

``gymnasium.make("runners.bench_pipeline:Sleeps-v0")`` is a simulator in Python that sleeps 1 ms a step.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from runners.measure import Loop, Row, timed, turns
from runners.sources.shared import SharedBytes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from runners.config import RunConfig

GAME = "ALE/Breakout-v5"
LANES, UPDATE_EVERY, BATCH = 8, 4, 32
UNROLL = 10  # 8 lanes of as many frames are 564 KB
SECONDS = 6.0


class Sleeps(gymnasium.Env[Any, Any]):
    """Does nothing for a millisecond a step."""

    observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Nothing to see."""
        super().reset(seed=seed, options=options)
        return np.zeros(4, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        del action
        time.sleep(1e-3)
        return np.zeros(4, np.float32), 0.0, False, False, {}


gymnasium.register("Sleeps-v0", f"{__name__}:Sleeps")


def pipeline() -> Iterator[Row]:
    """Breakout by every source beside Stable-Baselines3; then what handing over costs."""
    yield from handing_over()
    yield from sleeping()
    yield from breakout()


def dqn(**settings: Any) -> RunConfig:
    from runners.resolve import make_config

    plain = {"double": False, "n_step": 1, "steps": 10**7, "replay_size": 20_000}
    asked = {
        "lanes": LANES, "rollout_length": 16, "replay_ratio": 1 / UPDATE_EVERY, "batch_size": BATCH,
        "learning_starts": 1_000,
    }  # fmt: skip
    return make_config("dqn", GAME, **{**plain, **asked, **settings})


class Timed:
    """A loop that learns already: its steps a second, and how much of the time it waits for rollouts."""

    def __init__(self, config: RunConfig, workers: int = 0) -> None:
        from runners.train import torch_set

        self.loop, self.rows = Loop(config, 1, workers), config.rollout_length * config.lanes
        self.setting = partial(torch_set, config.threads, config.fast_matmul)
        self.waited = self.spent = self.handed_over = 0.0
        collect = self.loop.source.next

        def clocked(plan: Any) -> Any:
            start = time.perf_counter()
            rollout = collect(plan)
            self.waited += time.perf_counter() - start
            return rollout

        self.loop.source.next = clocked  # type: ignore[method-assign]
        with self.setting():
            self.loop.run(-(-1_100 // self.rows) + 4)
        self.waited = 0.0

    def __call__(self) -> float:
        """Steps a second."""
        start, steps, before = time.perf_counter(), 0, self._transfer
        with self.setting():
            while time.perf_counter() - start < SECONDS:
                self.loop.run(1)
                steps += self.rows
        self.spent += time.perf_counter() - start
        self.handed_over += self._transfer - before
        return steps / (time.perf_counter() - start)

    @property
    def _transfer(self) -> float:
        """Seconds so far that went into handing over."""
        return self.loop.source.times.seconds["transfer"]

    @property
    def share(self) -> float:
        """Of the learner's time, in which it waits."""
        return self.waited / self.spent

    def updating(self) -> float:
        """Steps a second that the updates alone would allow."""
        with self.setting():
            return UPDATE_EVERY * timed(lambda: self.loop.update(60), 60)


def breakout() -> Iterator[Row]:
    """Steps a second of DQN on Breakout, by source, beside Stable-Baselines3 and beside the bound."""
    plain: dict[str, Any] = {}
    fast, low = {"compile": True, "fast_matmul": True}, {"bf16": True}
    half = {"block_size": LANES // 2}
    sources = {
        "local, lag 0": (Timed(dqn()), plain),
        "overlap, lag 1": (Timed(dqn(lag=1)), plain),
        "lockstep, 2 workers, lag 1": (Timed(dqn(lag=1, **half), 2), plain),
        "async, 2 workers, lag up to 4": (Timed(dqn(async_=True, max_lag=4, **half), 2), plain),
        "overlap, lag 1, compiled, fast products": (Timed(dqn(lag=1, **fast)), fast),
        "overlap, lag 1, bf16": (Timed(dqn(lag=1, **low)), low),
    }
    # loops of their own: updates out of turn would be owed less of later
    alone = [Timed(dqn(**settings)) for settings in (plain, fast, low)]
    simulator = alone[0].loop
    works: list[Callable[[], float]] = [
        _theirs(),
        lambda: timed(lambda: simulator.simulate(6), 6 * 16 * LANES),
        *(one.updating for one in alone),
        *(source for source, _ in sources.values()),
    ]
    try:
        theirs, simulating, *rates = turns(*works)
    finally:
        for one in (*alone, *(source for source, _ in sources.values())):
            one.loop.close()
    learning, ours = rates[: len(alone)], rates[len(alone) :]
    yield Row("Stable-Baselines3, 8 environments", f"{theirs:,.0f} steps/s", "")
    yield Row("simulating and acting alone", f"{simulating:,.0f} steps/s", "")
    names = ("", ", compiled, fast products", ", bf16")
    for name, updates in zip(names, learning, strict=True):
        yield Row(f"updates alone, one every 4 steps{name}", f"{updates:,.0f} steps/s", "")
    for (name, (source, settings)), rate in zip(sources.items(), ours, strict=True):
        figure = f"{rate:,.0f} steps/s, {source.share:.0%} waiting"
        yield Row(name, figure, f"Stable-Baselines3: {theirs:,.0f}", rate / theirs)
        updates = learning[[plain, fast, low].index(settings)]
        bound = min(simulating, updates)  # beside each other
        if name.startswith("local"):
            bound = 1 / (1 / simulating + 1 / updates)  # in turns
        yield Row("", "", f"bound: {bound:,.0f}", rate / bound)
    lockstep, _ = sources["lockstep, 2 workers, lag 1"]
    part = lockstep.handed_over / lockstep.spent
    yield Row("handing over, of the time in lockstep", f"{part:.2%}", "")
    yield Row("async", f"{ours[3]:,.0f} steps/s", f"lockstep: {ours[2]:,.0f}", ours[3] / ours[2])


def _theirs() -> Callable[[], float]:
    from gymnasium.wrappers import ReshapeObservation
    from stable_baselines3 import DQN
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

    import envs
    from envs.single import Single

    def game(seed: int) -> gymnasium.Env[Any, Any]:
        """The same emulator and pictures as ours: its own wrapper of Atari resizes with OpenCV, which is slower."""
        lane = Single(envs.make(GAME, 1, seed), None, 15)
        return ReshapeObservation(lane, (84, 84, 1))

    stacked = VecFrameStack(DummyVecEnv([partial(game, seed) for seed in range(LANES)]), 4)
    model = DQN(
        "CnnPolicy", stacked, buffer_size=20_000, learning_starts=1_000, batch_size=BATCH, train_freq=1,
        gradient_steps=LANES // UPDATE_EVERY, device="cpu",
    )  # fmt: skip
    model.learn(1_600)
    return lambda: timed(lambda: model.learn(800, reset_num_timesteps=False), 800)


# -- Handing over --------------------------------------------------------------------------------


def handing_over() -> list[Row]:
    """Filling, handing over and reading a rollout of 564 KB, against a bare copy of it."""
    size, slots, times = UNROLL * LANES * 84 * 84, 5, 2_000
    memory = SharedBytes(size * slots)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    filler = context.Process(target=_fill, args=(theirs, memory, size), daemon=True)
    filler.start()
    theirs.close()
    rollouts = memory.bytes.reshape(slots, size)
    seen = np.empty(size, np.uint8)

    def through() -> None:
        """As many ahead as an async worker may be."""
        for number in range(slots - 1):
            ours.send(number)
        for number in range(times):
            assert ours.recv() == number
            np.copyto(seen, rollouts[number % slots])
            if number + slots - 1 < times:
                ours.send(number + slots - 1)

    source = np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)

    def bare() -> None:
        for number in range(times):
            np.copyto(rollouts[number % slots], source)

    ours.send(0)
    ours.recv()
    rate, bound = turns(partial(timed, through, times), partial(timed, bare, times))
    ours.close()
    filler.join()
    memory.close()
    figure, against = f"{1e6 / rate:.0f} µs", f"bare copy: {1e6 / bound:.0f} µs"
    return [Row("fill, hand over, read 564 KB", figure, against, bound / rate)]


def _fill(pipe: Connection[int, int], memory: SharedBytes, size: int) -> None:
    """Fill a slot as often as asked."""
    rollouts = memory.bytes.reshape(-1, size)
    source = np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        np.copyto(rollouts[number % len(rollouts)], source)
        pipe.send(number)


def sleeping() -> Iterator[Row]:
    """Two workers against one on a simulator that sleeps 1 ms a step; nothing is learned."""
    from runners.resolve import make_config

    config = make_config(
        "dqn", "runners.bench_pipeline:Sleeps-v0", backend="sync", lanes=8, block_size=4, lag=1,
        learning_starts=10**6, steps=10**7, rollout_length=16,
    )  # fmt: skip
    with closing(Loop(config, 1, 1)) as one, closing(Loop(config, 1, 2)) as two:
        works = [partial(timed, partial(loop.run, 10), 10 * 16 * 8) for loop in (one, two)]
        rates = turns(*works)
    figure, against = f"{rates[1]:,.0f} steps/s", f"one worker: {rates[0]:,.0f}"
    yield Row("two workers, 1 ms a step", figure, against, rates[1] / rates[0])
