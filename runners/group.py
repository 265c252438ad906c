"""Put together what one group of seeds needs: simulators, actors, learner, source, evaluator."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

import envs
from agents.contract import Actor, Learner
from agents.device.machine import learner_device
from agents.networks import is_image
from envs.contract import (
    FiniteMDP,
    Resumable,
    Spec,
    UnsupportedEnv,
    VectorSimulator,
    mdp_of,
    spec_of,
)
from envs.cores import cores, limited
from runners import seeding
from runners.checked import CheckedSimulator, making
from runners.config import AGENTS, RunConfig
from runners.errors import BadInput
from runners.evaluation import Evaluator
from runners.journal import Block, new_journal
from runners.resolve import check_fit
from runners.seeding import Stream
from runners.slots import Slot
from runners.sources import Plan, Source
from runners.sources.local import LocalSource
from runners.team import place
from runners.timing import Times
from runners.worker import MakeActor, MakeJournal, RolloutWorker

if TYPE_CHECKING:
    from agents.replay.frames import MakeFrames
    from agents.replay.segments import Shelf

Place = Literal["host", "device", "disk"]


@dataclass
class Setting:
    """What all groups of a configuration share."""

    config: RunConfig
    spec: Spec
    mdp: FiniteMDP | None  # where the agent's values are a function of its state
    resumable: bool  # the simulators give their state
    overlaps: bool  # they may simulate in a thread while the learner learns
    time_limit: int  # 0: episodes have no limit of their own
    agent: Any  # the agent's module
    replay_device: Place = "host"  # where a replay keeps observations; it changes no bit
    rank: int = 0  # of this learner among those that learn as one

    def simulator(self, lanes: int, seed: int) -> VectorSimulator:
        """A simulator of the configuration's environment."""
        c = self.config
        return envs.make(c.env, lanes, seed, c.backend, **c.env_options)

    @property
    def make_actor(self) -> MakeActor:
        """From exploration streams, one a seed, to an actor."""
        return functools.partial(self.agent.make_actor, self.config.hyper, self.spec)

    @property
    def group_size(self) -> int:
        """Seeds to train together at most: one where a group would gain nothing.

        Each seed has its own convolutions to do; and a compiled step has not lost the time that a group saves,
        which a recorded one has as well.
        """
        size: int = self.agent.GROUP
        compiled = self.config.compile and self.config.device == "cpu"
        return 1 if is_image(self.spec) or compiled else size

    def evaluator(self) -> Evaluator:
        """Fresh simulators for greedy episodes.

        Not ``async`` ones: a hundred lanes a seed would be a hundred processes a seed. ``sync``
        gives the same episodes.
        """
        c = self.config
        backend = "sync" if c.backend == "async" else c.backend

        def make(lanes: int) -> VectorSimulator:
            return envs.make(c.env, lanes, 0, backend, **c.env_options)

        mdp = _mdp(c, self.spec) if AGENTS[c.agent].stepwise else None
        regret = None if mdp is None else functools.partial(self.agent.regret, mdp)
        return Evaluator(c.env, self.spec, make, self.make_actor, self.time_limit, regret)


def make_setting(config: RunConfig) -> Setting:
    """Look at the environment and load the agent.

    Raises:
        BadInput: the agent cannot act in the environment, or not read its observations.
    """
    with closing(envs.make(config.env, 1, 0, config.backend, **config.env_options)) as probe:
        asked = new_journal(Block(1, 0), rows=1)
        _, infos = CheckedSimulator(probe, config.env, journal=asked).reset(0)
        spec, resumable = spec_of(probe, infos), isinstance(probe, Resumable)
        overlaps = bool(getattr(probe.unwrapped, "releases_gil", False))
    check_fit(config, spec)
    limit = envs.time_limit(config.env, **config.env_options)
    agent = importlib.import_module(AGENTS[config.agent].module)
    rank = place().rank if config.learners > 1 else 0
    setting = Setting(
        config, spec, _mdp(config, spec), resumable, overlaps, limit, agent, rank=rank
    )
    looks_back = setting.make_actor([np.random.default_rng(0)]).looks_back
    if looks_back or AGENTS[config.agent].own_loop:
        setting.mdp = None  # values of more than the present state have no place on a map of states
    return setting


