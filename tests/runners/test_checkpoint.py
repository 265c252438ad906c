"""Checkpoints: what is saved is loaded, and damage is found, named and passed over."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from runners import faults, files
from runners.checkpoint import digest, load_newest, save
from runners.errors import DiskFault, NoCheckpoint
from runners.manifest import MANIFEST, Unusable, read_manifest, seal
from runners.run_folder import RunFolder
from tests.runners.saving import (  # noqa: F401 - two are fixtures
    GROUP,
    ToyReplay,
    empty_run,
    save_at,
    state_at,
    steps,
    synced_files,
)
from tests.runners.test_state_tree import same


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
    faults._seen.clear()
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
