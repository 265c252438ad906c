"""The report of a comparison: verdict, pictures, tables, settings and origins, from the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runners import comparison_tables as tables
from runners import page
from runners.comparison import Comparison
from runners.comparison_curves import Axis, banded, curves_figures, knows
from runners.comparison_pictures import (
    aggregates_figure,
    best_agent,
    described,
    differences_figure,
    drawn_pairs,
    figure_text,
    improvement_figure,
    profiles_figure,
    unit_of,
)
from runners.console import number, seed_range
from runners.equal_time import at_equal_time
from runners.page import Block, Folded, Grid, Lines, Page, Picture, Section, Text
from runners.pictures import plain_text
from runners.scores import Field
from runners.verdict import sentence, verdict

MOST_SENTENCES = 12  # of the verdict before it is folded
MOST_TOLD = 24  # curves whose ends are told in words
MOST_OPEN = 3  # environments whose tables are not folded


def write(comparison: Comparison, folder: Path) -> Path:
    """Write report.html, report.md and the pictures into a folder that exists; gives the HTML's path.

    Raises:
        DiskFault: the folder takes no more.
    """
    with plain_text():
        return page.write(page_of(comparison), folder)


def page_of(comparison: Comparison) -> Page:
    """All that is told about a field of agents, the verdict first."""
    field = comparison.field
    thresholds = {env: threshold_of(field, env) for env in field.envs}
    sections = [
        Section("Verdict", list(_verdict(comparison))),
        Section("Figures", list(_figures(comparison))),
        Section("Differences", list(_differences(comparison))),
        Section("Learning curves", list(_curves(field, thresholds))),
        Section("Performance profiles", [_profiles(comparison)]),
        Section(
            "Environments" if len(field.envs) > 1 else field.envs[0], list(_envs(field, thresholds))
        ),
        Section("At equal wall time", list(_equal_time(field))),
        Section("Probability of improvement", [_improvement(comparison)]),
        Section("Settings", list(_settings(field))),
        Section("Origins", list(_origins(field))),
    ]
    return Page(title_of(comparison), sections)


def title_of(comparison: Comparison) -> str:
    """Who met where, with how many seeds."""
    field = comparison.field
    counts = {len(entry.seeds) for entry in field.entries.values()}
    seeds = str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    who = ", ".join(field.agents) if len(field.agents) <= 4 else f"{len(field.agents)} agents"
    where = ", ".join(field.envs) if len(field.envs) <= 3 else f"{len(field.envs)} environments"
    return f"{who} on {where}, {seeds} seeds"


def threshold_of(field: Field, env: str) -> float | None:
    """The mean that counts as solved, where the environment is one that the lab knows.

    A table may name any environment, and a name may stand for a module to import: of those that are
    no registered ones only what our own runs were trained on is looked up.
    """
    from envs.contract import UnsupportedEnv
    from runners.resolve import threshold

    trained_here = any(field.entries[agent, env].config for agent in field.agents)
    if ":" in env and not trained_here:
        return None
    try:
        return threshold(env)
    except UnsupportedEnv:
        return None


# -- Sections ------------------------------------------------------------------------------------


def _verdict(comparison: Comparison) -> Iterator[Block]:
    if len(comparison.pairs) <= MOST_SENTENCES:
        yield Lines(verdict(comparison), leading=True)
    else:
        yield Lines(_of_the_best(comparison), leading=True)
        yield Folded(f"All {len(comparison.pairs)} pairs in words", [Lines(verdict(comparison))])
    if comparison.notes:
        yield Text("To keep in mind:")
        yield Lines(comparison.notes)


def _of_the_best(comparison: Comparison) -> list[str]:
    """The agent with the most, and its pairs."""
    best = best_agent(comparison)
    own = [pair for pair in comparison.pairs if best in (pair.a, pair.b)]
    own.sort(key=lambda pair: (pair.better is None, pair.p))
    figure = tables.estimate(comparison.figures[best][comparison.figure])
    better = sum(pair.better == best for pair in own)
    lead = f"{best} has the highest {comparison.figure}, {figure}: better than {better} of {len(own)} others"
    return [lead, *(sentence(comparison, pair) for pair in own)]


def _figures(comparison: Comparison) -> Iterator[Block]:
    caption = (
        f"Markers: the figure of all seeds; lines: its 95 % interval by a stratified bootstrap. "
        f"The {comparison.figure} (interquartile mean) decides."
    )
    if comparison.scales:
        caption += " Scores are normalised: 0 is random play and 1 the reference (see below)."
    alt = described(comparison, lambda agent: figure_text(comparison, agent))
    yield Picture(
        "aggregates", aggregates_figure(comparison), f"Figures of each agent. {alt}", caption
    )
    yield tables.figures_grid(comparison)
    if comparison.scales:
        scales = [
            [env, number(one.zero), number(one.one), one.source]
            for env, one in comparison.scales.items()
        ]
        grid = Grid(["environment", "is 0", "is 1", "source"], scales, words=True)
        yield Folded("What 0 and 1 are", [grid])


def _differences(comparison: Comparison) -> Iterator[Block]:
    pairs = drawn_pairs(comparison)
    looked = any(pair.looks for pair in comparison.pairs)
    caption = (
        "Full markers: decided, by a test whose 5 % error is shared by all pairs and by all looks that were "
        "taken while seeds were added; hollow and grey: not decided. What is shown is what was seen at a "
        "pair's last look; its interval allows for the looks."
        if looked
        else "Full markers: decided at 5 %, by a test that swaps the agents' scores within each seed, "
        "corrected for the number of pairs by Holm's method; hollow and grey: chance may have made it. "
        "Intervals are of each pair alone."
    )
    if len(pairs) < len(comparison.pairs):
        caption += f" Only pairs with {best_agent(comparison)}, the one with the most, are drawn."
    alt = "; ".join(
        f"{pair.a} minus {pair.b}: {tables.estimate(pair.difference)}" for pair in pairs
    )
    yield Picture(
        "differences", differences_figure(comparison), f"Differences of pairs. {alt}", caption
    )
    grids = [tables.pairs_grid(comparison)]
    if len(comparison.field.envs) == 1 and len(comparison.pairs) <= MOST_SENTENCES:
        yield grids[0]
        return
    yield Folded(f"All {len(comparison.pairs)} pairs", grids)
    if len(comparison.field.envs) > 1:
        each = Text(
            "Raw mean differences with 95 % intervals, each for itself: of so many some lie off 0 by chance."
        )
        yield Folded("Pairs by environment", [each, tables.by_env_grid(comparison)])


def _curves(field: Field, thresholds: Mapping[str, float | None]) -> Iterator[Block]:
    axes: tuple[tuple[Axis, str, str], ...] = (
        ("env_steps", "curves", "environment steps"), ("seconds", "curves-time", "wall time"),
    )  # fmt: skip
    for axis, stem, over in axes:
        lacking = [
            f"{entry.agent} on {entry.env}"
            for entry in field.entries.values()
            if not knows(entry, axis)
        ]
        for n, (envs, figure) in enumerate(curves_figures(field, axis, thresholds)):
            name = stem if not n else f"{stem}-{n + 1}"
            yield Picture(
                name,
                figure,
                _curves_alt(field, envs, axis, over),
                _curves_caption(axis, banded(field)),
            )
        if lacking:
            many = len(lacking) == len(field.entries)
            who = "any run" if many else ", ".join(lacking[:6])
            who += f" and {len(lacking) - 6} more" if len(lacking) > 6 and not many else ""
            yield Text(f"Over {over} nothing is known of {who}.")


def _curves_caption(axis: Axis, band: bool) -> str:
    told = "Mean return of greedy evaluation episodes over seeds"
    if band:
        told += ", and its 95 % t interval where it lies within what seeds came to"
    told += "; from where all seeds had been evaluated to where the first ended."
    if axis == "seconds":
        told += (
            " Seconds of seeds that were trained side by side, in one process or in several, are of all "
            "of them together: they compare only between runs of as many seeds on the same machine."
        )
    return told


def _curves_alt(field: Field, envs: Sequence[str], axis: Axis, over: str) -> str:
    if len(field.agents) * len(envs) > MOST_TOLD:
        return (
            f"Learning curves over {over}. What they come to stands in the table of mean returns."
        )
    ended = "; ".join(
        f"{entry.agent} on {entry.env} ends at {tables.with_interval([c.means[-1] for c in entry.curves])}"
        for entry in field.entries.values()
        if entry.env in envs and knows(entry, axis)
    )
    return f"Learning curves over {over}. {ended}"


def _profiles(comparison: Comparison) -> Picture:
    where = "over all environments" if comparison.scales else f"on {comparison.field.envs[0]}"
    caption = (
        f"The share of runs {where} with a {unit_of(comparison)} above τ, for every τ: the higher, the "
        "better. Where one line is above another everywhere, its agent is better by any figure. The "
        "bands hold at each τ for itself."
    )
    scores = comparison.scaled
    alt = described(
        comparison,
        lambda a: f"median {number(_median([v for x in scores[a].values() for v in x]))}",
    )
    return Picture("profiles", profiles_figure(comparison), f"Performance profiles. {alt}", caption)


def _median(values: list[float]) -> float:
    from statistics import median

    return float(median(values))


def _envs(field: Field, thresholds: Mapping[str, float | None]) -> Iterator[Block]:
    several = len(field.envs) > 1
    if several:
        yield tables.means_grid(field)
    yield Text(
        "Means with 95 % t intervals over seeds. Seeds that never reached a threshold count as longer "
        "than they were trained; medians are Kaplan and Meier's, over evaluations, up to the "
        "budget that all agents had."
    )
    for env in field.envs:
        grid = tables.env_grid(field, env, thresholds[env])
        if not several:
            yield grid
        else:
            yield Folded(env, [grid], unfolded=len(field.envs) <= MOST_OPEN)


def _equal_time(field: Field) -> Iterator[Block]:
    found = {env: one for env in field.envs if (one := at_equal_time(field, env))}
    if not found:
        yield Text("Not all agents tell the time that they took, so there is none to compare at.")
        return
    yield Text(
        "Mean returns when the first seed of all had ended, on the line between evaluations. It is fair "
        "only where as many seeds were trained side by side, on the same machine."
    )
    yield tables.equal_time_grid(found, field.agents)
    if missing := [env for env in field.envs if env not in found]:
        yield Text(f"Not known of all agents on {', '.join(missing)}.")


def _improvement(comparison: Comparison) -> Picture:
    caption = (
        "The probability that a run of the row's agent scores higher than one of the column's"
        f"{', mean over environments' if comparison.scales else ''}; 0.5 is even. It says how likely one "
        "is better, not by how much."
    )
    alt = "; ".join(
        f"{pair.a} beats {pair.b} with {tables.estimate(pair.improvement)}"
        for pair in comparison.pairs
    )
    return Picture("improvement", improvement_figure(comparison), f"Probabilities. {alt}", caption)


def _settings(field: Field) -> Iterator[Block]:
    grid = tables.settings_grid(field)
    if grid is None:
        yield Text("Tables of scores do not tell the settings that agents had.")
    elif not grid.rows:
        yield Text("All agents have the same settings.")
    else:
        yield Folded(f"{len(grid.rows)} settings in which agents differ", [grid])
        if missing := [agent for agent in field.agents if agent not in grid.header]:
            yield Text(f"Not known of {', '.join(missing)}.")


def _origins(field: Field) -> Iterator[Block]:
    entries = list(field.entries.values())
    starts = [start for entry in entries for start in entry.starts]
    for warning in tables.warnings_of(starts):
        yield Text(warning, warning=True)
    if starts:
        first = min(starts, key=lambda start: str(start.get("time", "")))
        yield Lines(
            [
                f"first begun: {first.get('time', tables.UNKNOWN)}",
                f"commit: {tables.commit_of(first)}",
                f"versions: {tables.versions_of(first)}",
                f"machine: {tables.machine_of(first)}",
            ]
        )
    seeds = {entry.seeds for entry in entries}
    if len(seeds) == 1:
        yield Text(f"The same of all agents: {seed_range(next(iter(seeds)))}.")
    yield Folded(f"All {len(entries)} runs", [tables.origins_grid(entries)])
