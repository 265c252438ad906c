"""health.png: value health of every seed over environment steps, one panel a measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runners.alarms import ALARMS
from runners.console import human
from runners.learning_curve import Record
from runners.pictures import DPI, GOAL, INK, LINE, MEAN, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from runners.run_folder import RunFolder

COLUMNS = 4


class Panel(NamedTuple):
    """A measure, or several whose lines belong together; the later ones are drawn paler."""

    title: str
    measures: Sequence[str]


PANELS = (
    Panel("value and Monte Carlo return (red)", ("value", "monte_carlo")),
    Panel("overestimation", ("overestimation",)),
    Panel("TD error, 5, 50 and 95 %", ("td_p50", "td_p5", "td_p95")),
    Panel("action gap", ("action_gap",)),
    Panel("policy churn", ("churn",)),
    Panel("dead units", ("dead_units",)),
    Panel("effective rank", ("effective_rank",)),
    Panel("target drift", ("target_drift",)),
)


def draw_health(run: RunFolder) -> None:
    """Draw health.png of a run, done or under way; nothing where there is no record."""
    records = {seed: run.seed(seed).read_health().records for seed in run.seeds()}
    if not any(records.values()):
        return
    config = run.config()
    save_figure(health_figure(records, f"{config['agent']} on {config['env']}"), run.health_picture)


def health_figure(records: Mapping[int, Sequence[Record]], title: str) -> Figure:
    """A panel for every measure that any record has; a mark where an alarm was given."""
    from matplotlib.figure import Figure

    lines = [seed for seed in records.values() if seed]
    panels = [p for p in PANELS if any(_known(seed, p.measures[0]) for seed in lines)]
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(3.0 * COLUMNS, 2.3 * rows + 0.6), dpi=DPI)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, lines)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    alarmed = any(record["alarms"] for seed in lines for record in seed)
    figure.suptitle(
        f"{title}, {len(lines)} seed{'s' * (len(lines) != 1)}: value health over environment steps"
        + "; × an alarm" * alarmed,
        x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.subplots_adjust(
        left=0.04, right=0.99, bottom=0.16 / rows, top=1 - 0.28 / rows, wspace=0.24, hspace=0.45
    )
    return figure


def _known(records: Sequence[Record], measure: str) -> bool:
    return any(record.get(measure) is not None for record in records)


def _draw(axes: Axes, panel: Panel, seeds: Sequence[Sequence[Record]]) -> None:
    marks = {alarm.name for alarm in ALARMS if alarm.panel in panel.measures}
    for records in seeds:
        steps = np.array([record["env_steps"] for record in records], np.float64)
        for i, measure in enumerate(panel.measures):
            values = np.array([record.get(measure) for record in records], np.float64)
            dot = "o" if np.isfinite(values).sum() == 1 else ""  # a line of one point is nothing
            color = GOAL if measure == "monte_carlo" else LINE if i else MEAN
            axes.plot(steps, values, color=color, linewidth=0.9, marker=dot, markersize=3)
            alarmed = [bool(marks & set(record["alarms"])) for record in records]
            if i == 0 and any(alarmed):
                axes.plot(
                    steps[alarmed], values[alarmed], "x", color=GOAL, markersize=7,
                    markeredgewidth=2, zorder=5, clip_on=False,
                )  # fmt: skip
    axes.set_title(panel.title, loc="left", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: human(value))
    axes.tick_params(colors=INK, length=2, labelsize=7.5)
    axes.locator_params(nbins=4)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
