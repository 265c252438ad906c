"""The manifest of a checkpoint: which files it needs, and what each has to be, bit for bit.

It carries its own hash as well, so that no damage to it passes for another checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from runners.config import is_path_safe
from runners.files import Stamp, read_stamp
from runners.state_tree import to_bytes

FORMAT = 1
MANIFEST, TENSORS, STATE, OPEN = (
    "MANIFEST.json", "tensors.safetensors", "state.json", "replay-open.safetensors",
)  # fmt: skip
_LIMIT = 64 << 20  # bytes of a manifest; one of a million segments is not ours
_STEP = re.compile(r"step-(\d{12,})")

Json = dict[str, Any]


class Unusable(Exception):
    """A checkpoint cannot be used; the message says why."""


def step_name(lane_steps: int) -> str:
    """The folder of a checkpoint; names sort as numbers do."""
    return f"step-{lane_steps:012}"


def segment_name(index: int) -> str:
    """The file of a replay segment."""
    return f"segment-{index:09}.safetensors"


def steps_in(folder: Path) -> list[int]:
    """The clocks of the checkpoints in a folder, usable or not."""
    if not folder.is_dir():
        return []
    found = (_STEP.fullmatch(path.name) for path in folder.iterdir())
    return [int(match[1]) for match in found if match]


def seal(content: Json) -> bytes:
    """The manifest's text: format, content and the content's hash."""
    return to_bytes({"format": FORMAT, "sha256": digest_of(content), "content": content})


def digest_of(content: Json) -> str:
    """The hash of a manifest's content."""
    return hashlib.sha256(to_bytes(content)).hexdigest()


def learner_folder(group: Path, rank: int) -> Path:
    """Where the first of several learners (0), or another one, keeps what it needs to go on."""
    return group / f"learner-{rank}" if rank else group


def read_manifest(checkpoint: Path) -> Json:
    """The content of a checkpoint's manifest.

    Raises:
        Unusable: it is missing, damaged or newer than this program.
    """
    path = checkpoint / MANIFEST
    if path.is_symlink():
        raise Unusable(f"{MANIFEST} is not a file of its own")
    try:
        if path.stat().st_size > _LIMIT:
            raise Unusable(f"{MANIFEST} is too large")
        whole = json.loads(path.read_bytes())
        version, digest, content = whole["format"], whole["sha256"], whole["content"]
    except FileNotFoundError:
        raise Unusable(f"no {MANIFEST}: the save did not end") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unusable(f"{MANIFEST} is damaged ({type(error).__name__})") from error
    if version != FORMAT:
        raise Unusable(f"is of format {version}; this program reads format {FORMAT}")
    if digest_of(content) != digest:
        raise Unusable(f"{MANIFEST} is damaged (its hash differs)")
    checked: Json = content
    return checked


def verify(checkpoint: Path) -> Json:
    """Check every file that a checkpoint needs against its manifest, which is returned.

    Of several learners the first one's names the others' manifests.

    Raises:
        Unusable: the first fault: which file, and what is wrong with it.
    """
    if checkpoint.is_symlink():
        raise Unusable("is a symbolic link")
    manifest = read_manifest(checkpoint)
    for name, stamp in manifest["files"].items():
        _check(checkpoint, name, stamp)
    replay = manifest["replay"] or {"segments": []}
    for entry in replay["segments"]:
        _check(checkpoint.parents[1] / "replay", entry["file"], entry)
    for rank, digest in enumerate(manifest.get("learners", []), 1):
        other = learner_folder(checkpoint.parents[1], rank) / "checkpoints" / checkpoint.name
        try:
            found = digest_of(verify(other))
        except Unusable as error:
            raise Unusable(f"learner {rank}'s part: {error}") from error
        if found != digest:
            raise Unusable(f"learner {rank}'s part is of another checkpoint")
    return manifest


def _check(folder: Path, name: str, stamp: Json) -> None:
    path = folder / name
    if not is_path_safe(name) or path.is_symlink():
        raise Unusable(f"{name} is not a file of its own")
    expected = Stamp(stamp["bytes"], stamp["sha256"])
    try:
        size = path.stat().st_size
        if size != expected.bytes:
            raise Unusable(f"{name} has {size} bytes instead of {expected.bytes}")
        found = read_stamp(path)
    except OSError as error:
        raise Unusable(f"{name}: {error.strerror}") from error
    if found != expected:
        raise Unusable(f"{name} is damaged (its hash differs)")
