"""Checkpoints of a toy: states and replay rows that follow from their step, saved into an empty run."""

from __future__ import annotations

import os

import numpy as np
import pytest

from runners.checkpoint import save
from runners.run_folder import Group, RunFolder

GROUP = Group(0, 2)
L = 4  # rows in a segment


class ToyReplay:
    """Rows whose numbers tell row, seed and column, in a ring of ``slots`` rows."""

    def __init__(self, seeds=(0, 1, 2), lanes=2, slots=1000):
        self.seeds, self.lanes, self.slots, self.head = list(seeds), lanes, slots, 0
        self.loaded = {}

    @property
    def tail(self):
        return max(0, self.head - self.slots)

    def rows(self, start, stop):
        assert self.tail <= start <= stop <= self.head
        number = np.arange(start, stop)[:, None, None]
        seed = np.array(self.seeds)[None, :, None]
        lane = np.arange(self.lanes)[None, None, :]
        value = number * 100 + seed * 10 + lane
        return {
            "reward": value.astype(np.float32),
            "obs": np.stack([value, -value], -1).astype(np.uint8),
            "done": value % 3 == 0,
        }

    def load_rows(self, start, rows):
        for offset in range(len(rows["reward"])):
            row = {name: array[offset] for name, array in rows.items()}
            assert start + offset not in self.loaded
            self.loaded[start + offset] = row

    def check_loaded(self):
        """Every row from tail to head is there once, and right."""
        assert sorted(self.loaded) == list(range(self.tail, self.head))
        for number, row in self.loaded.items():
            for name, array in self.rows(number, number + 1).items():
                np.testing.assert_array_equal(row[name], array[0], strict=True)


def state_at(step):
    rng = np.random.default_rng(step)
    return {
        "learner": {"w": rng.normal(size=(3, 5)), "m": rng.normal(size=7).astype(np.float32)},
        "generators": [rng.bit_generator.state],
        "empty": {},
        "count": step,
        "seconds": 1.5,
    }


def save_at(run, step, replay=None, seeds=(0, 1, 2)):
    return save(run, GROUP, step, state_at(step), replay, list(seeds), segment_rows=L)


# Tests know the fixtures by other names than they import: a parameter would hide the import.
@pytest.fixture(autouse=True, name="synced")
def synced_files(monkeypatch):
    """What was synced, in order. Not done here: it is slow, and only a power cut could tell."""
    done = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    return done


@pytest.fixture(name="run")
def empty_run(tmp_path):
    return RunFolder(tmp_path)


def steps(run):
    return sorted(path.name for path in (run.group(GROUP) / "checkpoints").iterdir())
