"""What a person sees while a run is under way: a panel on a terminal, plain lines elsewhere.

All of it goes to standard error. Standard output is kept for results, so that the last line there
is the run folder's path and a pipe gets nothing else.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from runners.lasting import lasting
from runners.timing import Part, shares

if TYPE_CHECKING:
    from rich.live import Live
    from rich.panel import Panel
    from rich.text import Text

PANEL_SECONDS = 0.2  # between two pictures of the panel; drawing one takes about 2 ms
LINE_SECONDS = 10.0  # between two plain lines
RATE_SECONDS = 10.0  # rates are over the recent past, not since the start


class Status(NamedTuple):
    """Where a run stands."""

    lane_steps: int  # of a seed that is still learning
    lane_steps_all: int  # summed over the seeds, those that are done included
    env_steps: int  # of all seeds
    updates: int  # of all seeds
    returns: Mapping[int, float]  # seed to its latest evaluation's mean; empty before the first
    solved: int  # seeds solved so far
    seconds: float  # since the start of the run
    spent: Mapping[Part, float] = MappingProxyType({})  # of it, by what it was spent on


class Console(Protocol):
    """Shows how a run gets on."""

    def start(self, title: str, total_lane_steps: int, seeds: Sequence[int]) -> None:
        """Begin with a group of seeds, each to take ``total_lane_steps`` at most."""

    def update(self, status: Status) -> None:
        """Take note; called after every rollout, shows something only now and then."""

    def message(self, text: str) -> None:
        """Say something, above the panel where there is one."""

    def stop(self) -> None:
        """Leave one last line; does nothing when not started."""


def make_console(quiet: bool) -> Console:
    """The console that suits standard error: a panel, plain lines, or nothing when ``quiet``."""
    if quiet:
        return SilentConsole()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return RichConsole()
    return PlainConsole()


class SilentConsole:
    """Shows nothing."""

    def start(self, title: str, total_lane_steps: int, seeds: Sequence[int]) -> None:
        """Nothing to show."""

    def update(self, status: Status) -> None:
        """Nothing to show."""

    def message(self, text: str) -> None:
        """Nothing to show."""

    def stop(self) -> None:
        """Nothing to show."""


class Task(NamedTuple):
    """What is being done."""

    title: str
    total_lane_steps: int
    seeds: int


class PlainConsole:
    """One line now and then, ASCII only, for logs and pipes."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream, self.clock = lasting(stream or sys.stderr), clock
        self.task: Task | None = None

    def start(self, title: str, total_lane_steps: int, seeds: Sequence[int]) -> None:
        """Say what begins."""
        self.task = Task(title, total_lane_steps, len(seeds))
        self.latest: Status | None = None
        self.rates = Rates(RATE_SECONDS)
        self.due = self.clock() + LINE_SECONDS
        self.message(f"{title}: {seed_range(seeds)}, {human(total_lane_steps)} lane steps each")

    def update(self, status: Status) -> None:
        """A line when the last one is 10 s old."""
        self.latest = status
        if self.clock() >= self.due:
            self.due = self.clock() + LINE_SECONDS
            self._line(status)

    def message(self, text: str) -> None:
        """A line of its own."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def stop(self) -> None:
        """The last line."""
        if self.task and self.latest:
            self._line(self.latest, ended=True)
        self.task = None

    def _line(self, status: Status, ended: bool = False) -> None:
        assert self.task is not None
        self.rates.add(status)
        self.message(progress_line(self.task, status, self.rates, ended))


class RichConsole:
    """A panel that is redrawn in place.

    It is drawn from `update`, not by a thread of its own: a thread would take the interpreter from
    the learner at moments of its own choosing.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console as Terminal

        self.terminal = Terminal(file=lasting(stream or sys.stderr), highlight=False)
        self.clock = clock
        self.live: Live | None = None
        self.task: Task | None = None

    def start(self, title: str, total_lane_steps: int, seeds: Sequence[int]) -> None:
        """Open the panel."""
        from rich.live import Live

        self.stop()
        self.task = Task(f"{title}, {seed_range(seeds)}", total_lane_steps, len(seeds))
        self.latest: Status | None = None
        self.rates = Rates(RATE_SECONDS)
        self.due = self.clock()
        # Standard output stays where it is: whoever reads it must not get it through the panel.
        self.live = Live(
            console=self.terminal, auto_refresh=False, transient=True, redirect_stdout=False
        )
        self.live.start()

    def update(self, status: Status) -> None:
        """Redraw the panel when it is old enough."""
        self.latest = status
        now = self.clock()
        if now >= self.due:
            self.due = now + PANEL_SECONDS
            self._draw(status)

    def message(self, text: str) -> None:
        """A line above the panel."""
        self.terminal.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Replace the panel by its last line."""
        if self.live is None:
            return
        self.live.stop()
        self.live = None
        if self.task and self.latest:
            self.rates.add(self.latest)
            self.message(progress_line(self.task, self.latest, self.rates, ended=True))

    def _draw(self, status: Status) -> None:
        assert self.live is not None
        assert self.task is not None
        self.rates.add(status)
        self.live.update(panel(self.task, status, self.rates), refresh=True)


class Rates:
    """Speeds over the last few seconds, from the statuses that were shown."""

    def __init__(self, window: float) -> None:
        self.window = window
        self.seen: deque[Status] = deque()

    def add(self, status: Status) -> None:
        """Count this one in and forget what is older than the window."""
        self.seen.append(status)
        # The newest of those outside stays: the window is to be covered, not to be undercut.
        while len(self.seen) > 2 and status.seconds - self.seen[1].seconds >= self.window:
            self.seen.popleft()

    @property
    def lane_steps(self) -> float:
        """Lane steps a second of one seed; 0 while unknown."""
        return self._rate(lambda status: status.lane_steps)

    @property
    def env_steps(self) -> float:
        """Environment steps a second, all seeds; 0 while unknown."""
        return self._rate(lambda status: status.env_steps)

    @property
    def updates(self) -> float:
        """Updates a second, all seeds; 0 while unknown."""
        return self._rate(lambda status: status.updates)

    @property
    def time_shares(self) -> Mapping[Part, float]:
        """Where the time went; {} while unknown."""
        if not self.seen:
            return {}
        old, new = self.seen[0], self.seen[-1]
        if old is new:
            return shares(new.spent, new.seconds)
        spent = {part: value - old.spent.get(part, 0.0) for part, value in new.spent.items()}
        return shares(spent, new.seconds - old.seconds)

    def _rate(self, count: Callable[[Status], int]) -> float:
        if not self.seen:
            return 0.0
        old, new = self.seen[0], self.seen[-1]
        if old is new:  # the only one: since the run began
            return rate(count(new), new.seconds)
        return rate(count(new) - count(old), new.seconds - old.seconds)


def rate(count: float, seconds: float) -> float:
    """``count`` a second; 0 where no time has passed."""
    return count / seconds if seconds > 0 else 0.0


def seconds_left(done: int, total: int, per_second: float) -> float:
    """Seconds until ``total`` at this speed; infinite at none."""
    if done >= total:
        return 0.0
    return (total - done) / per_second if per_second > 0 else math.inf


def human(count: float) -> str:
    """A count with three digits: 950, 12.3k, 1.2M.

    >>> [human(n) for n in (0, 999, 1_000, 12_345, 999_999, 1_200_000)]
    ['0', '999', '1k', '12.3k', '1M', '1.2M']
    """
    for unit in ("", "k", "M", "G"):
        digits = f"{count:.3g}"
        if abs(float(digits)) < 1000:  # 999.9 has become 1e+03
            return digits + unit
        count /= 1000
    return f"{count:,.0f}T"


def number(value: float) -> str:
    """A return with four digits, never in powers of ten unless it is tiny.

    >>> [number(x) for x in (500.0, 0.74123, -13.25, 12345.6)]
    ['500', '0.7412', '-13.25', '12,346']
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < math.inf else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8.1 s, 2:05, 1:02:05.

    >>> [duration(s) for s in (8.12, 59.96, 125, 3725, math.inf)]
    ['8.1 s', '1:00', '2:05', '1:02:05', '?']
    """
    if not math.isfinite(seconds):
        return "?"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seed_range(seeds: Sequence[int]) -> str:
    """The seeds in words.

    >>> seed_range([3]), seed_range([0, 1, 2]), seed_range([0, 5])
    ('seed 3', 'seeds 0-2', 'seeds 0, 5')
    """
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]}-{seeds[-1]}"
    return "seeds " + ", ".join(map(str, seeds))


def mean_return(returns: Mapping[int, float]) -> str:
    """The mean over seeds and how far they lie apart.

    >>> mean_return({}), mean_return({3: 500.0}), mean_return({0: 400.0, 1: 500.0})
    ('-', '500', '450 [400 .. 500]')
    """
    values = list(returns.values())
    if not values:
        return "-"
    mean = number(math.fsum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} [{number(min(values))} .. {number(max(values))}]"


def time_line(time_shares: Mapping[Any, float]) -> str:
    """Shares of the time, the largest first; what rounds to nothing is left out.

    >>> time_line({"simulate": 0.256, "learn": 0.7, "save": 0.004})
    'learn 70 %, simulate 26 %'
    """
    ordered = sorted(time_shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{part} {share * 100:.0f} %" for part, share in ordered if share >= 0.005)


def progress_line(task: Task, status: Status, rates: Rates, ended: bool = False) -> str:
    """Everything in one line of ASCII; what has ended has no time left."""
    seconds = seconds_left(status.lane_steps, task.total_lane_steps, rates.lane_steps)
    left = [] if ended else [f"{duration(seconds)} left"]
    return ", ".join(
        [
            f"{human(status.lane_steps)} of {human(task.total_lane_steps)} lane steps",
            f"{human(status.env_steps)} env steps in {duration(status.seconds)}",
            f"{human(rates.env_steps)} steps/s",
            f"{human(rates.updates)} updates/s",
            f"return {mean_return(status.returns)}",
            f"{status.solved} of {task.seeds} solved",
            *left,
        ]
    )


def panel(task: Task, status: Status, rates: Rates) -> Panel:
    """The same as a picture, for a terminal."""
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    left = seconds_left(status.lane_steps, task.total_lane_steps, rates.lane_steps)
    total = max(task.total_lane_steps, 1)
    bar = Table.grid(expand=True, padding=(0, 2, 0, 0))
    bar.add_column(ratio=1)
    for _ in range(2):
        bar.add_column(justify="right", no_wrap=True)
    bar.add_row(
        ProgressBar(total=total, completed=min(status.lane_steps, total)),
        Text(f"{human(status.lane_steps)} of {human(task.total_lane_steps)} lane steps"),
        Text(f"{duration(left)} left", style="cyan"),
    )
    facts = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in range(3):
        facts.add_column(ratio=1, no_wrap=True)
    facts.add_row(
        _fact("return", mean_return(status.returns)),
        _fact("solved", f"{status.solved} of {task.seeds}"),
        _fact("time", duration(status.seconds)),
    )
    facts.add_row(
        _fact("env steps", f"{human(status.env_steps)}, {human(rates.env_steps)}/s"),
        _fact("updates", f"{human(status.updates)}, {human(rates.updates)}/s"),
        _fact("lane steps", f"{human(status.lane_steps_all)}, all seeds"),
    )
    body = Table.grid(expand=True)
    body.add_row(bar)
    body.add_row(facts)
    if rates.time_shares:
        where = Text.assemble(("spent ", "dim"), time_line(rates.time_shares))
        where.no_wrap, where.overflow = True, "ellipsis"
        body.add_row(where)
    return Panel(body, title=Text(task.title), title_align="left", border_style="dim")


def _fact(name: str, value: str) -> Text:
    from rich.text import Text

    return Text.assemble((name + " ", "dim"), (value, "bold"))
