"""What a person sees of jobs that run side by side: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runners.console import LINE_SECONDS, Console, RichConsole, duration
from runners.jobs import Event, Job, Running
from runners.processes import read_tail

if TYPE_CHECKING:
    from rich.live import Live
    from rich.panel import Panel

ROWS = 12  # running jobs that get a row of their own


def unknown(job: Job) -> float | None:
    """How far a job is, where nobody can tell."""
    del job
    return None


def trained_share(run: Path, seeds: Sequence[int], steps: int) -> float:
    """How far the seeds of a run folder are on the way to ``steps`` lane steps each, in [0, 1]."""
    return math.fsum(_lane_steps(run / f"seed-{seed}") for seed in seeds) / (steps * len(seeds))


def _lane_steps(seed: Path) -> int:
    """Those of the last whole line of its metrics; 0 before the first."""
    lines = read_tail(seed / "metrics.jsonl").split("\n")[:-1][-1:]
    try:
        return int(json.loads(lines[0])["lane_steps"]) if lines else 0
    except (ValueError, KeyError, TypeError):  # damaged: the run itself will say so
        return 0


class JobsPanel:
    """A `runners.jobs.Watcher` that shows on a console what it is told; a context manager.

    Args:
        console: where to show it, from `runners.console.make_console`.
        title: what is being done.
        total: jobs that there will be, those included that were done before; 0 while unknown.
        before: jobs that were done before.
        progress: the share in [0, 1] of a running job that is done; None where it is not known.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total: int = 0,
        before: int = 0,
        progress: Callable[[Job], float | None] = unknown,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.title, self.total, self.before = console, title, total, before
        self.progress, self.clock = progress, clock
        self.done, self.failed, self.again = before, 0, 0
        self.live: Live | None = None

    def __enter__(self) -> JobsPanel:
        self.began = self.clock()
        self.due = self.began + LINE_SECONDS
        earlier = f", {self.before} of them done before" if self.before else ""
        count = f": {self.total} jobs{earlier}" if self.total else ""
        self.console.message(f"{self.title}{count}")
        if isinstance(self.console, RichConsole):
            from rich.live import Live

            self.live = Live(
                console=self.console.terminal, auto_refresh=False, transient=True,
                redirect_stdout=False,
            )  # fmt: skip
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        self.console.message(self.line([], 0))

    def event(self, event: Event) -> None:
        """Count it; what went wrong is said at once."""
        name, outcome = event.job.name, event.outcome
        if event.kind == "again":
            self.again += 1
            self.console.message(f"{name}: died, is begun again")
        elif outcome is not None and outcome.status == "done":
            self.done += 1
        elif outcome is not None and outcome.status != "stopped":
            self.failed += 1
            self.console.message(f"{name}: failed: {outcome.line}")

    def tick(self, running: Sequence[Running], waiting: int) -> None:
        """Redraw the panel, or write a line when the last one is 10 s old."""
        if self.live is not None:
            self.live.update(self.panel(running, waiting), refresh=True)
        elif self.clock() >= self.due:
            self.due = self.clock() + LINE_SECONDS
            self.console.message(self.line(running, waiting))

    def line(self, running: Sequence[Running], waiting: int) -> str:
        """Where the jobs stand, in one line of ASCII."""
        parts = [self._done(running, waiting)]
        parts += [f"{len(running)} running"] * bool(running)
        parts += [f"{self.failed} failed"] * bool(self.failed)
        parts += [f"{self.again} begun again"] * bool(self.again)
        parts.append(duration(self.clock() - self.began))
        if running:
            parts.append(f"{duration(self.seconds_left(running, waiting))} left")
        return ", ".join(parts)

    def seconds_left(self, running: Sequence[Running], waiting: int) -> float:
        """At the speed so far; infinite while nothing is done."""
        share = math.fsum(self.progress(one.job) or 0.0 for one in running)
        finished = self.done - self.before + self.failed + share
        if not finished:
            return math.inf
        rest = max(0.0, self._total(running, waiting) - self.done - self.failed - share)
        return (self.clock() - self.began) * rest / finished

    def panel(self, running: Sequence[Running], waiting: int) -> Panel:
        """The same as a picture, with the names of what runs."""
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(expand=True, padding=(0, 2, 0, 0))
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(
            ProgressBar(
                total=max(1, self._total(running, waiting)), completed=self.done + self.failed
            ),
            Text(self.line(running, waiting)),
        )
        rows = Table.grid(expand=True, padding=(0, 2, 0, 0))
        rows.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        rows.add_column(ratio=1)
        rows.add_column(justify="right", no_wrap=True)
        for one in running[:ROWS]:
            share = self.progress(one.job)
            shown = "" if share is None else ProgressBar(total=1.0, completed=min(share, 1.0))
            again = f" (attempt {one.attempt})" if one.attempt > 1 else ""
            rows.add_row(Text(one.job.name + again), shown, Text(duration(one.seconds)))
        if len(running) > ROWS:
            rows.add_row(Text(f"and {len(running) - ROWS} more"), "", "")
        body = Table.grid(expand=True)
        body.add_row(bar)
        body.add_row(rows)
        return Panel(body, title=Text(self.title), title_align="left", border_style="dim")

    def _done(self, running: Sequence[Running], waiting: int) -> str:
        return f"{self.done} of {self._total(running, waiting)} jobs done"

    def _total(self, running: Sequence[Running], waiting: int) -> int:
        return max(self.total, self.done + self.failed + len(running) + waiting)
