"""``python -m runners.evaluate RUN``: fresh greedy episodes of what a run has learned."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TextIO

from runners import stats
from runners.console import number
from runners.errors import BadInput, command, leave
from runners.policy import has_weights, open_run, open_setting, seed_weights
from runners.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.table import Table

    from agents.contract import Array

DESCRIPTION = """\
Play fresh greedy episodes with the weights of every seed of a run, on simulators of their own, and
print their mean return with its 95 % t interval: per seed over its episodes, below over the seeds.
On finite MDPs also the policy's exact value, the best value there is and the largest error of Q.

The same command prints the same numbers: the episodes depend on the seed alone, and no training,
evaluation or summary has played them before."""

EPILOG = """\
examples:
  python -m runners.evaluate last
  python -m runners.evaluate pqn-CartPole --episodes 1000 --seed 0 3
  python -m runners.evaluate runs/pqn-CartPole-v1-0123456789 --last --quiet
  python -m runners.evaluate elsewhere/model.zip --env CartPole-v1 --trust

exit status: 0 done, 2 bad input, 5 the simulator failed"""


class Evaluation(NamedTuple):
    """What an evaluation found; K seeds."""

    seeds: list[int]
    lane_steps: list[int]  # at which the weights were taken
    returns: Array  # [K, episodes]
    policy_value: list[float] | None = None  # [K], on a finite MDP
    max_q_error: list[float | None] | None = None  # [K], on a finite MDP
    optimal_value: float | None = None
    cut_after: int | None = None  # steps, where the environment has no time limit itself


def evaluate(
    run: RunFolder, seeds: Sequence[int] | None = None, episodes: int = 100, last: bool = False
) -> Evaluation:
    """Play greedy episodes with the best (or last) weights of a run's seeds.

    Args:
        run: the run folder.
        seeds: some of its seeds; all that have weights where none are named.
        episodes: episodes a seed.
        last: take the last weights, not the best.

    Raises:
        BadInput: the run or a named seed has no such weights.
    """
    import numpy as np

    from agents import planning
    from runners import outcome, weights
    from runners.evaluation import EPISODE_LIMIT, Purpose

    chosen = _trained(run, last) if seeds is None else sorted(set(seeds))
    params = [seed_weights(run, seed, last) for seed in chosen]
    setting = open_setting(run)
    evaluator = setting.evaluator()
    returns, values, errors = [], [], []
    # As many at once as train at once: more would not fit the cache, or the memory.
    for start in range(0, len(chosen), setting.group_size):
        part = slice(start, start + setting.group_size)
        stacked = weights.stack(params[part])
        returns.append(evaluator.returns(stacked, chosen[part], episodes, Purpose.COMMAND))
        exact = outcome.exact_figures(setting, stacked)
        values += exact.get("policy_value", [])
        errors += exact.get("max_q_error", [])
    evaluator.close()
    found = Evaluation(chosen, [p.lane_steps for p in params], np.concatenate(returns))
    if not setting.time_limit:
        found = found._replace(cut_after=EPISODE_LIMIT)
    if setting.mdp is None:
        return found
    optimal = planning.optimal_value(setting.mdp, outcome.horizon(setting))
    return found._replace(policy_value=values, max_q_error=errors, optimal_value=optimal)


def _trained(run: RunFolder, last: bool) -> list[int]:
    """The seeds that have weights."""
    seeds = [seed for seed in run.seeds() if has_weights(run, seed, last)]
    if not seeds:
        which = "last" if last else "best"
        raise BadInput(f"{run.path}: no seed has {which} weights yet; go on with train --resume")
    return seeds


# -- What is printed -----------------------------------------------------------------------------


def result_table(found: Evaluation, title: str) -> Table:
    """A row a seed, then the mean over seeds and its interval."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.ROUNDED)
    exact = found.policy_value is not None
    errors = exact and None not in (found.max_q_error or [None])
    table.add_column("seed")
    names = ["weights of step", "mean return", "95 %", "lowest", "highest"]
    names += ["policy value"] * exact + ["max |Q-Q*|"] * errors
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    means = [stats.mean(returns) for returns in found.returns]
    for k, (seed, returns) in enumerate(zip(found.seeds, found.returns, strict=True)):
        row = [f"{found.lane_steps[k]:,}", number(means[k]), _interval(returns)]
        row += [number(returns.min()), number(returns.max())]
        table.add_row(str(seed), *row, *_exact_cells(found, k, exact, errors))
    if len(means) > 1:
        table.add_section()
        over_seeds = ["", number(stats.mean(means)), _interval(means), "", ""]
        over_seeds += [number(stats.mean(found.policy_value))] if found.policy_value else []
        table.add_row("mean", *over_seeds, style="bold")
    if found.optimal_value is not None:
        table.add_section()
        table.add_row("optimal", "", "", "", "", "", number(found.optimal_value))
    return table


