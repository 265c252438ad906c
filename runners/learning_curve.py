"""The learning curve of a run: every seed's evaluations, their mean and its interval, as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners import stats
from runners.console import human, number
from runners.pictures import DPI, GOAL, INK, LINE, MEAN, OPTIMUM, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from runners.run_folder import RunFolder

Floats = NDArray[np.float64]
Record = Mapping[str, Any]


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
