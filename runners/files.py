"""Writing so that a kill, a full disk or a power cut leaves the old file or the new one, whole.

Every place where a process may die has its `fault_point`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from runners.errors import BadInput, RunFailed, disk
from runners.faults import fault_point

_CHUNK = 1 << 20


class Stamp(NamedTuple):
    """What a file has to be: its size and SHA-256."""

    bytes: int
    sha256: str


def stamp_of(data: bytes) -> Stamp:
    """The stamp of bytes in memory."""
    return Stamp(len(data), hashlib.sha256(data).hexdigest())


def read_stamp(path: Path) -> Stamp:
    """The stamp of a file as it is."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Stamp(size, digest.hexdigest())


def write_new(path: Path, data: bytes, point: str) -> Stamp:
    """Write a file that must not exist yet, down to the disk."""
    fault_point(f"{point}.create")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    handle = os.open(path, flags, 0o644)
    try:
        write_all(handle, data, point)
        fault_point(f"{point}.sync")
        os.fsync(handle)
    finally:
        os.close(handle)
    fault_point(f"{point}.synced")
    return stamp_of(data)


def write_all(handle: int, data: bytes, point: str) -> None:
    """Write everything; one system call where it fits into one."""
    view = memoryview(data)
    while view:
        fault_point(f"{point}.write")
        view = view[os.write(handle, view[:_CHUNK]) :]


def make_folder(path: Path) -> None:
    """Make a folder where there is none, and find out now, not after an hour, whether it takes files.

    Raises:
        BadInput: no folder can be here.
        DiskFault: nothing can be written here.
    """
    with disk(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".probe-{os.getpid()}"
            probe.write_bytes(b"?")
            probe.unlink()
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise BadInput(f"{path}: no folder can be made here; name another --out") from error


def sync(path: Path) -> None:
    """Make what a file holds durable; there may be no such file."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the files they stand for."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, data: bytes, point: str) -> Stamp:
    """Put a new file in the place of an old one, or of none, in one step."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        stamp = write_new(temporary, data, point)
        fault_point(f"{point}.rename")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fault_point(f"{point}.renamed")
    sync_folder(path.parent)
    return stamp


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Be the only process that holds a lock file; the kernel frees a dead process's lock.

    Raises:
        BadInput: another process has it: ``what`` is done by it.
        DiskFault: there can be no such file.
    """
    with disk(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _holder(handle)
            raise BadInput(f"{what} by {who}; wait for it or stop it") from None
        with disk(path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, dump({"pid": os.getpid(), "host": socket.gethostname()}), 0)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


# -- JSON lines ----------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Arrays become lists, and numbers that JSON does not know become None."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dump(value: Any, indent: int | None = None) -> bytes:
    """JSON text with a newline at its end."""
    text = json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append a line in one system call, so that a kill never tears one that was acknowledged."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        write_all(handle, dump(record), "line")
    finally:
        os.close(handle)


class Lines(NamedTuple):
    """What a JSON lines file holds."""

    records: list[dict[str, Any]]
    torn: int  # 1 where the last line broke off and was dropped


def read_lines(path: Path) -> Lines:
    """Read a JSON lines file; a missing one is empty, a last line without its end is dropped.

    Raises:
        RunFailed: a line in the middle is not a JSON object: the file was changed or damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Lines([], 0)
    *whole, tail = data.split(b"\n")
    records = []
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RunFailed(f"{path}: line {number} is damaged: {error}") from error
        if not isinstance(record, dict):
            raise RunFailed(f"{path}: line {number} is damaged: not a JSON object")
        records.append(record)
    return Lines(records, 1 if tail else 0)


def keep_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file's lines by these in one step."""
    replace(path, b"".join(dump(record) for record in records), "cut")
