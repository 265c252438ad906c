"""Time to a return against the batch and the number of learners: CartPole by ``pqn``, until it is solved.

The batch is that of all learners together, and so are the lanes: two learners do with half of both each
what one does with all, so they take as many steps, and only the time is another. A run that was not solved
within its steps is censored: it would have taken longer than it was given.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runners.bench_learners import TORCHRUN
from runners.errors import RunFailed
from runners.measure import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHES, LEARNERS, RULES = (128, 256, 512, 1_024), (1, 2), ("none", "sqrt", "linear")
REFERENCE = 128  # the batch that the preset's learning rate was found with
SEEDS, FIRST = 6, 2_000  # whose range holds the median with 1 - 2 / 2⁶ = 97 %
LANES, WARMUP = 32, 10_240
LIMIT = 1_200  # seconds of one run
PICTURE = "scaling.png"


class Setting(NamedTuple):
    """One way to train."""

    batch: int
    learners: int
    rule: str  # of the learning rate

    def __str__(self) -> str:
        rate = "lr as it is" if self.rule == "none" else f"lr {self.rule}"
        many = "1 learner" if self.learners == 1 else f"{self.learners} learners"
        return f"batch {self.batch:,}, {rate}, {many}"

    def command(self, out: str) -> list[str]:
        """What trains so."""
        start = ["-m"] if self.learners == 1 else [*TORCHRUN, str(self.learners), "-m"]
        scaled = [
            "--lr-scaling", self.rule, "--reference-batch", str(REFERENCE), "--warmup-steps", str(WARMUP),
        ]  # fmt: skip
        return [
            sys.executable, *start, "runners.train", "pqn", "--env", "CartPole-v1", "--until-solved",
            "--seeds", str(SEEDS), "--seed", str(FIRST), "--lanes", str(LANES // self.learners),
            "--minibatch-size", str(self.batch // self.learners), *(scaled if self.rule != "none" else []),
            "--out", out, "--quiet",
        ]  # fmt: skip


class Outcome(NamedTuple):
    """What became of the seeds; of one that was not solved the steps and seconds that it was given."""

    setting: Setting
    env_steps: list[float]
    seconds: list[float]
    solved: list[bool]


def settings() -> list[Setting]:
    """All ways, those with one learner beside those with more; the reference batch needs no rule."""
    return [
        Setting(batch, learners, rule)
        for batch, rule, learners in itertools.product(BATCHES, RULES, LEARNERS)
        if rule == "none" or batch != REFERENCE
    ]


def scaling(picture: str | None) -> Iterator[Row]:
    """Train every way, tell of each, and draw all."""
    outcomes = []
    for setting in settings():
        outcomes.append(train(setting))
        yield row(outcomes[-1])
    path = Path(picture or PICTURE)
    draw(outcomes, path)
    yield Row(f"drawn into {path}", "", "")


def train(setting: Setting) -> Outcome:
    """Six seeds together, each until it is solved."""
    from runners.run_folder import RunFolder

    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            setting.command(out), capture_output=True, text=True, check=False, timeout=LIMIT
        )
        if done.returncode:
            raise RunFailed(f"{setting}: {done.stderr.strip()}")
        run = RunFolder(Path(done.stdout.strip().splitlines()[-1]))
        summary = run.summary() or {}
        at = summary["solved_at"]
        given = [run.seed(seed).read_evals().records[-1] for seed in summary["seeds"]]
        return Outcome(
            setting,
            [
                steps or one["env_steps"]
                for steps, one in zip(at["env_steps"], given, strict=True)
            ],
            [seconds or one["seconds"] for seconds, one in zip(at["seconds"], given, strict=True)],
            [steps is not None for steps in at["env_steps"]],
        )  # fmt: skip


def row(outcome: Outcome) -> Row:
    """Medians and their intervals."""
    steps = told(outcome.env_steps, outcome.solved, lambda x: f"{x / 1e3:.0f}k")
    seconds = told(outcome.seconds, outcome.solved, lambda x: f"{x:.1f}")
    count = f"{sum(outcome.solved)} of {len(outcome.solved)} solved"
    return Row(str(outcome.setting), f"{steps} env steps", f"{seconds} s, {count}")


def median(values: Sequence[float], solved: Sequence[bool]) -> tuple[float, bool]:
    """The middle, the greater one of two; whether it is known, or only that it is greater."""
    order = _order(values, solved)
    middle = order[len(order) // 2]
    return middle[1], middle[0]


def _order(values: Sequence[float], solved: Sequence[bool]) -> list[tuple[bool, float]]:
    """What took longest last: who was not solved took longer than all that were."""
    found = zip(solved, values, strict=True)
    return sorted(found, key=lambda one: (not one[0], one[1]))


def told(values: Sequence[float], solved: Sequence[bool], text: Callable[[float], str]) -> str:
    """``median [least .. most]``, with a > before what is censored."""
    order = _order(values, solved)
    least, most = (("" if known else ">") + text(x) for known, x in (order[0], order[-1]))
    middle, known = median(values, solved)
    return f"{'' if known else '>'}{text(middle)} [{least} .. {most}]"


# -- The picture -----------------------------------------------------------------------------------


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Steps and seconds to the return over the batch: every seed, and medians joined by lines."""
    from matplotlib.figure import Figure

    from runners.pictures import DPI, INK, save_figure

    figure = Figure(figsize=(9.2, 4.6), dpi=DPI, layout="constrained")
    steps, seconds = figure.subplots(1, 2, sharex=True)
    ways = list(dict.fromkeys((o.setting.rule, o.setting.learners) for o in outcomes))
    for place, way in enumerate(ways):
        mine = [o for o in outcomes if (o.setting.rule, o.setting.learners) == way]
        _line(steps, mine, [o.env_steps for o in mine], place, len(ways))
        _line(seconds, mine, [o.seconds for o in mine], place, len(ways))
    for axes, label in ((steps, "environment steps"), (seconds, "seconds of training")):
        _frame(axes, label, sorted({o.setting.batch for o in outcomes}))
    figure.legend(
        *steps.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False
    )  # fmt: skip
    figure.suptitle(
        f"pqn until CartPole-v1 is solved: median, and each of {SEEDS} seeds; ▲ not solved, longer than that",
        x=0.02, ha="left", fontsize=11, fontweight="bold", color=INK,
    )  # fmt: skip
    save_figure(figure, path)


