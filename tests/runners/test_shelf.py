"""A replay on disk: the same bits as in memory, resumed exactly, and nothing lost where the disk is full."""

from __future__ import annotations

import numpy as np
import pytest

from agents.replay.segments import SegmentFrames
from runners import checkpoint, faults, memory_plan, shelf, train
from runners.checkpoint import load_newest
from runners.console import SilentConsole
from runners.errors import BadInput, DiskFault, Stopped
from runners.manifest import read_manifest
from runners.memory_plan import check_memory
from runners.replay_place import place_of_replay
from runners.resolve import make_config
from runners.run_folder import Group, RunFolder
from runners.shelf import FileShelf
from runners.train import run
from runners.verify import compare
from tests.runners.test_memory_plan import limited, refused, setting_of

ROWS = 16  # in a segment here
SMALL = {
    "lanes": 4, "rollout_length": 8, "steps": 1_600, "learning_starts": 100, "replay_size": 400, "batch_size": 8,
    "replay_ratio": 0.1, "eval_every": 800, "checkpoint_every": 400, "eval_episodes": 2, "final_episodes": 2,
}  # fmt: skip
SEQUENCES = {"memory": "lstm", "sequence_length": 8, "burn_in": 0, "batch_size": 2}


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    monkeypatch.setattr(shelf, "SEGMENT_ROWS", ROWS)
    monkeypatch.setitem(checkpoint.save.__kwdefaults__, "segment_rows", ROWS)
    monkeypatch.setattr("os.fsync", lambda handle: None)  # slow, and only a power cut could tell


def trained(out, place, agent="dqn", seeds=(0,), steps=None, **settings):
    config = make_config(agent, "CartPole-v1", **{**SMALL, **settings})
    asked = iter(range(10**9))
    stop = (lambda: 15 if next(asked) >= steps else 0) if steps else (lambda: 0)
    return run(config, seeds, str(out), replay_device=place, stop_asked=stop)


