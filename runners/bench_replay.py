"""What a replay holds and how fast it gives, beside Stable-Baselines3 and cpprb."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.contract import Array, Rollout
from agents.replay.ring import RingReplay
from agents.replay.stack import stacks
from envs.contract import Spec, UnsupportedEnv
from runners.measure import Row, timed, turns

GAME, LANES, ROWS = "ALE/Breakout-v5", 8, 2_500  # 20,000 transitions, of which SB3 makes 1.1 GB
STACK, BATCH = 4, 32
BATCHES = 200  # in a turn


def priorities() -> list[Row]:
    """Priorities of a million rows: update 32 and draw 32, beside cpprb where it is installed."""
    from agents.replay.prioritized import Priorities

    size, batch, times = 1_000_000, 32, 2_000
    ours = Priorities(1, size, 0.6, 0.4, 10**9)
    rng = np.random.default_rng(0)
    ours.load_state_dict({"leaves": rng.random((1, size)), "largest": np.ones(1)})
    errors, uniform = rng.random((times, batch)), rng.random((times, batch))
    places, weights = np.zeros(batch, np.int64), np.ones(batch, np.float32)

    def mine() -> None:
        for t in range(times):
            ours.draw(0, uniform[t], places)
            ours.weights(0, places, 0, weights)
            ours.set(0, places, errors[t])

    mine()
    works = [mine]
    try:
        import cpprb  # type: ignore[import-not-found]
    except ImportError:
        cpprb = None
    else:
        theirs = cpprb.PrioritizedReplayBuffer(size, {"x": {}}, alpha=0.6)
        for _ in range(size // 10_000):
            theirs.add(x=np.zeros(10_000), priorities=rng.random(10_000))

        def others() -> None:
            for t in range(times):
                theirs.update_priorities(theirs.sample(batch, beta=0.4)["indexes"], errors[t])

        works.append(others)
    microseconds = [1e6 / rate for rate in turns(*(partial(timed, work, times) for work in works))]
    against = f"cpprb: {microseconds[1]:.1f} µs" if cpprb else "cpprb is not installed"
    ratio = microseconds[1] / microseconds[0] if cpprb else None
    return [
        Row("draw 32 of 1 M by priority and update", f"{microseconds[0]:.1f} µs", against, ratio)
    ]


def frames() -> Iterator[Row]:
    """20,000 transitions of a game, 8 lanes, 84x84, stacks of 4: bytes of each, samples in batches of 32."""
    try:
        play = _play(ROWS)
    except UnsupportedEnv as error:  # a plug-in that need not be there
        yield Row(f"frames of a game: {error}", "", "")
        return
    held = [_ours(play, "none"), _ours(play, "lz4"), _sb3(play, False), _sb3(play, True)]
    held += _cpprb(play)
    rates = turns(*(partial(timed, store.batches, BATCHES * BATCH) for store in held))
    for store, rate in zip(held, rates, strict=True):
        figure = f"{store.bytes / (ROWS * LANES):,.0f} B each, {rate / 1e3:,.0f} k samples/s"
        if store is held[0]:
            yield Row(store.name, figure, "")
        else:
            against = f"{held[0].name}: {rates[0] / 1e3:,.0f} k samples/s"
            yield Row(store.name, figure, against, rate / rates[0])


def disk() -> Iterator[Row]:
    """The same replay with its full segments on disk, where the kernel has them in memory and where it has nothing."""
    try:
        play = _play(ROWS)
    except UnsupportedEnv as error:
        yield Row(f"frames on disk: {error}", "", "")
        return
    held = _ours(play, "none")
    with tempfile.TemporaryDirectory() as folder:
        ring = _shelved(play, Path(folder))
        cached, memory = turns(
            partial(timed, lambda: _sample(ring), BATCHES * BATCH),
            partial(timed, held.batches, BATCHES * BATCH),
        )
        against = f"{held.name}: {memory / 1e3:,.0f} k samples/s"
        yield Row(
            "frames on disk, all in the page cache",
            f"{cached / 1e3:,.1f} k samples/s",
            against,
            cached / memory,
        )
        cold = _cold(ring, Path(folder))
        yield Row(
            "frames on disk, none of it in memory",
            f"{cold / 1e3:,.1f} k samples/s",
            against,
            cold / memory,
        )


def _shelved(play: Rollout, folder: Path) -> RingReplay:
    from agents.replay.segments import SegmentFrames
    from runners.shelf import FileShelf

    ring = _ring(play, frames=partial(SegmentFrames, shelf=FileShelf(folder, [0])))
    _sample(ring, 1)
    return ring


def _sample(ring: RingReplay, batches: int = BATCHES) -> None:
    for _ in range(batches):
        ring.sample()


def _cold(ring: RingReplay, folder: Path, batches: int = 20) -> float:
    """Samples a second where each batch finds nothing of the files in memory."""
    seconds = 0.0
    for _ in range(batches):
        for part in ring.obs.full.values():  # type: ignore[union-attr]
            _mapping(part.array).madvise(mmap.MADV_DONTNEED)
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        ring.sample()
        seconds += time.perf_counter() - start
    return batches * BATCH / seconds


def _mapping(array: Any) -> mmap.mmap:
    """What an array's memory is."""
    while not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else array.base
    return array


