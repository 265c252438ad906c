"""``python -m runners.ablate AGENT``: what does each part of an agent do, and what does it cost?"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runners.console import duration, number
from runners.errors import BadInput, command, disk, leave

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from runners import side_by_side
    from runners.ablation import Outcome, Series
    from runners.config import RunConfig
    from runners.console import Console
    from runners.series import Trained

HELP = """\
usage: python -m runners.ablate AGENT [--env ID] [--seeds K] [--steps N] [--seed S] [--jobs J]
                                [--out DIR] [--quiet]

Train an agent of DQN's family, the same without each of its switches, plain DQN, and plain DQN with
each switch alone, all with the same seeds, steps and other settings. Print the last weights' returns
with their 95 % intervals (mean: t; IQM, the interquartile mean: bootstrap), how much each differs
from what it is compared with (seed by seed, 95 % t interval; p by swapping seeds, of all series
together), and what a step takes beside it. --jobs J trains J series at once, 0 one a core; times are
those of an undisturbed machine with the one that is usual.

Runs are those of train: finished ones are reused, an interrupted command goes on where it stopped.
Any other flag of train that is a setting is taken too: python -m runners.train AGENT --help.
The folder with ablation.json and forest.png is the last line printed.

example:
  python -m runners.ablate rainbow --env CartPole-v1 --seeds 5 --steps 20480

