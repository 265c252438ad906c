"""Policies and results from Python, on real small runs that the tests of the commands share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import runners
from runners import weights
from runners.errors import BadInput
from runners.policy import open_setting

ROOT = Path(__file__).parents[2]


def test_the_policy_is_the_actors_greedy_choice(cartpole):
    setting = open_setting(cartpole)
    actor = setting.make_actor([np.random.default_rng(0)])
    actor.load_params(weights.load_weights(cartpole.seed(0).best))
    obs = np.random.default_rng(1).normal(0, 0.5, (64, 4)).astype(np.float32)
    expected, _, _ = actor.act(obs[None], np.ones((1, 64), bool), {}, {}, False)
    policy = runners.load_policy(cartpole)
    actions = policy(obs)
    assert actions.shape == (64,)
    assert actions.tolist() == expected[0].tolist()
    assert set(actions.tolist()) == {0, 1}  # else any constant would do
    # Gymnasium computes in float64; the agent was trained on float32.
    assert policy(obs.astype(np.float64)).tolist() == actions.tolist()


def test_a_tabular_policy_takes_states(lake):
    table = weights.load_weights(lake.seed(1).best).tensors["q"][0].numpy().sum(axis=0)
    policy = runners.load_policy(lake, seed=1)
    assert policy(np.arange(16)).tolist() == table.argmax(axis=1).tolist()
    last = weights.load_weights(lake.seed(1).last).tensors["q"][0].numpy().sum(axis=0)
    policy = runners.load_policy(str(lake.path), seed=1, last=True)
    assert policy(np.arange(16, dtype=np.int32)).tolist() == last.argmax(axis=1).tolist()


class Recorder:
    """An actor that counts how often each lane has acted since its episode began."""

    stored = True

    def initial_state(self, lanes):
        return {"count": np.zeros((1, lanes), int)}

    def act(self, obs, first, facts, state, explore):
        assert not explore
        count = np.where(first, 0, state["count"] + 1)
        return count, {"count": count}, {}


def test_the_state_is_carried_and_begins_where_first_says(lake):
    policy = runners.Policy(Recorder(), open_setting(lake).spec)
    obs = np.zeros(2, int)
    assert policy(obs, [False, False]).tolist() == [0, 0]  # the first call begins all
    assert policy(obs).tolist() == [1, 1]
    assert policy(obs, [False, True]).tolist() == [2, 0]
    assert policy(obs).tolist() == [3, 1]
    policy.reset()
    assert policy(obs).tolist() == [0, 0]
    assert policy(np.zeros(3, int)).tolist() == [0, 0, 0]  # other lanes: all begin


def test_the_actor_sees_what_it_saw_in_training(cartpole):
    seen = []

    class Spy(Recorder):
        def act(self, obs, first, facts, state, explore):
            seen.append((obs.dtype, obs.flags.c_contiguous, obs.shape))
            return super().act(obs, first, facts, state, explore)

    runners.Policy(Spy(), open_setting(cartpole).spec)(np.zeros((4, 2)).T)
    assert seen == [(np.dtype(np.float32), True, (1, 2, 4))]


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        (np.zeros(4), r"one observation .* obs\[None\]"),
        (np.zeros((2, 3)), r"got shape \(2, 3\), takes \[N, 4\]"),
        (np.zeros((0, 4)), r"got shape \(0, 4\)"),
        (np.zeros((2, 4), complex), "got complex128, takes float32"),
    ],
)
def test_wrong_observations_are_named(cartpole, obs, words):
    with pytest.raises(BadInput, match=words):
        runners.load_policy(cartpole)(obs)


def test_wrong_states_flags_and_seeds_are_named(lake):
    policy = runners.load_policy(lake)
    for obs in ([16], [-1]):
        with pytest.raises(BadInput, match=r"takes states 0\.\.15"):
            policy(obs)
    with pytest.raises(BadInput, match=r"takes \(2,\), one flag a lane"):
        policy([0, 1], [True])
    with pytest.raises(BadInput, match=r"seed 7: .* has the seeds 0, 1"):
        runners.load_policy(lake, seed=7)
    assert not (lake.path / "seed-7").exists()


def test_results_are_what_the_files_say(lake, cartpole):
    first, second = runners.results(lake, cartpole.path)
    assert first["summary"] == lake.summary()
    assert second["config"]["agent"] == "pqn"
    assert list(first["seeds"]) == [0, 1]
    for k, seed in enumerate(first["seeds"].values()):
        mean = np.mean(seed["result"]["best_returns"])
        assert mean == pytest.approx(first["summary"]["best_return"]["per_seed"][k])
        assert seed["evals"][-1]["lane_steps"] == 20_000


def test_the_package_is_light():
    code = (
        "import sys, runners, runners.evaluate, runners.watch, runners.tensorboard\n"
        "print([m for m in ('torch', 'gymnasium', 'numba', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
