"""Two small runs, trained once, for the tests of the commands that read a run."""

import pytest

from runners import train
from runners.resolve import make_config


@pytest.fixture(scope="session")
def lake(tmp_path_factory):
    """q_learning on FrozenLake, two seeds: a finite MDP with a map and a renderer."""
    config = make_config("q_learning", "FrozenLake-v1", steps=20_000)
    return train.run(config, range(2), tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory):
    """Pqn on CartPole, one seed: a network, and observations in float32."""
    config = make_config("pqn", "CartPole-v1", steps=2048, lanes=16, eval_episodes=5)
    return train.run(config, [0], tmp_path_factory.mktemp("cartpole"))
