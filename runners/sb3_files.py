"""What Stable-Baselines3 leaves of a run: evaluations.npz of its EvalCallback, and Monitor's CSV files.

Nothing of it is run, and nothing in it is believed before it is looked at.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.errors import BadInput

LIMIT = 1 << 30  # bytes of a file; a million evaluations of ten episodes have a tenth of it


class Recorded(NamedTuple):
    """What a file says of one seed; E evaluations, or episodes of training, in order."""

    path: Path
    env_steps: NDArray[np.int64]  # [E], ascending
    seconds: NDArray[np.float64] | None  # [E] since its start; None: the file does not say
    returns: NDArray[np.float64]  # [E, episodes]; one episode where they are of training
    training: bool  # exploring, not greedy


def read(path: str | Path) -> Recorded:
    """One file of either kind, by its name.

    Raises:
        BadInput: it is of neither kind, or malformed; the line says which file and how.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return read_evaluations(path)
    if path.name.endswith("monitor.csv"):
        return read_monitor([path])
    raise BadInput(f"{path}: neither an evaluations.npz nor a *.monitor.csv of Stable-Baselines3")


def read_evaluations(path: str | Path) -> Recorded:
    """evaluations.npz: ``timesteps`` [E] and ``results`` [E, episodes].

    Raises:
        BadInput: it is missing, damaged, or of another shape.
    """
    path = Path(path)
    data = io.BytesIO(_bytes(path))
    try:
        with np.load(data, allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in ("timesteps", "results")}
    except KeyError as error:
        raise BadInput(f"{path}: no evaluations of Stable-Baselines3: {error.args[0]}") from error
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise BadInput(f"{path}: no evaluations of Stable-Baselines3: {error}") from error
    steps, returns = arrays["timesteps"], arrays["results"]
    if steps.ndim != 1 or steps.dtype.kind not in "iu":
        raise BadInput(
            f"{path}: timesteps: got {steps.dtype}{steps.shape}, takes whole numbers [E]"
        )
    if returns.ndim != 2 or returns.dtype.kind not in "iuf" or len(returns) != len(steps):
        takes = f"numbers [{len(steps)}, episodes]"
        raise BadInput(f"{path}: results: got {returns.dtype}{returns.shape}, takes {takes}")
    return _checked(Recorded(path, steps.astype(np.int64), None, returns.astype(np.float64), False))


def read_monitor(paths: Sequence[str | Path]) -> Recorded:
    """The Monitor files of one seed, one a lane: its training episodes in the order of their ends.

    ``env_steps`` are those of all episodes that had ended, so of N lanes they are up to N episodes behind.
    A last line that broke off, as of a process that was killed, is left out.

    Raises:
        BadInput: there is none, or a file is missing or malformed.
    """
    if not paths:
        raise BadInput("no *.monitor.csv of Stable-Baselines3 was named")
    files = [(Path(path), *_episodes(Path(path))) for path in paths]
    started = min(start for _, start, _ in files)
    shifts = [np.array([0.0, 0.0, start - started]) for _, start, _ in files]
    episodes = np.concatenate([f[2] + shift for f, shift in zip(files, shifts, strict=True)])
    episodes = episodes[np.argsort(episodes[:, 2], kind="stable")]
    returns, lengths, seconds = episodes.T
    steps = np.cumsum(lengths).astype(np.int64)
    return _checked(Recorded(files[0][0], steps, seconds, returns[:, np.newaxis], True))


def _episodes(path: Path) -> tuple[float, NDArray[np.float64]]:
    """When it was begun, and returns, lengths and seconds of its episodes [E, 3]."""
    try:
        text = _bytes(path).decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: no Monitor file: not a text ({error})") from error
    head, _, table = text.partition("\n")
    try:
        start = float(json.loads(head.removeprefix("#"))["t_start"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: line 1: got {head[:40]!r}, takes # and JSON with t_start"
        ) from error
    whole, _, _ = table.rpartition("\n")
    lines = csv.DictReader(io.StringIO(whole))
    if not {"r", "l", "t"} <= set(lines.fieldnames or ()):
        raise BadInput(f"{path}: line 2: got {lines.fieldnames}, takes the columns r, l and t")
    rows = []
    for number, line in enumerate(lines, 3):
        rows.append(_row(path, number, line))
    if not rows:
        raise BadInput(f"{path}: no episode has ended")
    return start, np.array(rows)


def _row(path: Path, number: int, line: dict[str, Any]) -> tuple[float, float, float]:
    try:
        row = float(line["r"]), float(line["l"]), float(line["t"])
    except (TypeError, ValueError):
        row = (np.nan, np.nan, np.nan)
    if not np.isfinite(row).all() or row[1] < 1 or row[1] % 1:
        got = ",".join(str(line[name]) for name in "rlt")
        raise BadInput(f"{path}: line {number}: got {got!r}, takes a return, a length and seconds")
    return row


def _checked(found: Recorded) -> Recorded:
    if not found.returns.size:
        raise BadInput(f"{found.path}: holds no evaluation")
    if not np.isfinite(found.returns).all():
        raise BadInput(f"{found.path}: a return is not a finite number")
    if (np.diff(found.env_steps) <= 0).any() or found.env_steps[0] < 0:
        raise BadInput(
            f"{found.path}: the steps do not ascend; several runs in one file cannot be told apart"
        )
    return found


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LIMIT:
            raise BadInput(f"{path}: larger than {LIMIT >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
