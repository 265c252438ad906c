"""How fast simulators are: bare engine, `envs.make` with each backend, and the rollout worker.

All of one family and one number of lanes are timed in turns, so that a busy machine slows each.
Each number is the median of ``ROUNDS`` turns of about ``SECONDS``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from envs.contract import Array

Engine = Callable[[int], None]
"""Steps all lanes so many times."""

LANES = (1, 8, 32, 128, 1_024)
SECONDS, ROUNDS = 0.4, 7
SCRIPT = 8  # rows of random actions that are played over and over


class Family(NamedTuple):
    """An id that stands for its family, and how its engine is stepped without this lab."""

    env_id: str
    bare: Callable[[str, int, Array], Engine] | None  # of id, lanes and actions [SCRIPT, N, ...]
    most_lanes: int = 1_024  # beyond this the lanes of all its backends fill the memory


class Speed(NamedTuple):
    """Steps a second of all lanes together."""

    env_id: str
    lanes: int
    what: str  # "bare", a backend, or "worker"
    rate: float


# -- Bare engines --------------------------------------------------------------------------------


def _gymnasium_vector(env_id: str, lanes: int, actions: Array) -> Engine:
    """Gymnasium's own vector class, as it is."""
    import gymnasium

    env = gymnasium.make_vec(env_id, lanes, vectorization_mode="vector_entry_point")
    env.reset(seed=0)

    def run(steps: int) -> None:
        for t in range(steps):
            env.step(actions[t % SCRIPT])

    return run


def _gymnasium_single(env_id: str, lanes: int, actions: Array) -> Engine:
    """One Gymnasium environment after the other as its package makes it, stepped by hand."""
    import gymnasium

    import envs

    envs.backends(env_id)  # registers it
    made = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(lanes)]
    for lane, env in enumerate(made):
        env.reset(seed=lane)

    def run(steps: int) -> None:
        for t in range(steps):
            row = actions[t % SCRIPT]
            for lane, env in enumerate(made):
                _, _, terminated, truncated, _ = env.step(row[lane])
                if terminated or truncated:
                    env.reset()

    return run


def _ale(env_id: str, lanes: int, actions: Array) -> Engine:
    """ALE's vector environment with the lab's settings, frames not stacked."""
    import os

    from ale_py import AtariVectorEnv

    from envs.atari import rom_of

    env = AtariVectorEnv(
        rom_of(env_id)[0], lanes, num_threads=min(lanes, os.cpu_count() or 1), stack_num=1,
        repeat_action_probability=0.25, reward_clipping=False, use_fire_reset=False,
        max_num_frames_per_episode=108_000,
    )  # fmt: skip
    env.reset(seed=0)

    def run(steps: int) -> None:
        for t in range(steps):
            env.step(actions[t % SCRIPT])

    return run


def _mujoco(env_id: str, lanes: int, actions: Array) -> Engine:
    """``mj_step`` alone, one MjData a lane, in this thread."""
    import mujoco

    import envs

    inner: Any = envs.scalar(env_id).unwrapped
    model, skip = inner.model, inner.frame_skip
    datas = [mujoco.MjData(model) for _ in range(lanes)]
    step = mujoco.mj_step

    def run(steps: int) -> None:
        for t in range(steps):
            row = actions[t % SCRIPT]
            for lane, data in enumerate(datas):
                data.ctrl[:] = row[lane]
                step(model, data, nstep=skip)

    return run


def _jax(env_id: str, lanes: int, actions: Array) -> Engine:
    """The compiled step of all lanes, each result awaited, nothing handed over."""
    import importlib

    import envs

    jax: Any = importlib.import_module("jax")  # parts of it have no types
    env: Any = envs.make(env_id, lanes, 0)
    made = env._compiled
    keys = np.stack([np.arange(lanes), np.arange(lanes)], axis=1).astype(np.uint32)
    state, _ = made.begin(keys)
    rows = [jax.device_put(row.astype(made.action_dtype)) for row in actions]

    def run(steps: int) -> None:
        nonlocal state
        for t in range(steps):
            state, seen = made.step(state, rows[t % SCRIPT])
            jax.block_until_ready(seen)

    return run


FAMILIES: dict[str, Family] = {
    "atari": Family("ALE/Breakout-v5", _ale),
    "mujoco": Family("HalfCheetah-v5", _mujoco),
    "native": Family("CartPole-v1", _gymnasium_vector),
    "classic": Family("Acrobot-v1", _gymnasium_single),
    "minatar": Family("MinAtar/Breakout", _jax),
    "grid": Family("MiniGrid-Empty-5x5-v0", _gymnasium_single),
    "memory": Family("popgym-RepeatPreviousEasy-v0", _gymnasium_single),
    "maze": Family("TMaze-v0", None),
    "control": Family("dm_control/cheetah-run-v0", _gymnasium_single, 32),
    "box2d": Family("LunarLander-v3", _gymnasium_single),
}