class Store(NamedTuple):
    """A filled replay: its arrays' bytes, and what samples ``BATCHES`` batches from it."""

    name: str
    bytes: int
    batches: Callable[[], None]


def _play(rows: int) -> Rollout:
    """Random play."""
    import envs

    env, rng = envs.make(GAME, LANES, 0), np.random.default_rng(0)
    obs = np.empty((rows + 1, LANES, 84, 84), np.uint8)
    first = np.zeros((rows + 1, LANES), bool)
    action = rng.integers(env.single_action_space.n, size=(rows, LANES))  # type: ignore[attr-defined]
    reward = np.empty((rows, LANES), np.float32)
    terminated, truncated = (np.empty((rows, LANES), bool) for _ in range(2))
    obs[0], first[0] = env.reset()[0], True
    for t in range(rows):
        obs[t + 1], reward[t], terminated[t], truncated[t], _ = env.step(action[t])
        first[t + 1] = t > 0 and terminated[t - 1] | truncated[t - 1]
    env.close()
    return Rollout(obs, first, action, reward, terminated, truncated)


def _ours(play: Rollout, compression: str) -> Store:
    ring = _ring(play, compression=compression)
    name = "frames once" if compression == "none" else f"frames once, {compression}"
    return Store(name, ring.nbytes, lambda: _sample(ring))


def _ring(play: Rollout, **where: Any) -> RingReplay:
    spec = Spec(play.obs.shape[2:], play.obs.dtype, 0, 18)
    ring = RingReplay(
        spec, [np.random.default_rng(0)], LANES, capacity=ROWS * LANES, batch_size=BATCH, n_step=1,
        gamma=0.99, frame_stack=STACK, **where,
    )  # fmt: skip
    ring.add(play)
    return ring


def _sb3(play: Rollout, optimized: bool) -> Store:
    """Stable-Baselines3's, which keeps the stacks: of a row and its successor, or of a row alone."""
    from gymnasium import spaces
    from stable_baselines3.common.buffers import ReplayBuffer

    buffer = ReplayBuffer(
        ROWS * LANES, spaces.Box(0, 255, (STACK, 84, 84), np.uint8), spaces.Discrete(18), "cpu", LANES,
        optimize_memory_usage=optimized, handle_timeout_termination=not optimized,
    )  # fmt: skip
    seen = _stacked(play, 0)
    for t in range(ROWS):
        following = _stacked(play, t + 1)
        done = play.done[t]
        buffer.add(seen, following, play.action[t], play.reward[t], done, [{}] * LANES)
        seen = following
    arrays = [array for array in vars(buffer).values() if isinstance(array, np.ndarray)]

    def batches() -> None:
        for _ in range(BATCHES):
            buffer.sample(BATCH)

    name = "SB3, optimize_memory_usage" if optimized else "SB3"
    return Store(name, sum(array.nbytes for array in arrays), batches)


def _cpprb(play: Rollout) -> list[Store]:
    """cpprb's, where it is installed; its stacks share their frames, and its arrays can be told by memory alone."""
    try:
        import cpprb
    except ImportError:
        return []
    rows = len(play.reward)
    seen = np.ones(
        (rows + 1, 84, 84, STACK), np.uint8
    )  # of a lane; there before memory is looked at
    before = _resident()
    buffer = cpprb.ReplayBuffer(
        rows * LANES,
        {"obs": {"shape": seen.shape[1:], "dtype": np.uint8}, "act": {"dtype": np.int64}, "rew": {}, "done": {}},
        next_of="obs", stack_compress="obs",
    )  # fmt: skip
    for lane in range(LANES):  # its frames are shared along an episode
        for t in range(rows + 1):
            seen[t] = np.moveaxis(_stacked(play, t)[lane], 0, -1)
        for t in np.flatnonzero(play.valid[:, lane]).tolist():
            buffer.add(
                obs=seen[t], next_obs=seen[t + 1], act=play.action[t, lane], rew=play.reward[t, lane],
                done=play.terminated[t, lane],
            )  # fmt: skip
            if play.done[t, lane]:
                buffer.on_episode_end()
        buffer.on_episode_end()

    def batches() -> None:
        for _ in range(BATCHES):
            buffer.sample(BATCH)

    return [Store("cpprb, stack_compress", _resident() - before, batches)]


def _resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _stacked(play: Rollout, row: int) -> Array:
    """[n, S, 84, 84] the stacks of a row."""
    rows = np.maximum(np.arange(row - STACK + 1, row + 1), 0)  # the first row opens an episode
    result: Array = stacks(play.obs[rows], play.first[rows], STACK)[0]
    return result
