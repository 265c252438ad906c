"""What a run came to, for a person: a learning curve and a table on standard output."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from runners import files, stats
from runners.console import duration, human, number, seed_range, time_line
from runners.errors import disk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from runners.run_folder import RunFolder

Floats = NDArray[np.float64]
Record = Mapping[str, Any]

MEAN, LINE, GOAL, OPTIMUM, INK = "#1f5fa8", "#8fb4dd", "#c2571a", "#2e7d4f", "#444444"
DPI = 110
MOST_ROWS = 10  # seeds that get a row of their own


def show(run: RunFolder, quiet: bool = False) -> None:
    """Print the run's table unless ``quiet``, and its path as the last line."""
    summary = run.summary()
    if summary is not None and not quiet:
        print_summary(summary)
    sys.stdout.write(f"{run.path}\n")
    sys.stdout.flush()


# -- The learning curve --------------------------------------------------------------------------


class Curve(NamedTuple):
    """One seed's evaluations."""

    seed: int
    env_steps: Floats
    means: Floats
    solved: int | None  # which evaluation solved it


class Band(NamedTuple):
    """Mean over seeds on a common grid, and its 95 % t interval; NaN where one seed has none."""

    env_steps: Floats
    mean: Floats
    low: Floats
    high: Floats


def draw_curve(run: RunFolder) -> None:
    """Draw curve.png of a run, done or under way; nothing before its first evaluation."""
    from runners.resolve import threshold

    evals = {seed: run.seed(seed).read_evals().records for seed in run.seeds()}
    if not any(evals.values()):
        return
    config, summary = run.config(), run.summary() or {}
    title = f"{config['agent']} on {config['env']}"
    write_curve(evals, run.curve, title, threshold(config["env"]), summary.get("optimal_value"))


def write_curve(
    evals: Mapping[int, Sequence[Record]],
    path: str | Path,
    title: str,
    threshold: float | None = None,
    optimal: float | None = None,
) -> None:
    """Draw evaluation returns over environment steps into a PNG file, as `curve_figure` has them.

    Args:
        evals: the records of evals.jsonl, by seed; a seed without records is left out.
        path: the file; it is replaced in one step.
        title: what was trained on what.
        threshold: the mean at which the environment counts as solved.
        optimal: the best mean there is, where it is known.
    """
    save_figure(curve_figure(evals, title, threshold, optimal), Path(path))


def curve_figure(
    evals: Mapping[int, Sequence[Record]],
    title: str,
    threshold: float | None = None,
    optimal: float | None = None,
) -> Figure:
    """Every seed's evaluations, their mean and its interval, and where they should get to."""
    # Figure and not pyplot: no global state, no window, and less to import.
    from matplotlib.figure import Figure

    curves = [curve_of(seed, records, threshold) for seed, records in evals.items() if records]
    figure = Figure(figsize=(7.2, 4.2), dpi=DPI)
    axes = figure.add_axes((0.09, 0.125, 0.885, 0.72))
    _draw_curves(axes, curves)
    _draw_levels(axes, threshold, optimal)
    _set_limits(axes, curves, [level for level in (threshold, optimal) if level is not None])
    _label(axes, f"{title}, {len(curves)} seed{'s' * (len(curves) != 1)}")
    return figure


def curve_of(seed: int, records: Sequence[Record], threshold: float | None) -> Curve:
    """The numbers of one seed's records."""
    return Curve(
        seed,
        np.array([record["env_steps"] for record in records], np.float64),
        np.array([record["mean"] for record in records], np.float64),
        solved_by(records, threshold),
    )


def solved_by(records: Sequence[Record], threshold: float | None) -> int | None:
    """The first evaluation whose confirmation lies at or above the threshold, bound and all."""
    if threshold is None:
        return None
    for i, record in enumerate(records):
        confirmation = record.get("confirmation")
        if confirmation and stats.surely_at_least(confirmation, threshold):
            return i
    return None


def band_of(curves: Sequence[Curve], points: int = 200) -> Band:
    """The mean over seeds where every seed has something to say.

    A solved seed may have left early; it keeps its last value. One that is not solved ends where
    its records end, and so does the mean: a seed that drops out must not move it.
    """
    unsolved = [c.env_steps[-1] for c in curves if c.solved is None]
    start = max(c.env_steps[0] for c in curves)
    stop = max(start, min(unsolved) if unsolved else max(c.env_steps[-1] for c in curves))
    grid = np.linspace(start, stop, points)
    values = np.stack([np.interp(grid, c.env_steps, c.means) for c in curves])
    ends = [stats.t_interval(column) for column in values.T]
    low, high = np.array(ends).T
    return Band(grid, values.mean(0), low, high)


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    several = len(curves) > 1
    for i, curve in enumerate(curves):
        style = (LINE, 0.9, "each seed") if several else (MEAN, 1.8, f"seed {curve.seed}")
        color, width, label = style
        label = label if i == 0 else ""  # one entry in the legend serves all
        dot = "o" if len(curve.env_steps) == 1 else ""  # a line of one point is nothing
        axes.plot(
            curve.env_steps, curve.means, color=color, linewidth=width, label=label, marker=dot,
            markersize=4,
        )  # fmt: skip
    if several:
        band = band_of(curves)
        axes.fill_between(
            band.env_steps, band.low, band.high, color=MEAN, alpha=0.16, linewidth=0,
            label="95 % interval",
        )  # fmt: skip
        axes.plot(band.env_steps, band.mean, color=MEAN, linewidth=2.0, label="mean")
    solved = [(c.env_steps[c.solved], c.means[c.solved]) for c in curves if c.solved is not None]
    if solved:
        axes.plot(
            *zip(*solved, strict=True), "o", color="white", markeredgecolor=MEAN, markersize=5.5,
            markeredgewidth=1.4, label="solved", zorder=5, clip_on=False,
        )  # fmt: skip


def _draw_levels(axes: Axes, threshold: float | None, optimal: float | None) -> None:
    if threshold is not None:
        label = f"threshold {number(threshold)}"
        axes.axhline(threshold, color=GOAL, linewidth=1.2, linestyle=(0, (6, 3)), label=label)
    if optimal is not None:
        label = f"optimal {number(optimal)}"
        axes.axhline(optimal, color=OPTIMUM, linewidth=1.2, linestyle=(0, (1.5, 1.5)), label=label)


def _set_limits(axes: Axes, curves: Sequence[Curve], levels: Iterable[float]) -> None:
    """Fit the seeds and the levels. The band of two seeds may be far wider: it is cut off."""
    means = [c.means[np.isfinite(c.means)] for c in curves]
    values = np.concatenate([*means, [level for level in levels if math.isfinite(level)]])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, max((float(c.env_steps[-1]) for c in curves), default=1.0) or 1.0)


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=30)
    axes.set_xlabel("environment steps of a seed", color=INK)
    axes.set_ylabel("return of greedy evaluation episodes", color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: human(value))
    axes.tick_params(colors=INK, length=3)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=6, frameon=False, fontsize=8.5,
            labelcolor=INK, handlelength=1.8, columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG in one step, so that no half of one is ever seen."""
    picture = render(figure)
    with disk(path):
        files.replace(path, picture, "picture")


def render(figure: Figure) -> bytes:
    """The figure as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


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
