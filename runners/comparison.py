"""Which agent is better, and how sure that is: figures of each, every pair, and a verdict in words."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from runners import learning_speed, references, stats
from runners.bootstrap import Estimate, aggregate_difference, aggregates
from runners.console import human
from runners.errors import BadInput
from runners.improvement import probability_of_improvement
from runners.permutation import holm, sign_flip_test
from runners.scores import Curve, Entry, Field, Floats
from runners.sequential import Decision, sequential_test
from runners.stats import AGGREGATES, Aggregate, Difference, Scores

LEVEL = 0.95
LOOKED = (
    "seeds that are added since nothing was decided are a further look, which errs more often than one "
    "in 20: plan looks from the start with --until-decided, or take fresh seeds alone"
)
DRAWS, LEAST_DRAWS = 100_000, 10_000  # of seeds, for all pairs together, and for one
SAME_BUDGET = 0.02  # a rollout more or less is no other budget


class Pair(NamedTuple):
    """Two agents; ``better`` names the one that is, None where chance may have made the difference."""

    a: str
    b: str
    difference: Estimate  # of the deciding figure
    p: float  # of it, by swapping seeds; Holm's, over all pairs
    improvement: Estimate  # probability that a run of a beats one of b
    by_env: Mapping[str, Difference]  # raw means, seed by seed
    better: str | None
    more_seeds: int | None  # of each, until it is decided; None: no number would at this effect
    looks: Decision | None = None  # where seeds were added until it was decided


class Comparison(NamedTuple):
    """All that is told about a field of agents."""

    field: Field
    figure: str  # that decides: "IQM" over environments, and of one too
    unit: str  # "normalised" or "return"
    scales: Mapping[str, references.Scale]  # by environment, where scores are normalised
    figures: Mapping[str, Mapping[str, Estimate]]  # by agent
    pairs: Sequence[Pair]
    notes: Sequence[str]  # what to keep in mind

    @property
    def scaled(self) -> Mapping[str, dict[str, Floats]]:
        """The scores of each agent in the unit of the figures."""
        return {agent: scaled(self.field, agent, self.scales) for agent in self.field.agents}

    def pair(self, a: str, b: str) -> Pair:
        """The pair of these two, in either order."""
        return next(pair for pair in self.pairs if {pair.a, pair.b} == {a, b})


def compare(
    field: Field, figure: str = "IQM", planned: Sequence[int] = (), against_first: bool = False
) -> Comparison:
    """Every agent's figures and every pair's difference, at equal budgets and on common seeds.

    One environment is compared in its own returns. Several are normalised: 0 is what acting at random
    gets and 1 a public reference's score, or where none is known the lowest and highest score seen.

    Args:
        field: the agents.
        figure: what decides, one of `runners.stats.AGGREGATES` of which more is better.
        planned: numbers of seeds at which one looks whether all is decided, and else adds seeds; they
            share the error that one look would have (`runners.sequential`). None: this look is all.
        against_first: compare the others with the first agent alone, not with each other: fewer
            questions at once, so that each is decided by fewer seeds.

    Raises:
        BadInput: an environment has other options for another agent; there is no common budget, fewer
            than two common seeds, a score that is no number, or an environment without a reference where
            several are looked at more than once.
    """
    check_options(field)
    field, notes = at_common_budget(*on_common_seeds(field))
    notes += [*left_out(field), *other_episodes(field), *other_code(field)]
    scales: dict[str, references.Scale] = {}
    if len(field.envs) > 1:
        scales = {env: _scale(field, env) for env in field.envs}
        strange = [env for env, scale in scales.items() if scale.source == references.SEEN]
        if strange and planned:
            raise BadInput(
                f"until-decided: {strange[0]} has no reference, and a scale that moves with every seed "
                "decides nothing; compare on it alone"
            )
        notes += [
            f"{env}: no reference is known, so 0 and 1 are the lowest and the highest score seen"
            for env in strange
        ]
    scores = {agent: scaled(field, agent, scales) for agent in field.agents}
    try:
        if few := next((told for one in scores.values() if (told := stats.few_seeds(one))), None):
            notes.append(few)
        figures = {agent: _figures(one, bool(scales)) for agent, one in scores.items()}
        met = [
            (a, b)
            for a, b in itertools.combinations(field.agents, 2)
            if a == field.agents[0] or not against_first
        ]
        pairs = _pairs(field, scores, AGGREGATES[figure], met)
        if planned:
            pairs = [
                _looked_at(pair, scores, AGGREGATES[figure], planned, len(pairs)) for pair in pairs
            ]
    except ValueError as error:
        raise BadInput(str(error)) from None
    if any(pair.better is None for pair in pairs):
        notes.append(LOOKED)
    unit = "normalised" if scales else "return"
    return Comparison(field, figure, unit, scales, figures, pairs, notes)


def scaled(field: Field, agent: str, scales: Mapping[str, references.Scale]) -> dict[str, Floats]:
    """An agent's scores by environment, normalised where there are scales."""
    return {
        env: scales[env].normalise(values) if scales else values
        for env, values in field.scores(agent).items()
    }


