"""The tables of a comparison's report: environment by environment, at equal time, settings, origins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from runners import console, stats
from runners.bootstrap import Estimate
from runners.comparison import Comparison, speed_of
from runners.comparison_pictures import how_sure
from runners.console import duration, human, seed_range
from runners.equal_time import EqualTime
from runners.learning_speed import TimeToThreshold
from runners.page import Grid
from runners.scores import Entry, Field, settings_of

UNKNOWN = "-"


def number(value: float) -> str:
    """As `runners.console.number`; what is nothing but for rounding is 0."""
    return console.number(0.0 if abs(value) < 1e-12 else value)


def estimate(one: Estimate) -> str:
    """A figure with its interval."""
    return f"{number(one.value)} {ends(*one.interval)}"


def ends(lo: float, hi: float) -> str:
    """An interval; nothing where there is none."""
    return "" if math.isnan(lo) else f"[{number(lo)} .. {number(hi)}]"


def with_interval(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """The mean over seeds and its t interval."""
    return f"{number(stats.mean(values))} {ends(*stats.t_interval(values))}".strip()


def figures_grid(comparison: Comparison) -> Grid:
    """A row an agent, its figures with their intervals."""
    names = list(next(iter(comparison.figures.values())))
    rows = [
        [agent, *map(estimate, figures.values())] for agent, figures in comparison.figures.items()
    ]
    return Grid(["agent", *(f"{name} [95 %]" for name in names)], rows)


def pairs_grid(comparison: Comparison) -> Grid:
    """A row a pair, the surest first."""
    ordered = sorted(comparison.pairs, key=lambda pair: (pair.better is None, pair.p))
    looked = any(pair.looks for pair in comparison.pairs)
    header = [
        "pair", f"difference of {comparison.figure} [95 %]", "seeds and looks" if looked else "p (Holm)",
        "probability of improvement [95 %]", "better",
    ]  # fmt: skip
    return Grid(
        header,
        [
            [
                f"{pair.a} − {pair.b}", estimate(pair.difference), how_sure(pair).removeprefix("p = "),
                estimate(pair.improvement), pair.better or "not decided",
            ]
            for pair in ordered
        ],
    )  # fmt: skip


def by_env_grid(comparison: Comparison) -> Grid:
    """Raw mean differences of every pair on every environment."""
    return Grid(
        ["pair", *comparison.field.envs],
        [
            [
                f"{pair.a} − {pair.b}",
                *(f"{number(one.mean)} {ends(*one.interval)}" for one in pair.by_env.values()),
            ]
            for pair in comparison.pairs
        ],
    )


def means_grid(field: Field) -> Grid:
    """A row an environment, a column an agent: raw means over seeds."""
    return Grid(
        ["mean return", *field.agents],
        [
            [env, *(number(stats.mean(field.entries[agent, env].finals)) for agent in field.agents)]
            for env in field.envs
        ],
    )


def env_grid(field: Field, env: str, threshold: float | None) -> Grid:
    """A row an agent: what it came to on an environment, and how fast."""
    entries = [field.entries[agent, env] for agent in field.agents]
    budget = min(entry.budget for entry in entries)
    header = ["agent", "mean return [95 %]", "IQM", "seeds"]
    known = not any(math.isnan(entry.budget) for entry in entries)
    goal = threshold if known else None
    header += [f"mean over {human(budget)} steps (area under the curve) [95 %]"] * known
    header += [f"steps to {number(goal)}", f"time to {number(goal)}"] if goal is not None else []
    rows = []
    for entry in entries:
        row = [entry.agent, with_interval(entry.finals)]
        row += [number(float(stats.interquartile_mean(entry.finals))), str(len(entry.seeds))]
        if known:
            row += _speed(entry, budget, goal)
        rows.append(row)
    return Grid(header, rows)


def _speed(entry: Entry, budget: float, goal: float | None) -> list[str]:
    """How fast an agent learned; of a run that diverged that is not known."""
    try:
        speed = speed_of(entry, budget, goal)
    except ValueError as error:
        return [f"not known: {error}", *["not known"] * (2 * (goal is not None))]
    if goal is None:
        return [estimate(speed.area)]
    return [
        estimate(speed.area),
        _reached(speed.steps, budget, human),
        _reached(speed.seconds, None, duration),
    ]


def _reached(found: TimeToThreshold | None, budget: float | None, text: Any) -> str:
    """How many seeds got there, and when half of them had; of the others nobody knows when."""
    if found is None:
        return "not known"
    told = f"{found.reached} of {found.seeds} reached"
    if not found.reached:
        return told
    beyond = "later" if budget is None else f"> {text(budget)}"
    middle, lo, hi = (
        beyond if math.isinf(x) else text(x) for x in (found.median, *found.median_interval)
    )
    return f"{told}, median {middle} [{lo} .. {hi}]"


def equal_time_grid(found: Mapping[str, EqualTime], agents: Sequence[str]) -> Grid:
    """A row an environment: each agent's return when the first had ended, and after how many steps."""
    rows = []
    for env, one in found.items():
        row = [env, duration(one.seconds)]
        for agent in agents:
            scores, steps = one.agents[agent]
            late = bool(np.isnan(scores).any())
            row.append(
                "not known at that time" if late
                else f"{with_interval(scores)} at {human(stats.mean(steps))} steps"
            )  # fmt: skip
        rows.append(row)
    return Grid(
        ["environment", "after", *(f"{agent}: mean return [95 %]" for agent in agents)], rows
    )


