"""trials.jsonl: what was tried and what came of it, a line each; nothing in it is ever changed.

The ledger is the truth of a sweep: with the plan it says all that is known, and what to do next
follows from both. A kill loses at most what was not acknowledged; a line that broke off is dropped
before the next one is appended.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runners import files
from runners.config import Json
from runners.errors import RunFailed, disk
from runners.sweeping.plan import Work
from runners.sweeping.space import from_json


class Result(NamedTuple):
    """What a piece of work came to."""

    status: str  # done, failed or timeout
    scores: tuple[float, ...]  # one a seed; empty unless done
    seconds: float  # of its processes
    attempts: int  # processes that it took; 0: it had been trained before
    why: str  # why it is not done

    @property
    def score(self) -> float | None:
        """The mean over its seeds; None where it failed."""
        return float(np.mean(self.scores)) if self.status == "done" else None


class Ledger:
    """What is known of a sweep's trials; read when it is made, appended to as they end."""

    def __init__(self, path: Path) -> None:
        """Read it, and repair a last line that broke off; the caller holds the sweep's lock.

        Raises:
            RunFailed: a line in the middle is damaged.
            DiskFault: it cannot be repaired.
        """
        self.path = path
        self.values: list[Mapping[str, Any]] = []  # of each trial
        self.results: dict[Work, Result] = {}
        records, torn = files.read_lines(path)
        if torn:
            with disk(path):
                files.keep_lines(path, records)
        for number, record in enumerate(records, 1):
            try:
                self._take(record)
            except (KeyError, TypeError, ValueError) as error:
                raise RunFailed(f"{path}: line {number} is damaged: {error!r}") from error

    def _take(self, record: Json) -> None:
        if "values" in record:
            if record["trial"] != len(self.values):
                raise ValueError(f"trial {record['trial']} after {len(self.values)} trials")
            self.values.append({name: from_json(v) for name, v in record["values"].items()})
            return
        work = Work(record["trial"], record["until"], *record["seeds"])
        self.results[work] = Result(
            record["status"], tuple(record["scores"]), record["seconds"], record["attempts"],
            record["why"],
        )  # fmt: skip

    def propose(self, values: Mapping[str, Any]) -> int:
        """Add a trial; gives its number."""
        number = len(self.values)
        self._append({"trial": number, "values": dict(values)})
        self.values.append(values)
        return number

    def record(self, work: Work, result: Result) -> None:
        """Add what a piece of work came to."""
        what = {"trial": work.trial, "until": work.until, "seeds": [work.first, work.last]}
        self._append({**what, **result._asdict()})
        self.results[work] = result

    def forget_failures(self) -> None:
        """What was not done is to be tried again; a later line is what counts."""
        self.results = {
            work: result for work, result in self.results.items() if result.status == "done"
        }

    def _append(self, record: Json) -> None:
        with disk(self.path):
            files.append_line(self.path, record)
