"""``python -m runners.simulate ID``: what do a simulator's parameters do to policies that do not learn?"""

from __future__ import annotations

import csv
import io
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runners import evaluate, stats
from runners.console import Console, human, number
from runners.errors import BadInput, RunFailed, command, disk, leave
from runners.grid import read_settings, written

if TYPE_CHECKING:
    from rich.table import Table

    from runners.jobs import Job
    from runners.simulation import Plan, Player, Unit

DESCRIPTION = """\
Play episodes of policies in a simulator whose parameters are set this way and that, in parallel and
without learning. Print for every combination of values and every policy the mean return with its
95 % t interval over episodes, how much it differs from the first combination (the same policy,
episode by episode, 95 % t interval), how long episodes are, and how fast the simulator is.

All combinations and policies get the same episodes: the same first states, and the same random
actions. The numbers depend on --seed, --episodes and --lanes alone, not on --jobs. A command that
was interrupted goes on where it stopped; one that is done is printed at once.

The folder with simulation.csv, episodes.csv (an episode a row) and simulation.png is the last line
printed."""

EPILOG = """\
values:
  --set gravity=5,9.8,15           these
  --set gravity=5..15:11           11 evenly spaced ones, both ends among them
  --set force_mag=log:1..100:5     5, evenly spaced in their logarithms
  --set healthy_z_range="0.7,2"    a text with a comma in double quotes (and those from the shell)

  Parameters are the options of the simulator: those of its constructor, max_episode_steps, and for
  Gymnasium's CartPole, MountainCar, Pendulum and MuJoCo tasks gravity, masses, lengths and forces.
  One that it does not have is answered with the nearest name, or all of them.

examples:
  python -m runners.simulate CartPole-v1 --set gravity=5,9.8,15 --policy random
  python -m runners.simulate CartPole-v1 --set gravity=5..15:5 --set length=0.25,0.5,1 \\
      --policy random --policy pqn-CartPole --episodes 1000 --jobs 2
  python -m runners.simulate HalfCheetah-v5 --set friction_scale=0.5,1,2 --policy runs/sac-HalfCheetah

exit status: 0 done, 1 some combinations could not be played, 2 bad input, 4 disk; 130 or 143 stopped"""

JOBS_A_CORE = 3  # so that the last one does not run alone for long; each costs a start of Python
SAME = "-"  # nothing to say


class Cell(NamedTuple):
    """What a policy came to with a setting; n episodes."""

    setting: Mapping[str, Any]
    policy: str
    returns: Sequence[float]  # [n]
    lengths: Sequence[int]  # [n]
    steps_per_s: float  # environment steps of one process, policy included
    difference: stats.Difference | None  # to the first setting
    error: str = ""  # why there is nothing


def simulate(
    plan: Plan,
    out: str = "runs",
    jobs: int = 0,
    *,
    console: Console | None = None,
    stop_asked: Callable[[], int] = lambda: 0,
) -> list[Cell]:
    """Play all that has not been played yet, in so many processes at once (0: one a core).

    Raises:
        UnsupportedEnv, BadInput: see `runners.simulation.check`.
        DiskFault, Stopped: see `runners.jobs.Supervisor`; the rounds that were played stay.
    """
    from runners import files
    from runners.console import SilentConsole
    from runners.simulation import check

    folder = Path(out) / plan.folder_name
    if _missing(plan.units, folder):
        check(plan)
        files.make_folder(folder / "rounds")
        with files.locked(folder / "lock", f"{folder}: is being simulated"):
            _play_missing(plan, folder, jobs, console or SilentConsole(), stop_asked)
    return _cells(plan, folder)


def _missing(units: Sequence[Unit], folder: Path) -> list[Unit]:
    from runners.simulation import read_round

    return [unit for unit in units if read_round(folder, unit) is None]


def _play_missing(
    plan: Plan, folder: Path, jobs: int, console: Console, stop_asked: Callable[[], int]
) -> None:
    from runners import files
    from runners.jobs import Supervisor
    from runners.jobs_panel import JobsPanel
    from runners.simulation import error_path, round_path

    with disk(folder):
        files.replace(folder / "plan.json", files.dump(plan.to_json(), indent=2), "plan")
        for left in ("*.error", ".tmp-*"):  # of processes that failed or were killed
            for path in (folder / "rounds").glob(left):
                path.unlink()
    work: dict[str, list[Unit]] = {}

    def share(job: Job) -> float:
        units = work[job.name]
        return sum(round_path(folder, unit).exists() for unit in units) / len(units)

    def job_of(units: list[Unit]) -> Job:
        job = _job(folder, plan, units)
        work[job.name] = units
        return job

    with (
        JobsPanel(console, f"simulate {plan.env}", progress=share) as panel,
        Supervisor(folder / "logs", jobs, stop_asked=stop_asked, watcher=panel) as supervisor,
    ):
        parts = JOBS_A_CORE * supervisor.at_once
        for units in shared_out(_missing(plan.units, folder), parts):
            supervisor.submit(job_of(units))
        while (outcome := supervisor.wait_any()) is not None:
            units = work[outcome.job.name]
            for unit in [] if outcome.status == "done" else _missing(units, folder):
                if len(units) > 1:  # one of them kills the process that plays it: which?
                    supervisor.submit(job_of([unit]))
                else:
                    with disk(folder):
                        error_path(folder, unit).write_text(outcome.line)


