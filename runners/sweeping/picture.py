"""The picture of a sweep: its scores over each setting, the most important first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.pictures import DPI, GOAL, INK, MEAN
from runners.sweeping.outcome import Found, Row
from runners.sweeping.space import Dimension, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3
PRUNED = "#9a9a9a"


def slices_figure(found: Found) -> Figure:
    """A panel a setting, a dot a trial."""
    from matplotlib.figure import Figure

    order = {one.name: place for place, one in enumerate(found.importances)}
    space = sorted(found.plan.space, key=lambda one: order.get(one.name, 0))
    across = min(ACROSS, len(space)) if len(space) != 4 else 2
    down = -(-len(space) // across)
    figure = Figure(
        figsize=(7.2 if across > 1 else 5.0, 1.1 + 2.5 * down), dpi=DPI, layout="constrained"
    )
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    shares = {one.name: one.share for one in found.importances}
    for axes, one in zip(grid, space, strict=False):
        _panel(axes, one, [row for row in found.rows if row.scores])
        share = f", explains {shares[one.name]:.0%}" if one.name in shares else ""
        axes.set_title(f"{one.name}{share}", loc="left", fontsize=9, color=INK)
    for axes in grid[len(space) :]:
        axes.remove()
    for row in range(down):
        grid[row * across].set_ylabel("score: mean return", color=INK, fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    if labels:
        figure.legend(
            handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=8.5,
            labelcolor=INK,
        )  # fmt: skip
    plan = found.plan
    figure.suptitle(
        f"{plan.title}: {len(found.rows)} trials, {len(plan.seeds)} seeds each", x=0.02, ha="left",
        fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, one: Dimension, rows: Sequence[Row]) -> None:
    done = [row for row in rows if row.ended == "done"]
    rest = [row for row in rows if row.ended != "done"]
    places = _places(one)
    # each is told from the others without colours too
    for some, style in (
        (rest, {"marker": "x", "color": PRUNED, "label": "ended early: score there", "s": 22}),
        (done[1:], {"marker": "o", "color": MEAN, "alpha": 0.75, "label": "trial", "s": 24}),
        (done[:1], {"marker": "*", "color": GOAL, "label": "best trial", "s": 110, "zorder": 5}),
    ):
        if some:
            axes.scatter([places(row.values[one.name]) for row in some],
                         [row.score for row in some], linewidths=1.2, **style)  # type: ignore[arg-type]  # fmt: skip
    if one.scale == "log":
        _log_axis(axes, one)
    if one.scale == "choice":
        axes.set_xticks(np.arange(len(one.choices)), [shown(value) for value in one.choices])
        axes.set_xlim(-0.5, len(one.choices) - 0.5)
    axes.tick_params(colors=INK, length=3, labelsize=8.5)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _log_axis(axes: Axes, one: Dimension) -> None:
    """Few numbers, written out: powers of ten, and between them where there is one or none."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(one.low / 1.1, one.high * 1.1)
    decades = np.log10(one.high / one.low)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if decades >= 2 else (1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _places(one: Dimension) -> Any:
    return one.choices.index if one.scale == "choice" else float
