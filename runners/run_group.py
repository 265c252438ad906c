"""Train one group of seeds in its folder: begin or go on, checkpoint, finish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import torch

from agents.contract import Batch, Learner, NonFiniteLoss, Params
from runners import files, weights
from runners.checkpoint import Loaded
from runners.config import RunConfig
from runners.console import Console, seed_range
from runners.crash_report import reported
from runners.errors import RunFailed, Stopped, disk
from runners.group import Setting, make_learner, make_source
from runners.health import health_of
from runners.loop import run_loop
from runners.outcome import read_result, write_results
from runners.progress import Progress
from runners.run_folder import Group, RunFolder
from runners.shelf import FileShelf
from runners.sources import Source
from runners.team import ALONE, Alone, Team
from runners.team_group import (
    Averaged,
    NoRecords,
    Part,
    ToldEvaluator,
    begin,
    load,
    replaced_of_all,
    save,
)
from runners.timing import Times, time_sampling

StopAsked = Callable[[], int]
"""The signal that asked the run to stop, or 0."""


def train_group(
    run: RunFolder,
    setting: Setting,
    group: Group,
    threshold: float | None,
    console: Console,
    stop_asked: StopAsked,
    workers: int = 0,
    team: Alone = ALONE,
) -> None:
    """Train the seeds of a group to their end and write their results.

    ``workers``: processes that simulate; 0: this one does. ``team``: this learner and those it learns with,
    of which the first writes.

    Raises:
        WorkerLost: another learner is gone, or does not answer.
        Stopped: ``stop_asked`` gave a signal; what is saved is said in the message.
        RunFailed: the loss was not finite; the batch that made it so is kept.
        SimulatorError: a simulator failed; a report is kept, which `runners.replay_crash` takes.
        NoCheckpoint: the group was begun and none of its checkpoints can be used.
    """
    if team.tell(is_done(run, group)):
        return
    part = Part(run, team.place.rank)
    alone = run.lock(group) if team.first else nullcontext()
    with alone, reported(lambda: part.group(group), setting.config):
        loaded = load(run, group, team)
        if loaded is not None:
            for skipped in loaded.skipped:
                console.message(f"skipped {skipped}")
        active = group.seeds if loaded is None else loaded.seeds
        shelf = None
        if setting.replay_device == "disk":
            shelf = FileShelf(part.group(group) / "replay", active, loaded)
        learner = make_learner(setting, active, shelf)
        begin(learner, team)
        times = Times()
        source = make_source(
            setting, active, learner, workers, console.message, lambda: part.group(group), times
        )
        with closing(source), time_sampling(learner.replay, times):
            progress = _progress(
                run, setting, group, threshold, console, team.agreed(stop_asked), learner, source, times,
                loaded, shelf, team,
            )  # fmt: skip
            try:
                if loaded is None:
                    _say_if_too_short(setting.config, console)
                    progress.checkpoint()
                elif not progress.finished:
                    console.message(
                        f"{seed_range(group.seeds)}: going on from lane step {loaded.lane_steps:,}"
                    )
                run_loop(source, learner, progress)
            except NonFiniteLoss as error:
                _keep_batch(part.group(group), error, setting.config.hyper)
            finally:
                progress.evaluator.close()
        if progress.stopped:
            raise Stopped(progress.stopped, _what_is_saved(progress))
        replaced = replaced_of_all(source.replaced, team)
        if team.first and not is_done(run, group):
            records = list(progress.records.values())
            write_results(run, setting, records, progress.times, replaced)
        team.tell(None)  # the others wait for its last evaluation


def _say_if_too_short(config: RunConfig, console: Console) -> None:
    """A run that ends before learning begins is rarely what was meant."""
    begins = getattr(config.hyper, "learning_starts", 0)
    if config.steps <= begins:
        console.message(
            f"nothing will be learned: learning starts at lane step {begins:,}, the run ends at {config.steps:,}"
        )


def is_done(run: RunFolder, group: Group) -> bool:
    """Whether every seed of the group has its result; its checkpoints are not needed any more."""
    return all(read_result(run.seed_path(seed)) is not None for seed in group.seeds)


def _progress(
    run: RunFolder,
    setting: Setting,
    group: Group,
    threshold: float | None,
    console: Console,
    stop_asked: StopAsked,
    learner: Learner,
    source: Source,
    times: Times,
    loaded: Loaded | None,
    shelf: FileShelf | None,
    team: Alone,
) -> Progress:
    """Everything of a group, at its start or where the checkpoint left it."""
    seeds = group.seeds

    def save_checkpoint(progress: Progress) -> None:
        state = {
            "learner": learner.state_dict(),
            "source": source.state_dict(),
            "progress": progress.state_dict(),
        }
        written = {} if shelf is None else shelf.written
        at, active = progress.lane_steps, progress.active
        for seed in active if team.first else ():
            run.seed(seed).sync()
        save(run, group, at, state, learner.replay, active, team, **written)

    def save_weights(seed: int, which: str, params: Params) -> None:
        if not team.first:
            return
        folder = run.seed(seed)
        weights.save_weights(folder.best if which == "best" else folder.last, params)

    joined = isinstance(team, Team)
    evaluator = setting.evaluator()
    there = seeds if loaded is None else loaded.seeds
    progress = Progress(
        setting.config, threshold, seeds, source,
        Averaged(learner, team) if joined else learner,
        ToldEvaluator(evaluator, team) if joined else evaluator,
        run.seed if team.first else NoRecords, save_weights, save_checkpoint, console.update, stop_asked,
        health_of(setting, learner, there, console.message) if team.first else None,
        times, team.total if joined else None,
    )  # fmt: skip
    if loaded is not None:
        learner.load_state_dict(loaded.state["learner"])
        if learner.replay is not None:
            loaded.load_replay(learner.replay)
        source.load_state_dict(loaded.state["source"])
        progress.load_state_dict(loaded.state["progress"])
    for seed in seeds if team.first else ():
        run.seed(seed).cut(progress.lane_steps if loaded is not None else -1)
    return progress


def _keep_batch(folder: Path, error: NonFiniteLoss, hyper: Any) -> NoReturn:
    """Save the batch whose loss was not finite, and say where it is."""
    kept = ""
    if error.batch is not None:
        path = folder / f"not-finite-{error.update}.safetensors"
        with disk(path):
            files.replace(path, _batch_to_bytes(error.batch), "batch")
        kept = f"its batch is kept in {path}, "
    smaller = "--lr or --reward-scale" if hasattr(hyper, "reward_scale") else "--lr"
    raise RunFailed(
        f"{error}; {kept}the last checkpoint is intact: try a smaller {smaller}"
    ) from error


def _batch_to_bytes(batch: Batch) -> bytes:
    from safetensors.torch import save

    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)} | batch.extras
    return save(
        {n: t.detach().cpu().clone() for n, t in tensors.items() if isinstance(t, torch.Tensor)}
    )


def _what_is_saved(progress: Progress) -> str:
    where = f"lane step {progress.saved_at}"
    if progress.source.resumable:
        return f"saved at {where}; the same command goes on from there"
    return f"the last checkpoint is of {where}; the same command goes on from there"
