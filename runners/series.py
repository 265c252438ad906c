"""Runs that are set beside others: trained where they are not yet, and read for certain seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners import learning_curve
from runners.claims import Metric
from runners.config import RunConfig
from runners.console import Console
from runners.errors import BadInput
from runners.outcome import read_result
from runners.run_folder import Group, RunFolder
from runners.train import finished_run, run


class Trained(NamedTuple):
    """A finished run and what those of its seeds came to that were asked for."""

    folder: RunFolder
    seeds: Sequence[int]
    returns: NDArray[np.float64]  # [K] mean of a seed's last greedy episodes
    wall_s: float  # of these seeds: their share of the run's, by environment steps
    seconds_per_step: float  # wall seconds over environment steps of all seeds, of the whole run
    groups: Sequence[Group]  # the seeds that trained together


def train(
    config: RunConfig,
    seeds: Sequence[int],
    out: str,
    console: Console,
    stop_asked: Callable[[], int],
    title: str,
) -> Trained:
    """Train the seeds that are not trained yet, say so, and read what all of them came to."""
    done = finished_run(config, seeds, out)
    console.message(f"{title}: finished before" if done else title)
    folder = done or run(config, seeds, out, console=console, stop_asked=stop_asked)
    if not folder.curve.exists():
        learning_curve.draw_curve(folder)
    return read(folder, seeds)


def read(folder: RunFolder, seeds: Sequence[int]) -> Trained:
    """What the seeds of a finished run came to."""
    summary = folder.summary()
    assert summary is not None
    returns = np.array(scores(folder, seeds, "final_return"))
    seconds = summary["wall_s"] / summary["env_steps"] if summary["env_steps"] else 0.0
    results = [read_result(folder.seed_path(seed)) or {} for seed in seeds]
    wall_s = seconds * sum(result["env_steps"] for result in results)
    return Trained(folder, seeds, returns, wall_s, seconds, folder.groups())


def scores(folder: RunFolder, seeds: Sequence[int], metric: Metric) -> list[float]:
    """What each of the seeds of a finished run has come to.

    Raises:
        BadInput: there is no exact value of a policy, for the environment is no finite MDP.
    """
    found = []
    for seed in seeds:
        result = read_result(folder.seed_path(seed))
        assert result is not None
        if metric not in result and metric != "final_return":
            raise BadInput(f"{folder.name}: has no {metric}; claim its final_return")
        returns = float(np.mean(result["final_returns"]))
        found.append(returns if metric == "final_return" else float(result[metric]))
    return found
