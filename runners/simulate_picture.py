"""The picture of a simulation: mean returns over a parameter, a panel for each value of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import stats
from runners.grid import combinations
from runners.pictures import DPI, GOAL, INK, MEAN, OPTIMUM, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from runners.simulate import Cell
    from runners.simulation import Plan

STYLES = (
    (MEAN, "o", "-"), (GOAL, "s", "--"), (OPTIMUM, "^", "-."), ("#7a4fa3", "D", ":"),
    (INK, "v", "-"), ("#b08900", "P", "--"),
)  # fmt: skip
"""Colour, marker and line of each policy: they are told apart without colours too."""
MOST_PANELS, ACROSS = 12, 3


def draw(plan: Plan, cells: Sequence[Cell], path: Path) -> None:
    """Draw means and their 95 % intervals into a PNG file.

    The parameter with the most values goes along the axis; without any, the policies stand there.
    """
    from matplotlib.figure import Figure

    along = max(plan.parameters, key=lambda name: len(plan.parameters[name]), default="")
    others = {name: values for name, values in plan.parameters.items() if name != along}
    panels = list(combinations(others))[:MOST_PANELS]
    across = 2 if len(panels) == 4 else min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(
        figsize=(7.2 if across > 1 else 6.0, 0.9 + 2.9 * down), dpi=DPI, layout="constrained"
    )
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _draw_panel(axes, plan, along, [c for c in cells if _fits(c, panel)])
        if panel:
            from runners.simulation import describe

            axes.set_title(describe(panel), loc="left", fontsize=9, color=INK)
    for axes in grid[len(panels) :]:
        axes.remove()
    for row in range(down):
        grid[row * across].set_ylabel("return of an episode", color=INK, fontsize=9)
    count = f"{plan.episodes:,} episode{'s' * (plan.episodes != 1)}"
    figure.suptitle(
        f"{plan.env}: mean of {count}, 95 % interval", x=0.02, ha="left", fontsize=11,
        fontweight="bold", color=INK,
    )  # fmt: skip
    if along:
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=2, frameon=False, fontsize=8.5,
            labelcolor=INK,
        )  # fmt: skip
    save_figure(figure, path)


def _fits(cell: Cell, panel: Mapping[str, Any]) -> bool:
    return all(cell.setting[name] == value for name, value in panel.items())


def _draw_panel(axes: Axes, plan: Plan, along: str, cells: Sequence[Cell]) -> None:
    values = list(plan.parameters[along]) if along else [player.name for player in plan.players]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    places = values if numeric else list(range(len(values)))
    if not numeric:
        from runners.grid import written

        axes.set_xticks(places, [written(value) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
    elif _is_geometric(values):
        axes.set_xscale("log")
    names = [player.name for player in plan.players]
    for index, name in enumerate(names):
        color, marker, line = STYLES[index % len(STYLES)]
        own = [cell for cell in cells if cell.policy == name and not cell.error]
        spots = [places[values.index(cell.setting[along] if along else name)] for cell in own]
        means = [stats.mean(cell.returns) for cell in own]
        reach = [
            0.0 if math.isnan(low) else mean - low
            for mean, (low, _) in zip(
                means, (stats.t_interval(c.returns) for c in own), strict=True
            )
        ]
        axes.errorbar(
            spots, means, yerr=reach, color=color, marker=marker, markersize=4.5, capsize=3,
            linestyle=line if along and numeric else "none", linewidth=1.6, label=name,
        )  # fmt: skip
    axes.set_xlabel(along, color=INK, fontsize=9)
    axes.tick_params(colors=INK, length=3, labelsize=8.5)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _is_geometric(values: Sequence[Any]) -> bool:
    """Whether a logarithmic axis shows them better: three or more, above 0, each the same multiple."""
    if len(values) < 3 or min(values) <= 0 or max(values) / min(values) < 5:
        return False
    ratios = [math.log(b / a) for a, b in itertools.pairwise(values)]
    return max(ratios) - min(ratios) < 0.1 * abs(max(ratios))
