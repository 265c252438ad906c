"""What every bench is made of: rates in turns, a row of a table, a loop without records."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from agents.contract import Learner
    from runners.config import RunConfig
    from runners.sources import Plan, Source

ROUNDS = 5


class Row(NamedTuple):
    """One figure and what it is compared with."""

    what: str
    figure: str
    against: str
    ratio: float | None = None


def turns(*works: Callable[[], float], rounds: int = ROUNDS) -> list[float]:
    """The median of each work's rates, the works taken in turns."""
    rates: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, seen in zip(works, rates, strict=True):
            seen.append(work())
    return [statistics.median(seen) for seen in rates]


def timed(work: Callable[[], Any], count: float) -> float:
    """``count`` a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


class Loop:
    """A learner and its source without records, evaluations or checkpoints."""

    def __init__(
        self, config: RunConfig, seeds: int, workers: int = 0, replay_device: str = "auto"
    ) -> None:
        from runners import group
        from runners.replay_place import place_of_replay

        setting = group.make_setting(config)
        setting.replay_device = place_of_replay(setting, seeds, replay_device)
        self.config = config
        self.learner: Learner = group.make_learner(setting, range(seeds))
        self.source: Source = group.make_source(setting, range(seeds), self.learner, workers)
        self.source.publish(self.learner.params())

    def run(self, rollouts: int) -> None:
        """The loop of `runners.loop`, for so many rollouts."""
        for _ in range(rollouts):
            self.learner.observe(self.source.next(self.plan()))
            for _ in range(self.learner.updates_due()):
                self.learner.update()
            self.source.publish(self.learner.params())

    def plan(self) -> Plan:
        """A run without an end: what may be begun ahead is."""
        from runners.sources import Plan

        plan = Plan(self.config.rollout_length, None)
        for _ in range(self.config.ahead):
            plan = plan._replace(following=plan)
        return plan

    def simulate(self, rollouts: int) -> None:
        """Rollouts alone."""
        for _ in range(rollouts):
            self.source.next(self.plan())

    def close(self) -> None:
        """End the source."""
        self.source.close()

    def update(self, times: int) -> None:
        """Updates alone."""
        for _ in range(times):
            self.learner.update()


class ScriptedActor:
    """Plays given actions [T, n] over and over, so that a worker's own cost shows."""

    stored = looks_back = False

    def __init__(self, actions: Any) -> None:
        self.actions, self.turn = actions, 0

    def initial_state(self, lanes: int) -> dict[str, Any]:
        """None."""
        del lanes
        return {}

    def act(self, obs: Any, first: Any, facts: Any, state: Any, explore: bool) -> Any:
        """The next actions [1, n]."""
        del obs, first, facts, explore
        self.turn += 1
        return self.actions[None, self.turn % len(self.actions)], state, {}

    def load_params(self, params: Any) -> None:
        """Nothing to load."""