def shared_out(units: Sequence[Unit], parts: int) -> list[list[Unit]]:
    """The units in so many parts, or fewer, of nearly the same size, in their order."""
    parts = min(parts, len(units))
    cuts = [len(units) * i // parts for i in range(parts + 1)]
    return [list(units[a:b]) for a, b in itertools.pairwise(cuts)]


def _job(folder: Path, plan: Plan, units: Sequence[Unit]) -> Job:
    from runners.jobs import Job
    from runners.simulation import describe

    setting, player = plan.cells[units[0].cell]
    named = ", ".join(filter(None, [describe(setting), player.name]))
    more = f" and {len(units) - 1} more" * (len(units) > 1)
    play = [sys.executable, "-m", "runners.simulation"]
    return Job(f"{units[0]} {named}{more}", [*play, str(folder), *map(str, units)])


def _cells(plan: Plan, folder: Path) -> list[Cell]:
    cells: list[Cell] = []
    for index, (setting, player) in enumerate(plan.cells):
        first = cells[index % len(plan.players)] if index >= len(plan.players) else None
        cells.append(_cell(plan, folder, index, setting, player, first))
    return cells


def _cell(
    plan: Plan, folder: Path, index: int, setting: Mapping[str, Any], player: Player,
    first: Cell | None,
) -> Cell:  # fmt: skip
    from runners.simulation import Unit, error_path, read_round

    units = [Unit(index, r) for r in range(plan.rounds)]
    rounds = [one for unit in units if (one := read_round(folder, unit)) is not None]
    if len(rounds) < len(units):
        errors = [p.read_text() for unit in units if (p := error_path(folder, unit)).exists()]
        return Cell(setting, player.name, [], [], math.nan, None, (errors or ["not played"])[0])
    returns = [value for one in rounds for value in one.returns][: plan.episodes]
    lengths = [value for one in rounds for value in one.lengths][: plan.episodes]
    seconds = math.fsum(one.seconds for one in rounds)
    speed = sum(one.steps for one in rounds) / seconds if seconds else math.nan
    paired = first is not None and not first.error
    difference = stats.paired_difference(returns, first.returns) if first and paired else None
    return Cell(setting, player.name, returns, lengths, speed, difference)


# -- The table and the files ---------------------------------------------------------------------


def cell_table(plan: Plan, cells: Sequence[Cell]) -> Table:
    """A row a cell; of several policies the names, and a line between settings."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    for name in plan.parameters:
        table.add_column(name, justify="right", no_wrap=True)
    several = len(plan.players) > 1
    if several:
        table.add_column("policy")
    for name in ("mean return", "95 %", "difference", "95 %", "length", "steps/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, cell in enumerate(cells):
        if several and index and not index % len(plan.players):
            table.add_section()
        names = [cell.policy] * several
        table.add_row(*map(written, cell.setting.values()), *names, *_texts(cell))
    return table


def title_of(plan: Plan) -> str:
    """What the table is of."""
    count = f"{plan.episodes:,} episode{'s' * (plan.episodes != 1)} each"
    return ", ".join([plan.env, *(player.name for player in plan.players), count])


def _texts(cell: Cell) -> list[str]:
    if cell.error:
        return ["failed", *[SAME] * 5]
    difference = cell.difference
    return [
        number(stats.mean(cell.returns)),
        _ends(stats.t_interval(cell.returns)),
        f"{difference.mean:+.4g}" if difference else SAME,
        _ends(difference.interval) if difference else SAME,
        number(stats.mean(cell.lengths)),
        human(cell.steps_per_s),
    ]


def _ends(interval: Sequence[float]) -> str:
    low, high = interval
    return SAME if math.isnan(low) else f"{number(low)} .. {number(high)}"


def lines_of(plan: Plan, cells: Sequence[Cell]) -> list[str]:
    """What the table does not say."""
    from runners.simulation import describe

    lines = []
    if len(plan.settings) > 1:
        lines.append(f"difference: beside {describe(plan.settings[0])}, the same policy")
    if plan.episodes == 1:
        lines.append("one episode says nothing about chance: no intervals")
    lines.append("steps/s: of one process, policy included, while the others ran beside it")
    for cell in cells:
        if cell.error:
            what = ", ".join(filter(None, [describe(cell.setting), cell.policy]))
            lines.append(f"{what}: {cell.error}")
    return lines


def trained_otherwise(plan: Plan) -> list[str]:
    """Policies that were trained with options that the simulator is not given here."""
    from runners.policy import open_run

    lines = []
    for player in plan.players:
        options = open_run(player.path).config()["env_options"] if player.path else {}
        for name, value in options.items():
            if name not in plan.parameters:
                text = f"{name}={written(value)}"
                lines.append(f"{player.name} was trained with {text}: --set {text} has it here too")
    return lines


def write(plan: Plan, cells: Sequence[Cell], folder: Path) -> None:
    """Write simulation.csv, episodes.csv and simulation.png."""
    from runners import files
    from runners.simulate_picture import draw

    names = list(plan.parameters)
    with disk(folder):
        files.replace(folder / "simulation.csv", _csv([_header(names), *map(_row, cells)]), "csv")
        episodes = [
            [*cell.setting.values(), cell.policy, i, *pair]
            for cell in cells
            for i, pair in enumerate(zip(cell.returns, cell.lengths, strict=True))
        ]
        header = [*names, "policy", "episode", "return", "length"]
        files.replace(folder / "episodes.csv", _csv([header, *episodes]), "csv")
    draw(plan, cells, folder / "simulation.png")


def _header(names: Sequence[str]) -> list[str]:
    return [
        *names, "policy", "episodes", "mean_return", "low", "high", "difference", "difference_low",
        "difference_high", "mean_length", "env_steps_per_s", "error",
    ]  # fmt: skip


def _row(cell: Cell) -> list[Any]:
    difference = cell.difference or stats.Difference(math.nan, stats.Interval(math.nan, math.nan))
    figures = [
        stats.mean(cell.returns), *stats.t_interval(cell.returns), difference.mean,
        *difference.interval, stats.mean(cell.lengths), cell.steps_per_s,
    ]  # fmt: skip
    shown = ["" if math.isnan(figure) else figure for figure in figures]
    return [*cell.setting.values(), cell.policy, len(cell.returns), *shown, cell.error]


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


# -- The command ---------------------------------------------------------------------------------


def _parser() -> evaluate.Parser:
    parser = evaluate.Parser("runners.simulate", DESCRIPTION, EPILOG)
    at_least, add = evaluate.at_least, parser.add_argument
    add("env", metavar="ID", help="the environment, as in train --env")
    add(
        "--set", action="append", default=[], metavar="NAME=VALUES",
        help="a parameter of the simulator and its values; several make a grid",
    )  # fmt: skip
    add(
        "--policy", action="append", metavar="random|RUN",
        help="random actions, or the best weights of a run's first seed (random); may be repeated",
    )  # fmt: skip
    add("--episodes", type=at_least(1), default=100, metavar="N", help="of each (100)")
    add("--lanes", type=at_least(1), default=50, metavar="N", help="episodes side by side (50)")
    add("--seed", type=at_least(0), default=0, metavar="S", help="of the episodes (0)")
    add("--jobs", type=at_least(0), default=0, metavar="J", help="processes at once (one a core)")
    add("--backend", default="auto", metavar="B", help="what simulates (auto)")
    add("--out", default="runs", metavar="DIR", help="for the folder, and to find runs in (runs)")
    add("--quiet", action="store_true", help="print the folder and nothing else")
    return parser


def make_plan(
    env_id: str, settings: Sequence[str], policies: Sequence[str], episodes: int = 100,
    lanes: int = 50, seed: int = 0, backend: str = "auto", out: str = "runs",
) -> Plan:  # fmt: skip
    """The plan that a command line describes.

    Raises:
        BadInput: a setting is not written as `runners.grid.read_settings` has it, or a policy cannot
            be had.
        UnsupportedEnv: there is no such environment or backend.
    """
    import envs
    from runners.simulation import Plan, find_player

    parameters = read_settings(settings)
    resolved = envs.resolve_backend(env_id, backend)
    players = [find_player(text, env_id, out) for text in policies]
    for i, player in enumerate(players):
        if player in players[:i]:
            raise BadInput(f"--policy: {player.name} is named twice")
    rounds = -(-episodes // lanes)
    return Plan(env_id, resolved, parameters, players, episodes, -(-episodes // rounds), seed)


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, play what is missing, print the table."""
    asked = _parser().parse_args(argv)
    from runners.console import make_console
    from runners.report import print_table
    from runners.train import SignalFlag

    plan = make_plan(
        asked.env, asked.set, asked.policy or ["random"], asked.episodes, asked.lanes, asked.seed,
        asked.backend, asked.out,
    )  # fmt: skip
    console, flag = make_console(asked.quiet), SignalFlag()
    cells = simulate(plan, asked.out, asked.jobs, console=console, stop_asked=flag)
    folder = Path(asked.out) / plan.folder_name
    write(plan, cells, folder)
    if not asked.quiet:
        lines = [*lines_of(plan, cells), *trained_otherwise(plan)]
        print_table(title_of(plan), cell_table(plan, cells), lines)
    sys.stdout.write(f"{folder}\n")
    sys.stdout.flush()
    if failed := [cell for cell in cells if cell.error]:
        raise RunFailed(f"{len(failed)} of {len(cells)} could not be played: {failed[0].error}")
    return 0


if __name__ == "__main__":
    leave(main())
