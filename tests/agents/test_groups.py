"""A seed that trains in a group has the bits of the same seed trained alone."""

from __future__ import annotations

import numpy as np
import pytest

from agents import AGENTS
from runners import group as groups
from runners import seeding, weights
from runners.config import RunConfig
from runners.resolve import make_config
from runners.sources import Plan
from runners.state_tree import digest_jsonl, digest_state
from runners.train import run, torch_set
from tests.agents.test_meta import CASES

SEEDS = (3, 4, 5)
_DQN = {
    "env": "CartPole-v1",
    "steps": 800,
    "lanes": 4,
    "rollout_length": 8,
    "batch_size": 32,
    "learning_starts": 100,
    "target_period": 100,
    "replay_size": 1_000,
    "hidden": (32, 32),
    "epsilon_steps": 1_000,
    "n_step": 2,
    "replay_ratio": 0.5,
}
_CONTINUOUS = {
    "env": "Pendulum-v1", "steps": 640, "lanes": 2, "rollout_length": 8, "learning_starts": 100,
    "batch_size": 16, "replay_size": 1_000, "hidden": (16, 16), "replay_ratio": 0.5,
    "eval_episodes": 2, "final_episodes": 2, "eval_every": 320,
}  # fmt: skip
SMALL = {
    **{
        name: _DQN for name, entry in AGENTS.items() if entry.module in ("agents.dqn", "agents.dqn_named")
    },
    "dqn": {**_DQN, "double": False},
    "r2d2": {
        **_DQN, "memory_size": 16, "sequence_length": 8, "burn_in": 4, "batch_size": 8,
    },
    "bootstrapped_dqn": {**_DQN, "heads": 3},
    "rnd": {**{k: v for k, v in _DQN.items() if k != "n_step"}, "features": 8},
    "pqn": {
        "env": "CartPole-v1", "steps": 2_048, "lanes": 16, "rollout_length": 8,
        "minibatch_size": 32, "hidden": (32, 32), "epsilon_steps": 2_000,
    },
    **{
        name: {"env": "FrozenLake-v1", "steps": 3_000, "epsilon_steps": 2_000, "lanes": 2}
        for name, entry in AGENTS.items() if entry.tabular
    },
    "ucb_hoeffding": {"env": "FrozenLake-v1", "steps": 3_000, "lanes": 2},
    **{name: _CONTINUOUS for name, entry in AGENTS.items() if entry.continuous},
    "redq": {**_CONTINUOUS, "critics": 4, "policy_period": 2},
    "droq": {**_CONTINUOUS, "policy_period": 2},
    "tqc": {**_CONTINUOUS, "critics": 2, "quantiles": 5},
    "stream_q": {"env": "CartPole-v1", "steps": 1_000, "rollout_length": 4, "epsilon_steps": 500},
    "linear_q": {"env": "MountainCar-v0", "steps": 3_000, "epsilon_steps": 2_000, "lanes": 2},
}  # fmt: skip
"""What every agent can do in about a second, a few hundred updates or more."""


def _one_a_file():
    """Every agent; one of each file every time, the others, which share its code, where there is time."""
    seen, found = set(), []
    for name, entry in AGENTS.items():
        again = entry.module in seen or entry.module.removesuffix("_named") in seen
        found.append(pytest.param(name, marks=pytest.mark.slow) if again else name)
        seen.add(entry.module)
    return found


EVERY = _one_a_file()


def config_of(name, **changes) -> RunConfig:
    settings = {"eval_episodes": 4, **SMALL[name], **changes}
    return make_config(name, settings.pop("env"), **settings)


def bits(folder, seed):
    """All that a seed leaves behind, without times."""
    seeded = folder.seed(seed)
    return {
        "last": digest_state(dict(weights.load_weights(seeded.last).tensors)),
        "best": digest_state(dict(weights.load_weights(seeded.best).tensors)),
        "metrics": digest_jsonl(seeded.metrics),
        "evals": digest_jsonl(seeded.evals),
        "health": digest_jsonl(seeded.health),
    }


def test_every_agent_is_tested():
    assert set(SMALL) == set(AGENTS)


@pytest.mark.parametrize("name", EVERY)
def test_a_seed_in_a_group_equals_the_seed_alone(name, tmp_path):
    config = config_of(name)
    together = run(config, SEEDS, str(tmp_path / "together"))
    assert [tuple(group) for group in together.groups()] == [(SEEDS[0], SEEDS[-1])]
    alone = run(config, SEEDS[1:2], str(tmp_path / "alone"))
    assert alone.seed(4).read_metrics().records[-1]["updates"] > 200
    assert bits(together, 4) == bits(alone, 4)
    assert bits(together, 4)["last"] != bits(together, 3)["last"]


class Training:
    """A group behind the plain loop, without files."""

    def __init__(self, config, seeds):
        setting = groups.make_setting(config)
        self.rows = min(config.rollout_length, 50)
        self.learner = groups.make_learner(setting, seeds)
        self.source = groups.make_source(setting, seeds, self.learner)
        self.source.publish(self.learner.params())

    def go(self, rollouts):
        for _ in range(rollouts):
            rollout = self.source.next(Plan(self.rows, None))
            self.learner.observe(rollout)
            for _ in range(self.learner.updates_due()):
                self.learner.update()
            self.source.publish(self.learner.params())
            self.obs = rollout.obs.copy()
        return self

    def keep(self, positions):
        self.learner.keep(positions)
        self.source.keep(positions)
        return self

    def tensors(self):
        return {name: tensor.numpy() for name, tensor in self.learner.params().tensors.items()}


# rows of numbers in bfloat16 are for a GPU, but for continuous agents
HERE = [
    pytest.param(name, switches, marks=pytest.mark.slow) if len(switches) > 1 else (name, switches)
    for name, switches in CASES
    if "bf16" not in switches or AGENTS[name].continuous
]


@pytest.mark.parametrize(("name", "switches"), HERE)
def test_whatever_is_switched_on(name, switches):
    config = config_of(name, **switches)
    with torch_set():
        together, alone = (Training(config, seeds).go(30) for seeds in (SEEDS, SEEDS[1:2]))
    assert together.learner.updates > 100
    assert np.array_equal(together.tensors()["flat"][1], alone.tensors()["flat"][0])


@pytest.mark.parametrize(("lag", "kept"), [(0, [1]), (1, [0, 2])])
@pytest.mark.parametrize("name", EVERY)
def test_seeds_that_leave_change_nothing_for_those_that_stay(name, lag, kept):
    config = config_of(name, **({"source": "local"} if lag else {}), lag=lag)
    rollouts = {1: 300, 8: 6}.get(config.rollout_length, 20)
    with torch_set():
        stayed = Training(config, SEEDS).go(rollouts).keep(kept).go(rollouts)
        whole = Training(config, SEEDS).go(2 * rollouts)
    assert whole.learner.updates == stayed.learner.updates > 0
    lanes = config.lanes
    columns = np.concatenate([np.arange(lanes) + k * lanes for k in kept])
    assert (stayed.obs == whole.obs[:, columns]).all()
    for name_of, tensor in stayed.tensors().items():
        assert np.array_equal(tensor, whole.tensors()[name_of][kept])
    for name_of, metric in stayed.learner.metrics().items():
        assert np.array_equal(metric, whole.learner.metrics()[name_of][kept])


def test_the_streams_of_a_seed_all_differ():
    streams = {
        seeding.generator(seed, stream, *path).random()
        for seed in (0, 1)
        for stream in seeding.Stream
        for path in ((), (0,), (1,))
    }
    assert len(streams) == 2 * len(seeding.Stream) * 3
