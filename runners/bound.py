"""What bounds a run, and what would make it faster: one line with a number, from where its time went."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from runners.config import AGENTS, RunConfig
from runners.resolve import FUSED_ROWS
from runners.timing import BESIDE, Part

HANDOVER = 0.3e-3  # seconds that a rollout takes to another process and its parameters back
FEWEST_LANES = 4  # in a block that is worth a worker
WORTH = 1.1  # times faster: less is within the noise of a machine
AS_GOOD = 1.05  # fewer workers are taken where more of them gain no more than this
COMPILED, COMPILING = 0.67, 15.0  # of an update's time, a small network's; seconds at the start


class Spent(NamedTuple):
    """Where the time of a run went."""

    seconds: Mapping[Part, float]  # of all its processes; a part that is not there took none
    wall: float
    rollouts: int
    workers: int = 0  # that simulated beside the learner; 0: the learner's process did
    cpu: float = 0.0  # seconds of all threads of the learner's process
    seeds: int = 1  # that trained together

    def of(self, *parts: Part) -> float:
        """Seconds of these parts together."""
        return math.fsum(self.seconds.get(part, 0.0) for part in parts)

    @property
    def work(self) -> float:
        """Seconds of the rollouts and of learning on one core; threads of a simulator count each."""
        threads = max(0.0, self.cpu - self.of(*self.seconds))
        return self.of("simulate", "act", "transfer", "sample", "learn") + threads

    @property
    def groups(self) -> dict[str, float]:
        """Wall seconds by what they are spent on; workers are at it at once."""
        rollouts = self.of(*BESIDE) / max(1, self.workers) + self.of("transfer")
        acting = self.of("act") > self.of("simulate")
        return {
            "acting" if acting else "simulation": rollouts,
            "learning": self.of("sample", "learn"),
            "kernel": self.of("fused"),
            "evaluation": self.of("evaluate"),
            "saving": self.of("save"),
            "bookkeeping": self.of("other"),
        }


def seconds_with(spent: Spent, workers: int, blocks: int, cores: int) -> float:
    """Wall seconds of the same run with W workers that simulate while the learner learns (lag 1).

    Whole blocks go to a worker, so the slowest has ⌈B/W⌉ of them::

        T(W) = max((S + A) ⌈B/W⌉ / B + X, L, (S + A + X + L) / C) + R

    of S simulate, A act, X transfer, L sample and learn, R all else but waiting. The first two are the
    longest chain of work, the last is what C cores can do at most: the span law and the work law
    (Cormen et al. 2009, Introduction to Algorithms, section 27.1). Nothing is said of a step's fixed
    cost: where blocks are cut into smaller ones T is the least that can be hoped for.
    """
    rollouts, learning = spent.of(*BESIDE), spent.of("sample", "learn")
    measured = spent.of("transfer")
    transfer = measured if spent.workers else HANDOVER * spent.rollouts
    slowest = rollouts * math.ceil(blocks / workers) / blocks + transfer
    work = spent.work - measured + transfer
    return max(slowest, learning, work / cores) + spent.of("evaluate", "save", "other")


class Choice(NamedTuple):
    """So many workers, and what they would do."""

    workers: int
    block_size: int
    gain: float  # times faster than the run was


def best_workers(spent: Spent, lanes: int, block_size: int, cores: int) -> Choice:
    """The fewest workers with which the run would be about as fast as with any number."""
    choices = []
    for workers in range(1, cores + 1):
        size = fitting_block(workers, lanes, block_size, spent.seeds)
        if size:
            blocks = spent.seeds * (lanes // size)
            seconds = seconds_with(spent, workers, blocks, cores)
            choices.append(Choice(workers, size, spent.wall / seconds))
    most = max(choice.gain for choice in choices)
    return next(choice for choice in choices if choice.gain * AS_GOOD >= most)


def fitting_block(workers: int, lanes: int, block_size: int, seeds: int = 1) -> int:
    """As it is, where there is a block for each worker; else one that makes them so; 0: none does."""
    if workers <= seeds * (lanes // block_size):
        return block_size
    divides = lanes % workers == 0 and lanes // workers >= FEWEST_LANES
    return lanes // workers if divides else 0


def bound_of(spent: Spent) -> str:
    """What takes most of the time."""
    return max(spent.groups, key=spent.groups.__getitem__)


def advice(spent: Spent, config: RunConfig, cores: int) -> str:
    """What bounds the run, and what would make it faster by how much; only what the configuration can take."""
    bound = bound_of(spent)
    if bound == "kernel":
        most = _times(spent.wall / spent.of("fused"))
        what = f"it acts, steps and learns in one; workers cannot divide it, and without all else it would be {most}"
    elif bound == "evaluation":
        what = _of_evaluation(spent, config)
    elif bound == "saving":
        seldom = 2 * config.checkpoint_every
        what = _fewer(
            spent, "save", config, checkpoint_every=seldom if seldom <= config.steps else 0
        )
    elif AGENTS[config.agent].own_loop:
        what = "the loop is another library's own, which no setting of the run divides"
    elif fused := _fused(config):
        rest = max(spent.of("evaluate", "save"), 1e-3 * spent.wall)
        what = f"{fused} would act, step and learn in one compiled loop, at most {_times(spent.wall / rest)}"
    elif bound == "bookkeeping":
        what = _fewer(spent, "other", config, rollout_length=2 * config.rollout_length)
    elif bound == "learning":
        what = _of_learning(spent, config, cores)
    else:
        what = _of_rollouts(spent, config, cores)
    return f"{bound}-bound ({_percent(spent.groups[bound] / spent.wall)} of the time): {what}"


def _of_evaluation(spent: Spent, config: RunConfig) -> str:
    """Fewer evaluations; smaller ones where there is one only, or where a later one would end the run later."""
    if 2 * config.eval_every <= config.steps and not config.until_solved:
        return _fewer(spent, "evaluate", config, eval_every=2 * config.eval_every)
    flags = _flags(config, eval_episodes=config.eval_episodes // 2)
    most = (
        f"would give at most {_half(spent, 'evaluate')}"  # the longest episode is to be waited for
    )
    return f"half the episodes, {flags}, {most}" if flags else f"half of it {most}"


def _of_rollouts(spent: Spent, config: RunConfig, cores: int) -> str:
    """Simulating and acting take most of the time."""
    if config.backend == "async":
        return "each lane has a process already; `bench advise` times the other backends"
    choice = best_workers(spent, config.lanes, config.block_size, cores)
    if choice.gain >= WORTH:
        return _would(choice, config)
    more = best_workers(spent, config.lanes, config.block_size, 4 * cores)
    if more.gain >= WORTH:
        return f"workers want more than {_cores(cores)}; on {4 * cores}, {_would(more, config)}"
    no = f"workers would give at most {_times(max(1.0, choice.gain))}"
    cut = {} if config.block_size == config.lanes else {"block_size": 2 * config.block_size}
    wider = _flags(config, lanes=2 * config.lanes, **cut)
    if wider is None:
        return f"{no}, and {config.agent} learns from one lane"
    # at most: as if a step of twice as many lanes took no longer
    return f"{no}; {wider}, which share a step's fixed cost, would give at most {_half(spent, *BESIDE)}"


def _of_learning(spent: Spent, config: RunConfig, cores: int) -> str:
    """Updates take most of the time."""
    choice = best_workers(spent, config.lanes, config.block_size, cores)
    worth = choice.gain >= WORTH and config.backend != "async"
    most = f"workers would give at most {_times(max(1.0, choice.gain))}"
    rollouts = _percent(spent.of(*BESIDE) / max(1, spent.workers) / spent.wall)
    beside = f"simulation and acting are {rollouts}, {_would(choice, config) if worth else most}"
    return "; ".join([beside, *_lighter(spent, config)])


def _lighter(spent: Spent, config: RunConfig) -> Iterator[str]:
    """How to learn in less time."""
    hyper = config.hyper
    changes: list[dict[str, float]] = []
    if hasattr(hyper, "replay_ratio"):
        changes = [{"replay_ratio": hyper.replay_ratio / 2, "batch_size": 2 * hyper.batch_size}]
    elif hasattr(hyper, "minibatch_size"):
        changes = [{"minibatch_size": 2 * hyper.minibatch_size}]
    for flags in filter(None, (_flags(config, **change) for change in changes)):
        # at most: as if twice the batch took no longer
        yield f"half the updates on twice the batch, {flags}, would give at most {_half(spent, 'sample', 'learn')}"
    small = max(getattr(hyper, "hidden", (math.inf,)), default=0) <= 64
    saved = (1 - COMPILED) * spent.of("learn") - COMPILING
    # what a group of seeds saves is not saved twice
    if spent.seeds <= 2 and small and saved > 0 and _flags(config, compile=True):
        yield f"--compile would give about {_times(spent.wall / (spent.wall - saved))}"


def _fewer(spent: Spent, part: Part, config: RunConfig, **changes: int) -> str:
    """Half of a part, by these settings, where the configuration takes them."""
    half, flags = _half(spent, part), _flags(config, **changes)
    if flags is None:
        return f"half of it would give {half}, but no setting gives that"
    return f"half of it, {flags}, would give about {half}"


def _fused(config: RunConfig) -> str | None:
    """The flags by which a tabular agent learns in one kernel, where it can and does not yet."""
    import envs

    if not AGENTS[config.agent].fused or config.source == "fused":
        return None
    if "tabular" not in envs.backends(config.env):
        return None
    other = {} if config.backend == "tabular" else {"backend": "tabular"}
    fits = _flags(
        config, source="fused", backend="tabular", rollout_length=FUSED_ROWS,
        block_size=config.lanes, lag=0,
    )  # fmt: skip
    return fits and _flags_of({**other, "source": "fused"})


def _flags(config: RunConfig, **changes: Any) -> str | None:
    """The changes as flags; None where the configuration does not take them."""
    own = {field.name for field in dataclasses.fields(config)}
    run = {name: value for name, value in changes.items() if name in own}
    hyper = {name: value for name, value in changes.items() if name not in own}
    try:
        dataclasses.replace(config, hyper=dataclasses.replace(config.hyper, **hyper), **run)
    except ValueError:
        return None
    return _flags_of(changes)


def _flags_of(changes: Mapping[str, float | str]) -> str:
    """``--eval-every 2000``."""
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in changes.items()
    )


def _would(choice: Choice, config: RunConfig) -> str:
    """About where blocks stay as they are; at most where they are cut: a step's fixed cost is not."""
    workers = f"--workers {choice.workers}"
    if choice.block_size == config.block_size:
        return f"{workers} would give about {_times(choice.gain)}"
    return f"{workers} --block-size {choice.block_size} would give at most {_times(choice.gain)}"


def _half(spent: Spent, *parts: Part) -> str:
    """How much faster with half of these parts (Amdahl 1967)."""
    seconds = spent.of(*parts)
    if set(parts) <= set(BESIDE):
        seconds /= max(1, spent.workers)
    # workers that there were more of before a stop have taken more than this run can show
    return _times(spent.wall / (spent.wall - min(seconds, spent.wall) / 2))


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"


def _times(gain: float) -> str:
    """As 1.8x or 12x."""
    return f"{gain:.1f}x" if gain < 9.95 else f"{gain:.0f}x"
