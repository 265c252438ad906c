"""Which values a sweep tries: a grid, places drawn at random or evenly spread, or what TPE proposes.

The first three know all trials before any of them has run, and more trials begin with the same ones.
TPE's k-th trial is a function of the values of all before it and of the results of those that are at
least ``ahead`` before it, whichever of the others have ended by then: so neither the number of
processes nor a kill in between changes what is tried.

Optuna only proposes: its study is built in memory from our own ledger, and its storage is not used. A
journal of Optuna's that a kill has torn can never be read again; in its SQLite database a killed trial
stays under way until its heart is found to have stopped; in both the order in which processes end
decides what is tried next; and either would be a second truth beside the run folders.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from runners.errors import BadInput
from runners.grid import MOST, combinations
from runners.sweeping.space import Dimension, Space, distinct_values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Values = Mapping[str, Any]
MOST_DRAWS = 50  # of places for each trial, until as many different ones are found
STARTUP = 10
"""Trials that TPE draws at random: its own default."""


def independent(space: Space, sampler: str, trials: int, draw_seed: int) -> list[Values]:
    """The values of so many trials, all different; fewer where there are no more.

    Args:
        space: what is searched.
        sampler: grid (all combinations, whatever ``trials`` says), random, or qmc: a scrambled Sobol
            sequence, which leaves no large gaps (Owen 1998; Bergstra & Bengio 2012, section 4.2, on
            why either beats a grid).
        trials: how many.
        draw_seed: another one gives other values.
    """
    if sampler == "grid":
        return list(combinations({one.name: one.choices for one in space}))
    possible = math.prod(one.size for one in space)
    wanted = int(min(trials, possible))
    # twice as many of either sequence begin with the same ones
    number = wanted
    while True:
        found = distinct_values(_at(space, sampler, number, draw_seed))
        if len(found) >= wanted or number > MOST_DRAWS * wanted:
            return found[:wanted]
        number *= 2


def grid_size(space: Space) -> int:
    """How many combinations a grid has.

    Raises:
        BadInput: a setting has a range without a number of values, or they are too many.
    """
    for one in space:
        if one.scale != "choice":
            raise BadInput(f"--set {one.name}: a grid takes values, or how many: --set {one}:5")
    size = math.prod(len(one.choices) for one in space)
    if size > MOST:
        raise BadInput(f"--set: {size:,} combinations, takes at most {MOST:,}")
    return size


def _at(space: Space, sampler: str, number: int, draw_seed: int) -> list[Values]:
    if sampler == "random":
        places = np.random.default_rng(draw_seed).random((number, len(space)))
    else:
        # torch is there already; scipy.stats would take a second to import
        from torch import float64
        from torch.quasirandom import SobolEngine

        engine = SobolEngine(len(space), scramble=True, seed=draw_seed)  # type: ignore[no-untyped-call]
        places = engine.draw(number, dtype=float64).numpy()
    return [
        {one.name: one.at(float(u)) for one, u in zip(space, row, strict=True)} for row in places
    ]


# -- TPE -----------------------------------------------------------------------------------------


class Told(NamedTuple):
    """What a sampler may know of a trial; no score of one that failed."""

    values: Values
    score: float | None
    until: int  # lane steps at which that is its score
    whole: bool  # it has trained to the end


def require_optuna() -> None:
    """Say what to install where TPE cannot be had."""
    if importlib.util.find_spec("optuna") is None:
        raise BadInput(
            "sampler: tpe takes optuna: pip install -c constraints.txt -e '.[sweep]'; or take --sampler qmc"
        )


def propose_tpe(
    space: Space, known: Sequence[Told], pending: Sequence[Values], draw_seed: int
) -> Values | None:
    """The next values by TPE (Bergstra et al. 2011); None where all there are have been tried.

    Trials that are under way count as bad ones, or it would propose their neighbours ("constant
    liar"); one that failed is worse than any.

    Args:
        space: what is searched.
        known: trials whose results may be known, in their order.
        pending: values of those that follow.
        draw_seed: of the sweep.
    """
    import optuna

    tried = {tuple(one.values()) for one in [*(told.values for told in known), *pending]}
    if len(tried) >= math.prod(one.size for one in space):
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # the seed of this very proposal, so that it does not depend on what was asked in this process
    seeds = np.random.SeedSequence([draw_seed, len(known) + len(pending)]).generate_state(2)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=STARTUP, constant_liar=True, seed=int(seeds[0])
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {one.name: _distribution(one) for one in space}
    study.add_trials([*_frozen(space, distributions, known, pending)])
    for _ in range(MOST_DRAWS):
        asked = study.ask(distributions)
        values = {one.name: _value(one, asked.params[one.name]) for one in space}
        if tuple(values.values()) not in tried:
            return values
    return _untried(space, tried, int(seeds[1]))


def _untried(space: Space, tried: set[tuple[Any, ...]], seed: int) -> Values | None:
    """Any values that were not tried, where TPE insists on some that were."""
    generator = np.random.default_rng(seed)
    for _ in range(MOST):
        values = {one.name: one.at(float(generator.random())) for one in space}
        if tuple(values.values()) not in tried:
            return values
    return None


def _distribution(one: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.scale == "choice":
        return CategoricalDistribution(range(len(one.choices)))  # places: values may be tuples
    log = one.scale == "log"
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=log)
    return FloatDistribution(one.low, one.high, log=log)


def _value(one: Dimension, param: Any) -> Any:
    return one.choices[param] if one.scale == "choice" else one.rounded(param)


def _param(one: Dimension, value: Any) -> Any:
    return one.choices.index(value) if one.scale == "choice" else value


def _frozen(
    space: Space,
    distributions: Mapping[str, BaseDistribution],
    known: Sequence[Told],
    pending: Sequence[Values],
) -> Iterator[FrozenTrial]:
    from optuna.trial import TrialState, create_trial

    def params(values: Values) -> dict[str, Any]:
        return {one.name: _param(one, values[one.name]) for one in space}

    for told in known:
        whole = told.whole and told.score is not None
        yield create_trial(
            state=TrialState.COMPLETE if whole else TrialState.PRUNED,
            value=told.score if whole else None,
            intermediate_values={} if told.score is None else {told.until: told.score},
            params=params(told.values),
            distributions=dict(distributions),
        )
    for values in pending:
        yield create_trial(
            state=TrialState.RUNNING, params=params(values), distributions=dict(distributions)
        )
