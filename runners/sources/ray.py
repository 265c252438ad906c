"""Rollouts from Ray actors, on any machine of a cluster, each of which steps some of the blocks.

As with async processes a worker begins a rollout as soon as it may, with the newest parameters that it
has, and is ``max_lag`` rollouts ahead of the learner at most. Parameters go into the object store once
a version, and every machine fetches them once. A rollout comes through the object store as well.

A worker that dies or hangs, or whose machine is gone, is replaced wherever the cluster has room: its
blocks begin new episodes. So they do when a run is gone on with: no state of theirs is ever kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import ray

from agents.contract import Array, Params, Rollout, State
from envs.contract import SimulatorError
from envs.lane_processes import RemoteTraceback
from runners import ray_cluster
from runners.config import RunConfig
from runners.errors import WorkerLost
from runners.sources import Plan, due
from runners.sources.lives import Lives
from runners.sources.member import Lost
from runners.sources.ray_member import Member
from runners.sources.ray_worker import Failed, Place, Task, code_here, to_published
from runners.sources.shared import blocks_of, chunks
from runners.timing import Times
from runners.worker_state import beside

TICK = 0.5  # seconds between two looks at who hangs
HEAD_EVERY, HEAD_LIMIT = 5.0, 30.0  # seconds between two looks at the head node; without it
TOGETHER = 30.0  # seconds within which workers of one node are lost together


class RaySource:
    """Rollouts of all lanes of a group of seeds from W actors of the cluster that is connected."""

    resumable = True  # at rest: what is gone on with begins new episodes

    def __init__(
        self,
        config: RunConfig,
        seeds: Sequence[int],
        workers: int,
        say: Callable[[str], None],
        times: Times,
    ) -> None:
        """Nothing is asked of the cluster before the first parameters are published.

        Args:
            config: what is simulated and how.
            seeds: the group's.
            workers: how many; at most as many as there are blocks.
            say: for messages of workers that wait or were replaced.
            times: of this process, where what the workers took is added.
        """
        self.config, self.say, self.times = config, say, times
        blocks = len(seeds) * (config.lanes // config.block_size)
        self.seeds, self.columns = tuple(seeds), chunks(blocks, workers)
        self.life = self.steps_done = 0
        self.members: list[Member] = []
        self.params: Params | None = None  # the newest
        self.newest: Any = None  # them, in the object store
        self.number = 0  # of the next rollout
        self.issued = 0  # the number after the last rollout that was ordered
        self.replaced = 0
        self.next_life = 1  # which no worker has had yet
        self.lives = Lives("see what the simulators or the machines do")
        self.lost_at: dict[str, float] = {}  # when a node last lost a worker
        self.waiting = ray_cluster.Waiting(say, "workers")
        self.head_at = self.head_seen = time.monotonic()
        self.kept: dict[str, Array] = {}  # the arrays of the last rollout
        self.code = code_here()
        self.told: set[str] = set()
        times.workers = workers

    @property
    def pending(self) -> int:
        """Rollouts that have been ordered and not asked for."""
        return self.issued - self.number

    def publish(self, params: Params) -> None:
        """Workers act with these as soon as they can. The first ones start the workers."""
        if self.params is not None and params.version == self.params.version:
            return
        self.times.lap("learn")
        self._hand_out(params)
        self.times.lap("transfer")

    def _hand_out(self, params: Params) -> None:
        """Into the object store, once; every worker is told."""
        self.params, self.newest = params, ray.put(to_published(params))
        if not self.members:
            self._start()
        for member in self.members:
            member.publish(self.newest)

    def _start(self) -> None:
        tasks = [
            Task(self.config, index, self.seeds, columns, self.life, self.steps_done)
            for index, columns in enumerate(self.columns)
        ]
        self.members = [Member(task) for task in tasks]
        self._await(lambda member: member.ready)
        self.times.lap("wait")

    def next(self, plan: Plan) -> Rollout:
        """The next rows; what follows is begun meanwhile, as far as the lag allows."""
        self.times.lap("other")
        self._look_at_head()
        for ordered in due(plan, self.config.ahead, self.pending):
            for member in self.members:
                member.send("collect", self.issued, ordered.rows, self.newest)
            self.issued += 1
        self.times.lap("transfer")
        number = self.number
        self._await(lambda member: bool(member.done) and member.done[0].number == number)
        self.times.lap("wait")
        parts = [member.done.popleft() for member in self.members]
        self.number += 1
        self.steps_done += plan.rows
        self.lives.regain()
        for part in parts:
            self.times.add(part.seconds)
        rollout = self._joined([part.rollout for part in parts])
        self.times.lap("transfer")
        return rollout

    def _joined(self, parts: Sequence[Rollout]) -> Rollout:
        """One rollout of all lanes: a copy, for what lies in the object store is read-only."""

        def join(name: str, arrays: Sequence[Array]) -> Array:
            rows, lanes = len(arrays[0]), sum(array.shape[1] for array in arrays)
            kept = self.kept.get(name)
            if kept is None or len(kept) < rows:
                shape = (rows, lanes, *arrays[0].shape[2:])
                kept = self.kept[name] = np.empty(shape, arrays[0].dtype)
            return np.concatenate(arrays, axis=1, out=kept[:rows])

        def plain(name: str) -> Array:
            return join(name, [getattr(part, name) for part in parts])

        def table(name: str) -> dict[str, Array]:
            tables = [getattr(part, name) for part in parts]
            return {key: join(f"{name}.{key}", [t[key] for t in tables]) for key in tables[0]}

        return Rollout(
            obs=plain("obs"),
            first=plain("first"),
            action=plain("action"),
            reward=plain("reward"),
            terminated=plain("terminated"),
            truncated=plain("truncated"),
            facts=table("facts"),
            step_facts=table("step_facts"),
            extras=table("extras"),
            actor_state=beside([part.actor_state for part in parts]),
            version=min(part.version for part in parts),
        )

    # -- Watching ------------------------------------------------------------------------------

    def _await(self, finished: Callable[[Member], bool]) -> None:
        """Take answers until every worker has ``finished``; replace those that die or hang."""
        looked = time.monotonic()
        while waiting := [member for member in self.members if not finished(member)]:
            refs = [member.sent[0].ref for member in waiting]
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=TICK)
            before, looked = looked, time.monotonic()
            self._look_at_head()
            for member, ref in zip(waiting, refs, strict=True):
                try:
                    if ref in ready:
                        if failed := member.receive():
                            self._raise(failed)
                        self._compare(member)
                    elif member.hangs(min(looked - before, 2 * TICK)) and member.place:
                        raise Lost("it hung")
                except Lost as loss:
                    self._replace(member, str(loss))
            unplaced = [member.silent for member in self.members if member.place is None]
            self.waiting.look(len(unplaced), len(self.members), max(unplaced, default=0.0))

    def _look_at_head(self) -> None:
        """Give up before Ray does, which would end this process where it stands, after a minute.

        Raises:
            WorkerLost: the head node does not answer any more.
        """
        now = time.monotonic()
        if now - self.head_at < HEAD_EVERY:
            return
        if now - self.head_at > HEAD_LIMIT or ray_cluster.head_answers():
            self.head_seen = now  # or we ourselves were busy, or stopped, and know nothing
        self.head_at = now
        if now - self.head_seen > HEAD_LIMIT:
            self.members = []  # nobody is there to end them; they end with their head
            raise WorkerLost(
                f"ray: the head node has not answered for {now - self.head_seen:.0f} s"
            )

    def _compare(self, member: Member) -> None:
        """Say once of a machine that it has other code than this one."""
        place: Place | None = member.place
        if place is None or place.address in self.told:
            return
        self.told.add(place.address)
        names = sorted(self.code.keys() | place.code.keys())
        other = [
            f"{name} {place.code.get(name, 'none')} there, {self.code.get(name, 'none')} here"
            for name in names
            if place.code.get(name) != self.code.get(name)
        ]
        if other:
            self.say(f"ray: {place.address} has other code: {'; '.join(other)}")

    def _replace(self, member: Member, reason: str) -> None:
        """Another actor for the same blocks, which begin new episodes."""
        member.kill()
        self.replaced += member.place is not None  # else it has never begun
        told = f"worker {member.task.index}: {reason}"
        node, now = member.place.node_id if member.place else "", time.monotonic()
        if not node or now - self.lost_at.get(node, -TOGETHER) >= TOGETHER:
            self.lives.lose(told, self.replaced - (member.place is not None))
        self.lost_at[node] = now
        begun = f"replaced, its {blocks_of(member.task.columns)} new episodes"
        self.say(f"{told}; {begun if member.place else 'asked for again'}")
        anew = Member(replace(member.task, life=self._new_life()))
        anew.done = member.done
        self.members[self.members.index(member)] = anew
        for sent in member.sent:
            if sent.method not in ("place", "start"):
                anew.send(sent.method, *sent.arguments)
        anew.publish(self.newest)

    def _new_life(self) -> int:
        """A number that no worker has had: no block draws from the same seeds twice."""
        self.next_life += 1
        return self.next_life - 1

    def _raise(self, failed: Failed) -> NoReturn:
        remote = RemoteTraceback(failed.traceback)
        if failed.simulator is None:
            raise RuntimeError("a worker met an error that nobody foresaw") from remote
        error = SimulatorError(*failed.simulator)
        error.journal = failed.journal
        raise error from remote

    # -- At rest -------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """No more than how often workers were replaced, and where new ones begin to draw."""
        names = ("replaced", "next_life", "steps_done")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: State) -> None:
        """Begin new episodes where a run stopped; before anything was published."""
        assert not self.members, "workers are at it already"
        self.replaced, self.next_life = state["replaced"], state["next_life"]
        self.life, self.steps_done = self._new_life(), state["steps_done"]

    def keep(self, seeds: Sequence[int]) -> None:
        """Go on with the seeds at these positions of the group only."""
        assert not self.pending, "the source is not at rest"
        kept, per_seed = tuple(seeds), self.config.lanes // self.config.block_size
        new = {
            k * per_seed + b: i * per_seed + b for i, k in enumerate(kept) for b in range(per_seed)
        }
        left = {m: [new[c] for c in m.task.columns if c in new] for m in self.members}
        for member, mine in left.items():
            if not mine:  # its seeds have left
                self.members.remove(member)
                member.kill()
        for member in self.members:
            member.send("keep", kept)
        self._await(lambda member: not member.sent)
        for member, mine in zip(self.members, [m for m in left.values() if m], strict=True):
            named = tuple(member.task.seeds[k] for k in kept)
            columns = range(mine[0], mine[-1] + 1)
            member.task = replace(member.task, seeds=named, columns=columns)
        self.times.workers = len(self.members)
        self.kept = {}  # they are of fewer lanes now
        if self.params is not None:
            self._hand_out(self.params.keep(kept))

    def close(self) -> None:
        """End the actors."""
        for member in self.members:
            member.kill()
        self.members = []
