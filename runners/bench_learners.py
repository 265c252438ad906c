"""Samples a second that several learners learn as one, beside one learner; a process of its own each.

``python -m runners.bench parallel`` has ``torchrun`` start this file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from runners.errors import RunFailed
from runners.measure import Row

if TYPE_CHECKING:
    from agents.learner import GradientLearner
    from runners.team import Team

LEARNERS, BATCH, ROUNDS, UPDATES = 2, 1_024, 5, 2
LIMIT = 900  # seconds for all of it
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def parallel() -> Iterator[Row]:
    """Two learners of DQN on images at batch 1,024 each, in turns with one of them alone."""
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(LEARNERS), "-m", "runners.bench_learners"],
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"parallel: {done.stderr.strip() or 'torchrun failed'}")
    rounds = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for number, one in enumerate(rounds, 1):
        yield _row(f"round {number}: {LEARNERS} learners, batch {BATCH:,} each", one)
    middle = {name: median(one[name] for one in rounds) for name in rounds[0]}
    ratio = median(one["together"] / one["alone"] for one in rounds)
    yield _row(f"median of {ROUNDS} rounds", middle)._replace(ratio=ratio)
    yield Row("averaging the gradient", f"{1e3 * middle['average']:.1f} ms", "of which waiting")


def _row(what: str, one: dict[str, float]) -> Row:
    together, alone = one["together"], one["alone"]
    against = f"one of them: {alone:,.0f}"
    return Row(what, f"{together:,.0f} samples/s", against, together / alone)


# -- What a learner does ---------------------------------------------------------------------------


def _learner() -> GradientLearner:
    """DQN with the Nature paper's network, on frames that were never played."""
    from runners.bench_family import pixel_learner

    return pixel_learner(batch_size=BATCH)


def _measure(learner: GradientLearner, team: Team) -> dict[str, Any]:
    """Updates a second of one learner alone, the others at rest; then of all as one."""
    found: dict[str, Any] = {}
    waited = [0.0]

    def timed_average(gradient: Any) -> None:
        start = time.perf_counter()
        team.average(gradient)
        waited[0] += time.perf_counter() - start

    for name in ("alone", "together"):
        learner.optimizer.average = timed_average if name == "together" else None
        team.gather(None)  # who is done rests, and nobody looks busy
        if name == "together":
            team.spread(learner.online.flat)  # all are here
        start = time.perf_counter()
        if team.first or name == "together":
            for _ in range(UPDATES):
                learner.update()
        seconds = time.perf_counter() - start
        learners = team.learners if name == "together" else 1
        found[name] = learners * UPDATES * BATCH / seconds
    return {**found, "average": waited[0] / UPDATES}


def main() -> None:
    """One learner of several; the first prints what was measured, a line a round."""
    import torch

    from runners.team import Team, place

    torch.set_num_threads(1)
    team, learner = Team(place()), _learner()
    learner.update()
    _measure(learner, team)
    for _ in range(ROUNDS):
        found = _measure(learner, team)
        if team.first:
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
    team.close()


if __name__ == "__main__":
    main()
