"""``python -m runners.report RUN...``: what a run, or several side by side, came to, for a person.

The tables that commands print at the end of a run are here as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from runners import stats
from runners.console import duration, human, number, seed_range, time_line
from runners.errors import command, leave

if TYPE_CHECKING:
    from rich.table import Table

    from runners.run_folder import RunFolder

DESCRIPTION = """\
Write a report that anybody can open, offline and without a program of ours: report.html, report.md
and their pictures. Of one run: its table, learning curve, time, alarms, settings and origin. Of
several: which agent is better and how sure that is, as compare writes it, without training."""

EPILOG = """\
what may be named:
  RUN       a run folder's path, a unique beginning of its name, or last: the latest
  FILE.csv  columns agent, env, seed, score; with env_steps (and seconds), rows of a seed are its curve

examples:
  python -m runners.report last
  python -m runners.report runs/dqn-CartPole-v1-0123456789 runs/pqn-CartPole-v1-0123456789
  python -m runners.report scores.csv --out elsewhere

The report of a run is in its folder, that of several in a folder compare-... below --out. The path of
report.html is the last line printed.

exit status: 0 done, 2 bad input, 4 disk"""
MOST_ROWS = 10  # seeds that get a row of their own


def show(run: RunFolder, quiet: bool = False) -> None:
    """Print the run's table unless ``quiet``, and its path as the last line."""
    summary = run.summary()
    if summary is not None and not quiet:
        print_summary(summary)
    sys.stdout.write(f"{run.path}\n")
    sys.stdout.flush()


# -- The table -----------------------------------------------------------------------------------


class Column(NamedTuple):
    """A figure of the run, one value a seed; None where a seed has none."""

    name: str
    values: Sequence[float | None]
    text: Callable[[float], str] = number
    interval: Sequence[float] | None = None  # where the summary has one


def columns_of(summary: Mapping[str, Any]) -> list[Column]:
    """The figures that the summary has; those that no seed has are left out."""
    final, best = summary["final_return"], summary["best_return"]
    columns = [
        Column("final return", final["per_seed"], number, final.get("interval")),
        Column("best return", best["per_seed"], number, best.get("interval")),
    ]
    solved = summary.get("solved_at") or {}
    if solved.get("threshold") is not None:
        columns += [
            Column("solved at env steps", solved["env_steps"], human),
            Column("after", solved["seconds"], duration),
        ]
    if summary.get("policy_value"):
        values = summary["policy_value"]
        columns.append(Column("policy value", values, number, _interval(values)))
    if any(error is not None for error in summary.get("max_q_error") or []):
        columns.append(Column("max |Q-Q*|", summary["max_q_error"]))
    return columns


def summary_table(summary: Mapping[str, Any]) -> Table:
    """A row a seed (up to ten), their mean and its interval."""
    from rich import box
    from rich.table import Table

    seeds, columns = summary["seeds"], columns_of(summary)
    table = Table(box=box.ROUNDED)
    table.add_column("seed")
    for column in columns:
        table.add_column(column.name, justify="right", no_wrap=True)
    if len(seeds) <= MOST_ROWS:
        for k, seed in enumerate(seeds):
            table.add_row(str(seed), *(_cell(column, column.values[k]) for column in columns))
    else:
        for name, figure in (("lowest", min), ("median", median), ("highest", max)):
            table.add_row(name, *(_aggregate(column, figure) for column in columns))
    table.add_section()
    if len(seeds) > 1:
        table.add_row("mean", *(_aggregate(column, stats.mean) for column in columns), style="bold")
        table.add_row("95 %", *(_interval_text(column) for column in columns))
    if summary.get("optimal_value") is not None:
        optimum = number(summary["optimal_value"])
        cells = (optimum if column.name == "policy value" else "" for column in columns)
        table.add_row("optimal", *cells)
    return table


def _cell(column: Column, value: float | None) -> str:
    return "-" if value is None else column.text(value)


