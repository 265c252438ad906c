"""``python -m runners.sweep AGENT --env ID``: which settings are good, and how good on fresh seeds?"""

from __future__ import annotations

import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runners import evaluate
from runners.errors import BadInput, RunFailed, command, leave

if TYPE_CHECKING:
    import argparse

    from runners.console import Console
    from runners.sweeping.outcome import Found
    from runners.sweeping.plan import Plan

DESCRIPTION = """\
Search an agent's hyperparameters on an environment: train it with this setting and that, each on the
same seeds and for as many steps, several at once. In the end train the best settings on fresh seeds,
which no choice has seen, and say how much of their score was luck.

The score of a trial is the mean over its seeds of the final return: greedy episodes of the last
weights. What is searched stands beside each hyperparameter in the agent's own config; --set searches
others, or elsewhere. Any other flag is one of train and fixes a setting: a hyperparameter that is
fixed is not searched. python -m runners.sweep AGENT --help shows where the agent looks by itself.

With --ray the trials run on the machines of a Ray cluster, a CPU each. These have the lab installed and see
the folder that --out names at the same place, as on a shared file system; whose machine is lost is trained
on elsewhere, from its last checkpoint.

The same command goes on where it was interrupted or killed, with the same trials; with more --trials
it adds to them. The folder with report.html, report.md, slices.png, sweep.json and best.json, a --config
file for train, is the last line printed."""

EPILOG = """\
values:
  --set lr=log:1e-4..1e-2       from the logarithms' range, as the agent's own ranges are
  --set gamma=0.9..0.999        from a range; of whole numbers where the setting is one
  --set n_step=1,3,5            these
  --set lr=log:1e-4..1e-2:5     these five, for a grid
  --set "hidden=64 64,128 128"  two lists

samplers:
  qmc     evenly spread and scrambled (Sobol): the default; trials do not wait for each other
  random  independent
  grid    all combinations of what --set names, and of nothing else
  tpe     learns from the trials before what to try next; takes pip install -c constraints.txt -e '.[sweep]'

pruners:
  none    every trial is trained to the end
  sha     of all trials the best third goes on beyond 1/9 of the steps, and again beyond 1/3, by the
          mean over the same seeds of the evaluation there (successive halving)
  asha    the same, but a trial is compared with those before it alone and need not wait for others

examples:
  python -m runners.sweep dqn --env CartPole-v1 --trials 20 --jobs 2
  python -m runners.sweep dqn --env CartPole-v1 --set lr=log:1e-4..1e-2 --set n_step=1,3,5 --gamma 0.99 \\
      --sampler tpe --trials 40
  python -m runners.sweep q_learning --env FrozenLake-v1 --sampler grid --set lr=0.1,0.5,1 \\
      --set epsilon_end=0.01,0.1

exit status: 0 done, 1 no trial could be trained, 2 bad input, 4 disk; 130 or 143 stopped"""


