"""What is compared: what agents came to on environments, wherever it was trained and written down."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.errors import BadInput
from runners.outcome import read_result
from runners.run_folder import RunFolder

Floats = NDArray[np.float64]
Record = Mapping[str, Any]


class Curve(NamedTuple):
    """One seed's evaluations, in order."""

    env_steps: Floats  # [E]
    seconds: Floats | None  # [E] of wall time, of all that trained beside it; None: not known
    means: Floats  # [E] of the evaluation's episodes


@dataclass(frozen=True)
class Entry:
    """One agent on one environment, one score a seed."""

    agent: str
    env: str
    seeds: tuple[int, ...]
    finals: Floats  # [K] mean return of the last weights' episodes
    curves: tuple[Curve, ...]  # one a seed, or none where only scores are known
    origin: str
    config: Record | None = None  # of our run folders
    starts: tuple[Record, ...] = ()  # who trained it, with what
    seconds: float = math.nan  # of wall time, all seeds together
    asked: str = ""  # the words that asked for the agent, on all environments
    unfinished: tuple[int, ...] = ()  # seeds that were begun and are left out
    training: bool = False  # scores of training episodes, which explore, and not of evaluations

    @property
    def budget(self) -> float:
        """Environment steps that every seed has at least; NaN where no curve is known."""
        return min((float(curve.env_steps[-1]) for curve in self.curves), default=math.nan)

    def only(self, seeds: Sequence[int]) -> Entry:
        """The same with these of its seeds."""
        where = [self.seeds.index(seed) for seed in seeds]
        curves = tuple(self.curves[k] for k in where) if self.curves else ()
        return dataclasses.replace(
            self, seeds=tuple(seeds), finals=self.finals[where], curves=curves
        )


def of_run(folder: RunFolder, seeds: Sequence[int] | None = None) -> Entry:
    """A run folder's seeds that are done, or these of them.

    Raises:
        BadInput: none is done, or one that was asked for is not; a file is damaged, or of a format that
            is not known.
    """
    try:
        return _of_run(folder, seeds)
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{folder.path}: damaged, or of another format: {type(error).__name__}: {error}"
        ) from error


def _of_run(folder: RunFolder, seeds: Sequence[int] | None) -> Entry:
    config = folder.config()
    results = {seed: read_result(folder.seed_path(seed)) for seed in folder.seeds()}
    done = {seed: result for seed, result in results.items() if result is not None}
    if missing := sorted(set(seeds if seeds is not None else ()) - set(done)):
        raise BadInput(
            f"{folder.path}: seed {missing[0]} is not done; the command that began it goes on"
        )
    chosen = sorted(done if seeds is None else seeds)
    if not chosen:
        raise BadInput(f"{folder.path}: no seed is done; the command that began it goes on")
    return Entry(
        str(config["agent"]),
        str(config["env"]),
        tuple(chosen),
        np.array([_final(seed, done[seed]["final_returns"]) for seed in chosen]),
        tuple(_curve(seed, folder.seed(seed).read_evals().records) for seed in chosen),
        str(folder.path),
        config,
        tuple(folder.provenance()),
        float((folder.summary() or {}).get("wall_s", math.nan)),
        unfinished=tuple(sorted(set(results) - set(done))) if seeds is None else (),
    )


def _final(seed: int, returns: Sequence[float]) -> float:
    mean = float(np.mean(np.array(returns, np.float64)))
    if not math.isfinite(mean):
        raise ValueError(f"seed {seed}: a final return is no finite number")
    return mean


def _curve(seed: int, records: Sequence[Record]) -> Curve:
    if not records:
        raise ValueError(f"seed {seed}: has no evaluations")
    columns = [
        np.array([record[name] for record in records], np.float64)
        for name in ("env_steps", "seconds", "mean")
    ]
    return Curve(*columns)


CSV_COLUMNS = ("agent", "env", "seed", "score")


