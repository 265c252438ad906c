"""The loop. Every agent, source and mode goes through these lines."""

from __future__ import annotations

from agents.contract import Learner
from runners.progress import Progress
from runners.sources import Source


def run_loop(source: Source, learner: Learner, progress: Progress) -> None:
    """Collect, learn and publish until every seed is done.

    ``progress`` cuts each rollout where the next evaluation, checkpoint or end of the run is due.
    """
    source.publish(learner.params())
    while (plan := progress.plan()) is not None:
        rollout = source.next(plan)
        learner.observe(rollout)
        for _ in range(learner.updates_due()):
            learner.update()
        source.publish(learner.params())
        progress.after(rollout)
