"""The journal of a simulator: points, a ring of rows, and a process that dies while it writes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np

from runners import crash_report, journal
from runners.crash_report import Simulated, report_of
from runners.journal import Block, Field, Journal, Point, Reset, new_header, new_journal
from tests.runners.crashing import ID

ROOT = Path(__file__).parents[2]


def small(rows):
    return new_journal(Block(1, simulator_seed=5, seed=2), rows=rows)


def test_points_of_a_journal():
    made = small(4)
    assert (made.point, made.complete, made.pending, made.last_step) == (Point.MADE, True, None, -1)
    made.resetting(Reset(None, 0))
    assert (made.point, made.pending) == (Point.MADE, Reset(None, 0))
    made.was_reset(Reset(None, 0))
    assert (made.point, made.point_reset, made.pending) == (Point.RESET, Reset(None, 0), None)
    for step in range(3):
        made.add(step, np.array([step + 10]))
    assert made.last_step == 2
    # a second reset that has not answered yet: what led to it is still there
    made.resetting(Reset(77, 3))
    assert (made.point_reset, made.pending, made.last_step) == (Reset(None, 0), Reset(77, 3), 3)
    first, actions = made.since_point(3)
    assert (first, actions.tolist()) == (0, [[10], [11], [12]])
    made.was_reset(Reset(77, 3))
    assert (made.point_reset, made.rows, made.last_step) == (Reset(77, 3), 0, 3)
    made.add(4, np.array([20]))
    first, actions = made.since_point(4)
    assert (first, actions.tolist()) == (4, [[20]])
    # a fault of the reset's own row: no action belongs to it
    assert made.since_point(3)[1].tolist() == []
    state = {"x": np.arange(3.0), "bits": 2**100, "deep": [{"y": np.int32(4)}]}
    assert made.is_in(state, 5)
    assert (made.point, made.rows, made.complete) == (Point.STATE, 0, True)
    assert made.last_step == 4
    back = journal.unpack(made.packed_state)
    assert back["x"].tolist() == [0, 1, 2]
    assert (back["bits"], back["deep"]) == (2**100, [{"y": 4}])
    made.add(5, np.array([30]))
    assert not made.is_in({"x": object()}, 6)  # nobody could save it: the old point stays
    assert (made.point, made.rows) == (Point.STATE, 1)
    made.lost(6)
    assert (made.point, made.complete) == (Point.UNKNOWN, False)


def test_a_ring_of_rows():
    """Four rows fit; of seven, the last four are left, and only up to the step asked for."""
    made = small(4)
    made.was_reset(Reset(None, 0))
    for step in range(7):
        made.add(step, np.array([step]))
    assert not made.complete
    assert made.since_point(6)[0] == 3
    assert made.since_point(6)[1].tolist() == [[3], [4], [5], [6]]
    assert made.since_point(4)[1].tolist() == [[3], [4]]
    assert made.since_point(2)[1].tolist() == []


CHILD = """
import sys
import numpy as np
from multiprocessing import shared_memory
import envs
from runners.checked import CheckedSimulator
from runners.journal import Field, Journal
from tests.runners.crashing import ID
shared = shared_memory.SharedMemory(sys.argv[1], track=False) if sys.version_info >= (3, 13) else (
    shared_memory.SharedMemory(sys.argv[1]))
header = np.ndarray(len(Field), np.int64, shared.buf)
actions = np.ndarray((500, 2), np.int64, shared.buf, offset=header.nbytes)
journal = Journal(actions, header, np.zeros(0, np.uint8))
env = envs.make(ID, 2, journal[Field.SIMULATOR_SEED], fault="signal")
checked = CheckedSimulator(env, ID, first_lane=4, journal=journal)
checked.reset(0)
rng = np.random.default_rng(0)
for step in range(500):
    checked.step(step, rng.integers(2, size=2))
"""


def test_another_process_reads_what_one_died_of(tmp_path):
    block = Block(2, simulator_seed=11, seed=3, block=2)
    header = new_header(block)
    shared = shared_memory.SharedMemory(create=True, size=header.nbytes + 8 * 500 * 2)
    try:
        np.ndarray(len(Field), np.int64, shared.buf)[:] = header
        child = [sys.executable, "-c", CHILD, shared.name]
        died = subprocess.run(child, cwd=ROOT, capture_output=True, check=False)
        assert died.returncode == -11, died.stderr
        seen = np.frombuffer(bytes(shared.buf), np.int64)
        left = Journal(
            seen[len(Field) : len(Field) + 1000].reshape(500, 2), seen[: len(Field)],
            np.zeros(0, np.uint8),
        )  # fmt: skip
    finally:
        shared.close()
        with contextlib.suppress(FileNotFoundError):  # the child's tracker has cleaned up after it
            shared.unlink()
    simulated = Simulated(ID, "sync", {"fault": "signal"}, "float32")
    what = "its process died (killed by signal 11)"
    report = report_of(simulated, left, what, "", lane=4)
    assert 0 < report.step == left[Field.ROWS] - 1
    assert (report.seed, report.block, report.first_lane) == (3, 2, 4)
    path = crash_report.write(tmp_path, report)
    again = [sys.executable, "-m", "runners.replay_crash", str(path)]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -11
    assert f"{report.step + 1} rows from a reset" in done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "crashing.py" in done.stderr
