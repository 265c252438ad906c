"""No kill and no full disk, whenever it comes, loses a checkpoint that was saved."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runners import faults
from runners.checkpoint import digest, load_newest
from runners.errors import DiskFault
from runners.run_folder import RunFolder
from tests.runners.saving import (  # noqa: F401 - two are fixtures
    GROUP,
    ToyReplay,
    empty_run,
    save_at,
    steps,
    synced_files,
)

SAVES = (0, 5, 9, 9, 14)  # 9 twice: the same moment saved again
RING = 10


def workload(path):
    """Go on from the newest checkpoint to the end; what a training run does with the disk."""
    run = RunFolder(path)
    loaded = load_newest(run, GROUP)
    done = -1 if loaded is None else loaded.lane_steps
    replay = ToyReplay(slots=RING)
    for step in SAVES:
        if step > done or step == done == 9:
            replay.head = step
            save_at(run, step, replay)


def check_whatever_died(run, expected, floor):
    """A verified checkpoint is there, with the bits it had in a run that nobody disturbed."""
    loaded = load_newest(run, GROUP)
    if loaded is None:
        assert floor is None
        return None
    assert loaded.skipped == ()
    assert digest(loaded) == expected[loaded.lane_steps]
    assert floor is None or loaded.lane_steps >= floor
    return loaded.lane_steps


def check_going_on(run, expected):
    """The same command again ends with the same bits; a later save leaves nothing but two."""
    workload(run.path)
    assert check_whatever_died(run, expected, SAVES[-1]) == SAVES[-1]
    assert not list(run.path.rglob(".tmp-*"))
    save_at(run, 99)
    assert len(steps(run)) == 2
    shutil.rmtree(run.path)


def undisturbed(path):
    """The digest of each moment in a run without faults."""
    expected = {}
    replay, run = ToyReplay(slots=RING), RunFolder(path)
    for step in SAVES:
        replay.head = step
        save_at(run, step, replay)
        expected[step] = digest(load_newest(run, GROUP))
    return expected


def sweep(parent):
    """Kill a run at its first point, its second, and so on; count the points."""
    os.fsync = lambda handle: None  # for power cuts; a kill loses nothing that was written
    (parent / "calm").mkdir()
    expected = undisturbed(parent / "calm")
    reached = set()
    for n in itertools.count(1):
        path = parent / str(n)
        path.mkdir()
        pid = os.fork()
        if pid == 0:
            os.environ["QLAB_FAULT"] = f"*:{n}"
            workload(path)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        run = RunFolder(path)
        reached.add(check_whatever_died(run, expected, None))
        faults._seen.clear()
        check_going_on(run, expected)
    assert reached == {None, *SAVES}
    sys.stdout.write(str(n - 1))


def test_kill_9_at_every_point(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 120


def test_a_full_disk_at_every_point(tmp_path, monkeypatch):
    (tmp_path / "calm").mkdir()
    expected = undisturbed(tmp_path / "calm")
    for n in itertools.count(1):
        path = tmp_path / str(n)
        path.mkdir()
        faults._seen.clear()
        monkeypatch.setenv("QLAB_FAULT", f"*:{n}:enospc")
        try:
            workload(path)
            break
        except DiskFault as error:
            assert "No space left" in str(error)  # noqa: PT017
        monkeypatch.delenv("QLAB_FAULT")
        # what was being removed may be left, what was being made may not
        assert all("-step-" in left.name for left in path.rglob(".tmp-*"))
        check_whatever_died(RunFolder(path), expected, None)
        check_going_on(RunFolder(path), expected)
    assert n > 120


def test_a_removal_that_is_cut_short_leaves_no_half_checkpoint(run, monkeypatch):
    save_at(run, 0)
    save_at(run, 10)

    def cut_short(folder):
        (folder / "state.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", cut_short)
    with pytest.raises(KeyboardInterrupt):
        save_at(run, 20)
    monkeypatch.undo()
    assert load_newest(run, GROUP).lane_steps == 20
    for path in (run.group(GROUP) / "checkpoints").glob("step-*"):
        assert (path / "state.json").exists()


def test_what_a_dead_process_of_the_same_number_left_is_no_hindrance(run):
    left = run.group(GROUP) / "checkpoints" / f".tmp-{os.getpid()}"
    left.mkdir(parents=True)
    (left / "state.json").write_text("half")
    save_at(run, 0)
    assert steps(run) == ["step-000000000000"]


def test_a_failed_save_gives_its_space_back(run, monkeypatch):
    replay = ToyReplay()
    replay.head = 6
    save_at(run, 6, replay)
    before = sorted(p for p in run.path.rglob("*"))
    replay.head = 30
    faults._seen.clear()
    monkeypatch.setenv("QLAB_FAULT", "checkpoint.manifest.sync:1:enospc")
    with pytest.raises(DiskFault):
        save_at(run, 30, replay)
    assert sorted(p for p in run.path.rglob("*")) == before


if __name__ == "__main__":
    sweep(Path(sys.argv[1]))
