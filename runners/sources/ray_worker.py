"""A rollout worker as a Ray actor, on whichever machine: it takes orders as calls and gives rollouts.

Until `RayWorker.start` it has loaded neither torch nor a simulator, so that it can say where it is, and
which code it has, before anything fails for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from runners import faults, provenance
from runners.faults import fault_point

if TYPE_CHECKING:
    from agents.contract import Array, Params, Rollout
    from runners.config import RunConfig
    from runners.journal import Journal
    from runners.timing import Part
    from runners.worker import RolloutWorker

Given = TypeVar("Given")


@dataclass(frozen=True)
class Task:
    """Which blocks an actor steps."""

    config: RunConfig
    index: int  # of the worker
    seeds: tuple[int, ...]  # of the whole group
    columns: range  # of the group's blocks, those of this worker
    life: int  # 0, or a number that no worker of these blocks had before
    steps_done: int


class Place(NamedTuple):
    """Where an actor runs, and what of."""

    node_id: str
    address: str
    pid: int
    code: Mapping[str, str]  # what could make it another program than the learner's


class Published(NamedTuple):
    """`Params` as they travel: plain arrays, which the object store hands out without a copy."""

    version: int
    lane_steps: int
    tensors: Mapping[str, Array]
    scalars: Mapping[str, float]


class Collected(NamedTuple):
    """A rollout."""

    number: int
    rollout: Rollout
    seconds: Mapping[Part, float]  # that acting and simulating took


class Failed(NamedTuple):
    """The actor has met an error, after which it is no use."""

    simulator: tuple[str, int, int, str] | None  # a `SimulatorError`'s arguments, if it was one
    traceback: str
    journal: Journal | None = None  # of that simulator


def code_here() -> dict[str, str]:
    """Versions of what computes, and the commit of the lab's own code."""
    commit = provenance.commit()
    found = {name: version or "none" for name, version in provenance.versions().items()}
    if commit is not None:
        found["commit"] = commit["hash"][:10] + (" and changes" if commit["changed"] else "")
    return found


class RayWorker:
    """A `RolloutWorker` and the newest parameters.

    Calls of `publish` and `rows` run beside the others, in a thread: a rollout that begins takes the
    newest parameters that are there, not those of when it was ordered.
    """

    def __init__(self) -> None:
        self.worker: RolloutWorker | None = None
        self.newest: Published | None = None
        self.acting = -1  # version of the parameters that the actors have

    def place(self) -> Place:
        """Where this is."""
        import os

        import ray

        context = ray.get_runtime_context()
        node_id = str(context.get_node_id())
        return Place(node_id, str(ray.util.get_node_ip_address()), os.getpid(), code_here())

    def start(self, task: Task) -> Failed | None:
        """Make the simulators and actors."""
        return _guarded(self._start, task)

    def collect(self, number: int, rows: int, published: Published) -> Collected | Failed:
        """Rollout ``number``, with these parameters or newer ones."""
        return _guarded(self._collect, number, rows, published)

    def keep(self, seeds: tuple[int, ...]) -> Failed | None:
        """Go on with the seeds at these positions only."""
        self.acting = -1  # they are of all seeds
        assert self.worker is not None
        return _guarded(self.worker.keep, seeds)

    def publish(self, published: Published) -> None:
        """These are the newest."""
        self.newest = published

    def rows(self) -> int:
        """Rows begun so far: a sign of life."""
        return -1 if self.worker is None else int(self.worker.rows_begun[0])

    def _start(self, task: Task) -> None:
        import torch

        from envs.cores import limited
        from runners import group

        faults.in_worker(task.index, task.life)
        fault_point("worker.start")
        torch.set_num_threads(1)
        if task.config.fast_matmul:
            torch.set_float32_matmul_precision("medium")
        with limited(1):  # a CPU is what it has asked the cluster for
            setting = group.make_setting(task.config)
            self.worker = group.make_worker(setting, task.seeds, task.columns, task.life)
        self.worker.steps_done = task.steps_done
        fault_point("worker.ready")

    def _collect(self, number: int, rows: int, published: Published) -> Collected:
        from runners.sources import Plan
        from runners.timing import BESIDE

        assert self.worker is not None
        newest = self.newest  # unless it is no newer: it may be older, and of seeds that have left
        if newest is None or newest.version <= published.version:
            newest = published
        times = self.worker.times
        times.start()
        if newest.version != self.acting:
            self.worker.load_params(to_params(newest))
            self.acting = newest.version
        # no checkpoint needs the simulators: whoever goes on from one begins new episodes
        rollout = self.worker.collect(Plan(rows, None), newest.version)
        taken = times.take()
        fault_point("worker.answer")
        return Collected(number, rollout, {part: taken[part] for part in BESIDE})


def _guarded(work: Callable[..., Given], *arguments: Any) -> Given | Failed:
    """What it gives, or how it failed: an exception of Ray's could not carry what we want to know."""
    from envs.contract import SimulatorError

    try:
        return work(*arguments)
    except SimulatorError as error:
        where = (error.env_id, error.lane, error.step, error.what)
        return Failed(where, traceback.format_exc(), error.journal)
    except Exception:
        return Failed(None, traceback.format_exc())


def to_published(params: Params) -> Published:
    """For the object store."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in params.tensors.items()}
    return Published(params.version, params.lane_steps, tensors, dict(params.scalars))


def to_params(published: Published) -> Params:
    """A copy, for what lies in the object store is read-only and is wanted back."""
    import torch

    from agents.contract import Params

    tensors = {name: torch.from_numpy(array.copy()) for name, array in published.tensors.items()}
    return Params(published.version, published.lane_steps, tensors, dict(published.scalars))