def _line(
    axes: Axes, outcomes: Sequence[Outcome], values: Sequence[list[float]], place: int, ways: int
) -> None:
    from runners.pictures import COLORS

    rule, learners = outcomes[0].setting.rule, outcomes[0].setting.learners
    color, dash = COLORS[RULES.index(rule)], "-" if learners == 1 else (0, (4, 2))
    marker = "o" if learners == 1 else "s"
    # side by side around the batch, so that none hides another
    x = [o.setting.batch * math.exp(0.09 * (place - (ways - 1) / 2)) for o in outcomes]
    name = str(outcomes[0].setting).partition(", ")[2]
    middles = [median(v, o.solved)[0] for v, o in zip(values, outcomes, strict=True)]
    axes.plot(x, middles, color=color, linestyle=dash, linewidth=1.4, label=name)
    for at, seeds, outcome in zip(x, values, outcomes, strict=True):
        for value, solved in zip(seeds, outcome.solved, strict=True):
            axes.plot(
                at, value, marker=marker if solved else "^", color=color, markersize=4 if solved else 7,
                markerfacecolor=color if solved and learners == 1 else "white", alpha=0.85, linestyle="",
            )  # fmt: skip


def _frame(axes: Axes, label: str, batches: Sequence[int]) -> None:
    from runners.pictures import INK, bare

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batches, [f"{batch:,}" for batch in batches])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    ticks = [m * 10**e for e in range(-1, 7) for m in (1, 2, 5) if low <= m * 10**e <= high]
    axes.set_yticks(ticks, [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks])
    axes.set_xlabel("batch of all learners", color=INK, fontsize=9)
    axes.set_title(f"{label} to a return of 475", loc="left", fontsize=9.5, color=INK)
    bare(axes)
