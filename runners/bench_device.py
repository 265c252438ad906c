"""``python -m runners.bench --device cuda|cpu``: where a run's time goes, and how long a GPU idles.

Each loop is timed as it is, in turns and with rollouts beside the learner. On a GPU ``learn`` is the time
that the host needs to start kernels, and to wait where it must.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from envs.contract import UnsupportedEnv
from runners.measure import Loop, Row
from runners.timing import Part, Times, shares, time_sampling

if TYPE_CHECKING:
    from agents.device.busy import Busy
    from runners.config import RunConfig

TOLD: tuple[Part, ...] = ("simulate", "act", "transfer", "sample", "learn", "wait", "other")
GAME = "ALE/Breakout-v5"
WARM_UP = 1_000  # lane steps before the first gradient step


def device(kind: str, seconds: float, env: str = GAME) -> Iterator[Row]:
    """The table of ``pqn`` and ``dqn`` on a game, or on CartPole where games are not installed."""
    try:
        configs = list(_configs(kind, env))
    except UnsupportedEnv:
        configs = list(_configs(kind, "CartPole-v1"))
    if kind == "cuda":
        import torch

        from agents.device.machine import name

        yield Row(name(torch.device(kind)), "", "")
    for config in configs:
        yield from _table(config, seconds)


def _configs(kind: str, env: str) -> Iterator[RunConfig]:
    import envs
    from runners.resolve import make_config

    envs.resolve_backend(env, "auto")
    recorded = {"device": kind, "compile": kind == "cuda", "steps": 10**7}
    lanes = 128 if kind == "cuda" else 16  # a core has enough of these
    for lag in (0, 1):
        yield make_config("pqn", env, lanes=lanes, rollout_length=16, lag=lag, **recorded)
        yield make_config(
            "dqn", env, learning_starts=WARM_UP, replay_size=50_000, lag=lag, **recorded
        )


def _table(config: RunConfig, seconds: float) -> Iterator[Row]:
    """Lane steps a second, and each part's share of the wall time."""
    with contextlib.closing(Loop(config, 1)) as loop:
        times, busy = loop.source.times, _busy(loop)
        rows = config.lanes * config.rollout_length
        with time_sampling(loop.learner.replay, times), feeding(loop.learner, times):
            _turn(loop, times, -(-2 * WARM_UP // rows) + 4)
            if busy:
                busy.take()
            times.take()
            times.start()
            start, rollouts = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                _turn(loop, times, 1)
                rollouts += 1
            working = busy.take() if busy else 0.0
            wall = time.perf_counter() - start
    how = "rollouts beside the learner" if config.lag else "in turns"
    rate = f"{rollouts * rows / wall:,.0f} lane steps/s"
    yield Row(f"{config.agent} on {config.env}, {config.lanes} lanes, {how}", rate, "")
    found = shares(times.seconds, wall)
    for part in TOLD:
        if part in found or part not in ("wait", "other"):
            spent = times.seconds[part] / rollouts
            share, each = f"{found.get(part, 0.0):.1%}", f"{spent * 1e3:.2f} ms a rollout"
            yield Row(f"  {part}", share, each)
    if busy:
        yield Row("  the GPU idles, at least", f"{max(0.0, 1 - working / wall):.1%}", "")


def _turn(loop: Loop, times: Times, rollouts: int) -> None:
    """The loop of `runners.loop`, with laps where it has none."""
    learner: Any = loop.learner
    for _ in range(rollouts):
        rollout = loop.source.next(loop.plan())
        times.lap("other")
        learner.observe(rollout)
        for _ in range(learner.updates_due()):
            learner.update()
        times.lap("learn")
        loop.source.publish(learner.params())
        times.lap("transfer")


@contextlib.contextmanager
def feeding(learner: Any, times: Times) -> Iterator[None]:
    """Meanwhile what a learner hands to its device is a lap of its own, as sampling is."""
    feed, names = learner.feed, ("batch", "move")

    def timed(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def lapped(given: Any) -> Any:
            times.lap("learn")
            moved = work(given)
            times.lap("transfer")
            return moved

        return lapped

    for name in names:
        setattr(feed, name, timed(getattr(feed, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(feed, name)


def _busy(loop: Loop) -> Busy | None:
    """What counts a GPU's work: gradient steps, taking in rollouts, acting."""
    from agents.device.busy import Busy
    from agents.device.machine import machine_of

    learner: Any = loop.learner
    machine = machine_of(learner.device)
    if machine is None:
        return None
    busy = Busy(machine)

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def piece(*given: Any) -> Any:
            with busy.piece():
                return work(*given)

        return piece

    learner.step = counted(learner.step)
    if learner.replay is None:  # which makes targets of the whole rollout
        learner.observe = counted(learner.observe)
    worker: Any = getattr(loop.source, "worker", None)
    for actor in worker.actors.values() if worker else ():
        if getattr(actor, "bridge", None) and actor.bridge.machine:
            actor.bridge.crossed = _crossing(actor.bridge.crossed, busy)
    return busy


def _crossing(crossed: Callable[[], Any], busy: Busy) -> Callable[[], Any]:
    @contextlib.contextmanager
    def counted() -> Iterator[None]:
        with crossed(), busy.piece():
            yield

    return counted
