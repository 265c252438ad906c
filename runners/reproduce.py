"""``python -m runners.reproduce AGENT --env ID``: is what is claimed of an agent so, here and now?"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from runners import presets, stats
from runners.claims import CLAIMS, Claim, Metric
from runners.console import duration, human, number
from runners.errors import BadInput, RunFailed, command, leave
from runners.evaluate import Parser, at_least

if TYPE_CHECKING:
    import argparse

    from rich.table import Table

    from runners.config import RunConfig
    from runners.console import Console
    from runners.series import Trained

DESCRIPTION = """\
Train an agent as its preset says, or reuse the finished run, and hold its score (the mean over seeds,
of the last weights) against what is claimed of it in runners/claims.py."""

EPILOG = """\
examples:
  python -m runners.reproduce --list
  python -m runners.reproduce q_learning --env Taxi-v4
  python -m runners.reproduce --all --markdown
  python -m runners.reproduce dqn --env CartPole-v1 --measure     # a line for runners/claims.py

exit status: those of train; 1 where a score lies outside what is claimed"""

FRESH = 1_000  # the first of the seeds that are measured: none that a verdict is on
MEASURED = 10  # seeds
LEVEL = 0.99  # of a measured interval: of fifty claims, 95 % each would let two fail by chance


class Verdict(NamedTuple):
    """A claim and what came out."""

    claim: Claim
    steps: int
    run: Trained
    scores: list[float]  # one a seed

    @property
    def score(self) -> float:
        return stats.mean(self.scores)

    @property
    def inside(self) -> bool:
        return self.claim.holds(self.score)


def reproduce(
    claims: Sequence[Claim],
    seeds: int | None = None,
    out: str = "runs",
    *,
    console: Console | None = None,
    stop_asked: Callable[[], int] = lambda: 0,
) -> list[Verdict]:
    """Train what is not trained yet, and hold every claim against it.

    Args:
        claims: what to check, one after the other.
        seeds: how many seeds, if not as many as each claim says.
        out: parent of run folders.
        console: what to tell about progress; None for silence.
        stop_asked: gives the number of the signal that asks to stop, else 0.

    Raises:
        BadInput: a claim's agent cannot be trained as claimed; before any training.
        what `runners.train.run` raises.
    """
    from runners import series
    from runners.console import SilentConsole
    from runners.resolve import make_config

    console = console or SilentConsole()
    for claim in claims:
        if seeds is not None and seeds < claim.seeds and claim.kind != "exact":
            raise BadInput(
                f"--seeds: got {seeds}, takes at least {claim.seeds}: so many the ends of {claim.agent} on "
                f"{claim.env} are for, and the mean of fewer lies outside more often"
            )
    configs = [make_config(claim.agent, claim.env, **claim.changes) for claim in claims]
    verdicts = []
    for turn, (claim, config) in enumerate(zip(claims, configs, strict=True), 1):
        title = f"{turn} of {len(claims)}: {claim.agent} on {claim.env}"
        asked = range(claim.seeds if seeds is None else seeds)
        run = series.train(config, asked, out, console, stop_asked, title)
        scores = series.scores(run.folder, asked, claim.metric)
        verdicts.append(Verdict(claim, config.steps, run, scores))
    return verdicts


def measure(
    config: RunConfig,
    seeds: int,
    out: str,
    console: Console,
    stop_asked: Callable[[], int] = lambda: 0,
) -> Claim:
    """What can be claimed of a configuration: where the mean of fresh seeds will lie.

    The ends are those of a 99 % prediction interval, for the verdict's mean has an error of its own.

    Raises:
        RunFailed: all seeds have the same score. Ten at the best score there is do not say how far
            below it the eleventh will be.
    """
    from runners import provenance, series

    measured = range(FRESH, FRESH + seeds)
    title = f"{config.agent} on {config.env}"
    run = series.train(config, measured, out, console, stop_asked, title)
    summary = run.folder.summary() or {}
    metric: Metric = "policy_value" if summary.get("policy_value") else "final_return"
    scores = series.scores(run.folder, measured, metric)
    if min(scores) == max(scores):
        raise RunFailed(
            f"all {seeds} seeds score {number(scores[0])}: without a spread there is no interval; "
            "measure more --seeds, or claim what dynamic programming gives as exact"
        )
    low, high = stats.prediction_interval(scores, Claim._field_defaults["seeds"], LEVEL)
    torch = ".".join((provenance.versions()["torch"] or "").split(".")[:2])
    source = f"seeds {measured[0]}-{measured[-1]}, torch {torch}"
    return Claim(  # rounded outwards
        config.agent, config.env, metric, math.floor(1e4 * low) / 1e4, math.ceil(1e4 * high) / 1e4,
        "measured", source, until_solved=config.until_solved,
    )  # fmt: skip


def line_of(claim: Claim) -> str:
    """The claim as a line of runners/claims.py."""
    values = [f'"{value}"' if isinstance(value, str) else f"{value!r}" for value in claim[:7]]
    stop = ", until_solved=True" if claim.until_solved else ""
    return f"    Claim({', '.join(values)}{stop}),"


# -- What is printed -----------------------------------------------------------------------------

COLUMNS = (
    "agent", "env", "steps x seeds", "score [interval]", "claimed", "source", "wall time", "published",
)  # fmt: skip


def cells(verdict: Verdict) -> list[str]:
    """A claim in words, under `COLUMNS`."""
    claim, (low, high) = verdict.claim, stats.t_interval(verdict.scores)
    interval = "" if math.isnan(low) else f" [{number(low)} .. {number(high)}]"
    outside = "" if verdict.inside else ", outside"
    return [
        claim.agent,
        claim.env,
        f"{_budget(claim, verdict.steps)} x {len(verdict.scores)}",
        f"{number(verdict.score)}{interval}{outside}",
        claimed(claim),
        f"{claim.kind}: {claim.source}",
        duration(verdict.run.wall_s),
        claim.published,
    ]


def claimed(claim: Claim) -> str:
    """The ends of a claim, and of what."""
    low, high = number(claim.low), number(claim.high)
    ends = low if claim.low == claim.high else f"{low} .. {high}"
    return f"{claim.metric.replace('_', ' ')} {ends}"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table for a text in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, verdicts)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal or a file."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.ROUNDED)
    for name in columns:
        made.add_column(Text(name))  # not markup: brackets are brackets
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def print_claims(claims: Sequence[Claim]) -> None:
    """List the claims; needs no torch."""
    from runners.report import print_table

    rows = [
        [
            c.agent,
            c.env,
            f"{_budget(c, _steps(c))} x {c.seeds}",
            claimed(c),
            f"{c.kind}: {c.source}",
        ]
        for c in claims
    ]
    columns = (*COLUMNS[:3], *COLUMNS[4:6])
    print_table(f"{len(claims)} claims", table(columns, rows))


def _steps(claim: Claim) -> int:
    steps = presets.preset(claim.agent, claim.env)[1].get("steps")
    assert isinstance(steps, int), f"a claim of {claim.agent} on {claim.env} needs a budget"
    return steps


def _budget(claim: Claim, steps: int) -> str:
    return f"until solved, <= {human(steps)}" if claim.until_solved else human(steps)


# -- The command line ----------------------------------------------------------------------------


def select(agent: str | None, env: str | None) -> list[Claim]:
    """The claims on an agent, on an environment, or all.

    Raises:
        BadInput: there are none.
    """
    from runners.config import agent_entry

    if agent is not None:
        agent_entry(agent)
    chosen = [c for c in CLAIMS if agent in (None, c.agent) and env in (None, c.env)]
    if not chosen:
        what = " on ".join(name for name in (agent, env) if name)
        envs = [c.env for c in CLAIMS if c.agent == agent]
        there = f"of {agent} there are claims on {', '.join(envs)}" if envs else "see --list"
        raise BadInput(f"{what}: nothing is claimed; {there}")
    return chosen


def _parser() -> Parser:
    parser = Parser("runners.reproduce", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("agent", nargs="?", metavar="AGENT", help="whose claims to check")
    add("--env", metavar="ID", help="on this environment (all that are claimed)")
    add("--all", action="store_true", help="check every claim")
    add("--list", action="store_true", help="list the claims, train nothing")
    add("--measure", action="store_true", help=f"train seeds {FRESH}, ... and print a claim")
    add(
        "--until-solved",
        action="store_true",
        help="measure seeds that stop once they have solved it",
    )
    add("--seeds", type=at_least(1), metavar="K", help=f"(as claimed; {MEASURED} to measure)")
    add("--markdown", action="store_true", help="print the table in Markdown")
    add("--out", default="runs", metavar="DIR", help="parent of run folders (runs)")
    add("--quiet", action="store_true", help="show no progress")
    return parser


def _measure(asked: argparse.Namespace, console: Console) -> int:
    from runners.resolve import make_config
    from runners.train import SignalFlag

    agent, env, seeds = asked.agent, asked.env, asked.seeds or MEASURED
    if agent is None or env is None:
        raise BadInput("--measure: name the agent and the environment, as in dqn --env CartPole-v1")
    if seeds < 2:
        raise BadInput(f"--seeds: got {seeds}, takes at least 2 to measure an interval")
    config = make_config(agent, env, until_solved=asked.until_solved)
    claim = measure(config, seeds, asked.out, console, SignalFlag())
    sys.stdout.write(f"{line_of(claim)}\n")
    return 0


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line; list, measure or check claims."""
    asked = _parser().parse_args(argv)
    if asked.list:
        print_claims(select(asked.agent, asked.env))
        return 0
    if asked.agent is None and not (asked.all or asked.measure):
        raise BadInput("agent: none is named; name one, or write --all or --list")
    if asked.agent is not None and asked.all:
        raise BadInput(f"--all: {asked.agent} is named; leave one of the two out")
    if asked.until_solved and not asked.measure:
        raise BadInput("--until-solved: a claim says itself how long to train; leave it out")
    from runners.console import make_console
    from runners.report import print_table
    from runners.train import SignalFlag

    console, began = make_console(asked.quiet), time.monotonic()
    if asked.measure:
        return _measure(asked, console)
    chosen = select(asked.agent, asked.env)
    verdicts = reproduce(chosen, asked.seeds, asked.out, console=console, stop_asked=SignalFlag())
    console.message(f"done in {duration(time.monotonic() - began)}")
    if asked.markdown:
        sys.stdout.write(markdown(verdicts))
    else:
        inside = sum(verdict.inside for verdict in verdicts)
        title = f"{inside} of {len(verdicts)} inside what is claimed"
        print_table(title, table(COLUMNS, [cells(verdict) for verdict in verdicts]))
    sys.stdout.flush()
    if outside := [verdict.claim for verdict in verdicts if not verdict.inside]:
        names = ", ".join(f"{claim.agent} on {claim.env}" for claim in outside)
        raise RunFailed(f"outside what is claimed: {names}")
    return 0


if __name__ == "__main__":
    leave(main())
