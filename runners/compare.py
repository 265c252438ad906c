"""``python -m runners.compare AGENT...``: which agent is better here, and how sure are we?"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import run_folder
from runners.console import duration, number
from runners.errors import BadInput, command, disk, leave
from runners.evaluate import Parser, at_least
from runners.side_by_side import Series

if TYPE_CHECKING:
    from rich.table import Table

    from runners.bootstrap import Estimate
    from runners.comparison import Comparison, Pair
    from runners.scores import Entry

DESCRIPTION = """\
Set agents side by side, on one environment or several, with the same seeds, steps and evaluation
episodes. What is not trained yet is trained, in parallel; finished runs are reused and interrupted ones
go on. The verdict comes first: which is better, by how much, how sure that is, or how many more seeds
it would take."""

EPILOG = """\
what may be compared:
  AGENT        as train takes it, sb3:dqn and the like included; flags of its own go with it in quotes
  RUN          a run folder, the unique beginning of its name, or last
  FILE.csv     columns agent, env, seed, score; with env_steps, rows of a seed are its curve
  NAME@ENV=FILE,...  Stable-Baselines3's evaluations.npz or *.monitor.csv, one a seed

examples:
  python -m runners.compare dqn pqn sb3:dqn --envs CartPole-v1 Acrobot-v1 --seeds 10 --steps 50000
  python -m runners.compare dqn "dqn --n-step 1 --no-double" --envs CartPole-v1 --seeds 10 --steps 20000
  python -m runners.compare dqn pqn --envs CartPole-v1 --seeds 5 --until-decided --max-seeds 40
  python -m runners.compare runs/dqn-CartPole-v1-0123456789 runs/pqn-CartPole-v1-0123456789

The folder with report.html, compare.json and the pictures is the last line printed.

exit status: those of train; 0 whatever the verdict is"""

SEEDS = 10  # of each, if no other number is asked for
LEAST_SEEDS = 2


def plan(
    agents: Sequence[str], envs: Sequence[str], steps: int | None, more: Sequence[str], out: str
) -> list[Series]:
    """What to train, environment by environment; every setting is checked before the first begins.

    Raises:
        BadInput: an agent or a setting that cannot be, or budgets that differ.
    """
    from runners.command_line import parse_train
    from runners.group import make_setting

    made = []
    _refuse_ours(more)
    for env in envs:
        for agent in agents:
            own = [*_words(agent), "--env", env, *more, "--out", out, "--quiet"]
            argv = own if steps is None else [*own, "--steps", str(steps)]
            config = parse_train(argv).config
            if config.until_solved:
                raise BadInput("until_solved: agents are compared at equal budgets; leave it out")
            made.append(Series(f"{agent} on {env}", config, argv, agent))
        here = [series for series in made if series.config.env == env]
        if len(budgets := {series.config.steps for series in here}) > 1:
            told = ", ".join(f"{s.name}: {s.config.steps:,}" for s in here)
            raise BadInput(f"steps: no common budget ({told}); say it: --steps {max(budgets)}")
        for series in here:
            if series.config.env_options != here[0].config.env_options:
                raise BadInput(
                    f"env_options: differ between {here[0].name} and {series.name}; all agents take the "
                    "same environments"
                )
    names = [series.folder(out).name for series in made]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadInput(f"{made[i].name}: the same settings as {made[names.index(name)].name}")
    for series in made:  # an agent that does not suit its environment is refused here, not by a job
        make_setting(series.config)
    return made


NOT_HERE = (
    "env", "seeds", "seed", "out", "quiet", "fresh", "resume", "tensorboard", "verify-resume", "workers",
    "ray",
    "help",
)  # fmt: skip
"""Flags of train that say what this command says itself, or that several processes cannot share."""


def _words(agent: str) -> list[str]:
    """An agent and flags of its own."""
    from runners.config import agent_entry

    try:
        words = shlex.split(agent)
    except ValueError as error:
        raise BadInput(f"{agent!r}: {error}".lower()) from None
    agent_entry(words[0] if words else "")
    _refuse_ours(words)
    return words


def _refuse_ours(words: Sequence[str]) -> None:
    for word in words:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name.removeprefix("--").removeprefix("no-") in NOT_HERE:
            raise BadInput(f"{name}: is not for an agent that is compared; leave it out")


def entries_of(planned: Sequence[Series], seeds: Sequence[int], out: str) -> list[Entry]:
    """What the seeds of finished runs came to."""
    from runners import scores

    return [
        dataclasses.replace(scores.of_run(one.folder(out), seeds), asked=one.asked)
        for one in planned
    ]


def read(sources: Sequence[str], out: str) -> list[Entry]:
    """What run folders and files say.

    Raises:
        BadInput: one that cannot be found or read.
    """
    from runners import scores

    entries: list[Entry] = []
    for source in sources:
        name, given, files = source.partition("=")
        if given:
            entries.append(scores.of_records(name, files.split(",")))
        elif source.endswith(".csv"):
            entries += scores.of_csv(Path(source))
        else:
            entries.append(scores.of_run(run_folder.find_run(source, out)))
    return entries


# -- What is printed and kept --------------------------------------------------------------------


def figures_table(comparison: Comparison) -> Table:
    """A row an agent: its figures with their intervals."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    table.add_column("agent")
    for name in next(iter(comparison.figures.values())):
        table.add_column(f"{name} [95 %]", justify="right", no_wrap=True)
    for env in comparison.field.envs:
        table.add_column(escape(f"mean on {env}"), justify="right")
    for agent, figures in comparison.figures.items():
        raw = comparison.field.scores(agent)
        means = [number(float(raw[env].mean())) for env in comparison.field.envs]
        table.add_row(escape(agent), *map(_estimate, figures.values()), *means)
    return table


