"""DeepSea: the one way in 2^N that pays is found by exploring deeply, and not by dithering."""

from __future__ import annotations

import numpy as np
import pytest

from runners.resolve import make_config
from tests.learning.test_learning import results

pytestmark = [pytest.mark.learn, pytest.mark.slow, pytest.mark.timeout(900)]


NOISY = {"noisy": True, "noisy_sigma": 1.0, "epsilon_start": 0.0, "epsilon_end": 0.0}


def found(agent, out, size=20, seeds=(0, 1), **changes):
    """Whether each seed's best weights find the treasure, which is worth 0.99."""
    config = make_config(agent, "DeepSea-v0", env_options={"size": size}, **changes)
    return [np.mean(r["best_returns"]) > 0.9 for r in results(config, seeds, out)]


def test_an_ensemble_finds_the_treasure(tmp_path):
    assert found("bootstrapped_dqn", tmp_path) == [True, True]


def test_a_bonus_for_what_is_new_finds_the_treasure(tmp_path):
    """Of seeds 100 to 105 six do in these 5,000 episodes; in a sea of 20 some seeds only."""
    assert found("rnd", tmp_path, size=16, steps=80_000) == [True, True]


def test_learned_noise_finds_it_on_some_seeds_and_epsilon_greedy_on_none(tmp_path):
    """Of seeds 110 to 115 all six did by noise."""
    same = {"size": 16, "seeds": range(5), "steps": 80_000, "target_period": 500}
    assert any(found("dqn", tmp_path / "noisy", **same, **NOISY))
    assert not any(found("dqn", tmp_path / "greedy", **same))


@pytest.mark.parametrize("size", [16, 20])
def test_epsilon_greedy_does_not(size, tmp_path):
    """5,000 or 4,000 episodes, each the right one by chance with a probability of 2^-16 or 2^-20."""
    assert found("dqn", tmp_path, size=size, steps=80_000) == [False, False]
