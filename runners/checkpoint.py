"""Checkpoints that are whole or not there: a manifest written last, a rename, and SHA-256 of all.

::

    groups/<a>-<b>/checkpoints/step-<lane_steps>/   tensors.safetensors  state.json
                                                    replay-open.safetensors  MANIFEST.json
    groups/<a>-<b>/replay/segment-<i>.safetensors
    groups/<a>-<b>/learner-<r>/    the same again, of each further learner

Segment i holds the replay rows i·L to (i+1)·L-1. Once full it never changes: it is written once and
listed, by its hash, in every manifest that needs it. The rows after the last full segment go into
the checkpoint itself. Whoever saves holds the group's lock. Of several learners each saves its own replay,
streams and simulators; the first one's manifest, written when the others have saved, names theirs by hash,
and where it is there the checkpoint is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from runners import files
from runners.errors import NoCheckpoint, disk
from runners.faults import fault_point
from runners.manifest import (
    MANIFEST,
    OPEN,
    STATE,
    TENSORS,
    Json,
    Unusable,
    read_manifest,
    seal,
    segment_name,
    step_name,
    steps_in,
    verify,
)
from runners.run_folder import Group, RunFolder
from runners.state_tree import (
    TIMES,
    Arrays,
    digest_arrays,
    digest_state,
    join,
    split,
    to_bytes,
)

if TYPE_CHECKING:
    from agents.contract import Array, Replay

KEEP = 2
SEGMENT_ROWS = 1024  # L: large enough that files are few, small enough to hold one in memory


class Folder(Protocol):
    """Where checkpoints go: a run folder, or one learner's part of it."""

    def group(self, group: Group) -> Path:
        """The folder of a group; made where it is missing."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint whose every file was verified."""

    path: Path
    lane_steps: int
    seeds: tuple[int, ...]  # of the group that were still training
    state: dict[str, Any]
    skipped: tuple[str, ...]  # newer checkpoints that could not be used, each with the reason
    manifest: Json

    def load_replay(self, replay: Replay) -> None:
        """Put the rows back, after the replay's own ``load_state_dict``."""
        for start, rows in self.replay_rows():
            replay.load_rows(start, rows)

    def replay_rows(self) -> Iterator[tuple[int, Arrays]]:
        """The replay's rows from its tail to its head: number of the first, and the arrays."""
        listed = self.manifest["replay"]
        if listed is None:
            return
        for segment in listed["segments"]:
            rows = from_safetensors(
                (self.path.parents[1] / "replay" / segment["file"]).read_bytes()
            )
            # a segment may be from before seeds left, and reach back to rows that are gone
            columns = [segment["seeds"].index(seed) for seed in self.seeds]
            gone = max(0, listed["tail"] - segment["start"])
            yield (
                segment["start"] + gone,
                {name: array[gone:, columns] for name, array in rows.items()},
            )
        if listed["open"] < listed["head"]:
            yield listed["open"], from_safetensors((self.path / OPEN).read_bytes())


# -- Saving --------------------------------------------------------------------------------------


def save(
    run: Folder,
    group: Group,
    lane_steps: int,
    state: dict[str, Any],
    replay: Replay | None,
    seeds: Sequence[int],
    *,
    segment_rows: int = SEGMENT_ROWS,
    there: Mapping[int, Json] = MappingProxyType({}),
    learners: Sequence[str] = (),
    keep: int = KEEP,
) -> Path:
    """Write a checkpoint; afterwards the last two are kept.

    Args:
        run: the run folder.
        group: the seeds that began together; its lock is held.
        lane_steps: the clock; never less than at an earlier checkpoint.
        state: what `state_tree.split` takes.
        replay: its rows from tail to head are saved; None without one.
        seeds: those of the group that still train, in the order of the replay's columns.
        segment_rows: replay rows in a file; the same throughout a run.
        there: segments that were written since the last checkpoint, by their index.
        learners: hashes of the manifests of the other learners' parts, which are saved before.
        keep: another number than two.

    Raises:
        DiskFault: the disk refused; older checkpoints are untouched, and nothing is left half done.
    """
    folder = run.group(group)
    steps, segments = folder / "checkpoints", folder / "replay"
    with disk(folder):
        for made in (steps, segments):
            made.mkdir(exist_ok=True)
            _sweep(made)
        newest = max(steps_in(steps), default=-1)
        if newest > lane_steps:
            raise ValueError(f"{steps}: step {newest} is there already, later than {lane_steps}")
        written: list[Path] = []
        temporary, final = steps / f".tmp-{os.getpid()}", steps / step_name(lane_steps)
        try:
            listed = _save_segments(folder, replay, list(seeds), segment_rows, there, written)
            _fill(temporary, lane_steps, state, replay, listed, list(seeds), list(learners))
            _put(temporary, final)
        except BaseException:
            # best effort: on a full disk this frees what we took
            shutil.rmtree(temporary, ignore_errors=True)
            for path in written:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        fault_point("checkpoint.renamed")
        files.sync_folder(steps)
        _clean(steps, segments, keep)
    return final


