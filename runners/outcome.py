"""What a seed has come to in the end: fresh episodes, and on finite MDPs the distance to the truth."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.contract import Array, Params
from runners import files, weights
from runners.errors import disk
from runners.evaluation import EPISODE_LIMIT, Purpose
from runners.group import Setting
from runners.progress import SeedRecord
from runners.run_folder import RunFolder
from runners.timing import Times

FILE = "result.json"


def write_results(
    run: RunFolder,
    setting: Setting,
    records: Sequence[SeedRecord],
    times: Times,
    workers_replaced: int = 0,
) -> None:
    """Evaluate the last and the best weights of a group's seeds that are done; one file a seed."""
    seeds = [record.seed for record in records]
    last = [weights.load_weights(run.seed(seed).last) for seed in seeds]
    best = [weights.load_weights(run.seed(seed).best) for seed in seeds]
    evaluator, episodes = setting.evaluator(), setting.config.final_episodes
    final = evaluator.returns(weights.stack(last), seeds, episodes, Purpose.FINAL)
    # The same weights have one result, not two.
    other = [k for k in range(len(seeds)) if last[k].lane_steps != best[k].lane_steps]
    best_returns = final.copy()
    if other:
        stacked = weights.stack([best[k] for k in other])
        some = [seeds[k] for k in other]
        best_returns[other] = evaluator.returns(stacked, some, episodes, Purpose.BEST)
    evaluator.close()
    exact = exact_figures(setting, weights.stack(last))
    for k, record in enumerate(records):
        result = {
            "seed": record.seed,
            "env_steps": record.env_steps,
            "lane_steps": record.lane_steps,
            "updates": record.updates,
            "seconds": record.seconds,
            "spent": times.state_dict(),
            "workers_replaced": workers_replaced,
            "final_returns": final[k].tolist(),
            "best_returns": best_returns[k].tolist(),
            "best_lane_steps": record.best_lane_steps,
            "solved": record.solved,
            "solved_env_steps": record.solved_env_steps if record.solved else None,
            "solved_seconds": record.solved_seconds if record.solved else None,
            **{name: values[k] for name, values in exact.items()},
        }
        path = run.seed(record.seed).path / FILE
        with disk(path):
            files.replace(path, files.dump(result), "result")


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a seed, or None where it is not done."""
    try:
        result: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return result


def horizon(setting: Setting) -> int:
    """Steps after which an episode is cut, for exact values."""
    return setting.time_limit or EPISODE_LIMIT


def exact_figures(setting: Setting, params: Params) -> dict[str, list[Any]]:
    """On a finite MDP: the policies' exact values, and the largest errors against Q*.

    ``policy_value`` is the expected undiscounted return of an episode under the time limit,
    ``max_q_error`` is in raw reward units, at the agent's gamma; None where rewards are clipped, or
    at gamma 1 where episodes need not end and Q* is infinite.
    """
    mdp, hyper = setting.mdp, setting.config.hyper
    if mdp is None:
        return {}
    from agents import planning  # and scipy with it, which other runs do not wait for

    seeds = len(next(iter(params.tensors.values())))
    q, actions = at_states(setting, params, seeds, mdp.num_states)
    values = planning.policy_value(mdp, actions, horizon(setting))
    errors: list[Any] = [None] * seeds
    if not getattr(hyper, "reward_clip", 0.0):
        raw = q / getattr(hyper, "reward_scale", 1.0)
        with contextlib.suppress(ArithmeticError):
            errors = [float(e) for e in planning.max_q_error(mdp, raw, hyper.gamma)]
    return {"policy_value": [float(v) for v in values], "max_q_error": errors}


def at_states(setting: Setting, params: Params, seeds: int, num_states: int) -> tuple[Array, Array]:
    """Action values [K, S, A] of every state, as the agent sees them, and its greedy actions [K, S]."""
    actor = setting.make_actor([np.random.default_rng(0) for _ in range(seeds)])
    actor.load_params(params)
    states = np.tile(np.arange(num_states), (seeds, 1))
    values: Array = actor.values(states)  # type: ignore[attr-defined]
    begun, before = np.ones(states.shape, np.bool_), actor.initial_state(num_states)
    actions, _, _ = actor.act(states, begun, {}, before, explore=False)
    return values.astype(np.float64), actions