def _scale(field: Field, env: str) -> references.Scale:
    known = references.of(env)
    return known or references.seen([field.entries[agent, env].finals for agent in field.agents])


def _figures(scores: Scores, normalised: bool) -> dict[str, Estimate]:
    """The same draws for every agent: what they show apart is not the bootstrap's own noise."""
    names = list(AGGREGATES) if normalised else ["IQM", "mean"]
    chosen = {name: AGGREGATES[name] for name in names}
    return aggregates(scores, np.random.default_rng(0), LEVEL, figures=chosen)


def _pairs(
    field: Field,
    scores: Mapping[str, Scores],
    figure: Aggregate,
    met: Sequence[tuple[str, str]],
) -> list[Pair]:
    # about as many draws in all, however many pairs there are; and enough for Holm's first step
    part = max(LEAST_DRAWS, DRAWS // len(met), 40 * len(met))
    alone = [
        sign_flip_test(scores[a], scores[b], np.random.default_rng(0), figure, swaps=part - 1)
        for a, b in met
    ]
    made = []
    for (a, b), p in zip(met, holm(alone), strict=True):
        difference = aggregate_difference(
            scores[a], scores[b], np.random.default_rng(0), figure, resamples=part
        )
        decided = p <= 1 - LEVEL and difference.value != 0
        by_env = {
            env: stats.paired_difference(field.scores(a)[env], field.scores(b)[env], LEVEL)
            for env in field.envs
        }
        made.append(
            Pair(
                a, b, difference, float(p), probability_of_improvement(scores[a], scores[b], LEVEL),
                by_env, (a if difference.value > 0 else b) if decided else None,
                None if decided else _more_seeds(difference, scores[a], len(met)),
            )
        )  # fmt: skip
    return made


def _looked_at(
    pair: Pair, scores: Mapping[str, Scores], figure: Aggregate, planned: Sequence[int], pairs: int
) -> Pair:
    """The pair as a test says that may look several times; each of the pairs has its part of the error."""
    a, b = scores[pair.a], scores[pair.b]
    level = 1 - (1 - LEVEL) / pairs
    looks = sequential_test(a, b, planned, np.random.default_rng(0), level, figure)
    # what is told is what decided: seeds that came later, for other pairs, may say something else
    last = looks.looks[-1].seeds
    a, b = ({env: values[:last] for env, values in scores.items()} for scores in (a, b))
    difference = aggregate_difference(
        a, b, np.random.default_rng(0), figure, level=max(LEVEL, looks.level)
    )
    return pair._replace(
        difference=difference,
        improvement=probability_of_improvement(a, b, LEVEL),
        better={"a": pair.a, "b": pair.b, None: None}[looks.better],
        more_seeds=None if looks.better else _more_seeds(difference, a, pairs),
        looks=looks,
    )


def _more_seeds(difference: Estimate, scores: Scores, pairs: int) -> int | None:
    """How many more seeds would decide a pair that is not decided; None where none would.

    Each of the pairs has its part of the error, as in Holm's first step.
    """
    seeds = min(len(values) for values in scores.values())
    level = 1 - (1 - LEVEL) / pairs
    more = stats.more_seeds(difference.value, difference.error, seeds, level)
    if more is None:
        return None
    # all swaps of n pairs give 2 / 2ⁿ at the least, which Holm's first step multiplies
    least = math.ceil(math.log2(2 * pairs / (1 - LEVEL)) / len(scores))
    return max(more, least - seeds, 1)


# -- Equal terms ---------------------------------------------------------------------------------


def check_options(field: Field) -> None:
    """Refuse agents that met environments of one name and not of one kind; files do not say."""
    for env in field.envs:
        options = {
            agent: entry.config.get("env_options", {})
            for agent in field.agents
            if (entry := field.entries[agent, env]).config is not None
        }
        first = next(iter(options), "")
        for agent, here in options.items():
            if here != options[first]:
                raise BadInput(
                    f"{env}: env_options: got {options[first]} of {first} and {here} of {agent}; all "
                    "agents take the same environments"
                )


def on_common_seeds(field: Field) -> tuple[Field, list[str]]:
    """The same agents on the seeds that all of them have, environment by environment."""
    notes, entries = [], dict(field.entries)
    for env in field.envs:
        here = [field.entries[agent, env] for agent in field.agents]
        common = sorted(set.intersection(*(set(entry.seeds) for entry in here)))
        if len(common) < 2:
            raise BadInput(
                f"{env}: {len(common)} seeds that all agents have; takes at least 2, the same of all"
            )
        if any(len(entry.seeds) > len(common) for entry in here):
            notes.append(f"{env}: seeds differ; compared on the {len(common)} that all have")
            for agent in field.agents:
                entries[agent, env] = entries[agent, env].only(common)
    return field._replace(entries=entries), notes


def at_common_budget(field: Field, notes: list[str]) -> tuple[Field, list[str]]:
    """The same agents with the scores that they had when the run with the least budget ended.

    Where budgets are the same, the scores stay what they are: episodes of the last weights. Those of
    runs that stop where they have solved it differ from seed to seed. An evaluation up to `SAME_BUDGET`
    later is as good as one at the end.
    """
    entries = dict(field.entries)
    for env in field.envs:
        here = {agent: field.entries[agent, env] for agent in field.agents}
        ends = [curve.env_steps[-1] for entry in here.values() for curve in entry.curves]
        if not all(entry.curves for entry in here.values()):
            if ends:
                notes.append(f"{env}: budgets are not all known; taken to be equal")
            continue
        least, most = float(min(ends)), float(max(ends))
        if most - least <= SAME_BUDGET * most:
            continue
        first = {agent: max(curve.env_steps[0] for curve in here[agent].curves) for agent in here}
        late = max(first, key=lambda agent: first[agent])
        if first[late] > (1 + SAME_BUDGET) * least:
            if _asked_alike(here.values()):
                share = (most - least) / most
                notes.append(
                    f"{env}: up to {share:.0%} of the steps went into resets, of which not all agents have "
                    "as many; compared at the end"
                )
                continue
            raise BadInput(
                f"{env}: no common budget: {late} is first evaluated at {human(first[late])} steps, "
                f"when another run has ended at {human(least)}"
            )
        notes.append(f"{env}: budgets differ; compared by evaluations at {human(least)} steps")
        for agent, entry in here.items():
            finals = np.array([interpolated(curve, least) for curve in entry.curves])
            entries[agent, env] = dataclasses.replace(entry, finals=finals)
    return field._replace(entries=entries), notes


def left_out(field: Field) -> list[str]:
    """Seeds that no score tells of: those that failed may well be the worst."""
    return [
        f"{env}: {agent}: left out, since not done: seed {', '.join(map(str, entry.unfinished))}"
        for (agent, env), entry in field.entries.items()
        if entry.unfinished
    ]


def _asked_alike(entries: Iterable[Entry]) -> bool:
    """Whether all runs were asked for as many steps, and took them: some count a reset as one."""
    asked = {
        entry.config.get("steps") if entry.config and not entry.config.get("until_solved") else None
        for entry in entries
    }
    return len(asked) == 1 and None not in asked


def other_episodes(field: Field) -> list[str]:
    """What scores are of other episodes than evaluations of as many."""
    notes = []
    for env in field.envs:
        here = {agent: field.entries[agent, env] for agent in field.agents}
        exploring = [agent for agent, entry in here.items() if entry.training]
        if exploring:
            notes.append(
                f"{env}: scores of {', '.join(exploring)} are of training episodes, which explore"
            )
        counts = {
            agent: entry.config["final_episodes"]
            for agent, entry in here.items()
            if entry.config and "final_episodes" in entry.config
        }
        if len({*counts.values()}) > 1:
            told = ", ".join(f"{count} of {agent}" for agent, count in counts.items())
            notes.append(f"{env}: a score is the mean of as many episodes as its run had: {told}")
    return notes


def other_code(field: Field) -> list[str]:
    """In which commit and which versions the starts of runs differ."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in field.entries.values():
        for start in entry.starts:
            commit = start.get("commit") or {}
            code = f"{commit.get('hash', 'none')[:10]}{' changed' * commit.get('changed', False)}"
            for name, value in {"commit": code, **start.get("versions", {})}.items():
                agents = found.setdefault(name, {}).setdefault(str(value), [])
                if entry.agent not in agents:
                    agents.append(entry.agent)
    return [
        f"{name} differs: " + ", ".join(f"{v} ({', '.join(who)})" for v, who in values.items())
        for name, values in found.items()
        if len(values) > 1
    ]


class Speed(NamedTuple):
    """How fast an agent learned an environment."""

    area: Estimate  # of the mean return over the budget, in env_steps
    steps: learning_speed.TimeToThreshold | None  # None without a threshold
    seconds: learning_speed.TimeToThreshold | None


def speed_of(entry: Entry, budget: float, threshold: float | None) -> Speed:
    """Over a budget of env_steps that all agents have; what a longer run did later counts for nothing."""
    areas = [
        float(learning_speed.area_under_curve(c.env_steps, c.means, budget)) for c in entry.curves
    ]
    figures = {"mean": AGGREGATES["mean"]}
    area = aggregates(
        {entry.env: np.array(areas)},
        np.random.default_rng(0),
        resamples=LEAST_DRAWS,
        figures=figures,
    )["mean"]
    if threshold is None:
        return Speed(area, None, None)
    curves = [_until(curve, budget) for curve in entry.curves]
    steps = [learning_speed.first_reached(c.env_steps, c.means, threshold) for c in curves]
    by_steps = learning_speed.time_to_threshold(steps, budget, np.random.default_rng(0))
    timed = [
        learning_speed.first_reached(curve.seconds, curve.means, threshold)
        for curve in curves
        if curve.seconds is not None
    ]
    by_time = None
    if len(timed) == len(curves):
        ends = max(float(c.seconds[-1]) for c in curves if c.seconds is not None)
        by_time = learning_speed.time_to_threshold(timed, ends, np.random.default_rng(0))
    return Speed(area, by_steps, by_time)


def _until(curve: Curve, budget: float) -> Curve:
    """Its evaluations up to so many env_steps, and the first one where all are later."""
    last = max(1, int(np.searchsorted(curve.env_steps, budget, side="right")))
    seconds = None if curve.seconds is None else curve.seconds[:last]
    return Curve(curve.env_steps[:last], seconds, curve.means[:last])


def interpolated(curve: Curve, at: float) -> float:
    """The mean return at so many env_steps, on the line between evaluations."""
    return float(np.interp(at, curve.env_steps, curve.means))
