"""Train one seed by Stable-Baselines3's own loop: it calls back after every step, and records are kept then."""

from __future__ import annotations

import dataclasses
import math
import random  # noqa: TID251 - put back as it was
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise

from agents.contract import Array, NonFiniteLoss, Params, Rollout
from runners import seeding, weights
from runners.config import RunConfig
from runners.console import Console
from runners.crash_report import reported
from runners.errors import BadInput, RunFailed, Stopped
from runners.free_memory import available
from runners.group import Setting
from runners.outcome import write_results
from runners.progress import Progress
from runners.run_folder import Group, RunFolder
from runners.run_group import StopAsked, is_done
from runners.sb3.lanes import Lanes, make_lanes
from runners.sb3.policy import algorithm_of, buffer_bytes, params_of, policy_name
from runners.seeding import Stream
from runners.timing import Times

ROWS = 32  # of a record, at most: so often the console is told and a signal heard


def train_seed(
    run: RunFolder,
    setting: Setting,
    group: Group,
    threshold: float | None,
    console: Console,
    stop_asked: StopAsked,
    workers: int = 0,
) -> None:
    """Train the only seed of a group from zero to its end and write its result, as `train_group` does.

    Raises:
        Stopped: ``stop_asked`` gave a signal.
        RunFailed: the loss or the policy was not finite.
        SimulatorError: a simulator failed.
    """
    assert not workers  # refused before
    if is_done(run, group):
        return
    (seed,), times, c = group.seeds, Times(), setting.config
    with run.lock(group), reported(lambda: run.group(group), c), generators_kept():
        if run.seed(seed).begun:
            console.message(
                f"seed {seed}: begins again; Stable-Baselines3 cannot go on where it stopped"
            )
        run.seed(seed).cut(-1)
        env, lanes = make_lanes(setting, seed, times)
        with closing(lanes):
            model = make_model(c, setting, env, seed)
            progress = _progress(run, setting, seed, threshold, console, stop_asked, model, times)
            try:
                _learn(model, c, Records(progress, lanes))
            finally:
                progress.evaluator.close()
        if progress.stopped:
            raise Stopped(
                progress.stopped,
                f"seed {seed} begins again with the same command; seeds that are done are kept",
            )
        write_results(run, setting, list(progress.records.values()), progress.times)


def make_model(config: RunConfig, setting: Setting, env: Any, seed: int) -> Any:
    """Stable-Baselines3's model; it seeds itself, the global generators and the lanes.

    Its seed is of the lab's tree: it gives lane i the seed + i, so neighbouring ones would share lanes.
    """
    hyper, settings = config.hyper, dataclasses.asdict(config.hyper)
    for own in ("net_arch", "normalize", "frame_stack", "reward_clip"):
        settings.pop(own, None)
    for name in ("learning_rate", "clip_range"):
        if settings.pop(f"{name}_schedule", "constant") == "linear":
            settings[name] = _linear(settings[name])
    if noise := settings.pop("action_noise", 0.0):
        size = math.prod(setting.spec.action_shape)
        settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, noise))
    return algorithm_of(hyper)(
        policy_name(hyper, setting.spec),
        env,
        seed=seeding.integer(seed, Stream.LEARNER) >> 1,
        device=config.device,
        policy_kwargs={"net_arch": list(hyper.net_arch)},
        **settings,
    )


def _linear(start: float) -> Callable[[float], float]:
    return lambda left: left * start


def check_memory(setting: Setting, console: Console) -> None:
    """Refuse a replay that will not fit before anything is trained; say so where it is much.

    Raises:
        BadInput: the line says how many transitions would fit.
    """
    hyper = setting.config.hyper
    needed, there = buffer_bytes(hyper, setting.spec), available()
    if there is not None and needed > there:
        fits = int(hyper.buffer_size * there / needed * 0.9)
        raise BadInput(
            f"memory: {needed / 1e9:.1f} GB are needed for the replay, and {there / 1e9:.1f} GB are there: take "
            f"--buffer-size {fits}"
        )
    if needed > 1e9:
        console.message(f"memory: {needed / 1e9:.1f} GB for the replay")


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators back in the end: Stable-Baselines3 seeds and draws from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _learn(model: Any, config: RunConfig, records: Records) -> None:
    """One call of ``learn``; whatever comes of numbers that are not finite is one line."""
    try:
        model.learn(config.steps, records)
    except NonFiniteLoss as error:
        raise RunFailed(f"{error}; try a smaller --learning-rate") from error
    except (
        ValueError,
        RuntimeError,
    ) as error:  # torch raises either, as its distributions are set to check
        # torch refuses a distribution of NaN before any loss is told
        if all(torch.isfinite(t).all() for t in model.policy.state_dict().values()):
            raise
        raise RunFailed(
            "the policy's weights are not finite; try a smaller --learning-rate"
        ) from error


