"""Checkpoints: what is saved is loaded, damage is found, and no kill loses what was saved."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runners import files
from runners.checkpoint import digest, load_newest, save
from runners.errors import DiskFault, NoCheckpoint
from runners.manifest import MANIFEST, Unusable, read_manifest, seal
from runners.run_folder import Group, RunFolder
from tests.runners.test_state_tree import same

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


@pytest.fixture(autouse=True)
def synced(monkeypatch):
    """What was synced, in order. Not done here: it is slow, and only a power cut could tell."""
    done = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: done.append(os.readlink(f"/proc/self/fd/{handle}"))
    )
    return done


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def steps(run):
    return sorted(path.name for path in (run.group(GROUP) / "checkpoints").iterdir())


def segments(run):
    return sorted(path.name for path in (run.group(GROUP) / "replay").iterdir())


# -- Saving and loading ----------------------------------------------------------------------------


def test_a_group_that_never_started_is_none(run):
    assert load_newest(run, GROUP) is None
    (run.group(GROUP) / "checkpoints" / ".tmp-1").mkdir(parents=True)
    assert load_newest(run, GROUP) is None


def test_what_was_saved_is_loaded(run):
    save_at(run, 0)
    path = save_at(run, 20, seeds=(0, 2))
    loaded = load_newest(run, GROUP)
    same(state_at(20), loaded.state)
    assert (loaded.path, loaded.lane_steps, loaded.seeds, loaded.skipped) == (path, 20, (0, 2), ())
    assert path.name == "step-000000000020"


def test_everything_is_on_the_disk_before_it_counts(run, synced):
    replay = ToyReplay()
    replay.head = 6
    save_at(run, 6, replay)
    names = [Path(name).name.replace(f".tmp-{os.getpid()}-", "") for name in synced]
    assert names == [
        "segment-000000000.safetensors", "replay",  # a segment before any manifest lists it
        "tensors.safetensors", "state.json", "replay-open.safetensors", MANIFEST,
        f".tmp-{os.getpid()}",  # the names in the folder, and only then the folder's own
        "checkpoints",
    ]  # fmt: skip


def test_the_last_two_are_kept(run):
    for step in (0, 10, 20, 30):
        save_at(run, step)
    assert steps(run) == ["step-000000000020", "step-000000000030"]


def test_the_same_moment_can_be_saved_again(run):
    save_at(run, 0)
    save_at(run, 10)
    save_at(run, 10)
    assert steps(run) == ["step-000000000000", "step-000000000010"]


def test_a_moment_that_cannot_be_saved_again_stays_as_it_was(run, monkeypatch):
    save_at(run, 0)
    save_at(run, 10)
    files._seen.clear()
    monkeypatch.setenv("QLAB_FAULT", "checkpoint.rename:1:enospc")
    with pytest.raises(DiskFault):
        save_at(run, 10)
    assert load_newest(run, GROUP).lane_steps == 10


def test_going_back_in_time_is_a_mistake(run):
    save_at(run, 10)
    with pytest.raises(ValueError, match="later than 5"):
        save_at(run, 5)


def test_digest_of_equal_and_of_unequal_checkpoints(tmp_path):
    digests = []
    for name, at, slots in (
        ("a", (8, 20), 1000),
        ("b", (20,), 1000),
        ("c", (20,), 7),
        ("d", (8, 20), 7),
    ):
        (tmp_path / name).mkdir()
        run, replay = RunFolder(tmp_path / name), ToyReplay(slots=slots)
        for head in at:
            replay.head = head
            save_at(run, head, replay)
        digests.append(digest(load_newest(run, GROUP)))
    a, b, c, d = digests
    assert a == b  # however often it was saved on the way
    assert c == d
    assert a != c


# -- Replay segments -------------------------------------------------------------------------------


def load_replay(run, slots=1000):
    loaded = load_newest(run, GROUP)
    replay = ToyReplay(loaded.seeds, slots=slots)
    replay.head = loaded.manifest["replay"]["head"]
    loaded.load_replay(replay)
    replay.check_loaded()
    return loaded


@pytest.mark.parametrize("slots", [1000, 9, 4, 3, 1])
@pytest.mark.parametrize("stride", [1, 3, 4, 7, 20])
def test_rows_come_back_whatever_the_rhythm(run, slots, stride):
    replay = ToyReplay(slots=slots)
    for step in range(0, 50, stride):
        replay.head = step
        save_at(run, step, replay)
        load_replay(run, slots)


def test_full_segments_are_written_once_and_dropped_with_their_last_manifest(run):
    replay = ToyReplay(slots=8)
    replay.head = 9
    save_at(run, 9, replay)
    first = run.group(GROUP) / "replay" / "segment-000000000.safetensors"
    inode = first.stat().st_ino
    replay.head = 11
    save_at(run, 11, replay)
    assert first.stat().st_ino == inode
    assert segments(run) == ["segment-000000000.safetensors", "segment-000000001.safetensors"]
    for head in (13, 15):  # tail 7: the first segment is in no kept manifest
        replay.head = head
        save_at(run, head, replay)
    assert segments(run) == ["segment-000000001.safetensors", "segment-000000002.safetensors"]


def test_seeds_that_leave_the_group_leave_older_segments_alone(run):
    replay = ToyReplay()
    replay.head = 6
    save_at(run, 6, replay)
    replay.seeds = [0, 2]
    replay.head = 13
    save_at(run, 13, replay, seeds=(0, 2))
    replay.seeds = [2]
    replay.head = 17
    save_at(run, 17, replay, seeds=(2,))
    loaded = load_replay(run)
    listed = loaded.manifest["replay"]["segments"]
    assert [entry["seeds"] for entry in listed] == [[0, 1, 2], [0, 2], [0, 2], [2]]


def test_a_group_whose_seeds_have_all_left(run):
    replay = ToyReplay()
    replay.head = 6
    save_at(run, 6, replay)
    replay.seeds = []
    replay.head = 9
    save_at(run, 9, replay, seeds=())
    loaded = load_replay(run)
    assert loaded.seeds == ()


def test_a_line_of_history_that_was_given_up_leaves_no_rows_behind(run):
    replay = ToyReplay()
    for head in (6, 14):
        replay.head = head
        save_at(run, head, replay)
    (run.group(GROUP) / "checkpoints" / "step-000000000014" / "state.json").write_text("{}")
    loaded = load_newest(run, GROUP)
    assert loaded.lane_steps == 6
    # on another machine, say, the same steps now give other rows
    replay.rows = lambda start, stop: {"reward": np.full((stop - start, 3, 2), 7.0)}
    save_at(run, 14, replay)
    rows = dict(load_newest(run, GROUP).replay_rows())
    assert (rows[0]["reward"] < 400).all()  # from before
    assert (rows[4]["reward"] == 7).all()
    assert (rows[8]["reward"] == 7).all()


def test_the_length_of_segments_stays_what_it_was(run):
    replay = ToyReplay()
    replay.head = 10
    save_at(run, 10, replay)
    replay.head = 30
    save(run, GROUP, 30, state_at(30), replay, [0, 1, 2], segment_rows=5)
    load_replay(run)


# -- Damage ----------------------------------------------------------------------------------------


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path):
    path.write_bytes(b"")


def damage_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)


def damage_zeros(path):
    data = path.read_bytes()
    path.write_bytes(data[:-16] + bytes(16))


def damage_delete(path):
    path.unlink()


def damage_link(path):
    moved = path.with_name("elsewhere")
    path.rename(moved)
    path.symlink_to(moved)


FILES = ["tensors.safetensors", "state.json", "replay-open.safetensors", MANIFEST]
DAMAGES = [
    damage_truncate, damage_shorten, damage_empty, damage_bit, damage_zeros, damage_delete, damage_link,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [*FILES, "segment"])
def test_damage_is_found_named_and_passed_over(run, name, damage):
    replay = ToyReplay()
    for head in (6, 14):
        replay.head = head
        save_at(run, head, replay)
    folder = run.group(GROUP)
    newest = folder / "checkpoints" / "step-000000000014"
    segment = "segment-000000002.safetensors"
    damage(folder / "replay" / segment if name == "segment" else newest / name)
    loaded = load_newest(run, GROUP, read_only=True)
    assert loaded.lane_steps == 6
    (reason,) = loaded.skipped
    assert reason.startswith("step-000000000014: ")
    assert (segment if name == "segment" else name) in reason
    assert newest.exists()
    load_newest(run, GROUP)
    assert steps(run) == ["bad-step-000000000014", "step-000000000006"]
    load_replay(run)
    save_at(run, 14, replay)  # and the run goes on
    assert load_newest(run, GROUP).lane_steps == 14
    assert steps(run) == ["step-000000000006", "step-000000000014"]
    load_replay(run)


def test_every_bit_of_a_manifest_matters(run):
    save_at(run, 0)
    path = save_at(run, 10) / MANIFEST
    good = path.read_bytes()
    for position, bit in itertools.product(range(0, len(good), 7), (0, 3, 6)):
        data = bytearray(good)
        data[position] ^= 1 << bit
        path.write_bytes(data)
        assert load_newest(run, GROUP, read_only=True).lane_steps == 0
    path.write_bytes(good)
    assert load_newest(run, GROUP).lane_steps == 10


def test_a_newer_format_is_refused_with_both_numbers(run):
    save_at(run, 0)
    path = save_at(run, 10) / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
    (reason,) = load_newest(run, GROUP).skipped
    assert "is of format 2; this program reads format 1" in reason


def test_a_checkpoint_under_another_name_is_refused(run):
    path = save_at(run, 10)
    path.rename(path.with_name("step-000000000020"))
    with pytest.raises(NoCheckpoint, match="is a checkpoint of step 10 under another name"):
        load_newest(run, GROUP)


def test_a_manifest_cannot_point_outside(run):
    path = save_at(run, 10)
    secret = run.path / "secret"
    secret.write_bytes(b"x")
    content = read_manifest(path)
    content["files"]["../../../../secret"] = files.read_stamp(secret)._asdict()
    (path / MANIFEST).write_bytes(seal(content))
    with pytest.raises(NoCheckpoint, match="is not a file of its own"):
        load_newest(run, GROUP)


def test_no_usable_checkpoint_is_not_a_fresh_start(run):
    for step in (0, 10):
        damage_bit(save_at(run, step) / "tensors.safetensors")
    for _ in range(2):
        with pytest.raises(
            NoCheckpoint, match=r"step-000000000010: .*; step-000000000000: .*--fresh"
        ):
            load_newest(run, GROUP)
    shutil.rmtree(run.group(GROUP) / "checkpoints")
    (run.group(GROUP) / "checkpoints" / "bad-step-000000000000").mkdir(parents=True)
    with pytest.raises(NoCheckpoint):
        load_newest(run, GROUP)


def test_a_hostile_safetensors_header_is_refused(run):
    save_at(run, 0)
    path = save_at(run, 10)
    evil = (2**60).to_bytes(8, "little") + b"{}"
    (path / "tensors.safetensors").write_bytes(evil)
    content = read_manifest(path)
    content["files"]["tensors.safetensors"] = files.stamp_of(evil)._asdict()
    (path / MANIFEST).write_bytes(seal(content))
    loaded = load_newest(run, GROUP)
    assert loaded.lane_steps == 0
    assert "cannot be read" in loaded.skipped[0]


def test_reading_a_manifest_that_is_not_ours(tmp_path):
    for text in (b"[]", b"3", b"{}", b'{"format":1}', b"[" * 100_000, b"\xff"):
        (tmp_path / MANIFEST).write_bytes(text)
        with pytest.raises(Unusable, match="damaged"):
            read_manifest(tmp_path)


# -- Death at every point --------------------------------------------------------------------------

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
        files._seen.clear()
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
        files._seen.clear()
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
    files._seen.clear()
    monkeypatch.setenv("QLAB_FAULT", "checkpoint.manifest.sync:1:enospc")
    with pytest.raises(DiskFault):
        save_at(run, 30, replay)
    assert sorted(p for p in run.path.rglob("*")) == before


if __name__ == "__main__":
    sweep(Path(sys.argv[1]))
