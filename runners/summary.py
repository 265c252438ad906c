"""summary.json: what a run came to, rebuilt from the results of all its seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from envs.cores import cores
from runners import bound, outcome, stats
from runners.bound import Spent
from runners.config import RunConfig
from runners.evaluation import EPISODE_LIMIT
from runners.group import Setting
from runners.health import alarms_of
from runners.run_folder import RunFolder
from runners.timing import BESIDE, PARTS, Part, shares, wall_of


def summarise(run: RunFolder, setting: Setting, threshold: float | None) -> dict[str, Any]:
    """Collect the results of every seed, write summary.json and return it.

    Of several processes that train seeds of one run the last to write knows them all: a seed that was
    done while we wrote is looked for behind it.
    """
    while True:
        found = {seed: outcome.read_result(run.seed(seed).path) for seed in run.seeds()}
        summary = _summary(run, setting, threshold, found)
        run.write_summary(summary)
        now = {seed: outcome.read_result(run.seed(seed).path) for seed in run.seeds()}
        if now == found:
            return summary


def _summary(
    run: RunFolder,
    setting: Setting,
    threshold: float | None,
    found: dict[int, dict[str, Any] | None],
) -> dict[str, Any]:
    """The summary of these seeds."""
    config = setting.config
    done = [result for result in found.values() if result is not None]
    replaced = _of_groups(run, done, "workers_replaced")
    return {
        "agent": config.agent,
        "env": config.env,
        "seeds": [result["seed"] for result in done],
        **_totals(done, _of_groups(run, done, "seconds")),
        "final_return": _interval([float(np.mean(r["final_returns"])) for r in done]),
        "best_return": _interval([float(np.mean(r["best_returns"])) for r in done]),
        "solved_at": {
            "threshold": threshold,
            "env_steps": [r["solved_env_steps"] for r in done],
            "seconds": [r["solved_seconds"] for r in done],
        },
        **_time(config, run, found),
        **_exact(setting, done),
        "alarms": alarms_of({seed: run.seed(seed).read_health().records for seed in found}),
        "forced_resets": 0
        if setting.resumable or config.source == "ray"
        else sum(forced_resets(config, r["lane_steps"]) for r in done),
        "reproducible": not (config.async_ or replaced),
        "workers_replaced": replaced,
        "complete": len(done) == len(found),
    }


def forced_resets(config: RunConfig, lane_steps: int) -> int:
    """How often a seed's simulators were reset in so many lane steps.

    Once behind each checkpoint that a row followed; the one at the end resets nothing.
    """
    return (lane_steps - config.lanes_of_all) // config.checkpoint_every


def _of_groups(run: RunFolder, done: list[dict[str, Any]], name: str) -> Any:
    """A total over groups, which train one after the other; a group's is the most of its seeds.

    0 where a result is from before it was counted.
    """
    values = {r["seed"]: r.get(name, 0) for r in done}
    return sum(
        max((values.get(seed, 0) for seed in group.seeds), default=0) for group in run.groups()
    )


def _totals(done: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    env_steps = sum(r["env_steps"] for r in done)
    updates = sum(r["updates"] for r in done)
    return {
        "env_steps": env_steps,
        "lane_steps": sum(r["lane_steps"] for r in done),
        "updates": updates,
        "wall_s": wall_s,
        "env_steps_per_s": env_steps / wall_s if wall_s else 0.0,
        "updates_per_s": updates / wall_s if wall_s else 0.0,
    }


def _time(
    config: RunConfig, run: RunFolder, found: dict[int, dict[str, Any] | None]
) -> dict[str, Any]:
    """Where the wall time of all groups went; nothing where none has kept it."""
    groups = [[r for seed in group.seeds if (r := found.get(seed))] for group in run.groups()]
    # a group's seeds have the same; none: trained before it was kept
    kept = [
        (results, results[0]["spent"]) for results in groups if results and "spent" in results[0]
    ]
    if not kept:
        return {}
    seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    wall = seconds.copy()
    for _, spent in kept:
        here = wall_of(spent["seconds"], spent["workers"])
        for part in PARTS:
            seconds[part] += spent["seconds"][part]
            wall[part] += here[part]
    workers = max(spent["workers"] for _, spent in kept)
    total = math.fsum(s for part, s in wall.items() if not workers or part not in BESIDE)
    rows = (max(r["lane_steps"] for r in results) // config.lanes_of_all for results, _ in kept)
    if not total:
        return {}
    spent = Spent(
        seconds,
        total,
        rollouts=sum(-(-n // config.rollout_length) for n in rows),
        workers=workers,
        cpu=math.fsum(spent["cpu"] for _, spent in kept),
        seeds=max(len(results) for results, _ in kept),
    )
    return {
        "time_shares": {part: round(share, 4) for part, share in shares(wall, total).items()},
        "bound": bound.bound_of(spent),
        "advice": bound.advice(spent, config, cores()),
    }


def _interval(means: list[float]) -> dict[str, Any]:
    """The mean over seeds with its 95 % t interval; one seed has none."""
    return {
        "mean": stats.mean(means),
        "interval": list(stats.t_interval(means)) if len(means) > 1 else None,
        "per_seed": means,
    }


def _exact(setting: Setting, done: list[dict[str, Any]]) -> dict[str, Any]:
    if setting.mdp is None:
        return {}
    from agents import planning

    exact = {
        "optimal_value": planning.optimal_value(setting.mdp, outcome.horizon(setting)),
        "policy_value": [r["policy_value"] for r in done],
        "max_q_error": [r["max_q_error"] for r in done],
    }
    return exact if setting.time_limit else {**exact, "eval_limit": EPISODE_LIMIT}