def of_csv(path: Path) -> list[Entry]:
    """The rows of a table with the columns agent, env, seed and score; others are passed over.

    With ``env_steps`` rows of one seed are its curve, of which the last is its score; ``seconds`` may
    be there as well.

    Raises:
        BadInput: a column or a number is missing, or a score is there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = [name for name in CSV_COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise BadInput(
                    f"{path}: has no column {missing[0]!r}; takes {', '.join(CSV_COLUMNS)}"
                )
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as a table: {error}") from None
    found: dict[tuple[str, str], dict[int, list[tuple[float, float, float]]]] = {}
    for line, row in enumerate(rows, 2):
        where = f"{path}, line {line}"
        numbers = _numbers(row, where)
        seeds = found.setdefault((_name(row, "agent", where), _name(row, "env", where)), {})
        points = seeds.setdefault(int(numbers["seed"]), [])
        if points and not points[-1][0] < numbers["env_steps"]:
            raise BadInput(
                f"{where}: seed {int(numbers['seed'])} is there twice; env_steps must rise"
            )
        points.append((numbers["env_steps"], numbers["seconds"], numbers["score"]))
    if not found:
        raise BadInput(f"{path}: has no rows")
    return [_of_points(agent, env, seeds, path) for (agent, env), seeds in found.items()]


def _name(row: Mapping[str, str | None], column: str, where: str) -> str:
    text = (row[column] or "").strip()
    if not text or not text.isprintable():
        raise BadInput(f"{where}: {column}: got {row[column]!r}, takes a name in one line")
    return text


def _numbers(row: Mapping[str, str | None], where: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("seed", "score", "env_steps", "seconds"):
        text = row.get(name)
        if text in (None, "") and name in ("env_steps", "seconds"):
            found[name] = math.nan
            continue
        try:
            found[name] = float(text or "")
        except ValueError:
            raise BadInput(f"{where}: {name}: got {text!r}, takes a number") from None
        if not math.isfinite(found[name]):
            raise BadInput(f"{where}: {name}: got {text}, takes a finite number")
    if found["seed"] != int(found["seed"]) or found["seed"] < 0:
        raise BadInput(f"{where}: seed: got {row['seed']}, takes a whole number of at least 0")
    return found


def _of_points(
    agent: str, env: str, seeds: Mapping[int, list[tuple[float, float, float]]], path: Path
) -> Entry:
    ordered = {seed: np.array(seeds[seed]).T for seed in sorted(seeds)}
    curves: tuple[Curve, ...] = ()
    if not any(np.isnan(points[0]).any() for points in ordered.values()):
        curves = tuple(
            Curve(steps, None if np.isnan(seconds).any() else seconds, scores)
            for steps, seconds, scores in ordered.values()
        )
    finals = np.array([points[2, -1] for points in ordered.values()])
    return Entry(agent, env, tuple(ordered), finals, curves, str(path))


WINDOW = 100  # training episodes that a score of them is the mean of


def of_records(name: str, paths: Sequence[str]) -> Entry:
    """Files of Stable-Baselines3 under a name that its user gives, ``AGENT@ENV``; one file a seed, from 0.

    Evaluations are as ours. A Monitor's are training episodes, which explore: the score is the mean of
    the last hundred, and so is every point of the curve.

    Raises:
        BadInput: the name is none, or a file is missing or malformed.
    """
    from runners import sb3_files

    agent, at, env = name.partition("@")
    if not (agent and at and env):
        raise BadInput(
            f"{name}: takes AGENT@ENV before the =, as in sb3@CartPole-v1=evaluations.npz"
        )
    curves, finals, training = [], [], False
    for path in paths:
        record = sb3_files.read(path)
        training |= record.training
        means = record.returns.mean(axis=1)
        if record.training:
            sums = np.cumsum(np.concatenate([[0.0], means]))
            counts = np.minimum(np.arange(1, len(means) + 1), WINDOW)
            ends = np.arange(1, len(means) + 1)
            means = (sums[ends] - sums[ends - counts]) / counts
        # of episodes that ended in the same step, the last one's
        last = np.append(np.diff(record.env_steps) > 0, True)
        seconds = None if record.seconds is None else record.seconds[last]
        curves.append(Curve(record.env_steps[last].astype(np.float64), seconds, means[last]))
        finals.append(means[-1])
    seeds, origin = tuple(range(len(paths))), ", ".join(paths)
    return Entry(agent, env, seeds, np.array(finals), tuple(curves), origin, training=training)


# -- Side by side --------------------------------------------------------------------------------


class Field(NamedTuple):
    """Agents that met on the same environments, in the order in which they were named."""

    agents: tuple[str, ...]
    envs: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]  # by agent and environment

    def scores(self, agent: str) -> dict[str, Floats]:
        """The scores [K] of an agent's seeds, by environment."""
        return {env: self.entries[agent, env].finals for env in self.envs}

    @property
    def paired(self) -> bool:
        """Whether all agents have the same seeds on each environment."""
        return all(
            len({self.entries[agent, env].seeds for agent in self.agents}) == 1 for env in self.envs
        )


def field_of(entries: Iterable[Entry]) -> Field:
    """Entries side by side; of one name all but the first are told by the settings in which they differ from it.

    Raises:
        BadInput: fewer than two agents, or one that is missing on an environment.
    """
    named = _told_apart(list(entries))
    agents = tuple(dict.fromkeys(entry.agent for entry in named))
    envs = tuple(dict.fromkeys(entry.env for entry in named))
    table = {(entry.agent, entry.env): entry for entry in named}
    if len(agents) < 2:
        raise BadInput(f"{agents[0] if agents else 'nothing'}: takes two agents or more to compare")
    for agent in agents:
        for env in envs:
            if (agent, env) not in table:
                there = ", ".join(e for e in envs if (agent, e) in table)
                raise BadInput(
                    f"{agent}: has no run on {env}, only on {there}; all agents take the same environments"
                )
    return Field(agents, envs, table)


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """Each entry with a name that no other on its environment has.

    One that was asked for on several environments has one name on all of them: presets differ, and so
    may the settings that tell it apart; then it is called as it was asked for.
    """
    made = []
    for entry in entries:
        alike = [e for e in entries if (e.agent, e.env) == (entry.agent, entry.env)]
        if sum(other.origin == entry.origin for other in alike) > 1:
            raise BadInput(f"{entry.origin}: is named twice; leave one out")
        told = "" if entry is alike[0] else f" ({_differing(entry, alike[0])})"
        made.append(dataclasses.replace(entry, agent=f"{entry.agent}{told}"))
    names: dict[str, set[str]] = {}
    for entry in made:
        names.setdefault(entry.asked, set()).add(entry.agent)
    if any(asked and len(names[asked]) > 1 for asked in names):
        return [dataclasses.replace(entry, agent=entry.asked or entry.agent) for entry in made]
    return made


def _differing(entry: Entry, first: Entry) -> str:
    """The settings in which an entry differs from the first of its agent, or where it came from."""
    base = settings_of(first)
    told = [
        (f"no {name}", name)[value] if isinstance(value, bool) else f"{name} {value}"
        for name, value in settings_of(entry).items()
        if base.get(name, value) != value
    ]
    return ", ".join(told) or Path(entry.origin).name


def settings_of(entry: Entry) -> dict[str, Any]:
    """All settings of a run in one row; {} where none are known."""
    if entry.config is None:
        return {}
    flat: dict[str, Any] = {}
    for name, value in entry.config.items():
        flat |= value if name == "hyper" and isinstance(value, Mapping) else {name: value}
    return flat