def _exact_cells(found: Evaluation, k: int, exact: bool, errors: bool) -> list[str]:
    cells = [number(found.policy_value[k])] if exact and found.policy_value else []
    error = found.max_q_error[k] if errors and found.max_q_error else None
    return cells if error is None else [*cells, number(error)]


def _interval(values: Array | Sequence[float]) -> str:
    low, high = stats.t_interval(values)
    return "" if math.isnan(low) else f"{number(low)} .. {number(high)}"


def print_evaluation(found: Evaluation, title: str, stream: TextIO | None = None) -> None:
    """Print the table; plain ASCII where nobody looks at a terminal."""
    from rich import box
    from rich.console import Console

    stream = stream or sys.stdout
    console, table = Console(file=stream, highlight=False), result_table(found, title)
    if not console.is_terminal:
        table.box = box.ASCII
        console = Console(file=stream, highlight=False, color_system=None, width=500)
    console.print(table)
    if found.cut_after:
        stream.write(f"episodes end after {found.cut_after:,} steps\n")


# -- The command line ----------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """The command line of a command; a wrong one is one line, as everywhere in the lab."""

    def __init__(self, module: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see {self.prog} --help")


class RunParser(Parser):
    """The command line of a command on a run."""

    def __init__(self, module: str, description: str, epilog: str) -> None:
        super().__init__(module, description, epilog)
        self.add_argument(
            "run",
            metavar="RUN",
            help="a run folder's path, a unique beginning of its name, or last: the latest",
        )
        self.add_argument(
            "--last", action="store_true", help="take the last weights, not the best ones"
        )


def at_least(least: int) -> Callable[[str], int]:
    """What argparse is to turn a value into: a whole number from ``least`` on."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"got {text}, takes a whole number from {least} on")
        return value

    return read


def _parser() -> RunParser:
    parser = RunParser("runners.evaluate", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("--episodes", type=at_least(1), default=100, metavar="N", help="episodes a seed (100)")
    add("--seed", type=at_least(0), nargs="+", metavar="S", help="some of its seeds (all)")
    add("--out", default="runs", metavar="DIR", help="where run folders are looked for (runs)")
    add("--quiet", action="store_true", help="print the mean over seeds and nothing else")
    zips = parser.add_argument_group("a model of Stable-Baselines3, model.zip instead of RUN")
    zips.add_argument("--env", metavar="ID", help="environment id")
    zips.add_argument(
        "--algo", choices=("dqn", "ppo", "a2c", "sac", "td3"), help="whose (as it says itself)"
    )
    zips.add_argument(
        "--trust", action="store_true", help="load it, though loading one runs code that it holds"
    )
    return parser


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, play, print."""
    asked = _parser().parse_args(argv)
    from runners.train import torch_set

    if asked.run.endswith(".zip"):
        return _zip(asked)
    if asked.env or asked.algo or asked.trust:
        raise BadInput("--env, --algo and --trust: are for a model.zip; a run folder knows its own")
    run = open_run(asked.run, asked.out)

    with torch_set():
        found = evaluate(run, asked.seed, asked.episodes, asked.last)
    if asked.quiet:
        sys.stdout.write(f"{found.returns.mean()}\n")
        return 0
    config, which = run.config(), "last" if asked.last else "best"
    plural = "s" * (asked.episodes != 1)
    title = (
        f"{config['agent']} on {config['env']}, {which} weights, {asked.episodes} episode{plural}"
    )
    print_evaluation(found, title)
    if skipped := sorted(set(asked.seed or run.seeds()) - set(found.seeds)):
        sys.stdout.write(f"not trained yet: seed {', '.join(map(str, skipped))}\n")
    return 0


def _zip(asked: argparse.Namespace) -> int:
    """Play a model of Stable-Baselines3."""
    from pathlib import Path

    from runners.sb3 import zips
    from runners.train import torch_set

    if asked.last:
        raise BadInput("--last: a model.zip has one set of weights; leave it out")
    if not asked.env:
        raise BadInput(f"--env: is missing; {asked.run} does not say what it was trained on")
    path = Path(asked.run)
    algo = zips.algorithm_in(path, asked.algo)
    zips.check_trust(path, asked.trust)
    with torch_set():
        found = zips.evaluate(path, algo, asked.env, asked.seed or [0], asked.episodes)
    if asked.quiet:
        sys.stdout.write(f"{found.returns.mean()}\n")
        return 0
    plural = "s" * (asked.episodes != 1)
    print_evaluation(
        found, f"{path.name} ({algo}) on {asked.env}, {asked.episodes} episode{plural}"
    )
    return 0


if __name__ == "__main__":
    leave(main())