def _progress(
    run: RunFolder,
    setting: Setting,
    seed: int,
    threshold: float | None,
    console: Console,
    stop_asked: StopAsked,
    model: Any,
    times: Times,
) -> Progress:
    def save_weights(seed: int, which: str, params: Params) -> None:
        weights.save_weights(run.seed(seed).path / which, params)

    return Progress(
        setting.config, threshold, [seed], AtRest(), Model(model, setting.config), setting.evaluator(),
        run.seed, save_weights, lambda _: None, console.update, stop_asked, None, times,
    )  # fmt: skip


class AtRest:
    """What simulates, for the records' keeper: nothing is under way between two steps, nothing can go on."""

    pending, resumable = 0, False

    def keep(self, seeds: Any) -> None:
        """One seed, which stays to the end."""


class Model:
    """A model of Stable-Baselines3, for the records' keeper."""

    def __init__(self, model: Any, config: RunConfig) -> None:
        self.model, self.config, self.told = model, config, Told()
        model.set_logger(self.told)

    def params(self) -> Params:
        return params_of(self.model, self.model.num_timesteps, self.updates)

    def metrics(self) -> dict[str, Array]:
        """What it told last of its training, by its names.

        Of what is undefined, as the explained variance of a constant, nothing; a loss is told as it is.
        """
        return {
            name: np.array([value])
            for name, value in self.told.latest.items()
            if math.isfinite(value) or name.endswith("loss")
        }

    @property
    def updates(self) -> int:
        """Gradient steps; PPO counts passes over a rollout."""
        hyper, count = self.config.hyper, int(self.model._n_updates)
        if hyper.algorithm != "PPO":
            return count
        batches: int = math.ceil(hyper.n_steps * self.config.lanes / hyper.batch_size)
        return count * batches

    def keep(self, seeds: Any) -> None:
        """One seed, which stays to the end."""


class Told(Logger):
    """Keeps the latest of what is told of training, and writes nothing."""

    def __init__(self) -> None:
        super().__init__(None, [])
        self.latest: dict[str, float] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        del exclude
        group, _, name = key.partition("/")
        if group == "train" and name != "n_updates":
            self.latest[name] = float(value)

    def dump(self, step: int = 0) -> None:
        """Nothing is written."""


class Records(BaseCallback):
    """Hands the steps over to the records' keeper; ends the loop where the run has ended.

    The last steps are handed over when the loop has ended, behind its last gradient steps. A rollout
    that the end of the run cuts off is not learned from: no step is taken beyond the budget.
    """

    def __init__(self, progress: Progress, lanes: Lanes) -> None:
        super().__init__()
        self.progress, self.lanes = progress, lanes
        self.every = progress.clock
        self.rows_of_rollout: int = progress.config.hyper.rollout_rows
        self.rewards: list[Array] = []
        self.ends: list[Array] = []
        self.rows = 0  # of the rollout under way

    def _on_rollout_start(self) -> None:
        self.rows = 0

    def _on_step(self) -> bool:
        self.rewards.append(self.lanes.raw)
        self.ends.append(np.array(self.locals["dones"]))
        self.rows += 1
        before, now = self.progress.lane_steps, self.num_timesteps
        if now >= self.every.steps:
            return self.rows >= self.rows_of_rollout  # if it is whole, learn from it
        due = any(
            self.every.passed(before, now, n) for n in (self.every.eval_every, self.every.log_every)
        )
        if due or len(self.rewards) >= ROWS:
            self._hand_over()
        return not (self.progress.finished or self.progress.stopped)

    def _on_training_end(self) -> None:
        if not (self.progress.finished or self.progress.stopped):
            self._hand_over()

    def _hand_over(self) -> None:
        reward, ended = np.stack(self.rewards), np.stack(self.ends)
        self.rewards, self.ends = [], []
        rows, lanes = reward.shape
        none = np.zeros((rows + 1, lanes), np.bool_)  # no row is ignored: it resets within the step
        empty = np.empty((rows + 1, lanes, 0))
        version = self.progress.rollouts  # it acts with the newest parameters
        self.progress.after(
            Rollout(empty, none, empty[1:], reward, ended, none[1:], version=version)
        )
