"""Where a process's time goes: seconds by name, counted without a gap.

A lap is all that has passed since the last one, so what is called in between needs no clock of its
own, and the seconds of a process add up to its wall time. What a learner does is told apart from
outside: agents have no clocks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

Part = Literal[
    "simulate", "act", "fused", "transfer", "wait", "sample", "learn", "evaluate", "save", "other"
]
PARTS: Mapping[Part, str] = {
    "simulate": "stepping simulators, recording and checking what they return",
    "act": "choosing actions",
    "fused": "acting, stepping and learning in one kernel",
    "transfer": "handing rollouts and parameters over between processes",
    "wait": "waiting for a rollout",
    "sample": "drawing batches from the replay",
    "learn": "taking in rollouts, and updates",
    "evaluate": "greedy episodes, the look at the values, best weights",
    "save": "checkpoints",
    "other": "counting, records, the console",
}
BESIDE: tuple[Part, ...] = ("simulate", "act")
"""What workers do beside the learner's process, where there are any."""


class Times:
    """Seconds by part. One thread writes into it.

    ``workers`` is how many simulate beside this process and send their own seconds; 0: it does so itself.
    """

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self.workers = 0
        self._cpu_before = 0.0
        self.start()

    def start(self) -> None:
        """The next lap begins now; what was before it is nobody's."""
        self._at, self._cpu_at = time.perf_counter(), time.process_time()

    def lap(self, part: Part) -> None:
        """What has passed since the last lap was this."""
        now = time.perf_counter()
        self.seconds[part] += now - self._at
        self._at = now

    def add(self, seconds: Mapping[Part, float]) -> None:
        """Add what a worker took, as `take` gave it there."""
        for part, value in seconds.items():
            self.seconds[part] += value

    def take(self) -> dict[Part, float]:
        """The seconds since this was last asked for."""
        taken = self.seconds
        self.seconds = dict.fromkeys(PARTS, 0.0)
        return taken

    def wall(self) -> dict[Part, float]:
        """`wall_of` what was counted so far."""
        return wall_of(self.seconds, self.workers)

    def state_dict(self) -> dict[str, Any]:
        """What goes into a checkpoint and a result; no two runs have the same."""
        cpu = self._cpu_before + time.process_time() - self._cpu_at  # of all threads
        return {"workers": self.workers, "seconds": dict(self.seconds), "cpu": cpu}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a `state_dict`; who simulates now is known already."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.add(state["seconds"])
        self._cpu_before = state["cpu"]
        self.start()


def wall_of(seconds: Mapping[Part, float], workers: int) -> dict[Part, float]:
    """Seconds of wall time: those of several workers, who are at it at once, are their mean."""
    wall = dict(seconds)
    if workers > 1:
        for part in BESIDE:
            wall[part] /= workers
    return wall


def shares(seconds: Mapping[Part, float], wall: float) -> dict[Part, float]:
    """Each part's share of so many seconds of wall time, those that took none left out.

    They sum to 1, or to more where workers simulate beside the learner.
    """
    return {part: value / wall for part, value in seconds.items() if value > 0} if wall > 0 else {}


@contextmanager
def time_sampling(replay: Any, times: Times) -> Iterator[None]:
    """Meanwhile a replay's ``sample`` is a lap of its own; what was before it is learning. None: there is none."""
    if replay is None:
        yield
        return
    sample = replay.sample

    def timed() -> Any:
        times.lap("learn")
        batch = sample()
        times.lap("sample")
        return batch

    replay.sample = timed
    try:
        yield
    finally:
        # it holds itself by this: its gigabytes would stay beside those of the next group's replay
        del replay.sample