def _parser() -> evaluate.Parser:
    parser = evaluate.Parser("runners.sweep", DESCRIPTION, EPILOG)
    parser.usage = "python -m runners.sweep AGENT [--env ID] [--set NAME=VALUES]... [--flag X]..."
    at_least, add = evaluate.at_least, parser.add_argument
    add(
        "--set", action="append", default=[], metavar="NAME=VALUES",
        help="search this setting, there; may be repeated",
    )  # fmt: skip
    add("--trials", type=at_least(1), metavar="N", help="settings to try (20; a grid has its own)")
    add(
        "--sampler", choices=("qmc", "random", "grid", "tpe"), default="qmc",
        metavar="qmc|random|grid|tpe", help="how settings are chosen (qmc)",
    )  # fmt: skip
    add(
        "--pruner", choices=("none", "sha", "asha"), default="none", metavar="none|sha|asha",
        help="which trials end early (none)",
    )  # fmt: skip
    add("--seeds", type=at_least(1), default=3, metavar="K", help="of a trial: 0 to K - 1 (3)")
    add("--steps", metavar="N", help="lane steps of a seed (the preset's)")
    add("--jobs", type=at_least(0), default=0, metavar="J", help="processes at once (one a core)")
    add(
        "--ray", default="", metavar="ADDRESS",
        help="train on this Ray cluster: auto, HOST:PORT, or local, a node of its own",
    )  # fmt: skip
    add(
        "--timeout", type=_seconds, default=math.inf, metavar="SECONDS",
        help="a trial that takes longer is ended, and noted",
    )  # fmt: skip
    add("--retry-failed", action="store_true", help="try trials again that failed or took too long")
    add(
        "--final-seeds", type=at_least(0), default=5, metavar="F",
        help="fresh seeds in the end, from 1000 on (5); 0: none",
    )  # fmt: skip
    add(
        "--draw-seed",
        type=at_least(0),
        default=0,
        metavar="D",
        help="another one: other trials (0)",
    )
    add("--out", default="runs", metavar="DIR", help="for the sweep's folder (runs)")
    add("--quiet", action="store_true", help="print the folder and nothing else")
    return parser


def _seconds(text: str) -> float:
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"got {text}, takes seconds, more than 0")
    return value


def parse(argv: Sequence[str]) -> tuple[Plan, argparse.Namespace, str | None]:
    """The sweep that a command line asks for, its own flags, and the preset's name.

    Raises:
        BadInput: something in it cannot be.
    """
    parser = _parser()
    if not argv or argv[0].startswith("-"):
        raise BadInput("agent: none is named; it comes first, as in dqn --env CartPole-v1")
    agent, (asked, rest) = argv[0], parser.parse_known_args(list(argv[1:]))
    from runners.command_line import parse_train
    from runners.config import agent_entry
    from runners.options import TRAIN_ALONE

    agent_entry(agent)
    fixed = _fixed(agent, rest, parser)
    steps = [] if asked.steps is None else ["--steps", asked.steps]
    config, options, preset, seeds, _ = parse_train(
        [agent, *rest, *steps, "--seeds", str(asked.seeds)]
    )
    options.refuse(TRAIN_ALONE, "sweep")
    return _plan(config, range(seeds[0], seeds[-1] + 1), asked, fixed), asked, preset


def _fixed(agent: str, rest: Sequence[str], parser: evaluate.Parser) -> set[str]:
    """The settings that flags of train fix; a misspelt flag of the sweep's own is refused."""
    from agents.hyper import kinds
    from runners.config import RUN_KINDS, hyper_class
    from runners.options import Options

    own = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    known = {*RUN_KINDS, *kinds(Options), *kinds(hyper_class(agent))}
    trains = {f"--{name.strip('_').replace('_', '-')}" for name in known}
    fixed: set[str] = set()
    for token in rest:
        if not token.startswith("--"):
            continue
        flag = token.partition("=")[0]
        name = flag[2:].replace("-", "_")
        fixed |= {name, f"{name}_", name.removeprefix("no_")}
        close = difflib.get_close_matches(flag, own, n=1, cutoff=0.85)
        if close and flag.replace("_", "-") not in trains:
            raise BadInput(f"{flag}: unknown; did you mean {close[0]}?")
    return fixed


def _plan(config: Any, seeds: range, asked: argparse.Namespace, fixed: set[str]) -> Plan:
    from runners.group import make_setting
    from runners.sweeping import proposals
    from runners.sweeping.plan import Plan
    from runners.sweeping.space import read_space

    grid = asked.sampler == "grid"
    space = read_space(config.agent, asked.set, fixed, declared=not grid)
    if asked.sampler == "tpe":
        proposals.require_optuna()
    if grid and asked.trials is not None:
        raise BadInput("--trials: a grid has as many as combinations of values; leave it out")
    trials = proposals.grid_size(space) if grid else asked.trials or 20
    plan = Plan(
        config,
        space,
        trials,
        seeds,
        asked.sampler,
        asked.pruner,
        asked.draw_seed,
        asked.final_seeds,
    )
    make_setting(config)  # refuses an agent that cannot learn there
    return plan


