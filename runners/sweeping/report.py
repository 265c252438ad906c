"""A sweep for a person: a table, what it means in words, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runners import files, page, stats
from runners.console import duration, number, seed_range
from runners.errors import disk
from runners.page import Block, Grid, Lines, Page, Picture, Section, Text
from runners.pictures import plain_text
from runners.sweeping.outcome import Final, Found, Row, best_config, record
from runners.sweeping.space import describe, shown

if TYPE_CHECKING:
    from rich.table import Table

SAME = "-"  # nothing to say
MOST_ROWS = 20  # on a terminal; files have all


def header(found: Found) -> list[str]:
    """The columns."""
    names = [one.name for one in found.plan.space]
    steps = ["steps"] * (len(found.plan.rungs) > 1)
    return ["", "trial", *names, "score", "95 %", *steps, "time", "ended"]


def cells(found: Found, row: Row, place: int) -> list[str]:
    """A trial's line, as texts."""
    several = len(found.plan.rungs) > 1
    return [
        str(place) if row.ended == "done" else "",
        str(row.trial),
        *(shown(row.values[one.name]) for one in found.plan.space),
        number(row.score) if row.scores else SAME,
        ends(stats.t_interval(row.scores)),
        *[f"{row.until:,}"] * several,
        duration(row.seconds),
        "" if row.ended == "done" else row.ended,
    ]


def ends(interval: Sequence[float]) -> str:
    """``12.3 .. 45.6``."""
    low, high = interval
    return SAME if math.isnan(low) else f"{number(low)} .. {number(high)}"


