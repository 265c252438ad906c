"""What is played without learning: a round by itself, random actions, and plans."""

from __future__ import annotations

import json

import numpy as np
import pytest

import envs
from envs.contract import SimulatorError, Spec, spec_of
from runners import seeding, stats
from runners.evaluation import EPISODE_LIMIT, Purpose
from runners.policy import load_policy
from runners.seeding import Stream
from runners.simulation import Plan, play, random_policy
from tests.runners.crashing import ID as CRASHING
from tests.runners.test_simulate import plan_of

# -- A round -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_id", "setting"),
    [("CartPole-v1", {"gravity": 5}), ("Pendulum-v1", {"max_episode_steps": 9}), ("Taxi-v4", {})],
)
def test_a_round_is_the_first_episode_of_every_lane(env_id, setting):
    """Against all rewards written down first, and cut at each lane's first end afterwards."""
    plan, number = plan_of((), env=env_id, lanes=5, episodes=10, seed=3), 1
    got = play(plan, setting, number)
    node = (Stream.EVALUATION, Purpose.SIMULATION, number)
    env = envs.make(env_id, 5, seeding.integer(3, *node), **setting)
    obs, infos = env.reset()
    act = random_policy(spec_of(env, infos), 5, seeding.generator(3, *node, 1))
    rewards, dones = [], []
    for _ in range(250):
        obs, reward, terminated, truncated, infos = env.step(
            act(obs, None, infos.get("action_mask"))
        )
        rewards.append(reward)
        dones.append(terminated | truncated)
    ends = np.argmax(dones, axis=0) + 1
    assert np.any(dones, axis=0).all()
    assert got.lengths == ends.tolist()
    expected = [np.cumsum(np.array(rewards)[:, i])[end - 1] for i, end in enumerate(ends)]
    assert got.returns == pytest.approx(expected, rel=1e-12)
    assert got.steps == 5 * (max(ends) - 1)


def test_rounds_of_one_number_begin_alike_whatever_the_setting(monkeypatch):
    seen, make = {}, envs.make

    def spied(env_id, lanes, seed, backend, **setting):
        env = make(env_id, lanes, seed, backend, **setting)
        reset, step = env.reset, env.step
        log = seen.setdefault(setting["gravity"], [])
        env.reset = lambda **k: log.append(reset(**k)) or log[-1]
        env.step = lambda a: log.append(a) or step(a)
        return env

    monkeypatch.setattr(envs, "make", spied)
    plan = plan_of(())
    for gravity in (5, 15):
        for number in (0, 1):
            play(plan, {"gravity": gravity}, number)
    resets = {g: [x[0] for x in log if isinstance(x, tuple)] for g, log in seen.items()}
    assert (resets[5][0] == resets[15][0]).all()
    assert (resets[5][1] == resets[15][1]).all()
    assert (resets[5][0] != resets[5][1]).any()
    first_actions = {g: [x for x in log if not isinstance(x, tuple)][:8] for g, log in seen.items()}
    assert (np.array(first_actions[5]) == np.array(first_actions[15])).all()


def test_lower_gravity_lets_the_pole_fall_later():
    """What is paired differs by less than what is not, and in the direction of physics."""
    plan = plan_of(("gravity=5,9.8",), episodes=100, lanes=100)
    low, high = (np.array(play(plan, setting, 0).returns) for setting in plan.settings)
    difference = stats.paired_difference(low, high)
    assert difference.interval.lo > 0
    unpaired = stats.paired_difference(low, np.roll(high, 1))
    assert np.ptp(difference.interval) < 0.5 * np.ptp(unpaired.interval)


def test_an_episode_without_end_is_cut_off():
    plan = plan_of((), env="Pendulum-v1", lanes=2, episodes=2)
    assert play(plan, {"max_episode_steps": 0}, 0).lengths == [EPISODE_LIMIT] * 2


