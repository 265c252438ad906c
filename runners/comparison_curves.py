"""Learning curves of a comparison: the mean over seeds and its 95 % band, a panel an environment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from runners import stats
from runners.comparison_pictures import NAME, WIDTH, legend, legend_height, styles_of
from runners.console import human, number
from runners.pictures import DPI, GOAL, INK, bare, wrapped
from runners.scores import Curve, Entry, Field, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from runners.pictures import Style

Axis = Literal["env_steps", "seconds"]
MOST_PANELS, ACROSS = 12, 3
MOST_POINTS, LEAST_POINTS = 80, 12  # of a curve
ALL_POINTS = 9_000  # of all curves of a report, so that it stays small
MOST_BANDS = 400  # curves; of more only the means are drawn


UNITS = (
    (1.0, "s", 150.0), (60.0, "min", 9_000.0), (3600.0, "h", 172_800.0), (86_400.0, "days", math.inf),
)  # fmt: skip
"""Of wall time: how long in seconds, its name, and from when on the next one is better."""


class Band(NamedTuple):
    """The mean over seeds on a common grid, and its 95 % t interval; NaN of one seed."""

    at: Floats  # [P] env_steps or seconds
    mean: Floats  # [P]
    low: Floats  # [P]
    high: Floats  # [P]

    def without_interval(self) -> Band:
        """The mean alone."""
        nothing = np.full_like(self.mean, np.nan)
        return self._replace(low=nothing, high=nothing)


def knows(entry: Entry, axis: Axis) -> bool:
    """Whether an entry's curves can be drawn over this: all are known, numbers, and go forward."""
    timed = axis == "env_steps" or all(curve.seconds is not None for curve in entry.curves)
    if not entry.curves or not timed:
        return False
    whole = all(
        np.isfinite(curve.means).all() and bool((np.diff(_at(curve, axis)) > 0).all())
        for curve in entry.curves
    )
    return whole and len(_common(entry.curves, axis)) > 0