def _save_segments(
    folder: Path,
    replay: Replay | None,
    seeds: list[int],
    size: int,
    there: Mapping[int, Json],
    written: list[Path],
) -> Json | None:
    """Write the full segments that no manifest lists yet; what the manifest is to say of replay."""
    if replay is None:
        return None
    known, size = _known_segments(folder / "checkpoints", size)
    known |= there
    listed = []
    first, last = replay.tail // size, replay.head // size
    for index in range(first, last):
        start, stop = max(index * size, replay.tail), (index + 1) * size
        entry = known.get(index)
        if entry is None or entry["start"] > start or not set(seeds) <= set(entry["seeds"]):
            path = folder / "replay" / segment_name(index)
            existed = path.exists()  # of a line of history that was given up
            entry = put_segment(path.parent, index, start, replay.rows(start, stop), seeds)
            if not existed:
                written.append(path)
        listed.append(entry)
    return {
        "segment_rows": size, "tail": replay.tail, "head": replay.head,
        "open": max(last * size, replay.tail), "segments": listed,
    }  # fmt: skip


def put_segment(
    folder: Path, index: int, start: int, rows: Mapping[str, Array], seeds: Sequence[int]
) -> Json:
    """Write a full segment's rows from ``start`` on; what a manifest is to say of it."""
    path = folder / segment_name(index)
    stamp = files.replace(path, _bytes(rows), "segment")
    return {
        "index": index, "file": path.name, "start": start, "stop": start + len(next(iter(rows.values()))),
        "seeds": list(seeds), **stamp._asdict(),
    }  # fmt: skip


def _known_segments(steps: Path, size: int) -> tuple[dict[int, Json], int]:
    """The segments of the newest manifest, from which this run goes on, and their length."""
    for step in sorted(steps_in(steps), reverse=True):
        with contextlib.suppress(Unusable):
            if listed := read_manifest(steps / step_name(step))["replay"]:
                # its length, not ours: segments of two lengths would have the same names
                known = {entry["index"]: entry for entry in listed["segments"]}
                return known, listed["segment_rows"]
            return {}, size
    return {}, size


def _bytes(rows: Mapping[str, Array]) -> bytes:
    return to_safetensors({name: np.ascontiguousarray(array) for name, array in rows.items()})


def _fill(
    folder: Path,
    lane_steps: int,
    state: dict[str, Any],
    replay: Replay | None,
    listed: Json | None,
    seeds: list[int],
    learners: list[str],
) -> None:
    """Write a checkpoint's files into a temporary folder, the manifest last."""
    fault_point("checkpoint.create")
    folder.mkdir()
    arrays, rest = split(state)
    contents = {TENSORS: to_safetensors(arrays), STATE: to_bytes(rest)}
    if replay is not None and listed is not None and listed["open"] < replay.head:
        contents[OPEN] = _bytes(replay.rows(listed["open"], replay.head))
    stamps = {
        name: files.write_new(folder / name, data, f"checkpoint.{name}")._asdict()
        for name, data in contents.items()
    }
    manifest = {"lane_steps": lane_steps, "seeds": seeds, "files": stamps, "replay": listed}
    if learners:
        manifest["learners"] = learners
    files.write_new(folder / MANIFEST, seal(manifest), "checkpoint.manifest")
    fault_point("checkpoint.sync")
    files.sync_folder(folder)


