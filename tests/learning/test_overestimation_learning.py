"""Dropout against overestimation where a network learns often from little: Hiraoka et al. 2022 (DroQ).

On a Garnet with twelve actions a state, each of which has been tried some ten times, and eight updates a
step, the largest of the values is often one that was too lucky.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from runners.resolve import make_config
from runners.stats import paired_difference, t_interval
from runners.train import run

pytestmark = [pytest.mark.learn, pytest.mark.slow, pytest.mark.timeout(900)]

GARNET = {"states": 20, "actions": 12, "branching": 5}
OFTEN = {
    "steps": 3_000, "lanes": 4, "rollout_length": 4, "gamma": 0.9, "replay_ratio": 8.0,
    "target_period": 1, "target_tau": 0.1, "learning_starts": 400, "epsilon_end": 0.5,
    "epsilon_steps": 2_000, "batch_size": 32, "hidden": (64,), "eval_every": 250,
    "eval_episodes": 8, "final_episodes": 20,
}  # fmt: skip


def overestimation(out, **changes):
    """By seed: estimates less Monte Carlo returns of the same states, mean of the later evaluations."""
    config = make_config("dqn", "Garnet-v0", env_options=GARNET, **OFTEN, **changes)
    folder = run(config, range(5), str(out))
    records = [folder.seed(seed).read_health().records for seed in range(5)]
    return [np.mean([r["overestimation"] for r in rows[len(rows) // 2 :]]) for rows in records]


def test_dropout_lowers_what_is_estimated_too_high(tmp_path):
    """Alone, and beside layer norm against layer norm alone; the returns are about 18.

    Of layer norm by itself no effect is seen. Dropout lowers estimates whether they are too high or not.
    """
    plain, dropped, norm, both = (
        overestimation(tmp_path, layer_norm=layer_norm, dropout=dropout)
        for layer_norm in (False, True)
        for dropout in (0.0, 0.02)
    )
    named = {"dqn": plain, "dropout": dropped, "layer norm": norm, "both": both}
    for name, seen in named.items():  # seen with -s
        low, high = t_interval(seen)
        mean, (below, above) = paired_difference(seen, plain)
        sys.stdout.write(
            f"{name}: {np.mean(seen):+.3f} ({low:+.3f} .. {high:+.3f}), "
            f"less dqn's {mean:+.3f} ({below:+.3f} .. {above:+.3f})\n"
        )
    assert t_interval(plain).lo > 0
    assert paired_difference(plain, dropped).interval.lo > 0
    assert paired_difference(norm, both).interval.lo > 0
    assert paired_difference(plain, norm).interval.lo < 0
