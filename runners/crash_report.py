"""The report that a run leaves when a simulator fails: what led there, so that it can be replayed.

A report is one JSON file. Anybody may have written one: it is read field by field, arrays travel as
safetensors in base64, and nothing in it is code.
"""

from __future__ import annotations

import base64
import json
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from envs.contract import Array, SimulatorError
from runners import files, provenance
from runners.errors import BadInput, DiskFault, disk
from runners.journal import Field, Journal, Point, Purpose, pack, unpack

if TYPE_CHECKING:
    from runners.config import RunConfig

FORMAT = 1
LIMIT = 64 << 20  # bytes of a report; a full journal and a state at its limit have less
LAST_ROWS = 8  # of the actions, to be read by people


class Simulated(NamedTuple):
    """What `envs.make` takes, and in what rewards are kept."""

    env: str
    backend: str
    options: Mapping[str, Any]
    reward_dtype: str  # float32 or float64


@dataclass(frozen=True)
class Report:
    """What went wrong, of which simulator, and how it came about; n lanes a block."""

    format: int
    fault: str
    """all of it in one line"""
    env: str
    backend: str
    options: dict[str, Any]
    lanes: int
    """n, those of the block"""
    seed: int | None
    """the agent's; None: before there was an agent"""
    block: int
    """of this seed"""
    purpose: str
    simulator_seed: int
    """the one that it was made with"""
    first_lane: int
    """the number of the block's lane 0 among those of the group"""
    lane: int
    """the one that failed, counted from first_lane on"""
    step: int
    what: str
    traceback: str
    last_actions: list[Any]
    """those before the fault, up to 8 rows [n, ...]"""
    complete: bool
    """whether the actions lead from the point to the fault"""
    point: str
    """where they begin: unknown, made, reset, state"""
    point_seed: int | None
    """of the reset; None: a bare one"""
    point_step: int
    first_step: int
    """of the first action"""
    reset_seed: int | None
    """of the reset in which it failed"""
    reset_step: int | None
    """None: it did not fail in a reset"""
    reward_dtype: str
    versions: dict[str, Any]
    actions: str
    """[rows, n, ...], packed"""
    state: str | None
    """packed"""

    def unpacked_actions(self) -> Array:
        """[rows, n, ...]."""
        return np.asarray(unpack(base64.b64decode(self.actions)))

    def unpacked_state(self) -> Any:
        """The state that is the point."""
        return unpack(base64.b64decode(self.state or ""))


def packed(value: Any) -> str:
    """A state or an array as a report has it."""
    return base64.b64encode(pack(value)).decode()


def report_of(
    simulated: Simulated, journal: Journal, what: str, told: str, lane: int, step: int | None = None
) -> Report:
    """A report from a journal, whoever wrote it and whether or not that process is still there.

    Args:
        simulated: which environment.
        journal: of the block that failed.
        what: what it did wrong: "step raised ...", or "its process died (killed by signal 11)".
        told: a traceback, or whatever else is known.
        lane: the one that failed, as messages count.
        step: at which step; None: the last that it was asked for.
    """
    step = max(0, journal.last_step) if step is None else step  # 0: it was asked for nothing yet
    reset, point = journal.pending, journal.point_reset
    # a reset that failed comes after all actions; a number is looked at some rows later
    first_step, actions = journal.since_point(None if reset else step)
    state = journal.packed_state
    return Report(
        format=FORMAT,
        fault=" ".join(one_text(str(SimulatorError(simulated.env, lane, step, what))).split()),
        env=simulated.env,
        backend=simulated.backend,
        options=dict(simulated.options),
        lanes=journal[Field.LANES],
        seed=None if journal[Field.SEED] < 0 else journal[Field.SEED],
        block=journal[Field.BLOCK],
        purpose=Purpose(journal[Field.PURPOSE]).name.lower(),
        simulator_seed=journal[Field.SIMULATOR_SEED],
        first_lane=journal[Field.FIRST_LANE],
        lane=lane,
        step=step,
        what=one_text(what),
        traceback=one_text(told),
        last_actions=actions[-LAST_ROWS:].tolist(),
        complete=journal.complete,
        point=journal.point.name.lower(),
        point_seed=point.seed,
        point_step=point.step,
        first_step=first_step,
        reset_seed=reset.seed if reset else None,
        reset_step=reset.step if reset else None,
        reward_dtype=simulated.reward_dtype,
        versions=provenance.versions(),
        actions=packed(actions),
        state=None if state is None else base64.b64encode(state).decode(),
    )


def one_text(text: str) -> str:
    """The text as it comes back from a file: what UTF-8 cannot write, as an exception's words may be."""
    return text.encode(errors="backslashreplace").decode()


def simulated_by(config: RunConfig, purpose: Purpose) -> Simulated:
    """What a run of this configuration steps for this purpose."""
    from runners.config import AGENTS

    async_lanes = purpose == Purpose.EVALUATION and config.backend == "async"
    return Simulated(
        config.env,
        "sync" if async_lanes else config.backend,
        config.env_options,
        "float64" if AGENTS[config.agent].tabular else "float32",
    )