def pairs_table(comparison: Comparison) -> Table:
    """A row a pair."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.ROUNDED)
    table.add_column("pair")
    # the p of one look is not that of several
    chance = "decided" if any(pair.looks for pair in comparison.pairs) else "p (Holm)"
    for name in (f"{comparison.figure} difference [95 %]", chance, "wins with probability"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        table.add_row(
            escape(f"{pair.a} - {pair.b}"),
            _estimate(pair.difference),
            _decided(pair),
            _estimate(pair.improvement),
        )
    return table


def _decided(pair: Pair) -> str:
    if pair.looks is None:
        return f"{pair.p:.3g}"
    seeds = pair.looks.looks[-1].seeds
    return f"at {seeds} seeds" if pair.better else f"not by {seeds} seeds"


def _estimate(estimate: Estimate) -> str:
    lo, hi = estimate.interval
    return f"{number(estimate.value)} [{number(lo)} .. {number(hi)}]"


def title_of(comparison: Comparison) -> str:
    """Who met where, with how many seeds."""
    field = comparison.field
    counts = {len(entry.seeds) for entry in field.entries.values()}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{', '.join(field.agents)} on {', '.join(field.envs)}, {seeds} seeds"


def folder_of(origins: Iterable[str], out: str) -> Path:
    """One folder for the same runs, whatever seeds they have."""
    digest = hashlib.sha256(json.dumps(sorted(origins)).encode()).hexdigest()[:10]
    return Path(out) / f"compare-{digest}"


def keep_looks(folder: Path, looks: dict[str, Any]) -> None:
    """Keep what was planned before the first look: the looks share an error by it, and by no other plan.

    Raises:
        BadInput: another one was kept, whose seeds have been looked at.
    """
    from runners import files

    path = folder / "looks.json"
    if not path.exists():
        files.make_folder(folder)
        with disk(path):
            files.replace(path, files.dump(looks), "plan of looks")
    elif (kept := json.loads(path.read_text(encoding="utf-8"))) != looks:
        raise BadInput(
            f"until-decided: these seeds were looked at by another plan, {kept}; the same goes on with it, "
            f"another takes fresh seeds: --seed {kept['first'] + kept['seeds'][-1]}"
        )


def write(comparison: Comparison, out: str) -> Path:
    """Write compare.json and the report; gives their folder."""
    from runners import comparison_json, comparison_report, files

    folder = folder_of((entry.origin for entry in comparison.field.entries.values()), out)
    files.make_folder(folder)
    with disk(folder):
        record = comparison_json.to_json(comparison)
        files.replace(folder / "compare.json", files.dump(record, indent=2), "comparison")
    comparison_report.write(comparison, folder)
    return folder


# -- The command ---------------------------------------------------------------------------------


def _parser() -> Parser:
    parser = Parser("runners.compare", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("what", nargs="+", metavar="WHAT", help="two agents or more; or run folders and files")
    add("--envs", nargs="+", metavar="ID", help="environments to train on")
    add(
        "--seeds",
        type=at_least(LEAST_SEEDS),
        default=SEEDS,
        metavar="K",
        help=f"seeds of each ({SEEDS})",
    )
    add("--seed", type=at_least(0), default=0, metavar="S", help="the first seed (0)")
    add("--steps", type=at_least(1), metavar="N", help="steps of each seed (as the presets say)")
    add("--jobs", type=at_least(0), default=0, metavar="J", help="processes at once (one a core)")
    add("--against-first", action="store_true", help="not with each other: decided by fewer seeds")
    add("--until-decided", action="store_true", help="add seeds until every pair is decided")
    add(
        "--max-seeds",
        type=at_least(LEAST_SEEDS),
        metavar="M",
        help="... or there are so many (4 K)",
    )
    add("--out", default="runs", metavar="DIR", help="parent of run folders (runs)")
    add("--quiet", action="store_true", help="print the folder alone")
    return parser


def _asked(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and what of it train is to be told."""
    parser = _parser()
    asked, more = parser.parse_known_args(argv)
    return asked, more


