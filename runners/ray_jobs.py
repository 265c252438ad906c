"""Jobs on the machines of a Ray cluster: an actor each, which runs the command where there is room.

What a job reads and writes is files, so all machines have to see the same ones at the same place.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runners import ray_cluster
from runners.errors import BadInput
from runners.jobs import Here
from runners.processes import POLL_SECONDS

BESIDE = "beside"  # the thread of calls that do not wait for the command's end
FETCH_LIMIT = 60.0  # seconds for a word to come


class Spot(NamedTuple):
    """Where a job runs."""

    address: str
    seen: bool  # it has the folder that is to be written to


class Runner:
    """The actor: one command, from its start to its end."""

    def __init__(self) -> None:
        self.process: Here | None = None

    def spot(self, log: str) -> Spot:
        """Where this is; whether the log can be written here."""
        import ray

        return Spot(str(ray.util.get_node_ip_address()), Path(log).parent.is_dir())

    def run(self, argv: Sequence[str], log: str) -> int:
        """The command's exit status."""
        import runners

        # this machine's Python, and the code that this process has found
        os.environ["PYTHONPATH"] = str(Path(runners.__file__).resolve().parents[1])
        self.process = Here([sys.executable, *argv[1:]], Path(log))
        while (code := self.process.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code

    def terminate(self) -> None:
        """Ask the command to save and leave."""
        if self.process is not None:
            self.process.terminate()


class There:
    """A `runners.jobs.Process` on some machine of the cluster."""

    def __init__(self, argv: Sequence[str], log: Path, looked: Callable[[], None]) -> None:
        """Ask for it; ``looked`` is called whenever somebody looks at it."""
        import ray

        make = ray.remote(
            num_cpus=1, max_restarts=0, max_task_retries=0, concurrency_groups={BESIDE: 1}
        )
        self.actor: Any = make(Runner).remote()
        self.asked = self.actor.spot.remote(str(log))
        self.answer = self.actor.run.remote(list(argv), str(log))
        self.log, self.looked, self.began = log, looked, time.monotonic()
        self.spot: Spot | None = None
        self.code: int | None = None

    @property
    def pid(self) -> int:
        """Of no use here."""
        return 0

    def poll(self) -> int | None:
        """Its exit status; that of a killed one where the actor or its machine is gone.

        Raises:
            BadInput: the machine does not see the job's files.
        """
        if self.code is None:
            if self.spot is None and self._is_there(self.asked):
                self.spot = self._get(self.asked)
                if self.spot is not None and not self.spot.seen:
                    raise BadInput(
                        f"ray: {self.spot.address} does not see {self.log.parent}; the machines of a sweep "
                        "share a file system: name a folder on it by --out"
                    )
            if self._is_there(self.answer):
                code = self._get(self.answer)
                self.code = -signal.SIGKILL if code is None else code
                ray_cluster.end(self.actor)
        self.looked()
        return self.code

    def _is_there(self, ref: Any) -> bool:
        import ray

        return bool(ray.wait([ref], timeout=0)[0])

    def _get(self, ref: Any) -> Any:
        """None where there will be no answer."""
        import ray

        try:
            return ray.get(ref, timeout=FETCH_LIMIT)
        except ray.exceptions.RayError:
            return None

    def terminate(self) -> None:
        """Ask it to save and leave; one that waits for room never begins."""
        if self.spot is None:
            self.kill()
        else:
            self.actor.terminate.options(concurrency_group=BESIDE).remote()

    def kill(self) -> None:
        """With its actor the command ends too."""
        ray_cluster.end(self.actor)


class Cluster:
    """Begins jobs on the cluster that this process is connected to; says what they wait for."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """``say``: for what the cluster lacks."""
        self.jobs: list[There] = []
        self.waiting = ray_cluster.Waiting(say, "trials")

    def __call__(self, argv: Sequence[str], log: Path) -> There:
        """Begin a job, as `runners.jobs.Supervisor` asks for it."""
        job = There(argv, log, self._look)
        self.jobs.append(job)
        return job

    def _look(self) -> None:
        self.jobs = [job for job in self.jobs if job.code is None]
        if not self.jobs:
            return
        unplaced = [job for job in self.jobs if job.spot is None]
        waited = max((time.monotonic() - job.began for job in unplaced), default=0.0)
        # where some run, the others will come to their turn
        alone = len(unplaced) == len(self.jobs)
        self.waiting.look(len(unplaced), len(self.jobs), waited, ends=alone)


def room() -> int:
    """Jobs that the cluster has CPUs for, at least one."""
    return max(1, int(ray_cluster.cpus()))
