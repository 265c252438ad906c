"""Which parts an agent is made of, and what each does: switched off in turn, and alone on plain DQN.

A *switch* is a field of the agent's hyperparameters whose default is not DQN's, with the companions
that belong to it. All else, learning rate and preset included, is the same in every series, so that
one switch is all that two series differ by.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents import AGENTS
from runners import stats
from runners.bootstrap import aggregates
from runners.config import RunConfig, hyper_class, make_hyper
from runners.errors import BadInput
from runners.permutation import holm, sign_flip_test
from runners.series import Trained

PLAIN = "dqn"
SWITCHES: Mapping[str, tuple[str, ...]] = {
    "double": (),
    "munchausen": ("munchausen_alpha", "munchausen_tau", "munchausen_floor"),
    "dueling": (),
    "distributional": ("atoms", "v_min", "v_max"),
    "value_rescale": (),
    "prioritized": ("priority_alpha", "actor_priorities", "priority_beta", "priority_beta_steps"),
    "noisy": ("noisy_sigma", "epsilon_start", "epsilon_end"),  # either explores
    "dropout": (),
    "n_step": (),
    "layer_norm": (),
    "memory": ("memory_size", "context", "sequence_length", "burn_in"),
    "epsilon_ladder": ("epsilon_start", "epsilon_end"),  # which the ladder keeps
}
"""Switches of DQN's family and the fields that belong to each; a new one is one line more."""

Kind = Literal["full", "without", "plain", "with"]


@dataclass(frozen=True)
class Series:
    """One configuration of an ablation, or why there can be none."""

    kind: Kind
    switch: str  # the field that is off, or on alone; empty of the agent and of plain DQN
    label: str
    config: RunConfig | None
    refused: str = ""

    @property
    def base(self) -> Kind | None:
        """What it is compared with: the agent, or plain DQN if it stands on that."""
        bases: dict[Kind, Kind] = {"without": "full", "plain": "full", "with": "plain"}
        return bases.get(self.kind)


def switches_of(hyper: Any) -> list[str]:
    """The switches that an agent's hyperparameters have on, of those that its class sets otherwise."""
    plain, cls = hyper_class(PLAIN)(), type(hyper)
    if not isinstance(hyper, type(plain)):
        return []
    own = cls()
    return [
        name
        for name in SWITCHES
        if getattr(own, name) != getattr(plain, name) != getattr(hyper, name)
    ]


def plan(config: RunConfig) -> list[Series]:
    """The agent, the agent without each switch, plain DQN, and plain DQN with each switch.

    An agent of one switch is plain DQN without it.

    Raises:
        BadInput: the agent has no switch, or stops where it has solved the environment.
    """
    on = switches_of(config.hyper)
    if not on:
        raise BadInput(f"{config.agent} has no switches of DQN's family to turn off; {_others()}")
    if config.until_solved:
        raise BadInput("until_solved: an ablation trains every series equally long; leave it out")
    several = on if len(on) > 1 else []
    return [
        Series("full", "", config.agent, config),
        *(_series("without", name, config, [one for one in on if one != name]) for name in several),
        _series("plain", "", config, []),
        *(_series("with", name, config, [name]) for name in several),
    ]


def _series(kind: Kind, switch: str, config: RunConfig, on: Sequence[str]) -> Series:
    """The agent, or plain DQN, with these of its switches on; the others are as DQN has them."""
    agent = config.agent if kind == "without" else PLAIN
    words = {"without": "without", "with": f"{PLAIN} and", "plain": f"{PLAIN}, without all"}
    label = f"{words[kind]} {_called(switch, config.hyper)}" if switch else words[kind]
    defaults = hyper_class(PLAIN)()
    values = {f.name: getattr(config.hyper, f.name) for f in dataclasses.fields(hyper_class(agent))}
    for name in switches_of(config.hyper):
        if name not in on:
            values |= {field: getattr(defaults, field) for field in (name, *SWITCHES[name])}
    try:
        hyper = make_hyper(agent, values)
        made = dataclasses.replace(config, agent=agent, hyper=hyper)
    except ValueError as error:
        return Series(kind, switch, label, None, str(error))
    return Series(kind, switch, label, made)


