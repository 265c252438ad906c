"""Learners that learn as one: each a process that ``torchrun`` started, joined by ``torch.distributed``.

What every update needs, a mean of gradients, goes through memory that learners of one machine share
(`runners.exchange`), else through the process group; a learner that does not answer within `STEP_SECONDS`
ends the run. What is rare and may take long, as an evaluation, which the first
learner does for all, is told as JSON text through the store that ``torchrun`` keeps.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from runners.errors import BadInput, Stopped, WorkerLost

if TYPE_CHECKING:
    from torch import Tensor

    from agents.contract import Array
    from runners.exchange import Exchange

STEP_SECONDS = (
    120.0  # within which every learner comes to the next update: more than a kernel's compilation
)
TOLD_SECONDS = 3_600.0  # within which an evaluation or a checkpoint is done
ASK_SECONDS = (
    1.0  # after which a name of the first learner's that nobody repeats is looked up again
)
GRACE_SECONDS = 5.0  # that another has to come to the end of what it does once all are to stop
LOOK_SECONDS = 0.1  # at most between two looks at what was told
_HOW = "start it as torchrun --nproc-per-node {n} -m runners.train ..."


class Place(NamedTuple):
    """Which of how many learners this process is."""

    rank: int = 0
    learners: int = 1
    here: int = 0  # its number among those of this machine
    beside: int = 1  # how many those are
    restarts: int = 0  # how often ``torchrun`` has begun all of them anew


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """What ``torchrun``, or another launcher that sets the same variables, says of this process.

    Raises:
        BadInput: some of the variables are missing, or make no sense.
    """
    if "WORLD_SIZE" not in environment:
        return Place()

    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name, "" if default is None else str(default))
        if not text.isdecimal():
            raise BadInput(
                f"{name}: got {text!r}, takes a whole number; {_HOW.format(n=2)}, which sets it"
            )
        return int(text)

    learners, rank = number("WORLD_SIZE"), number("RANK")
    if not rank < learners:
        raise BadInput(f"RANK: got {rank}, takes less than WORLD_SIZE = {learners}")
    here, beside = number("LOCAL_RANK", rank), number("LOCAL_WORLD_SIZE", learners)
    if learners > 1:
        number("MASTER_PORT")
        if not environment.get("MASTER_ADDR"):
            raise BadInput(f"MASTER_ADDR: is missing; {_HOW.format(n=learners)}, which sets it")
    return Place(rank, learners, here, beside, number("TORCHELASTIC_RESTART_COUNT", 0))


def check_learners(learners: int) -> None:
    """Refuse a configuration of more or fewer learners than were started."""
    started = place().learners
    if learners != started:
        raise BadInput(
            f"learners: got {learners}, but {started} {'was' if started == 1 else 'were'} started: "
            f"{_HOW.format(n=learners) if learners > 1 else 'start it without torchrun'}"
        )


class Alone:
    """A team of one, which has nobody to wait for."""

    place = Place()
    first = True

    def tell(self, value: Any) -> Any:
        """The first learner's value, of JSON, for all."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every learner's value, of JSON, in order."""
        return [value]

    def total(self, values: Array) -> Array:
        """Sums over all learners."""
        return values

    def agreed(self, stop_asked: Callable[[], int]) -> Callable[[], int]:
        """The largest number that any learner is given, asked of all at the same time."""
        return stop_asked

    def close(self) -> None:
        """Let go of the others."""


ALONE = Alone()


class Team(Alone):
    """Several learners. Every method is called by all of them, in the same order."""

    def __init__(
        self,
        where: Place,
        device: str = "cpu",
        stop_asked: Callable[[], int] = lambda: 0,
        step_seconds: float = STEP_SECONDS,
        told_seconds: float = TOLD_SECONDS,
    ) -> None:
        """Find the others.

        Args:
            where: of this process.
            device: where learners compute, "cpu" or "cuda".
            stop_asked: the number of a signal that came, else 0; looked at while somebody is waited for.
            step_seconds: the longest wait for a learner to come to an update.
            told_seconds: the longest wait for what the first learner does for all.

        Raises:
            WorkerLost: they do not come.
        """
        import torch.distributed as dist
        from torch._C._distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        from agents.device.machine import reduce_backend
        from runners.exchange import Exchange, can_share

        self.place, self.first, self.stop_asked = where, where.rank == 0, stop_asked
        self.step_seconds, self.told_seconds = step_seconds, told_seconds
        self.said = 0  # values told and gathered so far
        with self._answering("find the others"):
            meeting = rendezvous(
                "env://", where.rank, where.learners, timeout=timedelta(seconds=step_seconds)
            )
            store, _, _ = next(iter(meeting))
        self.dist: Any = dist
        name = self._meet(store)
        with self._answering("find the others"):
            dist.init_process_group(
                reduce_backend(device, where.beside),
                store=PrefixStore(f"learners/{name}", store),
                rank=where.rank, world_size=where.learners, timeout=timedelta(seconds=step_seconds),
            )  # fmt: skip
        self.store: Any = PrefixStore(f"told/{name}", store)
        self.exchange: Exchange | None = None
        if where.beside == where.learners and can_share():
            self.exchange = Exchange(
                where.rank, where.learners, self.tell, self._patience(), step_seconds
            )
            if not all(self.gather(self.exchange.begin())):
                self.exchange = None

    def _meet(self, store: Any) -> str:
        """A name for this meeting that no earlier one had: the store may be older than this process.

        The first learner asks under a new name, the others answer with a word of their own, and who finds
        that word repeated under the name knows that both are there now.
        """
        word, rank = uuid.uuid4().hex, self.place.rank
        if self.first:
            store.set("name", word)
            for other in range(1, self.learners):
                answer = f"{word}/{other}"
                self._told(store, answer, other, self.step_seconds)
                store.set(f"{word}/{store.get(answer).decode()}", "")
            return word
        for _ in range(max(1, round(self.step_seconds / ASK_SECONDS))):
            name = self._told(store, "name", 0, self.step_seconds)
            store.set(f"{name}/{rank}", word)
            if self._comes(store, f"{name}/{word}", ASK_SECONDS):
                return name
        raise WorkerLost(f"learner {rank}: learner 0 did not come within {self.step_seconds:g} s")

    @property
    def learners(self) -> int:
        """How many there are."""
        return self.place.learners

    # -- What every update needs ------------------------------------------------------------------

    def average(self, gradient: Tensor) -> None:
        """Turn each learner's tensor into the mean over all, in place."""
        self._reduce(gradient, "average gradients")
        gradient.div_(self.learners)

    def largest(self, values: Tensor) -> Tensor:
        """The largest of each value over all learners."""
        found = values.clone()
        self._reduce(found, "compare weights", largest=True)
        return found

    def total(self, values: Array) -> Array:
        """Sums over all learners."""
        import numpy as np
        import torch

        summed = torch.from_numpy(np.array(values, np.float64))
        self._reduce(summed, "count steps")
        result: Array = summed.numpy()
        return result

    def spread(self, tensor: Tensor) -> None:
        """Turn each learner's tensor into the first one's, in place."""
        with self._answering("begin with the same parameters"):
            self.dist.broadcast(tensor, 0)

    def agreed(self, stop_asked: Callable[[], int]) -> Callable[[], int]:
        """The largest number that any learner is given, asked of all at the same time."""
        import torch

        def asked() -> int:
            number = torch.tensor([stop_asked()])
            self._reduce(number, "ask who is to stop", largest=True)
            return int(number)

        return asked

    def _reduce(self, tensor: Tensor, what: str, largest: bool = False) -> None:
        """The sum over all learners, or the largest, in place."""
        if self.exchange and tensor.device.type == "cpu":
            self.exchange.reduce(tensor, largest)
            return
        with self._answering(what):
            op = self.dist.ReduceOp.MAX if largest else self.dist.ReduceOp.SUM
            self.dist.all_reduce(tensor, op=op)

    # -- What is rare, and may take long ----------------------------------------------------------

    def tell(self, value: Any) -> Any:
        """The first learner's value, of JSON, for all."""
        self.said += 1
        name = f"{self.said}"
        if self.first:
            with self._answering("tell the others"):
                self.store.set(name, json.dumps(value))
            return value
        return json.loads(self._told(self.store, name, 0, self.told_seconds))

    def gather(self, value: Any) -> list[Any]:
        """Every learner's value, of JSON, in order."""
        self.said += 1
        with self._answering("tell the others"):
            self.store.set(f"{self.said}/{self.place.rank}", json.dumps(value))
        names = [(f"{self.said}/{rank}", rank) for rank in range(self.learners)]
        return [json.loads(self._told(self.store, *name, self.told_seconds)) for name in names]

    def _told(self, store: Any, name: str, rank: int, seconds: float) -> str:
        """What a learner says under a name, once it does."""
        if not self._comes(store, name, seconds):
            raise WorkerLost(
                f"learner {self.place.rank}: learner {rank} has said nothing for {seconds:g} s"
            )
        text: bytes = store.get(name)
        return text.decode()

    def _comes(self, store: Any, name: str, seconds: float) -> bool:
        """Whether something is said under a name within so many seconds."""
        until, pause = time.monotonic() + seconds, 0.001
        go_on = self._patience()
        with self._answering("wait for another"):
            while not store.check([name]):
                if time.monotonic() > until:
                    return False
                go_on()
                time.sleep(pause)
                pause = min(2 * pause, LOOK_SECONDS)
        return True

    def _patience(self) -> Callable[[], None]:
        """Called while somebody is waited for: stops that a while after a signal came."""
        since: float | None = None

        def go_on() -> None:
            nonlocal since
            signum = self.stop_asked()
            since = (since or time.monotonic()) if signum else None
            if since is not None and time.monotonic() - since > GRACE_SECONDS:
                raise Stopped(signum, "the last checkpoint is what is left")

        return go_on

    def close(self) -> None:
        """Let go of the others."""
        if self.dist.is_initialized():
            self.dist.destroy_process_group()

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """Say in one line what torch raises where a learner does not answer."""
        try:
            yield
        except RuntimeError as error:
            raise self._lost(what, error) from None

    def _lost(self, what: str, error: Exception) -> WorkerLost:
        said = str(error).partition("\n")[0].partition(". ")[0]
        return WorkerLost(
            f"learner {self.place.rank} of {self.place.learners}: another is gone, or has hung for "
            f"{self.step_seconds:g} s, in trying to {what} ({said}); torchrun --max-restarts goes on from "
            "the last checkpoint"
        )


def make_team(learners: int, device: str, stop_asked: Callable[[], int]) -> Alone:
    """The team of this process."""
    check_learners(learners)
    return Team(place(), device, stop_asked) if learners > 1 else ALONE
