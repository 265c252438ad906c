"""Rollouts of Ray actors on this machine beside those of async worker processes, 564 KB each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from runners import ray_cluster
from runners.bench_pipeline import LANES, UNROLL, Timed, dqn
from runners.measure import Row, turns

WORKERS = 2


def beside_processes() -> Iterator[Row]:
    """Breakout with two workers of either kind: with a learner that learns, and with one that only takes."""
    # Ray's workers give way to all others, which tells of a busy machine, not of the way of a rollout
    os.environ.setdefault("RAY_worker_niceness", str(os.nice(0)))
    with ray_cluster.connected(ray_cluster.LOCAL):
        yield from _pair("DQN on Breakout", {})
        yield from _pair("Breakout, nothing is learned", {"learning_starts": 10**6})


def _pair(what: str, settings: dict[str, Any]) -> Iterator[Row]:
    asked = {"async_": True, "rollout_length": UNROLL, "block_size": LANES // WORKERS, **settings}
    processes, actors = (Timed(dqn(**asked, source=source), WORKERS) for source in ("local", "ray"))
    with closing(processes.loop), closing(actors.loop):
        theirs, ours = turns(processes, actors)
    against = f"async processes: {theirs:,.0f} steps/s"
    yield Row(f"{what}: {WORKERS} Ray actors", f"{ours:,.0f} steps/s", against, ours / theirs)
    here, there = (f"{one.handed_over / one.spent:.2%}" for one in (actors, processes))
    yield Row("handing over, of the learner's time", here, f"async processes: {there}")