def _put(temporary: Path, final: Path) -> None:
    """Give the checkpoint its name; from here on it counts."""
    aside = final.with_name(f".tmp-{os.getpid()}-{final.name}")
    if final.exists():  # the same moment saved again: the last scheduled one, and then Ctrl-C
        fault_point("checkpoint.aside")
        final.rename(aside)
    try:
        fault_point("checkpoint.rename")
        temporary.rename(final)
    except OSError:
        if aside.exists():
            aside.rename(final)
        raise


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half done."""
    for path in folder.glob(".tmp-*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _clean(steps: Path, segments: Path, keep: int) -> None:
    """Remove all checkpoints but the newest, and the segments that none of them lists."""
    kept = [steps / step_name(step) for step in sorted(steps_in(steps))[-keep:]]
    for path in steps.iterdir():
        if path not in kept:
            _remove(path)
    try:
        listed = {
            entry["file"]
            for path in kept
            for entry in (read_manifest(path)["replay"] or {"segments": []})["segments"]
        }
    except Unusable:
        return  # whoever looks into the damage may need them
    for path in segments.iterdir():
        if path.name not in listed:
            fault_point("segment.remove")
            path.unlink()


def _remove(path: Path) -> None:
    # renamed first, or a kill in the middle would leave half a checkpoint under its name
    fault_point("checkpoint.remove")
    doomed = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    path.rename(doomed)
    fault_point("checkpoint.removing")
    shutil.rmtree(doomed)


# -- Loading -------------------------------------------------------------------------------------


def load_newest(run: RunFolder, group: Group, *, read_only: bool = False) -> Loaded | None:
    """The newest checkpoint that is whole, or None where the group never made one.

    Step 0 is saved before anything is recorded, so records without a checkpoint have lost theirs.

    Newer ones that are damaged are renamed to ``bad-...``, because the run goes on from before
    them; the next save removes them. ``read_only`` leaves them as they are, for looking without
    the lock.

    Raises:
        NoCheckpoint: none of the checkpoints can be used, or none is left.
    """
    folder = run.group(group)
    steps = folder / "checkpoints"
    found = sorted(steps_in(steps), reverse=True)
    skipped: list[str] = []
    for step in found:
        path = steps / step_name(step)
        try:
            loaded = _load(path, step, tuple(skipped))
        except Unusable as error:
            skipped.append(f"{path.name}: {error}")
            continue
        if not read_only:
            _tidy(steps, [other for other in found if other > step])
        return loaded
    lost = any(run.seed(seed).begun for seed in group.seeds)
    if not skipped and not lost and not any(steps.glob("bad-*")):
        return None
    reasons = "; ".join(skipped) or "all are gone or were found damaged before"
    raise NoCheckpoint(f"{steps}: no usable checkpoint ({reasons}); begin anew with --fresh")


def load_step(run: Folder, group: Group, lane_steps: int) -> Loaded:
    """The checkpoint of a certain moment; later ones are put aside as damaged ones are.

    Raises:
        NoCheckpoint: it cannot be used.
    """
    steps = run.group(group) / "checkpoints"
    try:
        loaded = _load(steps / step_name(lane_steps), lane_steps, ())
    except Unusable as error:
        raise NoCheckpoint(f"{steps / step_name(lane_steps)}: {error}") from error
    _tidy(steps, [step for step in steps_in(steps) if step > lane_steps])
    return loaded


def _load(path: Path, lane_steps: int, skipped: tuple[str, ...]) -> Loaded:
    manifest = verify(path)
    if manifest["lane_steps"] != lane_steps:
        raise Unusable(f"is a checkpoint of step {manifest['lane_steps']} under another name")
    try:
        arrays = from_safetensors((path / TENSORS).read_bytes())
        state = join(arrays, json.loads((path / STATE).read_bytes()))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise Unusable(f"cannot be read ({error})") from error
    return Loaded(path, lane_steps, tuple(manifest["seeds"]), state, skipped, manifest)


def _tidy(steps: Path, bad: Sequence[int]) -> None:
    with disk(steps):
        _sweep(steps)
        for step in bad:
            path = steps / step_name(step)
            aside = path.with_name(f"bad-{path.name}")
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)


def digest(loaded: Loaded, ignore: Collection[str] = TIMES) -> str:
    """A hash over all tensors, values and replay rows: equal for the same bits."""
    total = hashlib.sha256(f"{loaded.lane_steps} {loaded.seeds}\n".encode())
    total.update(digest_state(loaded.state, ignore).encode())
    for start, rows in loaded.replay_rows():
        total.update(f"{start}\n".encode())
        digest_arrays(total, rows)
    return total.hexdigest()
