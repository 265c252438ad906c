"""``python -m runners.bench advise AGENT --env ID``: which flags would be faster on this machine.

``auto`` never looks at a clock, or one command would be two experiments on two machines. Here the clock
is asked, and the answer is a flag that the user may write down. Only flags that leave the experiment as
it is are tried: who steps the simulators, not how many lanes there are or how much is learned.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from envs.cores import cores
from runners.bound import WORTH, fitting_block
from runners.config import AGENTS
from runners.errors import BadInput
from runners.resolve import FUSED_ROWS, MAX_LAG
from runners.train import torch_set

if TYPE_CHECKING:
    from runners.config import RunConfig
    from runners.measure import Loop

SECONDS, ROUNDS = 1.0, 3
MOST_PROCESSES = 16  # lanes for which a process each is tried
WARM_UP = 1_000  # rows that a replay has when the timing begins; a run's own may be more


class Way(NamedTuple):
    """One way to the same experiment."""

    flags: str  # what to write for it; empty as it was asked for
    config: RunConfig
    workers: int = 0


class Timing(NamedTuple):
    """What a way takes."""

    way: Way
    rate: float  # lane steps a second
    simulating: float  # part of the time in which rollouts are made


def ways(config: RunConfig) -> Iterator[Way]:
    """As it was asked for; then all others.

    Raises:
        BadInput: the agent runs a loop of its own, which no flag makes faster.
    """
    if AGENTS[config.agent].own_loop:
        raise BadInput(
            f"{config.agent} runs a loop of its own, which no flag of the lab makes faster"
        )
    yield from stepped_by(config)
    yield from beside(config)


def stepped_by(config: RunConfig) -> Iterator[Way]:
    """As it was asked for; then every other backend, and the loop or the kernel."""
    import envs

    yield Way("", config)
    for backend in envs.backends(config.env):
        if backend == config.backend or (backend == "async" and config.lanes > MOST_PROCESSES):
            continue
        flags, changes = f"--backend {backend}", dict[str, Any](backend=backend)
        if config.source == "fused" and backend != "tabular":
            changes |= {"source": "local", "rollout_length": 1}
        yield Way(flags, dataclasses.replace(config, **changes))
    for source in ("local", "fused"):
        if source != config.source:
            length = FUSED_ROWS if source == "fused" else 1 if config.source == "fused" else 16
            try:
                other = dataclasses.replace(config, source=source, rollout_length=length)
            except BadInput:  # not for this agent or environment
                continue
            yield Way(f"--source {source} --rollout-length {length}", other)


def beside(config: RunConfig) -> Iterator[Way]:
    """Rollouts beside the learner, in a thread or in processes; and a learner of several threads."""
    if AGENTS[config.agent].tabular or config.source == "fused":
        return
    if not config.ahead:
        yield Way("--lag 1", dataclasses.replace(config, lag=1))
    powers = [2**i for i in range(cores().bit_length()) if 2**i <= cores()]
    for workers in powers:
        size = fitting_block(workers, config.lanes, config.block_size)
        if not size:
            continue
        flags = f"--workers {workers}" + f" --block-size {size}" * (size != config.block_size)
        cut = dataclasses.replace(config, block_size=size, lag=1, async_=False, max_lag=0)
        yield Way(flags, cut, workers)
        free = dataclasses.replace(cut, lag=0, async_=True, max_lag=MAX_LAG)
        yield Way(f"{flags} --async", free, workers)
    if AGENTS[config.agent].gradient:
        if not config.fast_matmul:
            yield Way("--fast-matmul", dataclasses.replace(config, fast_matmul=True))
        for threads in powers[1:]:
            yield Way(f"--threads {threads}", dataclasses.replace(config, threads=threads))


def measure(
    config: RunConfig, seconds: float = SECONDS, rounds: int = ROUNDS
) -> Iterator[Timing | tuple[Way, str]]:
    """Each way's timing, or why there is none; all are timed in turns."""
    from envs.contract import UnsupportedEnv

    with ExitStack() as stack:
        ready: list[tuple[Way, Callable[[], tuple[float, float]]]] = []
        for way in ways(config):
            try:
                ready.append((way, _ready(way, stack, seconds)))
            except (UnsupportedEnv, BadInput) as error:
                yield way, str(error)
        turns = [[once() for _, once in ready] for _ in range(rounds)]
    for (way, _), pairs in zip(ready, zip(*turns, strict=True), strict=True):
        rate, part = (statistics.median(column) for column in zip(*pairs, strict=True))
        yield Timing(way, rate, part)


