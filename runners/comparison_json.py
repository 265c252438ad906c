"""compare.json: everything that a report of a comparison is made of."""

from __future__ import annotations

from typing import Any

from runners.bootstrap import Estimate
from runners.comparison import Comparison, Pair
from runners.verdict import verdict


def to_json(comparison: Comparison) -> dict[str, Any]:
    """All figures of a comparison, as JSON values."""
    field = comparison.field
    return {
        "verdict": verdict(comparison),
        "notes": list(comparison.notes),
        "figure": comparison.figure,
        "unit": comparison.unit,
        "agents": list(field.agents),
        "envs": list(field.envs),
        "scales": {env: scale._asdict() for env, scale in comparison.scales.items()},
        "figures": {
            agent: {name: _estimate(one) for name, one in figures.items()}
            for agent, figures in comparison.figures.items()
        },
        "pairs": [_pair(pair) for pair in comparison.pairs],
        "entries": [
            {
                "agent": entry.agent,
                "env": entry.env,
                "seeds": list(entry.seeds),
                "scores": entry.finals.tolist(),
                "origin": entry.origin,
                "wall_s": entry.seconds,
            }
            for entry in field.entries.values()
        ],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        "difference": _estimate(pair.difference),
        "p_holm": None if pair.looks else pair.p,  # that of one look is not that of several
        "probability_of_improvement": _estimate(pair.improvement),
        "by_env": {
            env: {"mean": one.mean, "interval": list(one.interval)}
            for env, one in pair.by_env.items()
        },
        "better": pair.better,
        "more_seeds": pair.more_seeds,
        "looks": [look._asdict() for look in pair.looks.looks] if pair.looks else None,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "interval": list(estimate.interval), "error": estimate.error}