def _called(switch: str, hyper: Any) -> str:
    """A switch by its name; by its value where that says more."""
    value, name = getattr(hyper, switch), switch.replace("_", "-")
    return name if value is True else value if isinstance(value, str) else f"{name} {value}"


def _others() -> str:
    names = [name for name, entry in AGENTS.items() if not entry.tabular]
    fitting = [name for name in names if switches_of(hyper_class(name)())]
    return f"take one of {', '.join(fitting)}"


# -- What came out -------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a series came to; None where it was refused or there is nothing to compare."""

    series: Series
    run: Trained | None
    mean: float
    interval: stats.Interval  # t over seeds
    iqm: float
    iqm_interval: stats.Interval  # bootstrap over seeds
    difference: stats.Difference | None  # to its base, seed by seed
    p: float | None  # of that difference, by swapping seeds; Holm's, over all series
    time_ratio: float | None  # seconds a step, over its base's


def compare(series: Sequence[Series], runs: Sequence[Trained | None]) -> list[Outcome]:
    """Each series beside its base; the runs in the same order, all of the same seeds."""
    by_kind = {one.kind: run for one, run in zip(series, runs, strict=True)}
    outcomes = [
        _outcome(one, run, by_kind[one.base] if one.base else None)
        for one, run in zip(series, runs, strict=True)
    ]
    adjusted = iter(holm([outcome.p for outcome in outcomes if outcome.p is not None]))
    return [
        outcome if outcome.p is None else outcome._replace(p=float(next(adjusted)))
        for outcome in outcomes
    ]


def _outcome(series: Series, run: Trained | None, base: Trained | None) -> Outcome:
    returns: NDArray[np.float64] = np.array([]) if run is None else run.returns
    iqm = stats.Interval(math.nan, math.nan)
    difference, p = None, None
    if len(returns) > 1:
        # the same draws for every series: what they show apart is not the bootstrap's own noise
        figures = {"IQM": stats.AGGREGATES["IQM"]}
        iqm = aggregates({"": returns}, np.random.default_rng(0), figures=figures)["IQM"].interval
    if run and base:
        difference = stats.paired_difference(returns, base.returns)
        if len(returns) > 1:
            p = sign_flip_test({"": returns}, {"": base.returns}, np.random.default_rng(0))
    return Outcome(
        series,
        run,
        stats.mean(returns),
        stats.t_interval(returns),
        float(stats.interquartile_mean(returns)),
        iqm,
        difference,
        p,
        _time_ratio(run, base) if run and base else None,
    )


def _time_ratio(run: Trained, base: Trained) -> float | None:
    """Unknown where they were trained in different groups: a seed costs less among others."""
    if run.groups != base.groups or not base.seconds_per_step:
        return None
    return run.seconds_per_step / base.seconds_per_step


def to_json(outcome: Outcome) -> dict[str, Any]:
    """A series for ablation.json."""
    series, run, difference = outcome.series, outcome.run, outcome.difference
    return {
        "kind": series.kind,
        "switch": series.switch or None,
        "label": series.label,
        "run": run.folder.name if run else None,
        "refused": series.refused or None,
        "per_seed": run.returns.tolist() if run else None,
        "mean": outcome.mean,
        "interval": outcome.interval,
        "iqm": outcome.iqm,
        "iqm_interval": outcome.iqm_interval,
        "compared_with": series.base,
        "difference": difference.mean if difference else None,
        "difference_interval": difference.interval if difference else None,
        "p_holm": outcome.p,
        "seconds_per_env_step": run.seconds_per_step if run else None,
        "time_ratio": outcome.time_ratio,
    }