@contextmanager
def reported(folder: Callable[[], Path], config: RunConfig) -> Iterator[None]:
    """Leave a report of a simulator's fault in a folder, and say so in the error's line."""
    try:
        yield
    except SimulatorError as error:
        if error.journal is None:
            raise
        journal: Journal = error.journal
        report = report_of(
            simulated_by(config, Purpose(journal[Field.PURPOSE])), journal, error.what,
            "".join(traceback.format_exception(error)), error.lane, error.step,
        )  # fmt: skip
        told = left(folder, report)
        whole = SimulatorError(error.env_id, error.lane, error.step, f"{error.what}; {told}")
        raise whole from error


def left(folder: Callable[[], Path], report: Report) -> str:
    """Leave a report in a folder; what to say of it."""
    try:
        path = write(folder(), report)
    except (DiskFault, BadInput) as refused:  # the fault is what matters
        return f"no crash report: {refused}"
    if not report.complete:
        return f"what is known of it is in {path}"
    return f"replay it: python -m runners.replay_crash {path}"


def write(folder: Path, report: Report) -> Path:
    """Write ``crash-<n>.json``, the first that is not there.

    Raises:
        DiskFault: the disk refused.
    """
    data, number = files.dump(asdict(report), indent=1), 1
    with disk(folder):
        while True:
            path = folder / f"crash-{number}.json"
            try:
                files.write_new(path, data, "crash")
                return path
            except FileExistsError:
                number += 1


# -- Reading -------------------------------------------------------------------------------------


def read(path: Path) -> Report:
    """A report from a file that anybody may have written.

    Raises:
        BadInput: it is none; the message says which field and why.
    """
    try:
        if not path.is_file():
            raise BadInput(f"{path}: no such file; name a crash-<n>.json of a run's groups folder")
        if path.stat().st_size > LIMIT:
            raise BadInput(f"{path}: no crash report: larger than {LIMIT >> 20} MiB")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: no crash report: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: no crash report: no JSON object")
    if content.get("format") != FORMAT:
        raise BadInput(
            f"{path}: no crash report of format {FORMAT}: format is {content.get('format')!r}"
        )
    names = [field.name for field in fields(Report)]
    for name in names:
        takes, right = _TAKES[name]
        if name not in content:
            raise BadInput(f"{path}: no crash report: {name} is missing")
        if not right(content[name]):
            raise BadInput(f"{path}: {name}: got {_short(content[name])}, takes {takes}")
    report = Report(**{name: content[name] for name in names})
    _check_whole(path, report)
    return report


def _check_whole(path: Path, report: Report) -> None:
    """What no field alone shows."""
    if not 0 <= report.lane - report.first_lane < report.lanes:
        raise BadInput(f"{path}: lane: got {report.lane}, which is not one of the block's")
    try:
        actions = report.unpacked_actions()
        if report.state is not None:
            report.unpacked_state()
    except Exception as error:  # safetensors, base64, JSON and numpy have one each
        raise BadInput(f"{path}: actions or state are damaged ({type(error).__name__})") from error
    if actions.ndim < 2 or actions.shape[1] != report.lanes or actions.dtype.kind not in "iuf":
        raise BadInput(f"{path}: actions: got {actions.dtype}{actions.shape}, takes a row a step")
    if (report.point == "state") != (report.state is not None):
        raise BadInput(f"{path}: state: the point is {report.point!r}, which does not fit to it")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_whole_or_none(value: Any) -> bool:
    return value is None or _is_whole(value)


def _is_option(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or _is_finite(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_option, value.values()))


def _one_of(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words


_TEXT = "a text", _is_text
_WHOLE = "a whole number of at least 0", _is_whole
_WHOLE_OR_NONE = "a whole number of at least 0, or null", _is_whole_or_none
_MOST_LANES = 1 << 20
_TAKES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format": _WHOLE,
    "fault": _TEXT,
    "env": _TEXT,
    "backend": _TEXT,
    "options": ("names with a text, a finite number, a truth value or null", _is_options),
    "lanes": (f"1 to {_MOST_LANES}", lambda n: _is_whole(n) and 1 <= n <= _MOST_LANES),
    "seed": _WHOLE_OR_NONE,
    "block": _WHOLE,
    "purpose": _one_of(*(purpose.name.lower() for purpose in Purpose)),
    "simulator_seed": _WHOLE,
    "first_lane": _WHOLE,
    "lane": _WHOLE,
    "step": _WHOLE,
    "what": _TEXT,
    "traceback": _TEXT,
    "last_actions": ("a list", lambda value: isinstance(value, list)),
    "complete": ("true or false", lambda value: isinstance(value, bool)),
    "point": _one_of(*(point.name.lower() for point in Point)),
    "point_seed": _WHOLE_OR_NONE,
    "point_step": _WHOLE,
    "first_step": _WHOLE,
    "reset_seed": _WHOLE_OR_NONE,
    "reset_step": _WHOLE_OR_NONE,
    "reward_dtype": _one_of("float32", "float64"),
    "versions": ("an object", lambda value: isinstance(value, dict)),
    "actions": _TEXT,
    "state": ("a text or null", lambda value: value is None or isinstance(value, str)),
}
