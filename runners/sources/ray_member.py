"""A Ray actor as the learner's process sees it: what it was asked, where it runs, whether it lives."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError

from runners import ray_cluster
from runners.sources.member import HANG_LIMIT, START_LIMIT, Lost
from runners.sources.ray_worker import Collected, Failed, Place, RayWorker, Task

FETCH_LIMIT = 60.0  # seconds for what is ready to come over the network
BEAT_AFTER = 5.0  # seconds without an answer until it is asked for a sign of life
TELLING = (
    re.compile(r"Worker exit detail: (.*?)(?=\. Some common causes|$)", re.MULTILINE),
    re.compile(r"RPC error: (.*?)(?= rpc_code|$)", re.MULTILINE),
)
BESIDE = "beside"  # the thread of calls that do not wait for a rollout


class Sent(NamedTuple):
    """A call that is not answered yet."""

    method: str
    arguments: tuple[Any, ...]
    ref: Any


class Member:
    """An actor with some of the blocks, its calls and its answers."""

    def __init__(self, task: Task) -> None:
        """Ask the cluster for it."""
        self.task = task
        self.sent: deque[Sent] = deque()
        self.done: deque[Collected] = deque()  # handed over, not asked for yet
        self.place: Place | None = None  # None: the cluster has not found a place for it
        self.ready = False
        self.silent = 0.0  # seconds of watching without an answer or a sign of life
        self._beat, self._asked_at, self._asked = -1, 0.0, None
        # it is begun anew by us, elsewhere and with seeds of its own: Ray would do none of that
        make = ray.remote(
            num_cpus=1,
            scheduling_strategy="SPREAD",
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={BESIDE: 1},
        )
        self.actor: Any = make(RayWorker).remote()
        self.send("place")
        self.send("start", task)

    def send(self, method: str, *arguments: Any) -> None:
        """Call it; that it is dead will be noticed where its answer is awaited."""
        if not self.sent:
            self.silent = 0.0
        self.sent.append(Sent(method, arguments, getattr(self.actor, method).remote(*arguments)))

    def publish(self, published: Any) -> None:
        """Tell it the newest parameters, beside whatever it does."""
        self.actor.publish.options(concurrency_group=BESIDE).remote(published)

    def receive(self) -> Failed | None:
        """Take the answer to the first call, which is there; an error that ended it is returned.

        Raises:
            Lost: the actor or its node is gone.
        """
        sent = self.sent[0]
        try:
            answer = ray.get(sent.ref, timeout=FETCH_LIMIT)
        except GetTimeoutError:
            raise Lost(f"its answer does not arrive within {FETCH_LIMIT:.0f} s") from None
        except RayError as error:
            raise Lost(self._how_it_died(error)) from error
        self.silent = 0.0
        if isinstance(answer, Failed):
            return answer
        self.sent.popleft()
        match sent.method:
            case "place":
                self.place = answer
            case "start":
                self.ready = True
            case "collect":
                self.done.append(answer)
                self.task = replace(self.task, steps_done=self.task.steps_done + sent.arguments[1])
        return None

    def hangs(self, seconds: float) -> bool:
        """Whether nothing has happened for too long, of which ``seconds`` are new."""
        self.silent += seconds
        if self._asked is not None:
            self._read_beat()
        elif self.ready and self.silent > self._asked_at + BEAT_AFTER:
            self._asked_at = self.silent
            self._asked = self.actor.rows.options(concurrency_group=BESIDE).remote()
        return self.silent > (HANG_LIMIT if self.ready else START_LIMIT)

    def _read_beat(self) -> None:
        ready, _ = ray.wait([self._asked], timeout=0)
        if not ready:
            return
        try:
            beat = ray.get(self._asked, timeout=FETCH_LIMIT)
        except RayError:
            beat = self._beat  # it has died: the answer that is awaited will say so
        if beat != self._beat:
            self.silent = self._asked_at = 0.0
        self._beat, self._asked = beat, None

    def _how_it_died(self, error: RayError) -> str:
        if self.place is None:
            return f"it could not be made: {gist(error)}"
        if all(node.node_id != self.place.node_id for node in ray_cluster.nodes()):
            return f"its node {self.place.address} is gone"
        return f"it died on {self.place.address}: {gist(error)}"

    def kill(self) -> None:
        """End it now."""
        ray_cluster.end(self.actor)


def gist(error: Exception) -> str:
    """What tells most of all that Ray says over many lines."""
    said = re.sub(r"\x1b\[\d+m", "", str(error))
    for telling in TELLING:
        if found := telling.search(said):
            return found[1]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = (lines or [type(error).__name__])[-1][:300]
    if "No module named" in last:
        return f"{last}: every machine needs the lab and its simulators installed"
    return last