def sweep(
    plan: Plan,
    out: str = "runs",
    jobs: int = 0,
    *,
    timeout: float = math.inf,
    console: Console | None = None,
    stop_asked: Callable[[], int] = lambda: 0,
    ray: str = "",
    retry_failed: bool = False,
) -> Found:
    """Train what of a sweep is not trained yet, write its files, and say what it came to.

    Args:
        plan: what to do; `parse` makes one.
        out: parent of the sweep's folder.
        jobs: processes at once; 0: one a core.
        timeout: seconds for a trial.
        console: what to tell about progress; None for silence.
        stop_asked: gives the number of the signal that asks to stop, else 0.
        ray: address of the Ray cluster that trains; "": this machine does.
        retry_failed: try trials again that failed or outlasted their time; else they stay as they are.

    Raises:
        BadInput: another process has the sweep, values of a trial do not go together, or the cluster
            cannot be had.
        RunFailed: its ledger is damaged. WorkerLost: the cluster has no room for too long.
        DiskFault, Stopped: see `runners.jobs.Supervisor`; what was trained stays.
    """
    from runners import ray_cluster
    from runners.console import SilentConsole
    from runners.ray_jobs import Cluster, room
    from runners.sweeping import report
    from runners.sweeping.drive import opened
    from runners.sweeping.outcome import outcome

    console = console or SilentConsole()
    where: dict[str, Any] = {}
    if ray:  # machines have working folders of their own
        out, where = os.path.abspath(out), {"start": Cluster(console.message), "room": room}
    with (
        ray_cluster.connected(ray),
        opened(
            plan, out, jobs, timeout=timeout, console=console, stop_asked=stop_asked, **where
        ) as opened_sweep,
    ):
        if retry_failed:
            opened_sweep.ledger.forget_failures()
        opened_sweep.train()
        found = outcome(opened_sweep)
        report.write(found, opened_sweep.folder)
    return found


def _help(argv: Sequence[str]) -> None:
    """The help; of an agent that is named too, where it looks by itself."""
    _parser().print_help()
    if not argv[0].startswith("-"):
        from runners.sweeping.space import read_space

        own = "\n".join(f"  {one}" for one in read_space(argv[0], (), ()))
        sys.stdout.write(f"\n{argv[0]} searches by itself:\n{own}\n")


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, train what is missing, print what came of it."""
    if {"-h", "--help"} & set(argv):
        _help(argv)
        return 0
    from pathlib import Path

    from runners.console import make_console
    from runners.train import SignalFlag, importing

    with importing():
        plan, asked, preset = parse(argv)
    from runners.report import print_table
    from runners.sweeping import report

    console = make_console(asked.quiet)
    if preset:
        console.message(f"preset: {preset}")
    for dimension in plan.space:
        console.message(f"searched: {dimension}")
    found = sweep(
        plan, asked.out, asked.jobs, timeout=asked.timeout, console=console, stop_asked=SignalFlag(),
        ray=asked.ray, retry_failed=asked.retry_failed,
    )  # fmt: skip
    folder = Path(asked.out) / plan.folder_name
    if not asked.quiet:
        lines = report.lines_of(found)
        if (best := folder / "best.json").exists():
            lines.append(f"train the best: python -m runners.train --config {best}")
        print_table(report.title_of(found), report.trial_table(found), lines)
    sys.stdout.write(f"{folder}\n")
    sys.stdout.flush()
    if not any(row.ended == "done" for row in found.rows):
        raise RunFailed(f"no trial could be trained: {found.rows[0].why}")
    return 0


if __name__ == "__main__":
    leave(main())
