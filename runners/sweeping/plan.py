"""What a sweep is to do: settings, where to look for better ones, on which seeds, for how long."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agents.hyper import kinds
from runners.config import Json, RunConfig, config_id, make_hyper, to_json
from runners.errors import BadInput
from runners.sweeping.space import Space, describe

Sampler = Literal["qmc", "random", "grid", "tpe"]
Pruner = Literal["none", "sha", "asha"]

ETA = 3
"""One trial of so many goes on at a rung, for so many times the steps."""
HALVINGS = 2
FRESH = 1_000
"""The first of the seeds on which the best settings are trained again."""
BASE = -1
"""The trial that is none: the settings as they were before the sweep."""


class Work(NamedTuple):
    """What one process is to do: train seeds of a trial up to a rung."""

    trial: int  # from 0 on, or `BASE`
    until: int  # lane steps
    first: int  # seed
    last: int

    @property
    def seeds(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1)


@dataclass(frozen=True)
class Plan:
    """A sweep. Its trials are a function of this, and with tpe or a pruner of their results."""

    base: RunConfig
    space: Space
    trials: int
    seeds: range
    sampler: Sampler = "qmc"
    pruner: Pruner = "none"
    draw_seed: int = 0
    final_seeds: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if self.base.until_solved:
            raise BadInput("until_solved: a sweep trains every trial equally long; leave it out")
        if self.seeds.stop > FRESH and self.seeds.start < FRESH + self.final_seeds:
            raise BadInput(
                f"seeds: got {self.seeds.start} to {self.seeds.stop - 1}; those from {FRESH:,} on are "
                "for the best settings in the end"
            )
        if self.sampler == "tpe" and self.pruner == "sha":
            raise BadInput(
                "pruner: sha compares all trials at once, and tpe learns from one what to try next; "
                "take asha"
            )
        if self.pruner != "none" and len(self.rungs) < 2:
            raise BadInput(
                f"pruner: there is no evaluation between the first gradient step and the end; got eval_every "
                f"{self.base.eval_every} of {self.base.steps} steps: take less, or more --steps"
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """Lane steps at which trials are compared: evaluations, and the end.

        None before the first gradient step: there all are alike.
        """
        steps, every = self.base.steps, self.base.eval_every
        if self.pruner == "none":
            return (steps,)
        early = [math.ceil(steps / ETA**k / every - 1e-9) * every for k in range(HALVINGS, 0, -1)]
        begins = getattr(self.base.hyper, "learning_starts", 0)
        return (*sorted({rung for rung in early if begins < rung < steps}), steps)

    @property
    def folder_name(self) -> str:
        """``sweep-<agent>-<env>-<digits>``: the same for more trials, which continue a sweep."""
        what = {
            "base": config_id(self.base),
            "space": [dimension.to_json() for dimension in self.space],
            "seeds": [self.seeds.start, len(self.seeds)],
            "sampler": self.sampler,
            "pruner": self.pruner,
            "draw_seed": self.draw_seed,
        }
        digits = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        env = re.sub(r"[^A-Za-z0-9._-]", "-", self.base.env)[:50]
        return f"sweep-{self.base.agent}-{env}-{digits}"

    @property
    def title(self) -> str:
        """What is searched on what."""
        return f"{self.base.agent} on {self.base.env}"

    def base_values(self) -> dict[str, Any]:
        """What the searched settings are without a sweep."""
        return {one.name: self._setting(one.name) for one in self.space}

    def _setting(self, name: str) -> Any:
        run = name in {field.name for field in dataclasses.fields(RunConfig)}
        return getattr(self.base if run else self.base.hyper, name)

    def config(self, values: Mapping[str, Any]) -> RunConfig:
        """The configuration of a trial; without values the sweep's own.

        Raises:
            BadInput: the values do not go together.
        """
        base, names = self.base, kinds(type(self.base.hyper))
        hyper = {name: getattr(base.hyper, name) for name in names}
        hyper |= {name: value for name, value in values.items() if name in names}
        run = {name: value for name, value in values.items() if name not in names}
        if "lanes" in run and base.block_size == base.lanes:
            run["block_size"] = run["lanes"]
        try:
            return dataclasses.replace(base, hyper=make_hyper(base.agent, hyper), **run)
        except ValueError as error:
            raise BadInput(f"{describe(values)}: {error}") from error

    def to_json(self) -> Json:
        """The plan as JSON values."""
        return {
            "config": to_json(self.base),
            "space": [dimension.to_json() for dimension in self.space],
            "searched": [str(dimension) for dimension in self.space],
            "trials": self.trials,
            "seeds": list(self.seeds),
            "sampler": self.sampler,
            "pruner": self.pruner,
            "rungs": list(self.rungs),
            "draw_seed": self.draw_seed,
            "final_seeds": list(range(FRESH, FRESH + self.final_seeds)),
        }

    def job_name(self, work: Work, values: Mapping[str, Any]) -> str:
        """What a process is called in panel, log and messages."""
        who = "as set" if work.trial == BASE else f"trial {work.trial}"
        what = "fresh seeds" if work.first == FRESH else describe(values)
        more = f" to {work.until}" * (work.until < self.base.steps)
        return f"{who}{more}: {what}"
