"""The pictures of a comparison that say how agents differ: figures, pairs, profiles, who beats whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runners.bootstrap import performance_profile
from runners.comparison import Comparison, Pair
from runners.console import number
from runners.pictures import DPI, GOAL, INK, bare, style_of, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from runners.pictures import Style

WIDTH = 10.8  # inches
MOST_PAIRS = 28  # of eight agents; of more only those of the best one are drawn
TAUS = 121  # thresholds of a profile


def styles_of(agents: Sequence[str]) -> Mapping[str, Style]:
    """The style of each agent: the same in every picture of a report."""
    return {agent: style_of(i) for i, agent in enumerate(agents)}


def unit_of(comparison: Comparison) -> str:
    """What scores are measured in."""
    return "normalised score" if comparison.unit == "normalised" else "return"


def aggregates_figure(comparison: Comparison) -> Figure:
    """A panel a figure, a row an agent, with its 95 % interval."""
    agents, styles = comparison.field.agents, styles_of(comparison.field.agents)
    names = list(comparison.figures[agents[0]])
    labels = [wrapped(agent) for agent in agents]
    places, height = _places(labels)
    figure = _figure(height + 1.1)
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(grid, names, strict=True):
        for row, agent in zip(places, agents, strict=True):
            one, style = comparison.figures[agent][name], styles[agent]
            axes.plot(one.interval, [row, row], color=style.color, linewidth=2.2)
            axes.plot([one.value], [row], style.marker, color=style.color, markersize=7)
        better = "lower is better" if name == "optimality gap" else "higher is better"
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_xlabel(f"{unit_of(comparison)}\n{better}", color=INK, fontsize=9)
        bare(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.08)
        axes.tick_params(axis="y", length=0)
    _rows(grid[0], labels, places)
    _title(figure, "Each agent's figures, with 95 % intervals")
    return figure


def drawn_pairs(comparison: Comparison) -> list[Pair]:
    """Those that have room in a picture, the surest first: all, or only those of the best agent."""
    ordered = sorted(comparison.pairs, key=lambda pair: (pair.better is None, pair.p))
    if len(ordered) <= MOST_PAIRS:
        return ordered
    best = best_agent(comparison)
    return [pair for pair in ordered if best in (pair.a, pair.b)]


def best_agent(comparison: Comparison) -> str:
    """The one with the most of the deciding figure."""
    return max(
        comparison.field.agents,
        key=lambda agent: comparison.figures[agent][comparison.figure].value,
    )


def differences_figure(comparison: Comparison) -> Figure:
    """A row a pair, the one with more of the figure first; hollow where chance may have made it."""
    pairs, styles = drawn_pairs(comparison), styles_of(comparison.field.agents)
    labels = [_called(pair) for pair in pairs]
    places, height = _places(labels)
    figure = _figure(height + 1.1)
    axes = figure.subplots()
    axes.axvline(0, color=GOAL, linewidth=1.0, linestyle=(0, (6, 3)))
    for row, pair in zip(places, pairs, strict=True):
        sign = 1 if pair.difference.value >= 0 else -1
        style = styles[pair.a if sign > 0 else pair.b]
        color = style.color if pair.better else "#777777"
        ends = sorted(sign * end for end in pair.difference.interval)
        axes.plot(ends, [row, row], color=color, linewidth=2.0)
        axes.plot(
            [abs(pair.difference.value)], [row], style.marker, color=color, markersize=6.5,
            markerfacecolor=color if pair.better else "white",
        )  # fmt: skip
        axes.annotate(
            how_sure(pair), (1.01, row), xycoords=("axes fraction", "data"), color=INK,
            fontsize=8, va="center",
        )  # fmt: skip
    axes.set_xlabel(
        f"difference of {comparison.figure}, {unit_of(comparison)}", color=INK, fontsize=9
    )
    bare(axes, "x")
    axes.spines["left"].set_visible(False)
    _rows(axes, labels, places)
    _title(figure, f"How much more {comparison.figure} the first of two has, with 95 % intervals")
    return figure


def _called(pair: Pair) -> str:
    """The one that has more first; in lines of their own where they are long."""
    first, second = (pair.a, pair.b) if pair.difference.value >= 0 else (pair.b, pair.a)
    label = f"{first} − {second}"
    return label if len(label) <= 34 else f"{wrapped(first, 34)}\n− {wrapped(second, 32)}"


def how_sure(pair: Pair) -> str:
    """By what a pair is decided, or is not yet."""
    if pair.looks is None:
        return f"p = {pair.p:.2g}"
    return f"{pair.looks.looks[-1].seeds} seeds, look {len(pair.looks.looks)}"


def profiles_figure(comparison: Comparison) -> Figure:
    """The share of each agent's runs above every score, with its pointwise 95 % band."""
    scores, styles = comparison.scaled, styles_of(comparison.field.agents)
    every = np.concatenate([values for one in scores.values() for values in one.values()])
    low, high = float(every.min()), float(every.max())
    margin = 0.03 * (high - low) or 1.0
    taus = np.linspace(low - margin, high + margin, TAUS)
    figure = _figure(4.4 + 0.2 * math.ceil(len(scores) / 3))
    axes = figure.subplots()
    pale = 0.16 if len(scores) <= 4 else 0.07
    for turn, (agent, one) in enumerate(scores.items()):
        profile, style = performance_profile(one, taus, np.random.default_rng(0)), styles[agent]
        axes.fill_between(
            taus, profile.lo, profile.hi, color=style.color, alpha=pale, linewidth=0, step="post"
        )
        axes.plot(
            taus, profile.share, color=style.color, linestyle=style.dash, linewidth=1.8,
            drawstyle="steps-post", marker=style.marker, markersize=5,
            markevery=((turn * 5) % (TAUS // 8), TAUS // 8), label=wrapped(agent, NAME),
        )  # fmt: skip
    axes.set_xlim(taus[0], taus[-1])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"{unit_of(comparison)} τ", color=INK, fontsize=9)
    axes.set_ylabel("share of runs with more than τ", color=INK, fontsize=9)
    bare(axes)
    _title(figure, "Performance profiles, with pointwise 95 % bands")
    legend(figure, axes)
    return figure


def improvement_figure(comparison: Comparison) -> Figure:
    """Rows against columns: how probably a run of the row's agent beats one of the column's."""
    from matplotlib import colormaps

    agents = comparison.field.agents
    chances = improvement_of(comparison)
    count = len(agents)
    tall = max(0.42, min(0.8, 5.5 / count))
    names = [wrapped(agent, 20) for agent in agents]
    slanted = count > 5 or max(len(line) for name in names for line in name.split("\n")) > 12
    longest = max(len(line) for name in names for line in name.split("\n"))
    below = 0.07 * longest if slanted else 0.35
    figure = _figure(tall * count + below + 0.9, min(WIDTH, 1.45 * tall * count + 3.6))
    axes = figure.subplots()
    colors = colormaps["PuOr_r"].with_extremes(bad="#f0f0f0")
    # A mesh and not an image: in SVG that would be pixels.
    axes.pcolormesh(
        np.ma.masked_invalid(chances),
        cmap=colors,
        vmin=-0.1,
        vmax=1.1,
        edgecolor="white",
        linewidth=2,
    )
    for row in range(count):
        for column in range(count):
            value = float(chances[row, column])
            if not np.isnan(value):
                axes.text(
                    column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center",
                    fontsize=10 if count <= 8 else 8.5,
                    color="white" if abs(value - 0.5) > 0.36 else "#111111",
                )  # fmt: skip
    axes.set_ylim(count, 0)
    axes.set_yticks(np.arange(count) + 0.5, [wrapped(agent) for agent in agents])
    axes.set_xticks(np.arange(count) + 0.5, names)
    if slanted:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(colors=INK, length=0, labelsize=8.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("a run of this agent", color=INK, fontsize=9)
    _title(figure, "How probably a run of the row's agent beats ...")
    return figure


def improvement_of(comparison: Comparison) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[A, A] the probability that a run of the row's agent beats one of the column's; NaN if not compared."""
    agents = comparison.field.agents
    chances = np.full((len(agents), len(agents)), np.nan)
    for pair in comparison.pairs:
        row, column = agents.index(pair.a), agents.index(pair.b)
        chances[row, column] = pair.improvement.value
        chances[column, row] = 1 - pair.improvement.value
    return chances


def described(comparison: Comparison, told: Callable[[str], str]) -> str:
    """A text alternative: what is told of each agent, one after the other."""
    return "; ".join(f"{agent}: {told(agent)}" for agent in comparison.field.agents)


def figure_text(comparison: Comparison, agent: str) -> str:
    """An agent's figures in words."""
    return ", ".join(
        f"{name} {number(one.value)} [{number(one.interval.lo)} .. {number(one.interval.hi)}]"
        for name, one in comparison.figures[agent].items()
    )


# -- Common to them ------------------------------------------------------------------------------


def _figure(height: float, width: float = WIDTH) -> Figure:
    # Figure and not pyplot: no global state, no window, and less to import.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def _places(labels: Sequence[str]) -> tuple[list[float], float]:
    """The middle of each row and the height of all, in inches: a name of three lines takes more."""
    heights = [0.17 + 0.15 * (1 + label.count("\n")) for label in labels]
    ends = np.cumsum(heights)
    return [float(end - height / 2) for end, height in zip(ends, heights, strict=True)], float(
        ends[-1]
    )


def _rows(axes: Axes, labels: Sequence[str], places: Sequence[float]) -> None:
    axes.set_yticks(places, labels)
    axes.set_ylim(places[-1] + places[0], 0)
    axes.tick_params(axis="y", length=0)


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)


NAME = 28  # letters of a line in a legend


def legend(figure: Figure, axes: Axes) -> None:
    """Names of all lines of the axes, below everything."""
    handles, labels = axes.get_legend_handles_labels()
    engine = any(one.get_subplotspec() for one in figure.axes)
    figure.legend(
        handles, labels, loc="outside lower left" if engine else "lower left", ncols=_columns(labels),
        frameon=False, fontsize=8.5, labelcolor=INK, handlelength=3.2, columnspacing=1.6,
    )  # fmt: skip


def legend_height(names: Sequence[str]) -> float:
    """Inches that the legend of so many agents takes."""
    labels = [wrapped(name, NAME) for name in names]
    rows = -(-len(labels) // _columns(labels))
    lines = [1 + label.count("\n") for label in labels]
    columns = [sum(lines[start : start + rows]) for start in range(0, len(lines), rows)]
    return 0.12 + 0.17 * max(columns) + 0.05 * rows


def _columns(labels: Sequence[str]) -> int:
    widest = max((len(line) for label in labels for line in label.split("\n")), default=1)
    return max(1, min(len(labels), 5, 118 // (widest + 8)))