# -- Measuring -----------------------------------------------------------------------------------


def measure(
    family: Family, lanes: int, seconds: float = SECONDS, rounds: int = ROUNDS
) -> list[Speed]:
    """The family's speeds at a number of lanes: bare, every backend but async, and the worker."""
    import envs

    with ExitStack() as stack:
        backends = [name for name in envs.backends(family.env_id) if name != "async"]
        made = {}
        for backend in backends:
            env = envs.make(family.env_id, lanes, 0, backend)
            made[backend] = stack.enter_context(closing(env))
        script = _script(made[backends[0]])
        engines = {} if family.bare is None else {"bare": family.bare(family.env_id, lanes, script)}
        for backend, env in made.items():
            env.reset()
            engines[backend] = _stepping(env, script)
        engines["worker"] = _worker(stack, family.env_id, lanes, script)
        rates = _in_turns(engines, lanes, seconds, rounds)
    return [Speed(family.env_id, lanes, what, rate) for what, rate in rates.items()]


def _script(env: Any) -> Array:
    """[SCRIPT, N, ...] random actions."""
    env.action_space.seed(0)
    return np.stack([env.action_space.sample() for _ in range(SCRIPT)])


def _stepping(env: Any, script: Array) -> Engine:
    def run(steps: int) -> None:
        for t in range(steps):
            env.step(script[t % SCRIPT])

    return run


def _worker(stack: ExitStack, env_id: str, lanes: int, script: Array) -> Engine:
    """The rollout worker with the automatic backend and an actor that plays the script."""
    import envs
    from envs.contract import spec_of
    from runners.measure import ScriptedActor
    from runners.sources import Plan
    from runners.worker import RolloutWorker

    with closing(envs.make(env_id, 1, 0)) as probe:
        _, infos = probe.reset()
        spec = spec_of(probe, infos)
    worker = RolloutWorker(
        env_id, spec, [0], 1, lambda seed, _: envs.make(env_id, lanes, seed),
        lambda _: ScriptedActor(script), max_rows=SCRIPT, reward_dtype=np.float32,
    )  # fmt: skip
    stack.enter_context(closing(worker))

    def run(steps: int) -> None:
        for _ in range(-(-steps // SCRIPT)):
            worker.collect(Plan(SCRIPT, None), 0)

    return run


def _in_turns(
    engines: dict[str, Engine], lanes: int, seconds: float, rounds: int
) -> dict[str, float]:
    """The median rate of each, measured one after the other, several times over."""
    steps = {what: _enough(run, seconds) for what, run in engines.items()}
    rates: dict[str, list[float]] = {what: [] for what in engines}
    for _ in range(rounds):
        for what, run in engines.items():
            start = time.perf_counter()
            run(steps[what])
            rates[what].append(steps[what] * lanes / (time.perf_counter() - start))
    return {what: statistics.median(seen) for what, seen in rates.items()}


def _enough(run: Engine, seconds: float) -> int:
    """A multiple of the script's length that takes about so long."""
    run(1)  # compiles, allocates
    start = time.perf_counter()
    run(SCRIPT)
    return SCRIPT * max(1, round(seconds / max(time.perf_counter() - start, 1e-6)))


def measure_all(names: Sequence[str], lanes: Sequence[int] = ()) -> Iterator[list[Speed]]:
    """Family after family, from few lanes to many; what is not installed is passed over.

    Without ``lanes`` those of `LANES` that the family can bear.
    """
    from envs.contract import UnsupportedEnv

    for name in names:
        family = FAMILIES[name]
        for count in lanes or [n for n in LANES if n <= family.most_lanes]:
            try:
                yield measure(family, count)
            except UnsupportedEnv as error:
                yield [Speed(family.env_id, count, str(error), float("nan"))]
                break


# -- What is shown -------------------------------------------------------------------------------


def draw(speeds: list[Speed], path: Path) -> None:
    """A panel a family: steps a second over lanes, a line for each way to step them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ids = list(dict.fromkeys(speed.env_id for speed in speeds if speed.rate == speed.rate))
    columns = min(3, len(ids))
    rows = -(-len(ids) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, env_id in zip(axes, ids, strict=False):
        mine = [speed for speed in speeds if speed.env_id == env_id]
        for what in dict.fromkeys(speed.what for speed in mine):
            points = [(speed.lanes, speed.rate) for speed in mine if speed.what == what]
            style = {"bare": "k--"}.get(what, "o-")
            axis.loglog(*zip(*points, strict=True), style, label=what, markersize=4)
        axis.set_title(env_id, fontsize=10)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
        axis.set_xlabel("lanes")
        axis.set_ylabel("steps/s")
    for axis in axes[len(ids) :]:
        axis.set_axis_off()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path))