# -- Settings ------------------------------------------------------------------------------------


def settings_grid(field: Field) -> Grid | None:
    """The settings in which agents differ on some environment; None where no run tells its own."""
    known = [a for a in field.agents if all(field.entries[a, env].config for env in field.envs)]
    if len(known) < 2:
        return None
    found = {
        (agent, env): settings_of(field.entries[agent, env])
        for agent in known
        for env in field.envs
    }
    names = list(dict.fromkeys(n for one in found.values() for n in one))
    rows = [
        [name, *(_over_envs({env: found[agent, env].get(name) for env in field.envs}) for agent in known)]
        for name in names
        if name not in ("agent", "env")
        and any(len({_written(found[a, env].get(name)) for a in known}) > 1 for env in field.envs)
    ]  # fmt: skip
    return Grid(["setting", *known], rows, words=True)


def _over_envs(values: Mapping[str, Any]) -> str:
    """A setting's value, or its values and where it has them."""
    where: dict[str, list[str]] = {}
    for env, value in values.items():
        where.setdefault(_written(value), []).append(env)
    if len(where) == 1:
        return next(iter(where))
    return "; ".join(
        f"{value} on {', '.join(envs) if len(envs) <= 3 else f'{len(envs)} environments'}"
        for value, envs in where.items()
    )


def _written(value: Any) -> str:
    return UNKNOWN if value is None else value if isinstance(value, str) else json.dumps(value)


# -- Origins -------------------------------------------------------------------------------------


def origins_grid(entries: Iterable[Entry]) -> Grid:
    """A row a run: where it is, when it was begun, by which commit and with what command."""
    return Grid(
        [
            "agent",
            "environment",
            "seeds",
            "wall time",
            "begun",
            "commit",
            "machine",
            "command",
            "from",
        ],
        [_origin(entry) for entry in entries],
        words=True,
    )


def _origin(entry: Entry) -> list[str]:
    first: Mapping[str, Any] = entry.starts[0] if entry.starts else {}
    return [
        entry.agent,
        entry.env,
        seed_range(entry.seeds).removeprefix("seeds ").removeprefix("seed "),
        UNKNOWN if math.isnan(entry.seconds) else duration(entry.seconds),
        str(first.get("time", UNKNOWN)),
        ", ".join(dict.fromkeys(commit_of(start) for start in entry.starts)) or UNKNOWN,
        ", ".join(dict.fromkeys(machine_of(start) for start in entry.starts)) or UNKNOWN,
        " ".join(map(str, first.get("command", ()))) or UNKNOWN,
        entry.origin,
    ]


def commit_of(start: Mapping[str, Any]) -> str:
    """The commit of a start, and whether it was changed since."""
    commit = start.get("commit")
    if not commit:
        return "no checkout"
    return str(commit["hash"])[:10] + (" (changed)" if commit["changed"] else "")


def machine_of(start: Mapping[str, Any]) -> str:
    """The processor of a start and how many cores of it there were."""
    machine = start.get("machine") or {}
    return f"{machine.get('cpu', UNKNOWN)}, {machine.get('cores', UNKNOWN)} cores"


def versions_of(start: Mapping[str, Any]) -> str:
    """The versions of a start in one line."""
    versions = start.get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def warnings_of(starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes runs hard to compare: other code, other libraries, other machines."""
    told = []
    for what, of in (("commits", commit_of), ("versions", versions_of), ("machines", machine_of)):
        found = list(dict.fromkeys(of(start) for start in starts))
        if len(found) > 1:
            more = "; times do not compare" if what == "machines" else ""
            told.append(f"trained by different {what}: {' / '.join(found)}{more}")
    if changed := sum(bool((start.get("commit") or {}).get("changed")) for start in starts):
        told.append(f"{changed} of {len(starts)} starts had changes that no commit has")
    return told
