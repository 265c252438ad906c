"""lag.png: how old the parameters were that acted, over a run with async workers, and the return by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from runners.console import human
from runners.learning_curve import Record
from runners.pictures import DPI, INK, LINE, MEAN, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from runners.run_folder import RunFolder


def draw_lag(run: RunFolder) -> None:
    """Draw lag.png of a run, done or under way; nothing where the lag is always the same."""
    config = run.config()
    if not config.get("async_"):  # not there: begun before there were workers
        return
    records = {seed: run.seed(seed).read_metrics().records for seed in run.seeds()}
    if any(records.values()):
        title = f"{config['agent']} on {config['env']}"
        save_figure(lag_figure(records, title, config["max_lag"]), run.lag_picture)


def lag_figure(records: Mapping[int, Sequence[Record]], title: str, bound: int) -> Figure:
    """Left the lag over environment steps, right the training return against the lag."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.2), dpi=DPI)
    over_time, by_lag = figure.subplots(1, 2)
    for seed in records.values():
        steps, mean, most, returns = (
            np.array([record[name] for record in seed], np.float64)
            for name in ("env_steps", "policy_lag", "policy_lag_max", "train_return")
        )
        over_time.plot(steps, mean, color=MEAN, linewidth=1.0)
        over_time.plot(steps, most, color=LINE, linewidth=0.8)
        # paler: earlier, when returns were low for other reasons
        shade = np.linspace(0.15, 1.0, len(steps))
        by_lag.scatter(mean, returns, s=10, color=MEAN, alpha=shade, linewidths=0)
    over_time.set_ylim(0, bound + 0.5)
    over_time.xaxis.set_major_formatter(lambda value, _: human(value))
    _dress(over_time, "lag in rollouts over environment steps: mean, and most (pale)")
    _dress(by_lag, "training return against the mean lag; pale: early")
    figure.suptitle(f"{title}: policy lag", x=0.02, ha="left", fontweight="bold", color=INK)
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.1, top=0.8, wspace=0.18)
    return figure


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=8, color=INK)
    axes.tick_params(colors=INK, length=2, labelsize=7.5)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