def trial_table(found: Found, most: int = MOST_ROWS) -> Table:
    """A row a trial, best first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name in header(found):
        table.add_column(name, justify="right" if name != "ended" else "left", no_wrap=True)
    for place, row in enumerate(found.rows[:most], 1):
        table.add_row(*cells(found, row, place))
    return table


def title_of(found: Found) -> str:
    """What was searched: agent, environment, how many trials of what."""
    plan = found.plan
    return (
        f"{plan.title}: {len(found.rows)} trials by {plan.sampler}, {len(plan.seeds)} seeds of "
        f"{plan.base.steps:,} steps"
    )


def verdict_lines(found: Found) -> list[str]:
    """The best settings, what they are worth on fresh seeds, and whether the sweep has helped."""
    if not found.rows or found.rows[0].ended != "done":
        return ["no trial could be trained: " + (found.rows[0].why if found.rows else "none")]
    best = found.rows[0]
    lines = [f"best: trial {best.trial}: {describe(best.values)}"]
    if found.best is None:
        lines.append("not trained on fresh seeds: its score is partly the luck of the best of many")
        return lines
    lines += _fresh(found.best)
    if found.base is None:
        lines.append("the best settings are those that the sweep began with")
    elif not found.base.scores:
        lines.append(f"as set before the sweep: could not be trained: {found.base.why}")
    else:
        lines.append(
            f"as set before the sweep ({describe(found.base.values)}): {_mean_of(found.base)}"
        )
        lines += _helped(found)
    return lines


def _fresh(final: Final) -> list[str]:
    if not final.scores:
        return [f"on fresh seeds it could not be trained: {final.why}"]
    before, fresh = stats.mean(final.before), stats.mean(final.scores)
    shrink = final.shrink
    lines = [
        f"in the sweep it scored {number(before)}{_within(final.before)}, on {len(final.scores)} fresh "
        f"seeds {_mean_of(final)}",
        f"shrink: {number(before)} - {number(fresh)} = {number(shrink.mean)}{_between(shrink)}",
    ]
    if shrink.mean > 0:
        lines[1] += ": what the best of many owes to the luck of its seeds"
        lines[1] += ", not told from nothing by so few" * (shrink.interval.lo < 0)
    else:
        lines[1] += ": none, its score was no luck"
    return lines


def _between(difference: stats.Difference) -> str:
    interval = ends(difference.interval)
    return f" [{interval}]" if interval != SAME else ""


def _mean_of(final: Final) -> str:
    return f"{number(stats.mean(final.scores))}{_within(final.scores)}"


def _within(scores: Sequence[float]) -> str:
    interval = ends(stats.t_interval(scores))
    return f" [{interval}]" if interval != SAME else ""


def _helped(found: Found) -> list[str]:
    if found.difference is None:
        return []
    middle, (low, high) = found.difference
    what = f"{middle:+.4g}{_between(found.difference)}"
    if math.isnan(low):
        verdict = "one seed decides nothing"
    elif low > 0:
        verdict = "the sweep has helped"
    elif high < 0:
        verdict = "the sweep's choice is worse"
    else:
        verdict = "that the sweep has helped is not shown; more --final-seeds may decide"
    return [f"best minus as set, seed by seed on fresh seeds: {what}: {verdict}"]


def importance_lines(found: Found) -> list[str]:
    """What mattered, most first."""
    if not found.importances:
        return ["importance: fewer than 8 trials have scores, or all have the same"]
    steps = f" at {found.compared_at:,} steps" * (len(found.plan.rungs) > 1)
    lines = [f"importance: share of the scores' variance{steps} that a setting explains alone"]
    for one in found.importances:
        trend = "" if one.trend is None else f", rank correlation {one.trend:+.2f}"
        lines.append(f"  {one.name}: {one.share:.0%} (by chance as much: p {one.p:.2g}{trend})")
    return lines


def score_line(found: Found) -> str:
    """What a score is."""
    plan = found.plan
    line = (
        f"score: mean over {seed_range(plan.seeds)} of the final return: "
        f"{plan.base.final_episodes} greedy episodes of the last weights; 95 % t interval over seeds"
    )
    if len(plan.rungs) > 1:
        line += f"; of pruned trials that of the evaluation ({plan.base.eval_episodes} episodes)"
    return line


def failure_lines(found: Found) -> list[str]:
    """The trials that failed, and why."""
    failed = [row for row in found.rows if row.ended in ("failed", "timeout")]
    lines = [f"trial {row.trial} ({describe(row.values)}): {row.why}" for row in failed[:8]]
    if len(failed) > 8:
        lines.append(f"and {len(failed) - 8} more that failed")
    if failed:
        lines.append("the same command with --retry-failed tries them again")
    return lines


def lines_of(found: Found) -> list[str]:
    """What the table does not say."""
    return [
        score_line(found),
        *verdict_lines(found),
        *importance_lines(found),
        *failure_lines(found),
    ]


def write(found: Found, folder: Path) -> None:
    """Write sweep.json, where a trial was trained best.json, report.html, report.md and slices.png."""
    with disk(folder):
        files.replace(folder / "sweep.json", files.dump(record(found), indent=2), "sweep")
        if (config := best_config(found)) is not None:
            files.replace(folder / "best.json", files.dump(config, indent=2), "best")
    with plain_text():
        page.write(page_of(found), folder)


def page_of(found: Found) -> Page:
    """All of it, what is to be done with it first."""
    from runners.sweeping.picture import slices_figure

    table = [cells(found, row, place) for place, row in enumerate(found.rows, 1)]
    names = ", ".join(one.name for one in found.plan.space)
    picture = Picture(
        "slices",
        slices_figure(found),
        f"Scores of {len(found.rows)} trials over each of {names}",
        "A dot a trial: its score over each setting, the most important first.",
    )
    importance = [line.strip() for line in importance_lines(found)]
    return Page(
        title_of(found),
        [
            Section(
                "Verdict", [Lines(verdict_lines(found), leading=True), Text(score_line(found))]
            ),
            Section("Importance", [Lines(importance), picture]),
            Section("Trials", [Grid(header(found), table), *_failures(found)]),
            Section("Settings", [Text("The best: python -m runners.train --config best.json")]),
        ],
    )


def _failures(found: Found) -> list[Block]:
    lines = failure_lines(found)
    return [Lines(lines)] if lines else []
