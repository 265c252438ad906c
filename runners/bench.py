"""``python -m runners.bench``: how fast is it here, and against what?

Every figure stands beside what it is compared with, measured in the same run, in turns, so that a
machine that is busy at times slows both. Ratios are what to quote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from runners.errors import BadInput, command, leave, nearest
from runners.measure import Row


def bench_help() -> list[Row]:
    """The help of the command line, which must not wait for torch."""
    from runners import bench_basics

    return bench_basics.help()


def bench_worker() -> list[Row]:
    """The worker around native CartPole at 1,024 lanes, against it bare; the same random actions."""
    from runners import bench_basics

    return bench_basics.worker()


def bench_frozenlake() -> list[Row]:
    """The fused source against the bare numba loop with the same draws, and two cores' worth."""
    from runners import bench_basics

    return bench_basics.frozenlake()


def bench_group() -> list[Row]:
    """Updates of eight seeds together against one seed at a time (64x64, batch 64)."""
    from runners import bench_basics

    return bench_basics.group()


def bench_solve() -> list[Row]:
    """CartPole from process start to the last line, ten fresh seeds; then ten seeds at once."""
    from runners import bench_basics

    return bench_basics.solve()


def bench_simulators(
    families: Sequence[str], lanes: Sequence[int], picture: str | None
) -> Iterator[Row]:
    """Every family of simulators: bare engine, each backend, worker, at 1 to 1,024 lanes."""
    from pathlib import Path

    from runners import bench_simulators as simulators

    for name in families:
        if name not in simulators.FAMILIES:
            raise BadInput(f"--family {name}: unknown{nearest(name, simulators.FAMILIES)}")
    seen = []
    for speeds in simulators.measure_all(list(families) or list(simulators.FAMILIES), lanes):
        seen += speeds
        for speed in speeds:
            if speed.rate != speed.rate:
                yield Row(f"{speed.env_id}: {speed.what}", "", "")
                continue
            what = f"{speed.env_id}, {speed.lanes:,} lanes: {speed.what}"
            against = "" if speed is speeds[0] else f"{speeds[0].what}: {speeds[0].rate:,.0f}"
            ratio = speed.rate / speeds[0].rate if against else None
            yield Row(what, f"{speed.rate:,.0f} steps/s", against, ratio)
    if picture:
        simulators.draw(seen, Path(picture))


def _advise(argv: Sequence[str]) -> int:
    """Time other ways to what a command of ``train`` does; print what to write for the fastest."""
    import torch

    from runners import bench_advise

    torch.set_num_threads(1)
    for line in bench_advise.advise(argv):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return 0


ADVISE = "advise"


def bench_sb3() -> list[Row]:
    """Network, batch and replay ratio of Stable-Baselines3's DQN; environment steps a second."""
    from runners import bench_family

    return bench_family.sb3()


def bench_replay() -> Iterator[Row]:
    """Priorities of a million rows beside cpprb's; what frames of a game take, beside SB3's and on disk."""
    from runners import bench_replay

    yield from bench_replay.priorities()
    yield from bench_replay.frames()
    yield from bench_replay.disk()


def bench_family() -> Iterator[Row]:
    """What each switch of DQN adds to an update (MLP 64x64, batch 32)."""
    from runners import bench_family

    yield from bench_family.family()
    yield from bench_family.compiled()


def bench_pipeline() -> Iterator[Row]:
    """Breakout by every source beside Stable-Baselines3, and what handing over costs."""
    from runners import bench_pipeline

    return bench_pipeline.pipeline()


def bench_ray() -> Iterable[Row]:
    """Rollouts of 564 KB from Ray actors beside those of async worker processes."""
    from runners import bench_ray, ray_cluster

    if not ray_cluster.is_installed():
        return [Row(f"ray: {ray_cluster.INSTALL}", "", "")]
    return bench_ray.beside_processes()


def bench_pixels() -> list[Row]:
    """An update of DQN on images, in float32 and in bfloat16, frames as they are and as lz4 blocks."""
    from runners import bench_family

    return bench_family.pixels()


def bench_compare() -> Iterator[Row]:
    """Seeds side by side beside a process for each; what a job and a bootstrap cost."""
    from runners import bench_compare

    return bench_compare.comparing()


def bench_continuous() -> Iterator[Row]:
    """SAC on HalfCheetah beside Stable-Baselines3's, beside its products alone, and its family."""
    from runners import bench_continuous

    return bench_continuous.continuous()


