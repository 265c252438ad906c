"""Which trials go on: compared at equal lane steps, by the mean over the same seeds.

Both rules promote the best 1/η of those that they compare and know nothing of time, so that neither a
kill nor the number of processes changes who goes on.

* sha, successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943): at each rung all that got
  there are compared, once all of them have a score.
* asha (Li et al. 2020, arXiv:1810.05934, section 3): a trial is compared with those before it alone,
  and need not wait for those behind it. Deviation: there the trials that have ended so far are
  compared, whichever these are; here those of lower number, for which a trial waits. As in Optuna's
  SuccessiveHalvingPruner the first ones have little to beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from runners.sweeping.plan import ETA, Pruner

State = Literal["due", "waiting", "pruned", "failed", "done"]
Scores = Mapping[tuple[int, int], float | None]
"""(trial, rung) -> score; None where it failed there."""


class Fate(NamedTuple):
    """Where a trial stands."""

    state: State
    rung: int  # that it is to be trained to, waits at, or has come to

    @property
    def ended(self) -> bool:
        """Whether it will not go on."""
        return self.state in ("pruned", "failed", "done")


def fates(pruner: Pruner, rungs: int, trials: int, scores: Scores) -> list[Fate]:
    """Where each trial stands, given the scores that there are so far."""
    found = [Fate("due", 0)] * trials
    # whether each gets to this rung; None while that is not known
    arrives: list[bool | None] = [True] * trials
    for rung in range(rungs):
        for trial in range(trials):
            if arrives[trial]:
                found[trial] = _fate_at(trial, rung, rungs, scores)
        if rung + 1 < rungs:
            rule = _in_order if pruner == "asha" else _together
            arrives = rule([_score(t, rung, arrives[t], scores) for t in range(trials)])
            for trial, goes_on in enumerate(arrives):
                if goes_on is False and found[trial] == Fate("waiting", rung):
                    found[trial] = Fate("pruned", rung)
    return found


def _fate_at(trial: int, rung: int, rungs: int, scores: Scores) -> Fate:
    if (trial, rung) not in scores:
        return Fate("due", rung)
    if scores[trial, rung] is None:
        return Fate("failed", rung)
    return Fate("done" if rung + 1 == rungs else "waiting", rung)


Entry = float | Literal["absent", "unknown"]
"""A trial's score at a rung, or that it has none for ever, or none yet."""


def _score(trial: int, rung: int, arrives: bool | None, scores: Scores) -> Entry:
    if arrives is False:
        return "absent"
    if arrives is None or (trial, rung) not in scores:
        return "unknown"
    score = scores[trial, rung]
    return "absent" if score is None else score


def _together(entries: Sequence[Entry]) -> list[bool | None]:
    """Successive halving: nobody goes on before all are known."""
    if "unknown" in entries:
        return [False if entry == "absent" else None for entry in entries]
    rivals = [float(entry) for entry in entries if entry != "absent"]
    return [entry != "absent" and promoted(float(entry), rivals) for entry in entries]


def _in_order(entries: Sequence[Entry]) -> list[bool | None]:
    """Each against those before it; it waits as long as one of these is unknown."""
    goes_on: list[bool | None] = []
    rivals: list[float] = []
    certain = True
    for entry in entries:
        if entry == "absent":
            goes_on.append(False)
        elif entry == "unknown" or not certain:
            certain = False
            goes_on.append(None)
        else:
            rivals.append(float(entry))
            goes_on.append(promoted(rivals[-1], rivals))
    return goes_on


def promoted(score: float, rivals: Sequence[float]) -> bool:
    """Whether a score, one of the rivals, is among the best 1/η of them, or of less than η the best.

    Equals go on together: where all have the same, as before anything is learned, the rung has told
    nothing, and ends nobody.
    """
    better = sum(rival > score for rival in rivals)
    return better < max(1, len(rivals) // ETA)
