"""The folder of one configuration: what is in it, who may write there, and how to find it again.

::

    <agent>-<env>-<config_id>/
        config.json  provenance.jsonl  summary.json  curve.png  health.png
        seed-<s>/            metrics.jsonl  evals.jsonl  health.jsonl  best/  last/
        groups/<a>-<b>/      lock  checkpoints/  replay/  crash-<n>.json
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from runners import files, provenance
from runners.config import difference, is_path_safe
from runners.errors import BadInput, disk, nearest

Json = dict[str, Any]
_ASIDE = re.compile(r"\.old-(\d+)$")


class Group(NamedTuple):
    """The seeds that train together, as they were at the start: first to last."""

    first: int
    last: int

    @property
    def seeds(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class Records(Protocol):
    """Where a seed's records go."""

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """Of the learner, with its ``lane_steps``."""

    def add_eval(self, record: Mapping[str, Any]) -> None:
        """Of an evaluation."""

    def add_health(self, record: Mapping[str, Any]) -> None:
        """Of value health."""


class SeedFolder:
    """What one seed leaves: its metrics, its evaluations, its weights."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.metrics, self.evals = path / "metrics.jsonl", path / "evals.jsonl"
        self.health = path / "health.jsonl"
        self.best, self.last = path / "best", path / "last"

    @property
    def begun(self) -> bool:
        """Whether anything has been recorded."""
        return any(path.is_file() and path.stat().st_size for path in (self.metrics, self.evals))

    def add_metrics(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; it has ``lane_steps``."""
        with disk(self.metrics):
            files.append_line(self.metrics, record)

    def add_eval(self, record: Mapping[str, Any]) -> None:
        """Append a line to evals.jsonl; it has ``lane_steps``."""
        with disk(self.evals):
            files.append_line(self.evals, record)

    def add_health(self, record: Mapping[str, Any]) -> None:
        """Append a line to health.jsonl; it has ``lane_steps``."""
        with disk(self.health):
            files.append_line(self.health, record)

    def read_metrics(self) -> files.Lines:
        """All metrics so far."""
        return files.read_lines(self.metrics)

    def read_evals(self) -> files.Lines:
        """All evaluations so far."""
        return files.read_lines(self.evals)

    def read_health(self) -> files.Lines:
        """All records of value health so far."""
        return files.read_lines(self.health)

    def sync(self) -> None:
        """Make the records durable: a checkpoint presumes them, and nothing would write them again."""
        with disk(self.path):
            for path in (self.metrics, self.evals, self.health):
                files.sync(path)

    def cut(self, lane_steps: int) -> int:
        """Drop what was recorded after a checkpoint, so that going on doubles no line.

        Returns:
            How many lines went, torn ones included.
        """
        gone = 0
        with disk(self.path):
            for left in self.path.rglob(".tmp-*"):  # by a process that was killed while it wrote
                left.unlink()
        for path in (self.metrics, self.evals, self.health):
            records, torn = files.read_lines(path)
            kept = [record for record in records if record["lane_steps"] <= lane_steps]
            if len(kept) < len(records) or torn:
                gone += len(records) - len(kept) + torn
                with disk(path):
                    files.keep_lines(path, kept)
        return gone