def is_agent(text: str) -> bool:
    """Whether a word of the command line names an agent, and not a run or a file."""
    from runners.config import AGENTS

    first = text.split()[0] if text.split() else ""
    return first in AGENTS


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line; train what is missing, compare, write the report."""
    asked, more = _asked(argv)
    from runners.comparison import compare
    from runners.console import make_console
    from runners.report import print_table
    from runners.scores import field_of
    from runners.side_by_side import train
    from runners.train import SignalFlag, importing
    from runners.verdict import verdict

    console, began = make_console(asked.quiet), time.monotonic()
    if asked.max_seeds and not asked.until_decided:
        raise BadInput("--max-seeds: is for --until-decided")
    if asked.envs is None:
        _refuse_training(asked, more)
        field = field_of(read(asked.what, asked.out))
        comparison = compare(field, against_first=asked.against_first)
    else:
        with importing():
            planned = plan(asked.what, asked.envs, asked.steps, more, asked.out)
        if len(asked.what) < 2:
            raise BadInput(f"{asked.what[0]}: takes two agents or more to compare")
        looks = looks_of(asked) if asked.until_decided else [asked.seeds]
        if asked.until_decided:
            folder = folder_of((str(one.folder(asked.out).path) for one in planned), asked.out)
            first, pairs = asked.seed, "first" if asked.against_first else "all"
            keep_looks(folder, {"first": first, "seeds": looks, "against": pairs})
        stop_asked = SignalFlag()
        for count in looks:
            seeds = range(asked.seed, asked.seed + count)
            train(planned, seeds, asked.out, asked.jobs, console, stop_asked)
            field = field_of(entries_of(planned, seeds, asked.out))
            comparison = compare(
                field,
                planned=looks if asked.until_decided else (),
                against_first=asked.against_first,
            )
            if all(pair.better for pair in comparison.pairs):
                break
            if count < looks[-1]:
                open_ = sum(pair.better is None for pair in comparison.pairs)
                console.message(
                    f"{count} seeds: {open_} of {len(comparison.pairs)} pairs not decided"
                )
    folder = write(comparison, asked.out)
    console.message(f"done in {duration(time.monotonic() - began)}")
    if not asked.quiet:
        sys.stdout.write("".join(f"{line}\n" for line in verdict(comparison)) + "\n")
        notes = [f"note: {note}" for note in comparison.notes]
        print_table(title_of(comparison), figures_table(comparison), [])
        print_table("pairs", pairs_table(comparison), notes)
    sys.stdout.write(f"{folder}\n")
    return 0


def looks_of(asked: argparse.Namespace) -> list[int]:
    """The numbers of seeds at which one looks, fixed before the first: K, 2 K, ... up to the most."""
    most = asked.max_seeds or 4 * asked.seeds
    if most < asked.seeds:
        raise BadInput(f"--max-seeds: got {most}, takes at least --seeds = {asked.seeds}")
    return [*range(asked.seeds, most, asked.seeds), most]


def _refuse_training(asked: argparse.Namespace, more: Sequence[str]) -> None:
    if more:
        raise BadInput(f"{more[0]}: there is no such flag; see --help")
    if any(is_agent(one) for one in asked.what):
        raise BadInput("envs: none is named; agents are trained on --envs ID...")
    if asked.seeds != SEEDS:
        raise BadInput("--seeds: is for agents that are trained; of runs all seeds are compared")
    for name in ("steps", "until_decided", "max_seeds", "seed", "jobs"):
        if getattr(asked, name):
            raise BadInput(
                f"--{name.replace('_', '-')}: is for agents that are trained; leave it out"
            )


if __name__ == "__main__":
    leave(main())
