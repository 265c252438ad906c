"""What comparing takes: seeds side by side beside seeds in turn, jobs beside bare processes, figures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from runners.measure import Row, timed, turns

SEEDS, STEPS = 10, 5_120
TASKS, RESAMPLES = 57, 50_000
JOBS = 10


def comparing() -> Iterator[Row]:
    """Ten seeds of DQN on CartPole, what a supervised job costs, and a bootstrap as large as Atari's."""
    yield seeds_side_by_side()
    yield jobs()
    yield bootstrap()


def seeds_side_by_side() -> Row:
    """Both begin with nothing, and end with the same bits; the start of every process is in it."""
    from runners.compare import plan
    from runners.console import SilentConsole
    from runners.side_by_side import train

    def together(out: str) -> None:
        planned = plan(["dqn"], ["CartPole-v1"], STEPS, [], out)
        train(planned, range(SEEDS), out, 0, SilentConsole())

    def in_turn(out: str) -> None:
        command = [
            sys.executable,
            "-m",
            "runners.train",
            "dqn",
            "--steps",
            str(STEPS),
            "--out",
            out,
        ]
        for seed in range(SEEDS):
            alone = [*command, "--seed", str(seed), "--seeds", "1", "--quiet"]
            subprocess.run(alone, check=True, capture_output=True)

    seconds = []
    for work in (together, in_turn):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            work(out)
            seconds.append(time.perf_counter() - start)
    ours, theirs = seconds
    what = f"compare: {SEEDS} seeds of dqn, CartPole, {STEPS:,} steps"
    return Row(what, f"{ours:.1f} s", f"a process a seed in turn: {theirs:.1f} s", theirs / ours)


def jobs() -> Row:
    """A process that does nothing, supervised and not."""
    from runners.jobs import Job, run_jobs

    nothing = [sys.executable, "-c", ""]

    def supervised() -> None:
        with tempfile.TemporaryDirectory() as logs:
            run_jobs([Job(str(i), nothing) for i in range(JOBS)], 1, logs=Path(logs))

    def bare() -> None:
        for _ in range(JOBS):
            subprocess.run(nothing, check=True)

    ours, theirs = turns(partial(timed, supervised, JOBS), partial(timed, bare, JOBS))
    figure, against = f"{1e3 / ours:.0f} ms", f"a bare process: {1e3 / theirs:.0f} ms"
    return Row("a job that does nothing", figure, against, theirs / ours)


def bootstrap() -> Row:
    """Four figures of the same draws."""
    from runners.bootstrap import aggregates

    generator = np.random.default_rng(0)
    scores = {f"task {i}": generator.normal(size=SEEDS) for i in range(TASKS)}
    start = time.perf_counter()
    aggregates(scores, generator, resamples=RESAMPLES)
    seconds = time.perf_counter() - start
    what = f"bootstrap: {TASKS} tasks x {SEEDS} seeds x 4, {RESAMPLES:,} draws"
    return Row(what, f"{seconds:.2f} s", "")
