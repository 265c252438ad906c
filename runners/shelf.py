"""Full replay segments in files, mapped: memory for a replay that is larger than memory.

The files are those of a checkpoint (`runners.checkpoint`): a segment is written when it is full, once, and
listed by every later manifest that needs it. The kernel keeps of it in memory what there is room for.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runners.checkpoint import SEGMENT_ROWS, put_segment
from runners.errors import disk

if TYPE_CHECKING:
    from agents.contract import Array
    from agents.replay.segments import Stored
    from runners.checkpoint import Loaded
    from runners.manifest import Json


class FileShelf:
    """What `agents.replay.segments.SegmentFrames` has memory from: of one group, whose lock is held."""

    def __init__(self, folder: Path, seeds: Sequence[int], loaded: Loaded | None = None) -> None:
        """Segments are files in ``folder``; those of the checkpoint that the run goes on from are there."""
        listed = (loaded.manifest["replay"] if loaded else None) or {"segments": []}
        self.folder, self.seeds = folder, list(seeds)
        self.segment_rows: int = listed.get("segment_rows", SEGMENT_ROWS)
        self.entries: dict[int, Json] = {entry["index"]: entry for entry in listed["segments"]}

    def memory(self, shape: Sequence[int], dtype: Any) -> Array:
        """Zeros, for a segment that is being filled."""
        return np.zeros(shape, dtype)

    def store(self, index: int, start: int, rows: Mapping[str, Array]) -> Stored:
        """Write a full segment, unless a checkpoint has it; its observations, mapped read-only.

        Raises:
            DiskFault: there is no room; older segments and all checkpoints are untouched.
        """
        from agents.replay.segments import Stored

        entry = self.entries.get(index)
        with disk(self.folder):
            if entry is None:
                self.folder.mkdir(exist_ok=True)
                entry = put_segment(self.folder, index, start, rows, self.seeds)
                self.entries[index] = entry
            array, expect = _mapped(self.folder / entry["file"], "obs", rows["obs"].dtype)
        columns = [entry["seeds"].index(seed) for seed in self.seeds]
        return Stored(array, entry["start"], columns, expect)

    @property
    def written(self) -> dict[str, Any]:
        """What `checkpoint.save` is to know of it."""
        return {"segment_rows": self.segment_rows, "there": self.entries}

    def keep(self, seeds: Sequence[int]) -> None:
        """Segments to come are of the seeds at these positions only."""
        self.seeds = [self.seeds[k] for k in seeds]


def _mapped(path: Path, name: str, dtype: np.dtype[Any]) -> tuple[Array, Callable[[int], None]]:
    """An array ``[rows, K, n, ...]`` of a safetensors file, as it stands there; and what has an item of it read soon.

    Of a batch's items many are read at once so: one after the other each would be waited for.
    """
    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # a batch's rows lie all over the file: what stands beside them is not wanted
    whole.madvise(mmap.MADV_RANDOM)
    header = int.from_bytes(whole[:8], "little")
    described = json.loads(whole[8 : 8 + header])[name]
    begins, ends = described["data_offsets"]
    first = 8 + header + begins
    count = (ends - begins) // dtype.itemsize
    flat: Array = np.frombuffer(whole, dtype, count, first)
    array = flat.reshape(described["shape"])
    size = array[0, 0, 0].nbytes

    def expect(item: int) -> None:
        at = first + item * size
        page = at - at % mmap.PAGESIZE
        whole.madvise(mmap.MADV_WILLNEED, page, at + size - page)

    return array, expect
