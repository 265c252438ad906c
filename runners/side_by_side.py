"""Runs that are trained side by side, each by a command of its own, and only where they are missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runners.console import seed_range
from runners.errors import RunFailed
from runners.run_folder import Group, RunFolder

if TYPE_CHECKING:
    from runners.config import RunConfig
    from runners.console import Console
    from runners.jobs import Job


class Series(NamedTuple):
    """One agent on one environment, to be trained by a command of `runners.train`."""

    name: str
    config: RunConfig
    argv: Sequence[str]  # of train, without seeds
    asked: str = ""  # the words that asked for the agent

    @property
    def alone(self) -> bool:
        """Whether its seeds gain nothing by training together."""
        from runners.config import agent_entry

        return agent_entry(self.config.agent).own_loop

    def folder(self, out: str) -> RunFolder:
        """Where its run is, or will be."""
        from runners.config import run_name

        return RunFolder(Path(out) / run_name(self.config))


def train(
    planned: Sequence[Series],
    seeds: Sequence[int],
    out: str,
    at_once: int,
    console: Console,
    stop_asked: Callable[[], int] = lambda: 0,
) -> None:
    """Train the seeds of all series that are not trained yet, in processes side by side.

    Raises:
        RunFailed: some run failed; those that did not are kept.
        Stopped, DiskFault: as `runners.jobs.Supervisor`.
    """
    from envs.cores import cores
    from runners.jobs import Job, run_jobs
    from runners.jobs_panel import JobsPanel, trained_share
    from runners.train import finished_run

    missing = [one for one in planned if not finished_run(one.config, seeds, out)]
    at_once = at_once or cores()
    jobs, parts = [], {}
    for one in missing:
        pieces = -(-at_once // len(missing))
        parts_of = _alone(one, seeds, out) if one.alone else _parts(one.folder(out), seeds, pieces)
        for part in parts_of:
            name = f"{one.name}, {seed_range(part)}"
            asked = ["--seed", str(part[0]), "--seeds", str(len(part))]
            jobs.append(Job(name, [sys.executable, "-m", "runners.train", *one.argv, *asked]))
            parts[name] = (one, part)

    def share(job: Job) -> float:
        one, part = parts[job.name]
        return trained_share(one.folder(out).path, part, one.config.steps)

    before = len(planned) - len(missing)
    if not jobs:
        console.message(f"all {before} runs were finished before")
        return
    title = f"{len(missing)} of {len(planned)} runs to train"
    with JobsPanel(console, title, total=len(jobs), progress=share) as panel:
        outcomes = run_jobs(
            jobs, at_once, logs=Path(out) / "logs", stop_asked=stop_asked, watcher=panel
        )
    if failed := [outcome for outcome in outcomes if outcome.status != "done"]:
        told = "; ".join(f"{outcome.job.name}: {outcome.line}" for outcome in failed)
        raise RunFailed(f"{len(failed)} of {len(outcomes)} jobs failed: {told}")


def _alone(one: Series, seeds: Sequence[int], out: str) -> list[Sequence[int]]:
    """Each seed that is not done, by itself; where only the summary is missing, all of them."""
    from runners.outcome import read_result

    folder = one.folder(out)
    return [[s] for s in seeds if read_result(folder.seed_path(s)) is None] or [seeds]


def _parts(folder: RunFolder, seeds: Sequence[int], pieces: int) -> Iterator[Sequence[int]]:
    """Seeds for processes of their own: groups that were begun stay in one."""
    begun: list[Group] = folder.groups() if folder.path.is_dir() else []
    if any(len(group.seeds) > 1 and set(group.seeds) & set(seeds) for group in begun):
        yield seeds
        return
    size = -(-len(seeds) // pieces)
    for start in range(0, len(seeds), size):
        yield seeds[start : start + size]