def band_of(curves: Sequence[Curve], axis: Axis, points: int) -> Band:
    """From where every seed was evaluated once to where the first of them ended."""
    grid = _common(curves, axis)
    if len(grid) > points:
        grid = np.linspace(grid[0], grid[-1], points)
    values = np.stack([np.interp(grid, _at(curve, axis), curve.means) for curve in curves])
    mean, seeds = values.mean(axis=0), len(curves)
    if seeds < 2:
        return Band(grid, mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = stats.t_quantile(0.975, seeds - 1) * values.std(axis=0, ddof=1) / math.sqrt(seeds)
    return Band(grid, mean, mean - half, mean + half)


def _at(curve: Curve, axis: Axis) -> Floats:
    if axis == "env_steps":
        return curve.env_steps
    assert curve.seconds is not None
    return curve.seconds


def _common(curves: Sequence[Curve], axis: Axis) -> Floats:
    """Where some seed was evaluated and all have been by then and are still on their way.

    Of seeds that were evaluated once, each where its episodes ended, it is the middle of those places.
    """
    places = [_at(curve, axis) for curve in curves]
    if all(len(place) == 1 for place in places):
        return np.array([np.mean(places)])
    start, stop = max(place[0] for place in places), min(place[-1] for place in places)
    every = np.unique(np.concatenate(places))
    common: Floats = every[(every >= start) & (every <= stop)]
    return common


def banded(field: Field) -> bool:
    """Whether there are few enough curves for each to have its band."""
    return len(field.agents) * len(field.envs) <= MOST_BANDS


def curves_figures(
    field: Field, axis: Axis, thresholds: Mapping[str, float | None]
) -> Iterator[tuple[Sequence[str], Figure]]:
    """Figures of up to twelve environments each, and which those are; nothing where none is known."""
    shown = [
        env
        for env in field.envs
        if any(knows(field.entries[agent, env], axis) for agent in field.agents)
    ]
    wanted = ALL_POINTS // max(1, len(shown) * len(field.agents))
    points = min(MOST_POINTS, max(LEAST_POINTS, wanted))
    for start in range(0, len(shown), MOST_PANELS):
        envs = shown[start : start + MOST_PANELS]
        yield envs, _draw(field, envs, axis, thresholds, points)


def _draw(
    field: Field,
    envs: Sequence[str],
    axis: Axis,
    thresholds: Mapping[str, float | None],
    points: int,
) -> Figure:
    from matplotlib.figure import Figure

    across = 2 if len(envs) in (2, 4) else min(ACROSS, len(envs))
    down = -(-len(envs) // across)
    tall = 4.0 if across == 1 else 3.2 if across == 2 else 2.5
    below = legend_height([*field.agents, "threshold"])
    figure = Figure(figsize=(WIDTH, 0.3 + tall * down + below), dpi=DPI)
    grid = [
        figure.add_axes(_place(n // across, n % across, across, tall, figure))
        for n in range(len(envs))
    ]
    styles, bare_means = styles_of(field.agents), not banded(field)
    for axes, env in zip(grid, envs, strict=False):
        known = {
            agent: entry
            for agent in field.agents
            if knows(entry := field.entries[agent, env], axis)
        }
        bands = {agent: band_of(entry.curves, axis, points) for agent, entry in known.items()}
        if bare_means:
            bands = {agent: band.without_interval() for agent, band in bands.items()}
        _draw_panel(axes, bands, styles, axis)
        _draw_goal(axes, thresholds.get(env))
        _set_limits(axes, known, bands, thresholds.get(env))
        if axis == "seconds":
            _name_unit(axes, max(float(band.at[-1]) for band in bands.values()))
        # where they are is said: to find out, matplotlib would draw every panel a second time
        axes.set_title(
            wrapped(env, 34), loc="left", y=1.0, fontsize=9.5, fontweight="bold", color=INK
        )
        axes.xaxis.set_label_coords(
            0.5, -0.26 / (axes.get_position().height * figure.get_figheight())
        )
    for axes in grid[::across]:
        axes.set_ylabel("return of greedy episodes", color=INK, fontsize=9)
        axes.yaxis.set_label_coords(-0.56 / (axes.get_position().width * WIDTH), 0.5)
    over = "environment steps" if axis == "env_steps" else "wall time"
    figure.text(
        0.01, 1 - 0.1 / figure.get_figheight(), f"Learning curves over {over}: mean over seeds{'' if bare_means else ', 95 % band'}",
        va="top", fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    legend(figure, max(grid, key=lambda axes: len(axes.get_legend_handles_labels()[1])))
    return figure


def _place(
    row: int, column: int, across: int, tall: float, figure: Figure
) -> tuple[float, float, float, float]:
    """Where a panel is in its figure; to ask all of them how much room they need takes long."""
    width, height = figure.get_size_inches()
    pitch = (width - 0.2) / across
    left, top = 0.2 + column * pitch + 0.55, 0.3 + row * tall + 0.28
    return (
        left / width, 1 - (top + tall - 0.8) / height, (pitch - 0.7) / width, (tall - 0.8) / height
    )  # fmt: skip


def _draw_panel(
    axes: Axes, bands: Mapping[str, Band], styles: Mapping[str, Style], axis: Axis
) -> None:
    pale = 0.16 if len(bands) <= 4 else 0.06
    for turn, (agent, band) in enumerate(bands.items()):
        style = styles[agent]
        if np.isfinite(band.low).any():
            axes.fill_between(
                band.at, band.low, band.high, color=style.color, alpha=pale, linewidth=0
            )
        every = max(1, len(band.at) // 5)
        axes.plot(
            band.at, band.mean, color=style.color, linestyle=style.dash, linewidth=1.6,
            marker=style.marker, markersize=4.5, markevery=(turn % every, every),
            label=wrapped(agent, NAME),
        )  # fmt: skip
    axes.locator_params(nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: human(value))
    axes.set_xlabel("environment steps" if axis == "env_steps" else "", color=INK, fontsize=9)
    bare(axes)


def _name_unit(axes: Axes, seconds: float) -> None:
    """Seconds, minutes, hours or days: what the longest is best told in, with round numbers."""
    from matplotlib.ticker import MaxNLocator

    size, name = next((size, name) for size, name, most in UNITS if seconds < most)
    ticks = MaxNLocator(4).tick_values(0, seconds / size)
    shown = [tick for tick in ticks if 0 <= tick * size <= seconds * 1.01]
    axes.set_xticks([tick * size for tick in shown], [f"{tick:g}" for tick in shown])
    axes.set_xlabel(f"wall time, {name}", color=INK, fontsize=9)


def _draw_goal(axes: Axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axhline(
            threshold,
            color=GOAL,
            linewidth=1.0,
            linestyle=(0, (6, 3)),
            label="threshold",
            zorder=1.5,
        )


def _set_limits(
    axes: Axes, known: Mapping[str, Entry], bands: Mapping[str, Band], threshold: float | None
) -> None:
    """Fit means and the threshold, and of the bands what lies where some seed was."""
    seen = np.concatenate([curve.means for entry in known.values() for curve in entry.curves])
    every = np.concatenate([np.concatenate(band[1:]) for band in bands.values()])
    every = np.clip(every[np.isfinite(every)], seen.min(), seen.max())
    if threshold is not None:
        every = np.append(every, threshold)
    low, high = float(every.min()), float(every.max())
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, max(float(band.at[-1]) for band in bands.values()) * 1.01 or 1.0)
    axes.yaxis.set_major_formatter(
        lambda value, _: human(value) if abs(value) >= 1e4 else number(value)
    )
