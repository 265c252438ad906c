"""``python -m runners.train``: train an agent on several seeds; the same command goes on."""

from __future__ import annotations

import gc
import itertools
import operator
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import run_folder
from runners.config import agent_entry, run_name, to_json
from runners.errors import BadInput, command, leave, status_of
from runners.team import place

if TYPE_CHECKING:
    from runners.config import RunConfig
    from runners.console import Console
    from runners.group import Setting
    from runners.run_folder import Group, RunFolder
    from runners.team import Alone


SPEAK_SECONDS = 10.0  # that the first learner has to say what is wrong
TWICE_SECONDS = 5.0  # within which a second signal may be the first one, sent on
CHECKED_STEPS = 200  # of each run of the checker, where an environment is somebody's own


def run(
    config: RunConfig,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: str = "runs",
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    console: Console | None = None,
    stop_asked: Callable[[], int] = lambda: 0,
    workers: int = 0,
    ray: str = "",
    replay_device: str = "auto",
) -> RunFolder:
    """Train the seeds of a configuration that are not trained yet, and summarise the run.

    Prints nothing, handles no signal and seeds no global generator: safe to call from a program.

    Args:
        config: what to train; `runners.resolve.make_config` makes one.
        seeds: a range of seeds; each gives the same bits whichever others train beside it.
        out: parent of run folders.
        fresh: move an older folder of this configuration aside.
        tensorboard: write event files for TensorBoard beside the metrics.
        console: what to tell about progress; None for silence.
        stop_asked: gives the number of the signal that asks the run to stop, else 0.
        workers: processes that simulate; 0: this one does. A program that asks for some has its main part
            under ``if __name__ == "__main__":``, for they import it.
        ray: address of the Ray cluster that they run on, where the configuration's source is ray. Of a
            program that is connected to one already that one is taken.
        replay_device: where a replay keeps observations: auto, host, device or disk; no bit depends on it.

    Raises:
        BadInput, NoCheckpoint, DiskFault, RunFailed, Stopped, SimulatorError, WorkerLost: see
            `runners.errors`.
    """
    from runners.console import SilentConsole
    from runners.ray_cluster import connected
    from runners.team import make_team

    if not seeds or any(isinstance(s, bool) or not operator.index(s) >= 0 for s in seeds):
        raise BadInput(f"seeds: got {list(seeds)}, takes whole numbers of at least 0")
    console = console or SilentConsole()
    with closing(make_team(config.learners, config.device, stop_asked)) as team:
        fresh = fresh and not team.place.restarts  # learners that are begun again go on
        done = None if fresh or tensorboard else finished_run(config, seeds, out)
        if team.tell(done is not None):
            return _folder(config, out)
        setting = _checked(
            config, seeds, out, workers, console, team.place.beside, ray, replay_device
        )
        if tensorboard:
            from runners.tensorboard import require

            require()
        with connected(ray), torch_set(config.threads, config.fast_matmul):
            if fresh and team.first:
                run_folder.set_aside(out, run_name(config))
            team.tell(None)  # the others open the folder when an older one has gone
            folder = run_folder.create_run(out, run_name(config), to_json(config))
            if team.first:
                folder.record_start(sys.argv, seeds=list(seeds))
            _train(folder, setting, seeds, console, stop_asked, workers, team)
    if tensorboard and team.first:
        from runners.tensorboard import write_events

        write_events(folder)
    return folder


def _checked(
    config: RunConfig,
    seeds: Sequence[int],
    out: str,
    workers: int,
    console: Console,
    learners: int,
    ray: str,
    replay_device: str,
) -> Setting:
    """What all groups of the run share, once it is known that ``learners`` of them can be had here."""
    from runners import group as groups
    from runners.crash_report import reported
    from runners.memory_plan import check_memory
    from runners.replay_place import place_of_replay

    with reported(lambda: _folder(config, out).path, config):
        setting = groups.make_setting(config)
    groups.check_workers(setting, len(seeds), workers, ray)
    entry = agent_entry(config.agent)
    if entry.own_loop:
        from runners.sb3 import train as theirs

        theirs.check_memory(setting, console)
    setting.replay_device = place_of_replay(setting, len(seeds), replay_device)
    if entry.gradient and not entry.own_loop:  # tables are small, and want no replay
        check_memory(setting, len(seeds), console, out, learners)
    return setting


def _folder(config: RunConfig, out: str) -> RunFolder:
    return run_folder.create_run(out, run_name(config), to_json(config))


def _train(
    folder: RunFolder,
    setting: Setting,
    seeds: Sequence[int],
    console: Console,
    stop_asked: Callable[[], int],
    workers: int,
    team: Alone,
) -> None:
    """Train the seeds, group by group; the summary is of all that are in the folder."""
    from runners.resolve import threshold as threshold_of
    from runners.run_group import train_group as train_ours
    from runners.summary import summarise

    config, train_group = setting.config, partial(train_ours, team=team)
    if agent_entry(config.agent).own_loop:
        from runners.sb3 import train as theirs

        train_group = theirs.train_seed  # type: ignore[assignment]
    threshold = threshold_of(config.env)
    planned = team.tell([list(group) for group in plan_groups(folder, seeds, setting.group_size)])
    for group in itertools.starmap(run_folder.Group, planned):
        console.start(f"{config.agent} on {config.env}", config.steps, group.seeds)
        try:
            train_group(folder, setting, group, threshold, console, stop_asked, workers)
        finally:
            console.stop()
    if team.first:
        summarise(folder, setting, threshold)


