"""Masks and stacks on their whole way: training, evaluation, policy, checkpoint and back."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
import runners
from envs.simulator import block_seeds, lane_seeds
from runners import train, verify, watch
from runners.checked import CheckedSimulator
from runners.errors import BadInput
from runners.options import Options
from runners.resolve import make_config
from runners.weights import load_weights

ID = "OneLegalAction-v0"


class OneLegalAction(gymnasium.Env):
    """One of three actions is legal, another at every step; any other raises. Ten steps of reward 1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's own way

    def __init__(self, render_mode=None):
        self.observation_space = spaces.Box(0, 10, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.shift = 0, int(self.np_random.integers(3))
        return self._now()

    def _now(self):
        self.legal = (self.steps * self.steps + self.shift) % 3
        mask = np.arange(3) == self.legal
        return np.array([self.steps, self.shift], np.float32), {"action_mask": mask.astype(np.int8)}

    def step(self, action):
        if action != self.legal:
            raise ValueError(f"action {action} is not legal, {self.legal} is")
        self.steps += 1
        obs, info = self._now()
        return obs, 1.0, self.steps == 10, False, info

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


if ID not in gymnasium.registry:
    gymnasium.register(ID, OneLegalAction)


def config(agent, env=ID, **settings):
    own = {"learning_starts": 100, "batch_size": 16} if agent == "dqn" else {}
    return make_config(
        agent, env, steps=960, lanes=4, rollout_length=8, eval_every=320, eval_episodes=3,
        checkpoint_every=480, final_episodes=5, hidden=(8,), **own, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("agent", ["dqn", "pqn"])
@pytest.mark.parametrize("frame_stack", [1, 3])
def test_no_action_that_is_not_legal_is_ever_taken(agent, frame_stack, tmp_path):
    """An illegal one would end the run: while exploring, in evaluations, in the end, in a video."""
    run = train.run(config(agent, frame_stack=frame_stack), [0, 1], str(tmp_path))
    assert run.summary()["final_return"]["per_seed"] == [10.0, 10.0]
    assert watch.watch(run, episodes=1).returns == [10.0]


MORE = {
    "linear_q": {"lanes": 4},
    "munchausen_dqn": {"lanes": 4, "learning_starts": 100, "distributional": "c51"},
    "bootstrapped_dqn": {"lanes": 4, "learning_starts": 100, "heads": 3},
    "rnd": {"lanes": 4, "learning_starts": 100},
    "r2d2": {"lanes": 4, "learning_starts": 100, "batch_size": 4, "replay_ratio": 0.02},
    "stream_q": {},
}


@pytest.mark.parametrize("agent", MORE)
def test_nor_by_the_other_agents(agent, tmp_path):
    asked = make_config(agent, ID, steps=960, eval_episodes=3, final_episodes=5, **MORE[agent])
    run = train.run(asked, [0, 1], str(tmp_path))
    assert run.summary()["final_return"]["per_seed"] == [10.0, 10.0]


def test_a_policy_takes_the_mask_that_it_is_given(tmp_path):
    policy = runners.load_policy(train.run(config("pqn"), [0], str(tmp_path)))
    obs = np.zeros((3, 2))
    assert policy(obs, action_mask=np.eye(3)).tolist() == [0, 1, 2]
    assert policy(obs, action_mask=np.eye(3)[::-1]).tolist() == [2, 1, 0]
    with pytest.raises(BadInput, match=r"action_mask: got shape \(2, 3\), takes \(3, 3\)"):
        policy(obs, action_mask=np.ones((2, 3)))


@pytest.mark.parametrize(
    ("env", "agent"),
    [
        (f"{__name__}:{ID}", "dqn"),
        ("CartPole-v1", "pqn"),
        pytest.param(f"{__name__}:{ID}", "pqn", marks=pytest.mark.slow),
        pytest.param("CartPole-v1", "dqn", marks=pytest.mark.slow),
    ],
)
def test_stacks_and_masks_are_resumed_to_the_bit(agent, env, capsys):
    """With a simulator that begins anew at checkpoints, and with one that gives its state."""
    assert verify.verify_resume(config(agent, env, frame_stack=3), Options(seeds=2)) == 0
    assert "same bits" in capsys.readouterr().out


class CountedStates(OneLegalAction):
    """The same with a number for each of its states."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        self.observation_space = spaces.Discrete(33)

    def _now(self):
        _, info = super()._now()
        return self.steps * 3 + self.shift, info


if "CountedStates-v0" not in gymnasium.registry:
    gymnasium.register("CountedStates-v0", CountedStates)


@pytest.mark.parametrize(
    "agent",
    [
        "q_learning",
        "sarsa",
        "expected_sarsa",
        "double_q",
        "n_step_sarsa",
        "tree_backup",
        "q_sigma",
        "watkins_q",
    ],
)
def test_no_table_takes_an_action_that_is_not_legal(agent, tmp_path):
    """Every legal step has the value of all that are left: 10, 9, ... 1 at discount 1."""
    asked = make_config(
        agent, "CountedStates-v0", steps=8_000, lanes=2, eval_every=4_000, eval_episodes=3,
        final_episodes=5, lr=0.5, lr_end=0.5, gamma=1.0,
    )  # fmt: skip
    run = train.run(asked, [0, 1], str(tmp_path))
    assert run.summary()["final_return"]["per_seed"] == [10.0, 10.0]
    q = load_weights(run.seed(1).last).tensors["q"].numpy().reshape(-1, 33, 3).mean(axis=0)[:30]
    legal = q > -np.inf
    assert (legal.sum(axis=1) == 1).all()
    assert np.allclose(q[legal], np.repeat(np.arange(10, 0, -1), 3), atol=0.01)


def test_taxi_of_gymnasium_is_learned_with_its_masks(tmp_path):
    """The exact figures speak of actions that are masked here: there are none of them."""
    asked = make_config("q_learning", "Taxi-v4", steps=400, backend="sync", eval_episodes=2)
    summary = train.run(asked, [0], str(tmp_path)).summary()
    assert summary["complete"]
    assert not summary.get("max_q_error")


def test_blocks_with_neighbouring_seeds_share_no_lanes():
    """``reset(seed=s)`` itself means s + i: what runners reset by must not."""
    first = [
        CheckedSimulator(envs.make("Acrobot-v1", 4, 0), "Acrobot-v1").reset(0, seed)[0]
        for seed in (7, 8)
    ]
    assert not {row.tobytes() for row in first[0]} & {row.tobytes() for row in first[1]}
    env = envs.make("Acrobot-v1", 4, 7)
    assert (env.reset()[0] == first[0]).all()  # the kept seed is expanded alike
    assert block_seeds(env, 7) == lane_seeds(7, 4)
    assert (env.reset(seed=7)[0][1:] == env.reset(seed=8)[0][:-1]).all()
