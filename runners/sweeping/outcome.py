"""What a sweep came to: trials, best first; what mattered; the best settings on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from runners import stats
from runners.config import Json, to_json
from runners.sweeping.drive import Sweep
from runners.sweeping.halving import Fate
from runners.sweeping.importance import Importance, importances
from runners.sweeping.ledger import Result
from runners.sweeping.plan import BASE, Plan

Ended = Literal["done", "pruned", "failed", "timeout", "not trained"]


class Row(NamedTuple):
    """A trial and how it ended."""

    trial: int
    values: Mapping[str, Any]
    ended: Ended
    until: int  # lane steps that its score is of
    scores: tuple[float, ...]  # one a seed; empty where it has none
    seconds: float  # of all its processes
    why: str  # it failed

    @property
    def score(self) -> float:
        """The mean over its seeds; NaN where there is none."""
        return stats.mean(self.scores)


class Final(NamedTuple):
    """Settings on fresh seeds."""

    trial: int  # or BASE
    values: Mapping[str, Any]
    before: tuple[float, ...]  # scores in the sweep; empty of BASE
    scores: tuple[float, ...]  # on fresh seeds; empty where they could not be trained
    why: str

    @property
    def shrink(self) -> stats.Difference:
        """How much less it has on fresh seeds than it had in the sweep; NaN where one is missing."""
        return stats.unpaired_difference(self.before, self.scores)


class Found(NamedTuple):
    """All that a sweep has to say."""

    plan: Plan
    rows: list[Row]  # best first
    importances: list[Importance]
    compared_at: int  # lane steps of the scores that these are of
    best: Final | None  # None where there are no fresh seeds
    base: Final | None  # None too where the best settings are those that it began with
    difference: stats.Difference | None  # best minus base, seed by seed


def outcome(sweep: Sweep) -> Found:
    """Read what a sweep came to so far."""
    plan, fates = sweep.plan, sweep.fates()
    rows = [_row(sweep, trial, fate) for trial, fate in enumerate(fates)]
    best_first = sorted(rows, key=lambda row: (-row.until if row.scores else 1, -_or_zero(row)))
    finals = {trial: _final(sweep, trial) for trial in sweep.finalists()}
    base = finals.pop(BASE, None)
    best = next(iter(finals.values()), None)
    difference = None
    if best and base and best.scores and base.scores:
        difference = stats.paired_difference(best.scores, base.scores)
    first = [
        (sweep.values(trial), result.score)
        for trial in range(len(fates))
        if (result := sweep.result(trial, 0)) is not None and result.score is not None
    ]
    found = importances(plan.space, [v for v, _ in first], [s for _, s in first])
    return Found(plan, best_first, found, plan.rungs[0], best, base, difference)


def _or_zero(row: Row) -> float:
    return row.score if row.scores else 0.0


def _row(sweep: Sweep, trial: int, fate: Fate) -> Row:
    rungs = sweep.plan.rungs
    # with more trials than before it may have to end at a rung that it was beyond
    reached = range(fate.rung + 1)
    results = [r for i in reached if (r := sweep.result(trial, i)) is not None]
    done = [r for r in results if r.status == "done"]
    last = results[-1] if results else Result("", (), 0.0, 0, "")
    until = rungs[len(done) - 1] if done else 0
    scores = done[-1].scores if done else ()
    seconds = sum(result.seconds for result in results)
    return Row(trial, sweep.values(trial), _ended(fate, last), until, scores, seconds, last.why)


def _ended(fate: Fate, last: Result) -> Ended:
    match fate.state:
        case "failed":
            return "timeout" if last.status == "timeout" else "failed"
        case "done" | "pruned":
            return fate.state
    return "not trained"


def _final(sweep: Sweep, trial: int) -> Final:
    result = sweep.ledger.results.get(sweep.fresh_work(trial))
    before = sweep.result(trial, len(sweep.plan.rungs) - 1) if trial != BASE else None
    values = sweep.plan.base_values() if trial == BASE else sweep.values(trial)
    return Final(
        trial,
        values,
        before.scores if before else (),
        result.scores if result else (),
        result.why if result else "not trained",
    )


def record(found: Found) -> Json:
    """All of it as JSON values, as sweep.json has them."""
    plan = found.plan
    return {
        **plan.to_json(),
        "score": "mean over seeds of the final return",
        "rows": [
            {**row._asdict(), "score": row.score, "interval": stats.t_interval(row.scores)}
            for row in found.rows
        ],
        "importances": [one._asdict() for one in found.importances],
        "importances_at": found.compared_at,
        "best": _final_json(found.best),
        "as_set": _final_json(found.base),
        "difference": found.difference and found.difference._asdict(),
    }


def _final_json(final: Final | None) -> Json | None:
    if final is None:
        return None
    return {
        **final._asdict(),
        "sweep_score": stats.mean(final.before),
        "sweep_interval": stats.t_interval(final.before),
        "fresh_score": stats.mean(final.scores),
        "fresh_interval": stats.t_interval(final.scores),
        "shrink": final.shrink._asdict(),
    }


def best_config(found: Found) -> Json | None:
    """The best settings as a file that ``train --config`` takes; None where no trial was trained."""
    best = found.rows[0] if found.rows else None
    if best is None or best.ended != "done":
        return None
    return to_json(found.plan.config(best.values))
