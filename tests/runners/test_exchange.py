"""Sums through shared memory: three learners as threads, turn by turn."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from runners.errors import Stopped, WorkerLost
from runners.exchange import Exchange, can_share

pytestmark = pytest.mark.skipif(
    not can_share(), reason="this system shares no memory without names"
)


class Told:
    """What the first learner says, to threads."""

    def __init__(self, learners):
        self.values, self.said = [], [0] * learners
        self.there = threading.Condition()

    def of(self, rank):
        def tell(value):
            with self.there:
                if rank == 0:
                    self.values.append(value)
                    self.there.notify_all()
                number = self.said[rank]
                self.said[rank] += 1
                self.there.wait_for(lambda: len(self.values) > number)
                return self.values[number]

        return tell


def learners(count, work, go_on=lambda: None, limit=20.0):
    """Run ``work(rank, exchange)`` of each in a thread; what they gave or raised."""
    told, found = Told(count), [None] * count

    def run(rank):
        exchange = Exchange(rank, count, told.of(rank), go_on, limit)
        try:
            found[rank] = work(rank, exchange)
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def values(rank, turn):
    """Of sizes that grow and shrink, now float32 and now float64."""
    size = 1 + (turn * 7) % 50 + (1_000 if turn == 40 else 0)
    kind = np.float32 if turn % 2 else np.float64
    return np.random.default_rng([rank, turn]).normal(size=(2, size)).astype(kind)


@pytest.mark.parametrize("largest", [False, True])
def test_sums_are_those_of_all_to_the_bit(largest):
    def work(rank, exchange):
        found = []
        for turn in range(120):
            if (turn + rank) % 17 == 0:
                time.sleep(0.003)  # now one is late, now another
            tensor = torch.from_numpy(values(rank, turn))
            exchange.reduce(tensor, largest)
            found.append(tensor.numpy())
        return found

    found = learners(3, work)
    for turn in range(120):
        a, b, c = (values(rank, turn) for rank in range(3))
        expected = np.maximum(np.maximum(a, b), c) if largest else (a + b) + c
        for one in found:
            assert np.array_equal(one[turn], expected), turn


def test_who_does_not_come_is_named():
    def work(rank, exchange):
        exchange.reduce(torch.ones(3))
        if rank != 1:
            exchange.reduce(torch.ones(3))

    found = learners(3, work, limit=0.1)
    for rank in (0, 2):
        assert isinstance(found[rank], WorkerLost)
        assert f"learner {rank} of 3: learner 1 has hung for 0.1 s" in str(found[rank])
    assert found[1] is None


def test_who_cannot_see_the_memory_says_so():
    told = Told(2)
    told.values = [[2**22 + 1, 0]]  # a process that there is not
    assert not Exchange(1, 2, told.of(1), lambda: None, 1.0).begin()


def test_a_signal_ends_the_wait(monkeypatch):
    monkeypatch.setattr("runners.exchange.LOOK_SECONDS", 0.01)

    def stop():
        raise Stopped(15)

    def work(rank, exchange):
        exchange.reduce(torch.ones(3))
        if not rank:
            exchange.reduce(torch.ones(3))

    found = learners(2, work, go_on=stop)
    assert isinstance(found[0], Stopped)
