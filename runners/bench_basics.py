"""``python -m runners.bench help worker frozenlake group solve``: the lab beside its own bare parts."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from runners.errors import BadInput, RunFailed
from runners.measure import Loop, Row, ScriptedActor, timed, turns

# -- Time until solved ---------------------------------------------------------------------------


def solve() -> list[Row]:
    """CartPole from process start to the last line, ten fresh seeds; then ten seeds at once."""
    importing = statistics.median(_seconds_of("-c", "import torch") for _ in range(3))
    rows = [Row("import torch, for comparison", f"{importing:.2f} s", "")]
    for agent in ("pqn", "dqn"):
        times = [_solve(agent, seed, 1) for seed in range(1000, 1010)]
        solved = [seconds for seconds, count in times if count]
        seconds = [t for t, _ in times]
        rows.append(
            Row(
                f"{agent}: one seed of CartPole-v1, a process each",
                f"{len(solved)} of 10 solved, median {statistics.median(seconds):.2f} s",
                f"slowest {max(seconds):.2f} s",
            )
        )
    seconds_all, count = _solve("pqn", 1000, 10)
    figure = f"{count} of 10 solved, {seconds_all:.1f} s"
    rows.append(Row("pqn: ten seeds in one process", figure, "process start to last line"))
    return rows


def _solve(agent: str, seed: int, seeds: int) -> tuple[float, int]:
    """Seconds of a whole training, and how many seeds it solved."""
    from runners.run_folder import RunFolder

    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable, "-m", "runners.train", agent, "--env", "CartPole-v1",
                "--until-solved", "--seed", str(seed), "--seeds", str(seeds), "--out", out,
                "--quiet",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RunFailed(f"{agent}, seed {seed}: {done.stderr.strip()}")
        from pathlib import Path

        summary = RunFolder(Path(done.stdout.strip())).summary() or {}
        return seconds, sum(at is not None for at in summary["solved_at"]["env_steps"])


# -- Groups of seeds -----------------------------------------------------------------------------


def group() -> list[Row]:
    """Updates of eight seeds together against one seed at a time (64x64, batch 64)."""
    from runners.resolve import make_config

    config = make_config(
        "dqn", "CartPole-v1", batch_size=64, n_step=1, layer_norm=False, double=False,
        replay_ratio=0.5, lanes=8, rollout_length=16, steps=10**6,
    )  # fmt: skip
    loops = {seeds: Loop(config, seeds) for seeds in (1, 8)}

    def updates(seeds: int) -> Callable[[], float]:
        loop = loops[seeds]
        loop.run(20)
        return lambda: timed(lambda: loop.update(300), 300 * seeds)

    one, eight = turns(updates(1), updates(8))
    return [
        Row(
            "dqn: 8 seeds in a group, seeds x updates a second",
            f"{eight:,.0f}", f"1 seed: {one:,.0f}", eight / one,
        )
    ]  # fmt: skip


# -- Tabular -------------------------------------------------------------------------------------


def frozenlake() -> list[Row]:
    """The fused source against the bare numba loop with the same draws, and two cores' worth."""
    try:
        from tests import reference
    except ImportError as error:
        raise BadInput(
            "frozenlake: compares with tests/reference.py; run it in a checkout"
        ) from error
    from envs.tabular import TabularVectorEnv
    from runners.resolve import make_config

    settings: dict[str, Any] = {
        "lr": 0.1, "lr_end": 0.1, "epsilon_start": 0.1, "epsilon_end": 0.1, "epsilon_steps": 0,
        "lanes": 1, "rollout_length": 16_384, "steps": 10**9,
    }  # fmt: skip
    config = make_config("q_learning", "FrozenLake8x8-v1", **settings)
    one, many = Loop(config, 1), Loop(config, 8)
    env: Any = TabularVectorEnv(one.source.simulators[0].mdp, 1, 0)  # type: ignore[attr-defined]
    q = np.zeros((env.mdp.num_states, env.mdp.num_actions))
    steps = 16_384 * 60
    bare_loop: Any = reference.fused_q_learning
    rngs = np.random.default_rng(1), np.random.default_rng(2)

    def bare() -> None:
        bare_loop(steps, env.tables, *rngs, q, 0.1, config.hyper.gamma, 0.1)

    one.run(1)
    many.run(1)
    bare()
    ours, bound, eight = turns(
        lambda: timed(lambda: one.run(60), steps),
        lambda: timed(bare, steps),
        lambda: timed(lambda: many.run(60), 8 * steps),
    )
    against = f"bare numba loop: {bound / 1e6:.1f} M"
    return [
        Row("q_learning on FrozenLake8x8, 1 seed", f"{ours / 1e6:.1f} M steps/s", against, ours / bound),
        Row("8 seeds", f"{eight / 1e6:.1f} M steps/s", f"1 seed: {ours / 1e6:.1f} M", eight / ours),
    ]  # fmt: skip


# -- The rollout worker --------------------------------------------------------------------------


def worker() -> list[Row]:
    """The worker around native CartPole at 1,024 lanes, against it bare; the same random actions."""
    import envs
    from envs.contract import spec_of
    from runners.sources import Plan
    from runners.worker import RolloutWorker

    lanes, length = 1_024, 16
    bare = envs.make("CartPole-v1", lanes, 0)
    bare.reset()
    actions = np.random.default_rng(0).integers(2, size=(length, lanes))
    worker = RolloutWorker(
        "CartPole-v1", spec_of(bare), [0], 1, lambda seed, _: envs.make("CartPole-v1", lanes, seed),
        lambda _: ScriptedActor(actions), max_rows=length, reward_dtype=np.float32,
    )  # fmt: skip

    def step_bare() -> None:
        for turn in range(20 * length):
            bare.step(actions[turn % length])

    def collect() -> None:
        for _ in range(20):
            worker.collect(Plan(length, None), 0)

    step_bare()
    collect()
    count = 20 * length * lanes
    ours, bound = turns(lambda: timed(collect, count), lambda: timed(step_bare, count), rounds=9)
    against = f"bare simulator: {bound / 1e6:.2f} M"
    return [
        Row("worker, CartPole, 1,024 lanes", f"{ours / 1e6:.2f} M steps/s", against, ours / bound)
    ]


def _seconds_of(*arguments: str) -> float:
    """How long a Python process takes, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - start


def help() -> list[Row]:
    """The help of the command line, which must not wait for torch."""
    ours, python = turns(
        lambda: _seconds_of("-m", "runners.train", "--help"),
        lambda: _seconds_of("-c", "import torch"),
    )
    return [Row("train --help", f"{ours:.2f} s", f"import torch: {python:.2f} s", ours / python)]