def _ready(way: Way, stack: ExitStack, seconds: float) -> Callable[[], tuple[float, float]]:
    """A loop that learns already, and how to time some of its rollouts."""
    from runners.measure import Loop

    config = way.config
    hyper: Any = config.hyper
    early = {"learning_starts": WARM_UP} if getattr(hyper, "learning_starts", 0) > WARM_UP else {}
    early_config = dataclasses.replace(config, hyper=dataclasses.replace(hyper, **early))
    loop = Loop(early_config, 1, way.workers)
    stack.callback(loop.source.close)
    rows = config.lanes * config.rollout_length
    loop.run(-(-2 * WARM_UP // rows) + 1)  # compiles, allocates, fills the replay
    start = time.perf_counter()
    loop.run(1)
    rollouts = max(1, round(seconds / max(time.perf_counter() - start, 1e-6)))

    def once() -> tuple[float, float]:
        with torch_set(config.threads, config.fast_matmul):
            start, simulating = time.perf_counter(), _simulating(loop, rollouts)
            total = time.perf_counter() - start
        return rollouts * rows / total, simulating / total

    return once


def _simulating(loop: Loop, rollouts: int) -> float:
    """The loop for so many rollouts: seconds that went into making them."""
    spent, collect = 0.0, loop.source.next

    def clocked(plan: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        rollout = collect(plan)
        spent += time.perf_counter() - start
        return rollout

    loop.source.next = clocked  # type: ignore[method-assign]
    try:
        loop.run(rollouts)
    finally:
        loop.source.next = collect  # type: ignore[method-assign]
    return spent


def advise(argv: Sequence[str]) -> Iterator[str]:
    """The lines to print for ``AGENT [flags of train]``; the last is the advice."""
    from runners.command_line import parse_train

    if not argv or argv[0].startswith("-"):
        raise BadInput("advise: say of which agent, as in: advise dqn --env ALE/Breakout-v5")
    length = () if any(word.startswith("--steps") for word in argv) else ("--steps", "1000000")
    asked = parse_train([*argv, *length])
    if asked.options.workers or asked.config.async_:
        raise BadInput("advise: tries workers, async ones too, by itself; leave both out")
    config = asked.config
    yield from told(config, list(measure(config)))


def told(config: RunConfig, measured: Sequence[Timing | tuple[Way, str]]) -> Iterator[str]:
    """A line for each way, then what to write."""
    timings = [one for one in measured if isinstance(one, Timing)]
    asked = timings[0]
    asked_for = f"as asked: --backend {config.backend} --source {config.source}"
    for timing in timings:
        what = timing.way.flags or asked_for
        ratio = f"x {timing.rate / asked.rate:.2f}"
        part = f"{timing.simulating:.0%} of it for rollouts"
        yield f"{what:44} {timing.rate:12,.0f} lane steps/s  {part:24} {ratio}"
    for way, why in (one for one in measured if not isinstance(one, Timing)):
        yield f"{way.flags:44} {why}"
    best = max(timings, key=lambda timing: timing.rate)
    if best.rate > WORTH * asked.rate:
        rate = f"{best.rate:,.0f} lane steps/s, x {best.rate / asked.rate:.1f}"
        yield f"faster here: {best.way.flags} ({rate}); it is another configuration"
    else:
        yield "nothing is faster here than what was asked for"