def bench_device(kind: str, seconds: float) -> Iterator[Row]:
    """Where a run's time goes: simulate, act, transfer, sample, learn; and how long a GPU idles."""
    from runners import bench_device

    return bench_device.device(kind, seconds)


def _check_device(kind: str, seconds: float) -> None:
    from agents.device.machine import available

    if kind == "cuda" and not available():
        raise BadInput("--device: no CUDA device is at hand; take --device cpu")
    if not seconds > 0:
        raise BadInput(f"--seconds: got {seconds}, takes a number above 0")


def bench_parallel() -> Iterator[Row]:
    """Two learners of DQN on images as one, at batch 1,024 each, beside one of them alone."""
    from runners import bench_learners

    return bench_learners.parallel()


def bench_scaling(picture: str | None) -> Iterator[Row]:
    """Time to a return against the batch and the number of learners; drawn into scaling.png."""
    from runners import bench_scaling as scaling

    return scaling.scaling(picture)


SIMULATORS, SCALING = "simulators", "scaling"
SUBJECTS: dict[str, Callable[[], Iterable[Row]]] = {
    "help": bench_help,
    "worker": bench_worker,
    "frozenlake": bench_frozenlake,
    "group": bench_group,
    "family": bench_family,
    "replay": bench_replay,
    "pipeline": bench_pipeline,
    "ray": bench_ray,
    "pixels": bench_pixels,
    "parallel": bench_parallel,
    "sb3": bench_sb3,
    "continuous": bench_continuous,
    "compare": bench_compare,
    "solve": bench_solve,
}


@command
def main(argv: Sequence[str]) -> int:
    """Measure the subjects that are named, or all, and print a table."""
    if argv[:1] == [ADVISE]:
        return _advise(argv[1:])
    documented = {
        **SUBJECTS,
        SIMULATORS: bench_simulators,
        SCALING: bench_scaling,
        ADVISE: _advise,
    }
    about = "\n".join(f"  {name:11} {work.__doc__}" for name, work in documented.items())
    parser = argparse.ArgumentParser(
        prog="python -m runners.bench", description="Measure speed beside what it is compared with.",
        epilog=f"subjects:\n{about}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="what to measure; all if none"
    )
    parser.usage = "%(prog)s [SUBJECT ...] [options]\n       %(prog)s advise AGENT [flags of train]"
    parser.add_argument(
        "--family", nargs="+", default=[], metavar="NAME",
        help="of simulators: atari, mujoco, native, ... (all)",
    )  # fmt: skip
    parser.add_argument(
        "--lanes", nargs="+", type=int, default=[], metavar="N",
        help="of simulators (1 8 32 128 1024, where a family's memory allows it)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="",
        help="where a run's time goes with the learner there, and how long a GPU idles",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=6.0, metavar="S", help="of each loop of --device (6)"
    )
    parser.add_argument(
        "--picture", metavar="PNG", help="draw into this file what simulators or scaling measured"
    )
    asked = parser.parse_args(argv)
    named = asked.subjects
    if any(n < 1 for n in asked.lanes):
        raise BadInput(f"--lanes: got {min(asked.lanes)}, takes whole numbers of at least 1")
    subjects: dict[str, Callable[[], Iterable[Row]]]
    subjects = {
        **SUBJECTS,
        SIMULATORS: partial(bench_simulators, asked.family, asked.lanes, asked.picture),
        SCALING: partial(bench_scaling, asked.picture),
    }
    for name in named:
        if name not in subjects:
            raise BadInput(f"{name!r}: no such subject{nearest(name, subjects)}")
    if asked.device:
        if named:
            raise BadInput(f"--device: is a table of its own; leave {' '.join(named)} out")
        _check_device(asked.device, asked.seconds)
        named, subjects = ["device"], {"device": partial(bench_device, asked.device, asked.seconds)}
    import torch

    from runners import provenance

    torch.set_num_threads(1)
    machine = provenance.machine()
    sys.stdout.write(f"{machine['cpu']}, {machine['cores']} cores, torch {torch.__version__}\n")
    for name in named or subjects:
        for row in subjects[name]():
            ratio = "" if row.ratio is None else f"x {row.ratio:.2f}"
            sys.stdout.write(f"{row.what:52} {row.figure:32} {row.against:30} {ratio}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    leave(main())
