"""A sweep from its first trial to its last: what is due is trained, what came of it is noted.

What to do next is worked out from the plan and the ledger alone, after every result anew. So a sweep that
was killed goes on as if it had not been, and a run that was trained before the kill, but not noted, is
noted without being trained again.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners import files
from runners.config import run_name, to_json
from runners.console import Console, SilentConsole, number
from runners.errors import BadInput, disk
from runners.jobs import Here, Job, Outcome, Start, Supervisor
from runners.jobs_panel import JobsPanel, trained_share
from runners.run_folder import RunFolder, create_run
from runners.sweeping.halving import Fate, fates
from runners.sweeping.ledger import Ledger, Result
from runners.sweeping.plan import BASE, FRESH, Plan, Work
from runners.sweeping.proposals import Told, Values, independent, propose_tpe
from runners.sweeping.space import describe
from runners.sweeping.trial import scores_at

TPE_AHEAD = 4
"""Trials that TPE may have under way at the least, by which what it knows is behind."""

Command = Callable[[Path, Work], Sequence[str]]


def trial_command(run: Path, work: Work) -> Sequence[str]:
    """The process that trains."""
    numbers = map(str, (work.first, work.last, work.until))
    return [sys.executable, "-m", "runners.sweeping.trial", str(run), *numbers]


@dataclass
class Sweep:
    """A sweep in its folder, which this process has for itself: `opened` makes one."""

    plan: Plan
    folder: Path
    ledger: Ledger
    listed: Sequence[Values]  # of all trials, where these are known beforehand
    ahead: int  # trials of TPE that may be under way
    jobs: int = 0  # processes at once; 0: one a core
    timeout: float = math.inf  # seconds for a trial, all its rungs together
    console: Console = field(default_factory=SilentConsole)
    stop_asked: Callable[[], int] = lambda: 0
    command: Command = trial_command
    start: Start = Here  # of a process
    room: Callable[[], int] = lambda: 0  # processes at once where ``jobs`` is 0; 0: one a core
    _runs: dict[int, RunFolder] = field(default_factory=dict)

    # -- What is known ---------------------------------------------------------------------------

    def values(self, trial: int) -> Values:
        """The values of a trial; none of `BASE`, which is as it was set."""
        return {} if trial == BASE else self.ledger.values[trial]

    def run(self, trial: int) -> RunFolder:
        """Where a trial is or will be trained."""
        if trial not in self._runs:
            name = run_name(self.plan.config(self.values(trial)))
            self._runs[trial] = RunFolder(self.folder / "runs" / name)
        return self._runs[trial]

    def result(self, trial: int, rung: int) -> Result | None:
        """What a trial came to at a rung, on the sweep's seeds."""
        return self.ledger.results.get(self._work(trial, rung))

    def _work(self, trial: int, rung: int) -> Work:
        seeds = self.plan.seeds
        return Work(trial, self.plan.rungs[rung], seeds[0], seeds[-1])

    def fates(self) -> list[Fate]:
        """Where each trial stands that was proposed, of those that the plan asks for."""
        number, rungs = min(len(self.ledger.values), self.plan.trials), len(self.plan.rungs)
        scores = {
            (trial, rung): result.score
            for trial in range(number)
            for rung in range(rungs)
            if (result := self.result(trial, rung)) is not None
        }
        return fates(self.plan.pruner, rungs, number, scores)

    def ranked(self) -> list[int]:
        """Trials that were trained to the end, best first; ties to the earlier."""
        last = len(self.plan.rungs) - 1
        done = [t for t, fate in enumerate(self.fates()) if fate.state == "done"]
        scores = {t: result.score for t in done if (result := self.result(t, last)) is not None}
        return sorted(done, key=lambda t: -(scores[t] or 0.0))

    # -- What is to be done ----------------------------------------------------------------------

    def train(self) -> None:
        """Train all trials, then the best one and the settings as they were on fresh seeds.

        Raises:
            DiskFault, Stopped: see `runners.jobs.Supervisor`; what was noted stays.
        """
        total = 0 if self.plan.pruner != "none" else self.plan.trials
        before = sum(fate.ended for fate in self.fates())
        running: dict[str, Work] = {}

        def progress(job: Job) -> float:
            work = running[job.name]
            return trained_share(self.run(work.trial).path, work.seeds, work.until)

        title = f"sweep of {self.plan.title}"
        with (
            JobsPanel(self.console, title, total, before, progress) as panel,
            Supervisor(
                self.folder / "logs",
                self.jobs or self.room(),
                stop_asked=self.stop_asked,
                watcher=panel,
                start=self.start,
            ) as supervisor,
        ):
            for due in (self._due_trials, self._due_in_the_end):
                self._train_all(due, supervisor, running)

    def _train_all(
        self, due: Callable[[], list[Work]], supervisor: Supervisor, running: dict[str, Work]
    ) -> None:
        while True:
            for work in due():
                if work in running.values() or self._noted(work):
                    continue
                job = self._job(work)
                running[job.name] = work
                supervisor.submit(job)
            supervisor.at_once = self.jobs or self.room() or supervisor.at_once
            if (outcome := supervisor.wait_any()) is None:
                if not due():
                    return
                continue
            self._note(running.pop(outcome.job.name), outcome)

    def _due_trials(self) -> list[Work]:
        """What may be trained now."""
        self._propose()
        return [
            self._work(trial, fate.rung)
            for trial, fate in enumerate(self.fates())
            if fate.state == "due"
        ]

    def _due_in_the_end(self) -> list[Work]:
        """The best settings, and those that the sweep began with, on fresh seeds."""
        works = [self.fresh_work(trial) for trial in self.finalists()]
        return [work for work in works if work not in self.ledger.results]

    def finalists(self) -> list[int]:
        """The best trial, and `BASE` unless that is the same; nobody where there are no fresh seeds."""
        best = self.ranked()[:1] if self.plan.final_seeds else []
        same = any(self.values(trial) == self.plan.base_values() for trial in best)
        return [*best, *[BASE] * (bool(best) and not same)]

    def fresh_work(self, trial: int) -> Work:
        """A trial on the seeds that no trial has seen."""
        return Work(trial, self.plan.base.steps, FRESH, FRESH + self.plan.final_seeds - 1)

    def _propose(self) -> None:
        """Add the trials whose values can be known."""
        plan, ledger = self.plan, self.ledger
        for values in self.listed[len(ledger.values) :]:
            ledger.propose(values)
        if plan.sampler != "tpe":
            return
        while (trial := len(ledger.values)) < plan.trials:
            known = max(0, trial - self.ahead + 1)
            standing = self.fates()
            if not all(fate.ended for fate in standing[:known]):
                return
            told = [self._told(t, standing[t]) for t in range(known)]
            proposed = propose_tpe(plan.space, told, ledger.values[known:], plan.draw_seed)
            if proposed is None:  # all there are have been tried
                return
            ledger.propose(proposed)

    def _told(self, trial: int, fate: Fate) -> Told:
        result = self.result(trial, fate.rung)
        score = result.score if result else None
        until = self.plan.rungs[fate.rung]
        return Told(self.values(trial), score, until, fate.state == "done")

    # -- One piece of work -----------------------------------------------------------------------

    def _job(self, work: Work) -> Job:
        config = self.plan.config(self.values(work.trial))
        run = create_run(self.folder / "runs", self.run(work.trial).name, to_json(config))
        spent = sum(
            result.seconds
            for other, result in self.ledger.results.items()
            if (other.trial, other.first) == (work.trial, work.first)
        )
        name = self.plan.job_name(work, self.values(work.trial))
        return Job(name, self.command(run.path, work), max(0.0, self.timeout - spent))

    def _noted(self, work: Work) -> bool:
        """Whether it needs no process: its run was trained before a kill, or its values are bad."""
        try:
            run = self.run(work.trial)
        except BadInput as error:  # of TPE's: the others were looked at before the first process
            self.ledger.record(work, Result("failed", (), 0.0, 0, str(error)))
            return True
        if not run.path.is_dir():
            return False
        scores = scores_at(run, work.seeds, work.until)
        if scores is not None:
            self._record(work, scores, 0.0, 0)
        return scores is not None

    def _note(self, work: Work, outcome: Outcome) -> None:
        """Note how a process ended."""
        scores = scores_at(self.run(work.trial), work.seeds, work.until)
        if outcome.status == "done" and scores is not None:
            self._record(work, scores, outcome.seconds, outcome.attempts)
            return
        status = "timeout" if outcome.status == "timeout" else "failed"
        why = outcome.line if outcome.status != "done" else "it left no result"
        self.ledger.record(work, Result(status, (), outcome.seconds, outcome.attempts, why))

    def _record(self, work: Work, scores: Sequence[float], seconds: float, attempts: int) -> None:
        best = self.ranked()[:1]
        result = Result("done", tuple(scores), seconds, attempts, "")
        self.ledger.record(work, result)
        if self.ranked()[:1] != best:
            values = describe(self.values(work.trial))
            self.console.message(
                f"trial {work.trial}: {number(result.score or 0.0)}, the best so far: {values}"
            )