def finished_run(config: RunConfig, seeds: Sequence[int], out: str) -> RunFolder | None:
    """The run folder, where all these seeds are trained and summarised already."""
    from runners.outcome import read_result

    folder = run_folder.RunFolder(Path(out) / run_name(config))
    if not (folder.path / "config.json").is_file() or folder.config() != to_json(config):
        return None
    summary = folder.summary()
    known = set(summary["seeds"]) if summary else set()
    done = all(seed in known and read_result(folder.seed_path(seed)) for seed in seeds)
    return folder if done else None


def plan_groups(folder: RunFolder, seeds: Sequence[int], size: int) -> Iterator[Group]:
    """The groups to train: those begun earlier as they are, missing seeds in groups of ``size``."""
    known = folder.groups()
    yield from (group for group in known if set(group.seeds) & set(seeds))
    trained = {seed for group in known for seed in group.seeds}
    chunk: list[int] = []
    for seed in sorted(set(seeds) - trained):
        if chunk and (seed != chunk[-1] + 1 or len(chunk) == size):
            yield run_folder.Group(chunk[0], chunk[-1])
            chunk = []
        chunk.append(seed)
    if chunk:
        yield run_folder.Group(chunk[0], chunk[-1])


@contextmanager
def torch_set(threads: int = 1, fast_matmul: bool = False) -> Iterator[None]:
    """What is set for a whole process, for as long as a run takes.

    Two threads on a busy core slow a matrix product many times over. The "medium" kernels keep float32's
    accuracy on a CPU without matrix units; with them they may compute in bfloat16.
    """
    import torch

    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("medium" if fast_matmul else before[1])
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


@contextmanager
def importing() -> Iterator[None]:
    """Import large libraries without looking for garbage in between.

    What they make stays until the end; searching it again and again is a tenth of the start, and
    later on of the training.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class SignalFlag:
    """Remembers the first SIGINT or SIGTERM for the loop to find; the second ends the process.

    Unless it comes within so many seconds: ``torchrun`` sends on to learners what a terminal sends to all.
    """

    def __init__(self, twice_seconds: float = 0.0) -> None:
        self.signum, self.came, self.twice_seconds = 0, 0.0, twice_seconds
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: Any) -> None:
        del frame
        now = time.monotonic()
        if self.signum and now - self.came >= self.twice_seconds:
            os._exit(128 + signum)  # at once; whatever is being written is not renamed yet
        self.signum, self.came = self.signum or signum, self.came or now

    def __call__(self) -> int:
        return self.signum


@command
def main(argv: Sequence[str]) -> int:
    """Read the command line, train, report; of several learners the first does."""
    return _follow(argv) if place().rank else _lead(argv)


def _follow(argv: Sequence[str]) -> int:
    """Train as the first learner does, which says what there is to say."""
    from runners.command_line import parse_train

    try:
        with importing():
            config, options, _, seeds, _ = parse_train(argv)
        run(
            config, seeds, options.out, fresh=options.fresh, tensorboard=options.tensorboard,
            stop_asked=SignalFlag(TWICE_SECONDS), workers=options.workers, ray=options.ray,
            replay_device=options.replay_device,
        )  # fmt: skip
    except Exception as error:
        if status_of(error) == 2:
            time.sleep(SPEAK_SECONDS)  # torchrun ends all when the first of them ends
            return 2
        raise
    return 0


def _lead(argv: Sequence[str]) -> int:
    from runners import learning_curve, report
    from runners.command_line import parse_train
    from runners.console import make_console
    from runners.health_picture import draw_health
    from runners.lag_picture import draw_lag
    from runners.live_curve import live_curve

    with importing():
        config, options, preset, seeds, resumed = parse_train(argv)
    if options.verify_resume:
        from runners.verify import verify_resume

        return verify_resume(config, options)
    if resumed is not None and resumed.name != run_name(config):
        raise _other_versions(resumed)
    console = make_console(options.quiet)
    if not options.quiet and preset:
        sys.stderr.write(f"preset: {preset}\n")
    if not (options.fresh or options.tensorboard or config.learners > 1):
        done = finished_run(config, seeds, options.out)
        if done is not None and done.curve.exists():
            console.message("finished before; --fresh trains it anew")
            report.show(done, quiet=options.quiet)
            return 0
    if ":" in config.env and not options.quiet:
        _check(config, console)
    with live_curve(Path(options.out) / run_name(config)) as curve:
        folder = run(
            config,
            seeds,
            options.out,
            fresh=options.fresh,
            tensorboard=options.tensorboard,
            console=console,
            stop_asked=SignalFlag(TWICE_SECONDS if config.learners > 1 else 0.0),
            workers=options.workers,
            ray=options.ray,
            replay_device=options.replay_device,
        )
        drawn = curve.finish()
    if not drawn:
        learning_curve.draw_curve(folder)  # says why, if it fails here too
        draw_health(folder)
        draw_lag(folder)
    report.show(folder, quiet=options.quiet)
    return 0


def _check(config: RunConfig, console: Console) -> None:
    """Say what the checker finds in an environment of somebody's own before it is trained on."""
    from envs.check import check_id

    backend = "sync" if config.backend == "async" else config.backend
    findings = check_id(config.env, backend, steps=CHECKED_STEPS, options=config.env_options)
    for finding in findings:
        console.message(f"checker: {'FAULT' if finding.fault else 'note'} {finding}")
    if not any(finding.fault for finding in findings):
        console.message(f"checker: no fault in {CHECKED_STEPS} steps")


def _other_versions(folder: RunFolder) -> BadInput:
    """A run goes on with the versions it began with: others may give other bits."""
    from runners import provenance
    from runners.config import difference

    starts = folder.provenance()
    changed = difference(provenance.versions(), starts[0]["versions"] if starts else {})
    why = "; ".join(changed) or "its folder has another name than it was given"
    return BadInput(f"{folder.path}: cannot go on: {why}")


if __name__ == "__main__":
    leave(main())