def _mdp(config: RunConfig, spec: Spec) -> FiniteMDP | None:
    """The arrays of the environment, whichever backend steps it.

    None where actions are masked too: the arrays have actions that an agent then never learns.
    """
    if envs.SIMULATORS.get(config.env) != "tabular" or spec.action_mask:
        return None
    try:
        return mdp_of(envs.make(config.env, 1, 0, "tabular", **config.env_options))
    except UnsupportedEnv:  # an option that only Gymnasium's own environment knows
        return None


def make_learner(setting: Setting, seeds: Sequence[int], shelf: Shelf | None = None) -> Learner:
    """The learner of a group, each seed drawing from its own streams.

    ``shelf`` keeps a replay's full segments where the setting says disk. The first of several learners draws from those of one
    that learns alone, the others from children.

    Raises:
        BadInput: the agent learns in a loop of its own, where only `runners.train` can have it learn.
    """
    if AGENTS[setting.config.agent].own_loop:
        raise BadInput(
            f"{setting.config.agent} learns in a loop of its own: it is for runners.train alone"
        )
    path = (setting.rank,) if setting.rank else ()
    here = place().here if setting.config.learners > 1 else None
    device = learner_device(setting.config.device, here)
    frames = _frames(setting, device, shelf)
    learner: Learner = setting.agent.make_learner(
        setting.config.hyper,
        setting.spec,
        setting.config.lanes,
        [seeding.sequence(seed, Stream.LEARNER, *path) for seed in seeds],
        [seeding.generator(seed, Stream.REPLAY, *path) for seed in seeds],
        device,
        **({} if frames is None else {"frames": frames}),
    )
    if setting.config.compile:
        learner.compile()  # type: ignore[attr-defined]  # the agents' table says that it can
    return learner


def _frames(setting: Setting, device: torch.device, shelf: Shelf | None) -> MakeFrames | None:
    """Where a replay is to keep its observations; None: in an array."""
    if setting.replay_device == "device":
        from agents.replay.tensor_frames import TensorFrames

        return functools.partial(TensorFrames, device=device)
    if setting.replay_device == "disk":
        from agents.replay.segments import SegmentFrames

        assert shelf is not None
        return functools.partial(SegmentFrames, shelf=shelf)
    return None


def make_worker(
    setting: Setting,
    seeds: Sequence[int],
    columns: range | None = None,
    life: int = 0,
    make_journal: MakeJournal | None = None,
    times: Times | None = None,
) -> RolloutWorker:
    """The worker of these of the group's blocks (None: of all), in its so many-th life.

    Of several learners each has as many blocks of a seed; the second's are numbered after the first's.
    """
    c = setting.config
    per_seed = c.lanes // c.block_size
    lanes_before = setting.rank * len(seeds) * c.lanes

    def make_simulator(seed: int, block: int) -> VectorSimulator:
        number = seeding.simulator_seed(seed, block, life)
        own = block - setting.rank * per_seed
        first_lane = lanes_before + list(seeds).index(seed) * c.lanes + own * c.block_size
        with making(c.env, Block(c.block_size, number, seed, block, first_lane)):
            return setting.simulator(c.block_size, number)

    return RolloutWorker(
        c.env,
        setting.spec,
        seeds,
        per_seed,
        make_simulator,
        functools.partial(_acting, setting),
        max_rows=c.rollout_length,
        reward_dtype=np.float64 if AGENTS[c.agent].tabular else np.float32,
        columns=columns,
        first_block=setting.rank * per_seed,
        life=life,
        make_journal=make_journal,
        times=times,
    )


