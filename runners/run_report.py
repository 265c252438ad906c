"""The report of one run: what it came to, how it learned, where its time went, settings and origins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import comparison_tables as tables
from runners import page
from runners.alarms import ALARMS
from runners.console import seed_range
from runners.errors import BadInput, RunFailed
from runners.outcome import read_result
from runners.page import Block, Folded, Grid, Lines, Page, Picture, Section, Text
from runners.pictures import plain_text
from runners.report import summary_lines, summary_table
from runners.run_folder import RunFolder
from runners.timing import PARTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Json = dict[str, Any]
MEASURED = ("env_steps", "seconds", "mean")  # of an evaluation


def check(run: RunFolder) -> None:
    """Refuse, in one line, a folder that no report can be made of.

    Raises:
        BadInput: it is of another version, damaged, half written, or no seed of it is done.
    """
    from runners.config import check_names

    config = run.config()
    try:
        check_names(config)
    except BadInput as error:
        raise BadInput(f"{run.path}: config.json is of another version: {error}") from None
    if missing := [name for name in ("agent", "env", "hyper") if name not in config]:
        raise BadInput(f"{run.path}: config.json is damaged: it has no {missing[0]}")
    done = 0
    for seed in run.seeds():
        where = f"{run.path}: seed {seed}"
        try:
            result = read_result(run.seed_path(seed))
            evals = run.seed(seed).read_evals().records
        except (ValueError, RunFailed) as error:
            raise BadInput(f"{where} is damaged: {error}") from None
        if result is None:
            continue
        done += 1
        if "final_returns" not in result:
            raise BadInput(f"{where}: result.json is of another version: it has no final_returns")
        if not evals or any(name not in record for record in evals for name in MEASURED):
            raise BadInput(f"{where} is half written: it is done, but evals.jsonl is not whole")
    if not done:
        raise BadInput(f"{run.path}: no seed is done; the command that began it goes on")


def write(run: RunFolder) -> Path:
    """Write report.html, report.md and the pictures into the run folder; gives the HTML's path.

    Raises:
        BadInput: as `check`.
        DiskFault: the folder takes no more.
    """
    check(run)
    summary = run.summary()
    if summary is None:
        raise BadInput(f"{run.path}: has no summary yet; the command that began it goes on")
    with plain_text():
        return page.write(page_of(run, summary), run.path)


def page_of(run: RunFolder, summary: Mapping[str, Any]) -> Page:
    """All that is told about a run, its result first."""
    config, seeds = run.config(), summary["seeds"]
    sections = [
        Section("Result", list(_result(summary))),
        Section("Learning curve", [_curve(run, config, summary)]),
        Section("Time", list(_time(summary))),
        Section("Alarms", list(_alarms(run, config, summary))),
        Section("Settings", [_settings(config)]),
        Section("Origins", list(_origins(run))),
    ]
    title = f"{config['agent']} on {config['env']}, {seed_range(seeds)}"
    return Page(title, sections)


# -- Sections ------------------------------------------------------------------------------------


def _result(summary: Mapping[str, Any]) -> Iterator[Block]:
    yield Lines(summary_lines(summary), leading=True)
    table = summary_table(summary)
    cells = zip(*(column.cells for column in table.columns), strict=True)
    yield Grid(
        [str(column.header) for column in table.columns], [list(map(str, row)) for row in cells]
    )
    yield Text("Returns of fresh greedy episodes; 95 %: t interval of the mean over seeds.")


def _curve(run: RunFolder, config: Json, summary: Mapping[str, Any]) -> Picture:
    from runners.learning_curve import curve_figure

    evals = {seed: run.seed(seed).read_evals().records for seed in run.seeds()}
    title, solved = f"{config['agent']} on {config['env']}", summary.get("solved_at") or {}
    figure = curve_figure(evals, title, solved.get("threshold"), summary.get("optimal_value"))
    last = [records[-1]["mean"] for records in evals.values() if records]
    return Picture(
        "curve",
        figure,
        f"Learning curve of {title}, which ends at {tables.with_interval(last)}",
        "Mean return of greedy evaluation episodes of every seed, their mean and its 95 % interval.",
    )


def _time(summary: Mapping[str, Any]) -> Iterator[Block]:
    shares = summary.get("time_shares") or {}
    if not shares:
        yield Text("Where the time went was not kept.")
        return
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    told = ", ".join(f"{part} {share:.1%}" for part, share in ordered)
    yield Picture(
        "times",
        _times_figure(dict(ordered)),
        f"Shares of the wall time: {told}",
        "Shares of the learner's wall time; what workers do beside it comes on top.",
    )
    rows = [[part, f"{share:.1%}", PARTS.get(part, "")] for part, share in ordered]
    yield Grid(["part", "share", "what it is"], rows, words=True)


def _times_figure(shares: Mapping[str, float]) -> Figure:
    from matplotlib.figure import Figure

    from runners.pictures import DPI, INK, MEAN, bare

    figure = Figure(figsize=(7.2, 0.7 + 0.28 * len(shares)), dpi=DPI)
    axes = figure.subplots()
    percent = [100 * share for share in shares.values()]
    bars = axes.barh(range(len(shares)), percent, color=MEAN, height=0.65)
    axes.bar_label(
        bars, [f"{value:.1f} %" for value in percent], padding=3, fontsize=8.5, color=INK
    )
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlim(0, max(percent) * 1.12)
    axes.set_xlabel("share of wall time, %", color=INK, fontsize=9)
    bare(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure


def _alarms(run: RunFolder, config: Json, summary: Mapping[str, Any]) -> Iterator[Block]:
    given = summary.get("alarms") or {}
    causes = {alarm.name: alarm.cause for alarm in ALARMS}
    lines = [
        f"{name} ({seed_range(seeds)}): {causes.get(name, 'see health.png')}"
        for name, seeds in given.items()
    ]
    yield Lines(lines) if lines else Text("None.")
    records = {seed: run.seed(seed).read_health().records for seed in run.seeds()}
    if any(records.values()):
        from runners.health_picture import health_figure

        yield Picture(
            "health",
            health_figure(records, f"{config['agent']} on {config['env']}"),
            "Measures of value health over environment steps, a panel each",
            "Value health at every evaluation, a line a seed; marks: where an alarm was given.",
        )


def _settings(config: Json) -> Folded:
    flat: Json = {}
    for name, value in config.items():
        flat |= value if name == "hyper" else {name: value}
    rows = [
        [name, value if isinstance(value, str) else json.dumps(value)]
        for name, value in flat.items()
    ]
    return Folded(f"All {len(rows)} settings", [Grid(["setting", "value"], rows, words=True)])


def _origins(run: RunFolder) -> Iterator[Block]:
    starts = run.provenance()
    for warning in tables.warnings_of(starts):
        yield Text(warning, warning=True)
    rows = [
        [
            str(start.get("time", tables.UNKNOWN)),
            tables.commit_of(start),
            tables.versions_of(start),
            tables.machine_of(start),
            " ".join(map(str, start.get("command", ()))),
        ]
        for start in starts
    ]
    if not rows:
        yield Text("Nobody wrote down who began it.")
        return
    yield Grid(["begun", "commit", "versions", "machine", "command"], rows, words=True)
    yield Text(f"Folder: {run.path}")