class RunFolder:
    """A run folder that exists. `create_run` makes one, `find_run` finds one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def curve(self) -> Path:
        """Where the picture of the learning curves goes."""
        return self.path / "curve.png"

    @property
    def lag_picture(self) -> Path:
        """Of a run with async workers: how old the parameters were that acted."""
        return self.path / "lag.png"

    @property
    def health_picture(self) -> Path:
        """Where the picture of value health goes."""
        return self.path / "health.png"

    def config(self) -> Json:
        """config.json: the resolved configuration."""
        path = self._inside("config.json")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; {self.path} is no run folder") from error
        except ValueError as error:
            raise BadInput(f"{path}: damaged: {error}; begin anew with --fresh") from error
        if not isinstance(data, dict):
            raise BadInput(f"{path}: damaged: not a table; begin anew with --fresh")
        return data

    def summary(self) -> Json | None:
        """summary.json, or None where there is none yet."""
        try:
            summary: Json = json.loads(self._inside("summary.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return summary

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json in one step."""
        with disk(self.path):
            files.replace(self._inside("summary.json"), files.dump(summary, indent=2), "summary")

    def record_start(self, command: Sequence[str], **more: Any) -> None:
        """Add a line to provenance.jsonl: who started what, with which versions, where."""
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": list(command),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "machine": provenance.machine(),
            **more,
        }
        path = self._inside("provenance.jsonl")
        with disk(self.path):
            before = files.read_lines(path)
            if before.torn:  # a full disk; appended to, it would be a damaged line for ever
                files.keep_lines(path, before.records)
            files.append_line(path, record)

    def provenance(self) -> list[Json]:
        """Every start of this run, oldest first."""
        return files.read_lines(self._inside("provenance.jsonl")).records

    def seed(self, seed: int) -> SeedFolder:
        """The folder of a seed; made where it is missing."""
        return SeedFolder(self._folder(f"seed-{seed}"), seed)

    def seed_path(self, seed: int) -> Path:
        """Where a seed's folder is, whether or not it is there."""
        return self.path / f"seed-{seed}"

    def seeds(self) -> list[int]:
        """The seeds that have a folder, ascending."""
        found = (re.fullmatch(r"seed-(\d+)", path.name) for path in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def group(self, group: Group) -> Path:
        """The folder of a group; made where it is missing."""
        return self._folder("groups", str(group))

    def groups(self) -> list[Group]:
        """The groups that have a folder, ascending."""
        folder = self._inside("groups")
        if not folder.is_dir():
            return []
        found = (re.fullmatch(r"(\d+)-(\d+)", path.name) for path in folder.iterdir())
        return sorted(Group(int(match[1]), int(match[2])) for match in found if match)

    @contextlib.contextmanager
    def lock(self, group: Group) -> Iterator[None]:
        """Be the only process that trains these seeds; the kernel frees a dead process's lock.

        Raises:
            BadInput: another process has it, or another group has one of the seeds.
        """
        new = group not in self.groups()
        what = f"{self.path}: seeds {group} are being trained"
        with files.locked(self.group(group) / "lock", what):
            # Looked up after our own folder is there: of two processes at least one sees the other.
            self._check_overlap(group, new)
            yield

    def _check_overlap(self, group: Group, new: bool) -> None:
        for other in self.groups():
            if other != group and set(other.seeds) & set(group.seeds):
                if new:
                    (self.group(group) / "lock").unlink()
                    self.group(group).rmdir()
                raise BadInput(
                    f"{self.path}: seeds {other} were begun together; go on with --seed {other.first} "
                    f"--seeds {len(other.seeds)}, not with {group}"
                )

    def set_aside(self) -> Path:
        """Move the folder to ``<name>.old-<n>``; nothing is deleted."""
        with contextlib.ExitStack() as held:
            for group in self.groups():
                held.enter_context(self.lock(group))
            number = 1
            while (aside := self.path.with_name(f"{self.name}.old-{number}")).exists():
                number += 1
            with disk(self.path):
                self.path.rename(aside)
        return aside

    def _folder(self, *parts: str) -> Path:
        path = self.path
        for part in parts:
            path = path / part
            _refuse_symlink(path)
            with disk(path):
                path.mkdir(exist_ok=True)
        return path

    def _inside(self, name: str) -> Path:
        path = self.path / name
        _refuse_symlink(path)
        return path


def _refuse_symlink(path: Path) -> None:
    if path.is_symlink():
        raise BadInput(f"{path}: a symbolic link; a run folder holds its own files")


def create_run(out: str | Path, name: str, config: Mapping[str, Any]) -> RunFolder:
    """The run folder of a configuration: the one that is there, else a new one.

    Raises:
        BadInput: the name is no folder name, or the folder holds another configuration.
        DiskFault: nothing can be written there.
    """
    if not is_path_safe(name):
        raise BadInput(f"{name!r}: no name for a run folder")
    path = Path(out) / name
    _refuse_symlink(path)
    files.make_folder(path)
    with disk(path):
        run = RunFolder(path)
        if not (path / "config.json").exists():
            files.replace(path / "config.json", files.dump(config, indent=2), "config")
    if changed := difference(config, run.config()):
        raise BadInput(f"{path}: holds another configuration ({'; '.join(changed)}); use --fresh")
    return run


def set_aside(out: str | Path, name: str) -> Path | None:
    """Move a configuration's run folder aside; None where there is none. Nothing is deleted."""
    path = Path(out) / name
    _refuse_symlink(path)
    return RunFolder(path).set_aside() if is_path_safe(name) and path.is_dir() else None


def find_run(text: str, out: str | Path = "runs") -> RunFolder:
    """The run that somebody means: a path, a unique beginning of a folder's name, or ``last``.

    Raises:
        BadInput: none or several fit; the message lists what there is.
    """
    path = Path(text)
    if "/" in text or (path.is_dir() and not (Path(out) / text).is_dir()):
        return _open(path)
    if text != "last" and is_path_safe(text) and (Path(out) / text).is_dir():
        return _open(Path(out) / text)
    runs = _runs(Path(out))
    if not runs:
        raise BadInput(
            f"{text!r}: there are no runs in {out}; train one, or give the path of a run folder"
        )
    if text == "last":
        return RunFolder(max(runs, key=_started))
    fitting = [run for run in runs if run.name.startswith(text)]
    if len(fitting) == 1:
        return RunFolder(fitting[0])
    names = [run.name for run in runs]
    what = f"{len(fitting)} runs begin so" if fitting else f"no run begins so{nearest(text, names)}"
    raise BadInput(f"{text!r}: {what}; there are {_names(fitting or runs)}")


def _open(path: Path) -> RunFolder:
    _refuse_symlink(path)
    if not (path / "config.json").is_file():
        beside = [run.name for run in _runs(path.parent)] if not path.exists() else []
        raise BadInput(
            f"{path}: no run folder; name one that holds a config.json{nearest(path.name, beside)}"
        )
    return RunFolder(path)


def _runs(out: Path) -> list[Path]:
    """The run folders below ``out``, those set aside left out."""
    if not out.is_dir():
        return []
    return sorted(
        path
        for path in out.iterdir()
        if (path / "config.json").is_file()
        and not path.is_symlink()
        and not _ASIDE.search(path.name)
    )


def _started(run: Path) -> float:
    starts = run / "provenance.jsonl"
    return (starts if starts.exists() else run / "config.json").stat().st_mtime


def _names(runs: Sequence[Path], most: int = 8) -> str:
    names = ", ".join(run.name for run in runs[:most])
    return names + (f" and {len(runs) - most} more" if len(runs) > most else "")