def _acting(setting: Setting, generators: Sequence[np.random.Generator]) -> Actor:
    """An actor where the configuration says; others, who look at few lanes at a time, stay on the CPU."""
    actor = setting.make_actor(generators)
    if setting.config.actor_device != "cpu":
        actor.move(torch.device(setting.config.actor_device))  # type: ignore[attr-defined]
    return actor


def make_source(
    setting: Setting,
    seeds: Sequence[int],
    learner: Learner,
    workers: int = 0,
    say: Callable[[str], None] = warnings.warn,
    folder: Callable[[], Path] | None = None,
    times: Times | None = None,
) -> Source:
    """The source that the configuration names; with ``workers``, processes of their own.

    Those of a Ray source are on the cluster that this process is connected to.

    ``say`` is told of workers that are replaced, and reports of simulators that crash go into ``folder``.
    It counts its seconds in ``times``.

    Raises:
        BadInput: there is not the memory that they share.
    """
    c = setting.config
    if c.source == "fused":
        # numba is not loaded for agents that do without
        from runners.sources.fused import FusedSource

        simulators = [
            setting.simulator(c.block_size, seeding.integer(seed, Stream.SIMULATOR, 0))
            for seed in seeds
        ]
        threads = min(len(seeds), cores())
        return FusedSource(seeds, simulators, learner, c.rollout_length, threads, times)  # type: ignore[arg-type]
    blocks = len(seeds) * (c.lanes // c.block_size)  # of a group that seeds have left, fewer
    if c.source == "ray":
        from runners.sources.ray import RaySource

        return RaySource(c, seeds, min(workers, blocks), say, times or Times())
    if not workers:
        overlaps = bool(c.lag and setting.overlaps)
        with limited(cores() - c.threads if overlaps else cores()):
            worker = make_worker(setting, seeds, times=times)
        return LocalSource(worker, c.lag, overlaps, times)
    from runners.sources.process import ProcessSource

    return ProcessSource(
        c,
        seeds,
        min(workers, blocks),
        _sample(setting),
        learner.params(),
        setting.resumable,
        say,
        folder,
        times or Times(),
    )


def check_workers(setting: Setting, seeds: int, workers: int, ray: str = "") -> None:
    """Refuse workers where they are no use, or more than the smallest group of seeds has blocks."""
    c = setting.config
    if workers and AGENTS[c.agent].own_loop:
        raise BadInput(
            f"workers: are not for {c.agent}, which simulates in a loop of its own: leave --workers out"
        )
    if workers and AGENTS[c.agent].tabular:
        raise BadInput(
            f"workers: {c.agent} learns at every step, before the next; workers are for agents that learn "
            "from rollouts: leave --workers out"
        )
    if c.source == "ray":
        _check_ray(workers, ray)
    elif ray:
        raise BadInput(f"ray: got {ray!r}, but the rollouts' source is {c.source}; leave --ray out")
    if c.async_ and not workers:
        raise BadInput("async: takes --workers 1 or more; this process alone works in lockstep")
    seeds = seeds % setting.group_size or setting.group_size
    if workers > (blocks := seeds * (c.lanes // c.block_size)):
        fitting = [n for n in range(c.lanes, 0, -1) if c.lanes % n == 0]
        enough = next((n for n in fitting if seeds * (c.lanes // n) >= workers), 0)
        hint = f"--block-size {enough} makes enough" if enough else "take more --lanes"
        raise BadInput(
            f"workers: got {workers}, takes at most {blocks}: each steps whole blocks, of {c.block_size} "
            f"lanes; {hint}"
        )


def _check_ray(workers: int, ray: str) -> None:
    if not ray:
        raise BadInput("ray: the rollouts come from a Ray cluster; say which, as in --ray auto")
    if not workers:
        raise BadInput("ray: takes --workers 1 or more, which run on the cluster")


def _sample(setting: Setting) -> Slot:
    """A slot with all arrays that rollouts have: those of one step of another simulator."""
    with closing(make_worker(setting, [0], range(1))) as worker:
        worker.collect(Plan(1, None), 0)
        return worker.slot