exit status: those of train; 2 for an agent that has no switches
"""


def ablate(
    config: RunConfig,
    seeds: Sequence[int],
    out: str = "runs",
    *,
    jobs: int = 1,
    console: Console | None = None,
    stop_asked: Callable[[], int] = lambda: 0,
) -> list[Outcome]:
    """Train all series of an ablation that are not trained yet, and compare them.

    ``jobs`` of them are trained at once, in processes of their own; 1: in this one, in turn.

    Raises:
        BadInput: the agent has no switches, or stops where it has solved the environment.
        NoCheckpoint, DiskFault, RunFailed, Stopped, SimulatorError: as `runners.train.run`.
    """
    from runners import series as runs
    from runners import side_by_side
    from runners.ablation import compare, plan
    from runners.console import SilentConsole

    console, planned = console or SilentConsole(), plan(config)
    if jobs != 1:
        commands = _commands(planned, _folder(config, out), out)
        side_by_side.train(commands, seeds, out, jobs, console, stop_asked)
    trained: list[Trained | None] = []
    for turn, one in enumerate(planned, 1):
        title = f"{turn} of {len(planned)}: {one.label}"
        if one.config is None:
            console.message(f"{title}: refused: {one.refused}")
            trained.append(None)
        else:
            trained.append(runs.train(one.config, seeds, out, console, stop_asked, title))
    return compare(planned, trained)


def _commands(planned: Sequence[Series], folder: Path, out: str) -> list[side_by_side.Series]:
    """The series as commands of train, each of a file with all of its settings."""
    from runners import files, side_by_side
    from runners.config import to_json

    files.make_folder(folder)
    made = []
    for i, one in enumerate(planned):
        if one.config is not None:
            path = folder / f"config-{i}.json"
            with disk(path):
                files.replace(path, files.dump(to_json(one.config), indent=2), "configuration")
            argv = ["--config", str(path), "--out", out, "--quiet"]
            made.append(side_by_side.Series(one.label, one.config, argv))
    return made


# -- The table -----------------------------------------------------------------------------------

SAME = "-"  # nothing to say


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """A row a series: those compared with the agent, then those compared with plain DQN."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    table.add_column("")
    for name in ("final return", "95 %", "IQM", "95 %", "difference", "95 %", "p", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    below = None
    for outcome in outcomes:
        if outcome.series.base == "plain" and below != "plain":
            table.add_section()
        below = outcome.series.base
        table.add_row(outcome.series.label, *_cells(outcome))
    return table


def _cells(outcome: Outcome) -> list[str]:
    if outcome.run is None:
        return ["refused", *[SAME] * 7]
    difference, ratio = outcome.difference, outcome.time_ratio
    return [
        number(outcome.mean),
        _ends(outcome.interval),
        number(outcome.iqm),
        _ends(outcome.iqm_interval),
        f"{difference.mean:+.4g}" if difference else SAME,
        _ends(difference.interval) if difference else SAME,
        SAME if outcome.p is None else f"{outcome.p:.2g}",
        SAME if ratio is None else f"x {ratio:.2f}",
    ]


def _ends(interval: Sequence[float]) -> str:
    low, high = interval
    return SAME if math.isnan(low) else f"{number(low)} .. {number(high)}"


def lines_of(outcomes: Sequence[Outcome]) -> list[str]:
    """What the table does not say."""
    agent = outcomes[0].series.label
    above = f"difference and time: beside {agent}"
    if any(outcome.series.base == "plain" for outcome in outcomes):
        above += "; below the line beside plain dqn"
    lines = [
        above,
        "p: as often would the series of two equal agents differ as much, any of them (Holm)",
        "time: seconds a step as trained on this machine",
    ]
    lines += [f"{o.series.label}: {o.series.refused}" for o in outcomes if o.series.refused]
    seeds = len(outcomes[0].run.seeds) if outcomes[0].run else 0
    if seeds == 1:
        lines.append("one seed says nothing about chance: no intervals")
    return lines


# -- The picture ---------------------------------------------------------------------------------


def draw_forest(outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """Draw each difference with its interval, above to the agent and below to plain DQN, as a PNG."""
    # Figure and not pyplot: no global state, no window, and less to import.
    from matplotlib.figure import Figure

    from runners.pictures import DPI, INK, save_figure

    parts = [
        (name, [o for o in outcomes if o.series.base == base])
        for name, base in ((f"minus {outcomes[0].series.label}", "full"), ("minus dqn", "plain"))
    ]
    parts = [(name, rows) for name, rows in parts if rows]
    height = sum(0.9 + 0.3 * len(rows) for _, rows in parts) + 0.4
    figure = Figure(figsize=(7.2, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(
        len(parts), 1, squeeze=False, height_ratios=[0.9 + len(rows) for _, rows in parts]
    )
    for axes, (name, rows) in zip(grid[:, 0], parts, strict=True):
        _draw_rows(axes, rows, f"final return {name}, 95 % interval over seeds")
    figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold", color=INK)
    save_figure(figure, path)


def _draw_rows(axes: Axes, rows: Sequence[Outcome], label: str) -> None:
    from runners.pictures import GOAL, INK, MEAN

    axes.axvline(0, color=GOAL, linewidth=1.0, linestyle=(0, (6, 3)))
    for row, outcome in enumerate(rows):
        if outcome.difference is None:
            axes.annotate(
                " refused", (0, row), color=INK, fontsize=8.5, va="center", style="italic"
            )
            continue
        middle, (low, high) = outcome.difference
        if not math.isnan(low):
            axes.plot([low, high], [row, row], color=MEAN, linewidth=1.8)
        axes.plot([middle], [row], "o", color=MEAN, markersize=5)
    axes.set_yticks(range(len(rows)), [outcome.series.label for outcome in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label, color=INK, fontsize=9)
    axes.tick_params(colors=INK, length=3)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


# -- The command ---------------------------------------------------------------------------------


def write(outcomes: Sequence[Outcome], config: RunConfig, seeds: Sequence[int], out: str) -> Path:
    """Write ablation.json and forest.png; gives their folder, one for each configuration."""
    from runners import files
    from runners.ablation import to_json

    folder = _folder(config, out)
    files.make_folder(folder)
    record = {
        "agent": config.agent,
        "env": config.env,
        "steps": config.steps,
        "seeds": list(seeds),
        "series": [to_json(outcome) for outcome in outcomes],
    }
    with disk(folder):
        files.replace(folder / "ablation.json", files.dump(record, indent=2), "ablation")
    draw_forest(outcomes, folder / "forest.png", _title(config, seeds))
    return folder


def _folder(config: RunConfig, out: str) -> Path:
    from runners.config import run_name

    return Path(out) / f"ablation-{run_name(config)}"


def _title(config: RunConfig, seeds: Sequence[int]) -> str:
    plural = "s" * (len(seeds) != 1)
    return f"{config.agent} on {config.env}, {config.steps:,} steps, {len(seeds)} seed{plural}"


def _planned(planned: Sequence[Series], config: RunConfig, seeds: Sequence[int]) -> str:
    count = sum(one.config is not None for one in planned)
    return f"{count} series of {len(seeds)} x {config.steps:,} steps"


def _jobs(argv: Sequence[str]) -> tuple[int, list[str]]:
    """How many series at once, and the words that are train's."""
    from runners.evaluate import Parser, at_least

    parser = Parser("runners.ablate", "", "")
    parser.add_argument("--jobs", type=at_least(0), default=1)
    asked, rest = parser.parse_known_args(argv)
    return asked.jobs, rest


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, train what is missing, print the table."""
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(HELP)
        return 0
    if not argv or argv[0].startswith("-"):
        raise BadInput("agent: none is named; it comes first, as in rainbow --env CartPole-v1")
    import time

    from runners.ablation import plan
    from runners.command_line import parse_train
    from runners.console import make_console
    from runners.options import TRAIN_ALONE
    from runners.report import print_table
    from runners.train import SignalFlag, importing

    jobs, argv = _jobs(argv)
    with importing():
        config, options, preset, seeds, _ = parse_train(argv)
        planned = plan(config)
    options.refuse((*TRAIN_ALONE, "ray"), "ablate")
    console, began = make_console(options.quiet), time.monotonic()
    if preset:
        console.message(f"preset: {preset}")
    console.message(_planned(planned, config, seeds))
    outcomes = ablate(
        config, seeds, options.out, jobs=jobs, console=console, stop_asked=SignalFlag()
    )
    folder = write(outcomes, config, seeds, options.out)
    console.message(f"done in {duration(time.monotonic() - began)}")
    if not options.quiet:
        print_table(_title(config, seeds), outcome_table(outcomes), lines_of(outcomes))
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    leave(main())
