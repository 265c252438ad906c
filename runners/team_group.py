"""A group of seeds at several learners: what each keeps, what is told to all, what has to be the same at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.contract import Array, Learner, Params, State
from runners import checkpoint
from runners.checkpoint import KEEP, Loaded
from runners.errors import RunFailed, disk
from runners.manifest import digest_of, learner_folder, read_manifest
from runners.run_folder import Group, RunFolder
from runners.state_tree import digest_state
from runners.team import Alone, Team

if TYPE_CHECKING:
    from agents.contract import Replay
    from runners.evaluation import Evaluates

SAME = ("online", "target", "optimizer", "updates", "lane_steps")
"""What the learners' states have in common, bit for bit."""


class Part:
    """Where a learner keeps what it alone needs to go on: its replay, streams, simulators."""

    def __init__(self, run: RunFolder, rank: int) -> None:
        self.run, self.rank = run, rank

    def group(self, group: Group) -> Path:
        """The folder of a group; made where it is missing."""
        path = learner_folder(self.run.group(group), self.rank)
        with disk(path):
            path.mkdir(exist_ok=True)
        return path


class NoRecords:
    """Of a learner that is not the first: what it would write the first one does."""

    def __init__(self, seed: int) -> None:
        """Of no seed."""

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def add_eval(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def add_health(self, record: Mapping[str, Any]) -> None:
        """Nothing."""


class Averaged:
    """A learner whose metrics are means over all learners."""

    def __init__(self, learner: Learner, team: Alone) -> None:
        self.learner, self.team = learner, team

    @property
    def updates(self) -> int:
        """Gradient steps done, a seed."""
        return self.learner.updates

    def params(self) -> Params:
        """A copy of what the actors need."""
        return self.learner.params()

    def metrics(self) -> dict[str, Array]:
        """Means [K] of the latest update's metrics, over all learners."""
        own = self.learner.metrics()
        if not own:
            return own
        means = self.team.total(np.stack(list(own.values()))) / self.team.place.learners
        return dict(zip(own, means, strict=True))

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        self.learner.keep(seeds)


class ToldEvaluator:
    """Evaluations that the first learner makes, and all are told of."""

    regret = None  # of tables only

    def __init__(self, evaluator: Evaluates, team: Alone) -> None:
        self.evaluator, self.team = evaluator, team

    def returns(self, *asked: Any) -> Array:
        """Undiscounted returns [K, episodes] of the greedy policies."""
        found = self.evaluator.returns(*asked).tolist() if self.team.first else None
        return np.array(self.team.tell(found))

    def close(self) -> None:
        """Close the simulators."""
        self.evaluator.close()


def begin(learner: Learner, team: Alone) -> None:
    """Be one of the team's learners; all begin with the first one's parameters."""
    if not isinstance(team, Team):
        return
    learner.join(team)  # type: ignore[attr-defined]  # the agents' table says that it can
    state = learner.state_dict()
    for name in ("online", "target"):
        if name in state:
            team.spread(state[name])


def load(run: RunFolder, group: Group, team: Alone) -> Loaded | None:
    """This learner's part of the newest checkpoint that is whole at all of them.

    Raises:
        NoCheckpoint: there were some, and none is whole.
    """
    loaded = checkpoint.load_newest(run, group) if team.first else None
    moment = team.tell(None if loaded is None else loaded.lane_steps)
    if team.first or moment is None:
        return loaded
    return checkpoint.load_step(Part(run, team.place.rank), group, moment)


def save(
    run: RunFolder,
    group: Group,
    lane_steps: int,
    state: State,
    replay: Replay | None,
    seeds: Sequence[int],
    team: Alone,
    **segments: Any,
) -> None:
    """Save every learner's part; the first one's makes the checkpoint whole.

    ``segments`` are what `checkpoint.save` is told of those on disk.

    Raises:
        RunFailed: the learners' parameters are not the same.
    """
    if not isinstance(team, Team):
        checkpoint.save(run, group, lane_steps, state, replay, seeds, **segments)
        return
    check_same(state["learner"], lane_steps, team)
    part, digest = Part(run, team.place.rank), ""
    if not team.first:
        # one more: the first learner's newest may still be the one before the last
        keep = {"keep": KEEP + 1, **segments}
        path = checkpoint.save(part, group, lane_steps, state, replay, seeds, **keep)
        digest = digest_of(read_manifest(path))
    digests = team.gather(digest)
    if team.first:
        more = {"learners": digests[1:], **segments}
        checkpoint.save(part, group, lane_steps, state, replay, seeds, **more)
    team.tell(None)  # nobody goes on before it is whole


def check_same(state: State, lane_steps: int, team: Alone) -> None:
    """Refuse to go on with parameters, moments or clocks that differ by a bit.

    Raises:
        RunFailed: they do; the line says whose.
    """
    digests = team.gather(digest_state({name: state[name] for name in SAME if name in state}))
    others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        told = ", ".join(map(str, others))
        raise RunFailed(
            f"at lane step {lane_steps:,} the parameters of learner {told} are not those of learner 0: a fault "
            "of memory or of the lab; the last checkpoint is sound"
        )


def replaced_of_all(replaced: int, team: Alone) -> int:
    """Rollout workers that were replaced, at all learners."""
    return int(team.total(np.array([replaced]))[0])
