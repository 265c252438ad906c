"""TensorBoard's view of a run: event files made from metrics.jsonl, evals.jsonl and health.jsonl.

A derived view, so it is written anew as a whole each time: a resumed run doubles no point, and the
same records give the same bytes. Only the small ``tensorboard`` package is needed, not TensorFlow.
"""

from __future__ import annotations

import calendar
import importlib.util
import io
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runners import files, stats
from runners.errors import BadInput, disk
from runners.run_folder import RunFolder, SeedFolder

FOLDER = "tensorboard"
FILE = "events.out.tfevents.qlab"  # TensorBoard goes by the middle of the name
INSTALL = "pip install -c constraints.txt -e '.[tensorboard]'"
POSITION = ("lane_steps", "env_steps", "seconds")  # where a record stands, not what it says


def require() -> None:
    """Refuse ``--tensorboard`` where the package is missing, before any training.

    Raises:
        BadInput: how to install it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise BadInput(f"tensorboard: the package is not installed: {INSTALL}")


def write_events(run: RunFolder) -> None:
    """Write ``tensorboard/seed-<s>/`` of every seed; ``tensorboard --logdir runs`` shows them.

    The scalars of metrics.jsonl are ``train/<name>``, those of evals.jsonl ``eval/<name>``, of
    health.jsonl ``health/<name>``, shares of the time ``time/<part>``, with environment steps on the axis.

    Raises:
        BadInput: the package is missing.
        DiskFault: nothing can be written there.
    """
    require()
    start = _started(run)
    for seed in run.seeds():
        folder = run.path / FOLDER / f"seed-{seed}"
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.replace(folder / FILE, events_of(run.seed(seed), start), "events")


def events_of(seed: SeedFolder, start: float = 0.0) -> bytes:
    """The event file of a seed; ``start`` is the time at which its clock stood at 0 seconds."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    data = io.BytesIO()
    writer = RecordWriter(data)
    writer.write(Event(wall_time=start, file_version="brain.Event:2").SerializeToString())
    for record, scalars in _points(seed):
        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        event = Event(
            wall_time=start + record["seconds"],
            step=record["env_steps"],
            summary=Summary(value=values),
        )
        writer.write(event.SerializeToString())
    writer.flush()
    return data.getvalue()


def _points(seed: SeedFolder) -> Iterator[tuple[Mapping[str, Any], dict[str, float]]]:
    """Every record with its scalars by tag."""
    for record in seed.read_metrics().records:
        yield (
            record,
            dict(_scalars("train", record.items()))
            | dict(_scalars("time", record.get("time_shares", {}).items())),
        )
    for record in seed.read_evals().records:
        scalars = dict(_scalars("eval", record.items()))
        if record.get("confirmation"):
            scalars["eval/confirmation"] = stats.mean(record["confirmation"])
        yield record, scalars
    for record in seed.read_health().records:
        yield record, dict(_scalars("health", record.items()))


def _scalars(prefix: str, items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    """The numbers of a record; one that is not known yet is null there and has no point."""
    for name, value in items:
        if isinstance(value, int | float) and name not in POSITION:
            yield f"{prefix}/{name}", float(value)


def _started(run: RunFolder) -> float:
    """When the run was first started, in seconds since 1970; 0 where that was not kept."""
    starts = run.provenance()
    if not starts:
        return 0.0
    return float(calendar.timegm(time.strptime(starts[0]["time"], "%Y-%m-%dT%H:%M:%SZ")))