@contextmanager
def opened(plan: Plan, out: str | Path, jobs: int = 0, **more: Any) -> Iterator[Sweep]:
    """The sweep of a plan, begun or gone on with, for as long as this process has it.

    Args:
        plan: what to do.
        out: parent of the sweep's folder.
        jobs: processes at once; 0: one a core.
        more: what else a `Sweep` has.

    Raises:
        BadInput: another process has it, or values of a trial do not go together.
        RunFailed: its ledger is damaged. DiskFault: it cannot be written.
    """
    folder = Path(out) / plan.folder_name
    listed: Sequence[Values] = []
    if plan.sampler != "tpe":
        listed = independent(plan.space, plan.sampler, plan.trials, plan.draw_seed)
    for values in listed:
        plan.config(values)  # raises before anything is written
    files.make_folder(folder)
    with files.locked(folder / "lock", f"{folder}: is being swept"):
        files.make_folder(folder / "runs")
        ahead = _ahead(folder / "plan.json", jobs)
        with disk(folder):
            record = {**plan.to_json(), "ahead": ahead}
            files.replace(folder / "plan.json", files.dump(record, indent=2), "plan")
        yield Sweep(plan, folder, Ledger(folder / "trials.jsonl"), listed, ahead, jobs, **more)


def _ahead(path: Path, jobs: int) -> int:
    """What TPE's first process has settled on; else enough for all processes."""
    from envs.cores import cores

    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["ahead"])
    except (OSError, ValueError, KeyError, TypeError):
        return max(TPE_AHEAD, jobs or cores())