@pytest.mark.parametrize("fault", ["nan reward", "infinite observation", "raise"])
def test_what_a_simulator_does_wrong_is_named(fault):
    plan = plan_of((), env=CRASHING)
    with pytest.raises(SimulatorError, match="lane"):
        play(plan, {"fault": fault, "place": 2.0}, 0)


def test_a_trained_policy_acts(cartpole):
    plan = plan_of((), [str(cartpole.path)], episodes=20, lanes=20)
    policy = load_policy(cartpole)
    trained, random = play(plan, {}, 0, policy), play(plan, {}, 0)
    assert np.mean(trained.returns) > 1.5 * np.mean(random.returns)
    assert play(plan, {}, 0, policy)[:3] == trained[:3]  # it has forgotten the first time


def test_a_policy_forgets_before_a_round_and_is_told_when_it_begins():
    seen = []

    class Policy:
        def reset(self):
            seen.append("reset")

        def __call__(self, obs, first, mask):
            seen.append(first.tolist())
            return np.zeros(3, np.int64)

    plan = plan_of((), lanes=3, episodes=3)
    steps = max(play(plan, {}, 0, Policy()).lengths)
    assert seen == ["reset", [True] * 3, *[[False] * 3] * (steps - 1)]


# -- Random actions ------------------------------------------------------------------------------


def test_random_actions_are_uniform_over_the_legal_ones():
    spec = Spec((1,), np.float32, 0, 4)
    mask = np.array([[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]])
    act = random_policy(spec, 3, np.random.default_rng(0))
    drawn = np.array([act(None, None, mask) for _ in range(6000)])
    for lane, shares in enumerate(([1 / 3, 0, 1 / 3, 1 / 3], [0, 1, 0, 0], [0.25] * 4)):
        counts = np.bincount(drawn[:, lane], minlength=4)
        # five standard deviations of a count of 6,000
        assert counts == pytest.approx(6000 * np.array(shares), abs=5 * np.sqrt(6000 / 4))
        assert (counts[np.array(shares) == 0] == 0).all()
    free = random_policy(spec, 3, np.random.default_rng(0))
    assert {*np.array([free(None, None, None) for _ in range(99)]).ravel()} == {0, 1, 2, 3}


def test_random_actions_fill_a_box():
    low, high = np.array([-2, 0], np.float32), np.array([2, 1], np.float32)
    spec = Spec((1,), np.float32, 0, 0, (2,), np.float32, low, high)
    act = random_policy(spec, 500, np.random.default_rng(0))
    drawn = act(None, None, None)
    assert drawn.shape == (500, 2)
    assert drawn.dtype == np.float32
    assert ((drawn >= low) & (drawn <= high)).all()
    assert drawn.mean(axis=0) == pytest.approx([0, 0.5], abs=0.15)


# -- Plans ---------------------------------------------------------------------------------------


def test_a_plan_has_a_folder_of_its_own(cartpole, tmp_path):
    plans = [
        plan_of(), plan_of(("gravity=5,9.8",)), plan_of(("gravity=15,9.8,5",)), plan_of(seed=1),
        plan_of(episodes=13), plan_of(lanes=5), plan_of(backend="sync"),
        plan_of(policies=("random", str(cartpole.path))), plan_of(policies=(str(cartpole.path),)),
        plan_of(("gravity=5", "length=1")), plan_of(("length=1", "gravity=5")),
    ]  # fmt: skip
    assert len({plan.folder_name for plan in plans}) == len(plans)
    assert plan_of().folder_name == plan_of().folder_name
    moved = tmp_path / cartpole.name
    moved.symlink_to(cartpole.path)  # a run may be moved: its weights say what it is
    player = plans[8].players[0]
    elsewhere = Plan(**{**vars(plans[8]), "players": [player._replace(path=str(moved))]})
    assert elsewhere.folder_name == plans[8].folder_name
    for plan in plans:
        again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again == plan
        assert again.folder_name == plan.folder_name
    own = plan_of((), env=CRASHING)
    assert "/" not in own.folder_name
    assert ":" not in own.folder_name
