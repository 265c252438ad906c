"""Playing Atari at random: what the tests of the emulators and of the contract share."""

import importlib.util

import gymnasium
import numpy as np
import pytest

ale_py = pytest.importorskip("ale_py")

BREAKOUT, QBERT = "ALE/Breakout-v5", "ALE/Qbert-v5"
GAMES = sorted(env_id for env_id in gymnasium.registry if env_id.startswith("ALE/"))
ENVPOOL = importlib.util.find_spec("envpool") is not None
BACKENDS = ["ale", "list", *(["envpool"] if ENVPOOL else [])]


def actions_for(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(env.single_action_space.n, size=(steps, env.num_envs))


def played(env, actions):
    """(obs, reward, terminated, truncated, life_loss) of every step."""
    steps = [env.step(row) for row in actions]
    return [(*step[:4], step[4]["life_loss"]) for step in steps]