def files_of(folder):
    return {path.name for path in (folder.group(folder.groups()[0]) / "replay").iterdir()}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"prioritized": True}, id="transitions"),
        pytest.param(SEQUENCES, id="sequences", marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_same_bits_wherever_its_replay_is(tmp_path, settings, monkeypatch):
    full, let_go = [], SegmentFrames.let_go

    def counted(frames, tail):
        full.append(len(frames.full))
        let_go(frames, tail)

    monkeypatch.setattr(SegmentFrames, "let_go", counted)
    runs = [trained(tmp_path / place, place, **settings) for place in ("host", "disk", "device")]
    assert (
        max(full) >= 100 // ROWS
    )  # it was on disk: no twin would notice one that stayed in memory
    for other in runs[1:]:
        assert compare(runs[0], other) == []
    # 1,600 / 4 rows, of which the last 100 and one more are held: the segments of rows 300 to 399
    assert files_of(runs[1]) >= {
        f"segment-{i:09}.safetensors" for i in range(300 // ROWS, 400 // ROWS)
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("disk", "disk"),
        pytest.param("host", "disk", marks=pytest.mark.slow),
        pytest.param("disk", "host", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_to_the_same_bits_wherever_its_replay_was(tmp_path, before, after):
    whole = trained(tmp_path / "whole", "host")
    with pytest.raises(Stopped):
        trained(tmp_path / "stopped", before, steps=20)
    assert load_newest(whole, Group(0, 0)).lane_steps == 1_600
    assert compare(whole, trained(tmp_path / "stopped", after)) == []


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", "host")
    faults._seen.clear()
    # each segment is written in one call; the tenth has rows that no checkpoint has yet
    monkeypatch.setenv("QLAB_FAULT", "segment.write:10:enospc")
    monkeypatch.setattr(faults, "ON", True)
    with pytest.raises(DiskFault):  # which ends a command with 4
        trained(tmp_path / "full", "disk")
    monkeypatch.setattr(faults, "ON", False)
    assert load_newest(RunFolder(next((tmp_path / "full").iterdir())), Group(0, 0)).skipped == ()
    monkeypatch.delenv("QLAB_FAULT")
    assert compare(whole, trained(tmp_path / "full", "disk")) == []


def test_segments_stay_as_long_as_a_checkpoint_lists_them(tmp_path, monkeypatch):
    save, seen = checkpoint.save, []

    def watched(folder, group, *rest, **more):
        path = save(folder, group, *rest, **more)
        steps = folder.group(group) / "checkpoints"
        listed = set()
        for kept in steps.iterdir():
            entries = read_manifest(kept)["replay"]["segments"]
            listed |= {entry["file"] for entry in entries}
        seen.append((files_of(folder), listed))
        return path

    monkeypatch.setattr(checkpoint, "save", watched)
    trained(tmp_path, "disk", replay_size=100)
    for there, listed in seen:
        assert there == listed  # all that is needed, and nothing else
    # rows 80 to 95 are in the replay at row 100; at row 200 the checkpoint before lists them, at 300 none does
    assert ["segment-000000005.safetensors" in there for there, _ in seen] == [
        False,
        True,
        True,
        False,
        False,
    ]


def rows(start, stop, seeds):
    """Numbers that tell row and seed."""
    row, seed = np.arange(start, stop)[:, None, None], np.asarray(seeds)[None, :, None]
    return {
        "obs": (row * 10 + seed + np.zeros((1, 1, 2)))[..., None].astype(np.float32),
        "first": np.zeros((stop - start, len(seeds), 2), np.bool_),
    }


def test_a_segment_is_mapped_and_written_once(tmp_path):
    kept = FileShelf(tmp_path, [3, 4, 5])
    stored = kept.store(2, 2 * ROWS, rows(2 * ROWS, 3 * ROWS, [3, 4, 5]))
    assert (stored.array == rows(2 * ROWS, 3 * ROWS, [3, 4, 5])["obs"]).all()
    assert not stored.array.flags.writeable
    assert (stored.start, stored.columns) == (2 * ROWS, [0, 1, 2])
    (path,) = tmp_path.iterdir()
    inode = path.stat().st_ino
    kept.keep([2, 0])
    again = kept.store(2, 2 * ROWS + 3, rows(2 * ROWS + 3, 3 * ROWS, [5, 3]))
    assert path.stat().st_ino == inode
    assert (again.start, again.columns) == (2 * ROWS, [2, 0])
    path.unlink()  # as a checkpoint does with one that has fallen out
    assert again.array[3, 2, 0, 0] == (2 * ROWS + 3) * 10 + 5


def test_a_million_frames_take_the_memory_of_two_segments(monkeypatch):
    """10^8 transitions of CartPole, 8 lanes: 16 bytes each of observations, 15 of all else."""
    monkeypatch.setattr(memory_plan, "SEGMENT_ROWS", 1024)
    limited(monkeypatch, 2 * 10**9)
    setting = setting_of(replay_size=10**8)
    assert "--replay-device disk" in refused(setting, 1)
    setting.replay_device = "disk"
    plan = memory_plan.MemoryPlan(setting)
    assert plan.parts(1)["replay"] == 2 * 1024 * 8 * 16 + 10**8 * 15
    assert plan.on_disk(1) > 31 * 10**8
    monkeypatch.setattr(
        memory_plan.shutil, "disk_usage", lambda path: type("Free", (), {"free": 10**9})
    )
    with pytest.raises(
        BadInput, match=r"replay_device: 3\.\d+ GB of replay are needed on disk, and 1\.00"
    ):
        check_memory(setting, 1, SilentConsole())


def test_what_is_kept_on_a_gpu_is_not_counted_here():
    setting = setting_of(replay_size=10**6)
    setting.replay_device = "device"
    assert memory_plan.MemoryPlan(setting).parts(1)["replay"] == 31 * 10**6  # the device is the CPU
    plan = memory_plan.MemoryPlan(setting)
    setting.config = __import__("dataclasses").replace(setting.config, device="cuda")
    assert plan.parts(1)["replay"] == 15 * 10**6
    assert plan.on_device(3)["replay"] == 3 * 16 * 10**6


def test_auto_is_the_device_where_it_has_room(monkeypatch):
    from runners import replay_place

    setting = setting_of(replay_size=10**6)
    assert place_of_replay(setting, 1, "auto") == "host"

    class Machine:
        free = 10**9

        def free_memory(self):
            return self.free

    monkeypatch.setattr(replay_place, "machine_of", lambda device: Machine())
    assert place_of_replay(setting, 1, "auto") == "device"
    Machine.free = 16 * 10**6  # not the networks, too
    assert place_of_replay(setting, 1, "auto") == "host"
    assert place_of_replay(setting, 1, "host") == "host"
    assert place_of_replay(setting_of(agent="pqn"), 1, "auto") == "host"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pqn", "--replay-device", "disk"], "replay_device: pqn has no replay of the lab's"),
        (
            ["q_learning", "--env", "FrozenLake-v1", "--replay-device", "device"],
            "q_learning has no",
        ),
        (["dqn", "--replay-device", "disc"], "takes one of auto, host, device, disk"),
    ],
)
def test_what_cannot_be_is_one_line(words, line, capsys, tmp_path):
    assert train.main([*words, "--seeds", "1", "--out", str(tmp_path), "--quiet"]) == 2
    assert line in capsys.readouterr().err
