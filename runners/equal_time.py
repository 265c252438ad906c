"""What agents had come to after the same wall time: a fast agent has taken more steps by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from runners.scores import Curve, Field, Floats


class AtTime(NamedTuple):
    """One agent's seeds at a time; NaN where a seed was not evaluated by then."""

    scores: Floats  # [K] mean returns
    env_steps: Floats  # [K]


class EqualTime(NamedTuple):
    """All agents on an environment after so many seconds."""

    seconds: float
    agents: Mapping[str, AtTime]


def at_equal_time(field: Field, env: str) -> EqualTime | None:
    """Every seed's return and steps when the first of all seeds had ended.

    They lie on the line between the evaluations before and after. Seconds of seeds that were trained
    side by side are of all of them, so agents are on equal terms only where as many were, on the same
    machine.

    Args:
        field: agents with curves.
        env: one of its environments.

    Returns:
        None where some seed's seconds are not known, or go backwards.
    """
    curves = {agent: field.entries[agent, env].curves for agent in field.agents}
    ends = [
        None if curve.seconds is None else float(curve.seconds[-1])
        for ours in curves.values()
        for curve in ours
    ]
    known = [end for end in ends if end is not None]
    backwards = any(
        curve.seconds is not None and (np.diff(curve.seconds) < 0).any()
        for ours in curves.values()
        for curve in ours
    )
    if len(known) < len(ends) or backwards or not all(curves.values()):
        return None
    least = min(known)
    return EqualTime(
        least,
        {
            agent: AtTime(
                np.array([_at(curve, least, curve.means) for curve in ours]),
                np.array([_at(curve, least, curve.env_steps) for curve in ours]),
            )
            for agent, ours in curves.items()
        },
    )


def _at(curve: Curve, seconds: float, values: Floats) -> float:
    assert curve.seconds is not None
    return float(np.interp(seconds, curve.seconds, values, left=np.nan))