def _aggregate(column: Column, figure: Callable[[list[float]], float]) -> str:
    """Over the seeds that have a value; says how many where some have none."""
    known = [value for value in column.values if value is not None]
    if not known:
        return "-"
    missing = len(known) < len(column.values)
    return column.text(figure(known)) + (f" (of {len(known)})" if missing else "")


def _interval(values: Sequence[float]) -> Sequence[float] | None:
    return stats.t_interval(values) if len(values) > 1 else None


def _interval_text(column: Column) -> str:
    if column.interval is None or None in column.interval:
        return ""
    low, high = column.interval
    return f"{column.text(low)} .. {column.text(high)}"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the table does not say: how many were solved, how fast it was, what went wrong."""
    lines = []
    solved = summary.get("solved_at") or {}
    if solved.get("threshold") is not None:
        count = sum(steps is not None for steps in solved["env_steps"])
        goal = number(solved["threshold"])
        lines.append(f"{count} of {len(summary['seeds'])} seeds solved (threshold {goal})")
    lines.append(
        f"{human(summary['env_steps'])} env steps in {duration(summary['wall_s'])}: "
        f"{human(summary['env_steps_per_s'])} env steps/s, {human(summary['updates_per_s'])} updates/s"
    )
    if summary.get("time_shares"):
        lines += [f"time: {time_line(summary['time_shares'])}", summary["advice"]]
    for name, seeds in (summary.get("alarms") or {}).items():
        lines.append(f"alarm: {name}: {seed_range(seeds)}; see health.png")
    if summary.get("eval_limit"):
        lines.append(f"evaluation episodes end after {summary['eval_limit']:,} steps")
    if not summary.get("complete", True):
        lines.append("not complete: some seeds are not done; the same command goes on")
    if not summary.get("reproducible", True):
        replaced = summary.get("workers_replaced", 0)
        why = f"workers replaced: {replaced}" if replaced else "async workers, at their own pace"
        lines.append(f"not reproducible: {why}")
    return lines


def print_summary(summary: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print the table and the lines below it."""
    title = f"{summary['agent']} on {summary['env']}"
    print_table(title, summary_table(summary), summary_lines(summary), stream)


def print_table(
    title: str, table: Table, lines: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Print a table and lines below it; plain ASCII where nobody looks at a terminal."""
    from rich import box
    from rich.console import Console

    stream = stream or sys.stdout
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        table.box = box.ASCII
        # A file is as wide as the table; a terminal is not.
        console = Console(file=stream, highlight=False, color_system=None, width=500)
    console.print(title, style="bold", markup=False, soft_wrap=True)
    console.print(table)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


# -- The command ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from runners.evaluate import Parser

    parser = Parser("runners.report", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add(
        "what",
        nargs="+",
        metavar="RUN",
        help="a run; or several, or a table, to be set side by side",
    )
    add("--out", default="runs", metavar="DIR", help="where runs are looked for (runs)")
    add("--quiet", action="store_true", help="print the path of report.html alone")
    return parser


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, write the report, print where it is."""
    asked = _parser().parse_args(argv)
    from runners import run_report
    from runners.run_folder import find_run

    runs = [find_run(one, asked.out) for one in asked.what if not one.endswith(".csv")]
    for run in runs:
        run_report.check(run)
    if len(asked.what) == 1 and runs:
        path = run_report.write(runs[0])
        if not asked.quiet and (summary := runs[0].summary()):
            print_summary(summary)
    else:
        path = _side_by_side(asked.what, asked.out, asked.quiet)
    sys.stdout.write(f"{path}\n")
    return 0


def _side_by_side(sources: Sequence[str], out: str, quiet: bool) -> Path:
    from runners import compare
    from runners.comparison import compare as compared
    from runners.scores import field_of
    from runners.verdict import verdict

    comparison = compared(field_of(compare.read(sources, out)))
    folder = compare.write(comparison, out)
    if not quiet:
        sys.stdout.write("".join(f"{line}\n" for line in verdict(comparison)))
    return folder / "report.html"


if __name__ == "__main__":
    leave(main())
