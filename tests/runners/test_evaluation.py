"""Greedy episodes: one a lane and round, with seeds of their own, unchanged by what is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from agents.contract import Params
from envs.contract import SimulatorError, spec_of
from runners.evaluation import EPISODE_LIMIT, MAX_LANES, Evaluator, Purpose

PARAMS = Params(0, 0, {}, {})


class Countdown(VectorEnv):
    """Lane i's episodes take i + 1 steps of reward 1, or never end; actions are added up."""

    def __init__(self, lanes, endless=False):
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs, self.endless = lanes, endless
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.seeds, self.steps_taken, self.closed = [], 0, False

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        self.left = np.arange(1, self.num_envs + 1)
        self.done = np.zeros(self.num_envs, bool)
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions):
        self.steps_taken += 1
        running = ~self.done
        self.left = np.where(running, self.left - 1, np.arange(1, self.num_envs + 1))
        ended = running & (self.left == 0) & (not self.endless)
        reward = np.where(running, 1.0 + 100.0 * actions, 0.0)
        self.done = ended
        return np.zeros((self.num_envs, 1), np.float32), reward, ended, np.zeros_like(ended), {}

    def close_extras(self, **arguments):
        self.closed = True


class Still:
    """Action 0 when it exploits, 1 when it explores."""

    stored = False

    def __init__(self, generators):
        self.draws = [generator.random() for generator in generators]

    def initial_state(self, lanes):
        return {}

    def act(self, obs, first, facts, state, explore):
        return np.full(obs.shape[:2], int(explore)), state, {}

    def load_params(self, params):
        assert params is PARAMS


def make(time_limit=50, endless=False):
    envs, actors = [], []

    def simulator(lanes):
        envs.append(Countdown(lanes, endless))
        return envs[-1]

    def actor(generators):
        actors.append(Still(generators))
        return actors[-1]

    return (
        Evaluator("Countdown-v0", spec_of(Countdown(1)), simulator, actor, time_limit),
        envs,
        actors,
    )


def test_each_lane_plays_one_whole_episode():
    evaluator, envs, _ = make()
    # lanes of 1, 2, 3, 4 steps; the quick ones begin anew meanwhile, and that counts for nothing
    returns = evaluator.returns(PARAMS, [0, 1], 4, Purpose.FINAL)
    assert returns.tolist() == [[1, 2, 3, 4]] * 2
    assert [env.steps_taken for env in envs] == [4, 4]


def test_more_episodes_than_lanes_are_played_in_rounds():
    evaluator, envs, _ = make()
    returns = evaluator.returns(PARAMS, [0], 2 * MAX_LANES, Purpose.FINAL)
    assert returns.shape == (1, 2 * MAX_LANES)
    assert returns[0].tolist() == list(range(1, MAX_LANES + 1)) * 2
    assert len(set(envs[0].seeds)) == 2


@pytest.mark.parametrize(
    ("episodes", "lanes"), [(1, 1), (20, 20), (100, 100), (150, 75), (101, 51)]
)
def test_any_number_of_episodes_takes_few_rounds(episodes, lanes):
    evaluator, envs, _ = make()
    assert evaluator.returns(PARAMS, [0], episodes, Purpose.FINAL).shape == (1, episodes)
    assert envs[0].num_envs == lanes


def test_seeds_of_episodes_depend_on_seed_purpose_and_number_alone():
    def seeds(of, purpose, number):
        evaluator, envs, actors = make()
        evaluator.returns(PARAMS, of, 4, purpose, number)
        return [env.seeds for env in envs], actors[0].draws

    both, draws = seeds([5, 6], Purpose.SCHEDULED, 100)
    alone, draw = seeds([6], Purpose.SCHEDULED, 100)
    assert (both[1], draws[1]) == (alone[0], draw[0])
    assert both[0] != both[1]
    assert seeds([6], Purpose.CONFIRMATION, 100)[0] != alone
    assert seeds([6], Purpose.SCHEDULED, 200)[0] != alone


def test_an_evaluation_leaves_nothing_for_the_next():
    evaluator, envs, _ = make()
    first = evaluator.returns(PARAMS, [3], 4, Purpose.FINAL)
    evaluator.returns(PARAMS, [9], 4, Purpose.SCHEDULED, 7)
    again = evaluator.returns(PARAMS, [3], 4, Purpose.FINAL)
    assert (first == again).all()
    assert envs[0].seeds[0] == envs[0].seeds[2]
    assert len(envs) == 1  # simulators are kept
    evaluator.close()
    assert envs[0].closed


def test_where_episodes_have_no_limit_they_are_cut():
    evaluator, _, _ = make(time_limit=0, endless=True)
    returns = evaluator.returns(PARAMS, [0], 2, Purpose.FINAL)
    assert returns.tolist() == [[EPISODE_LIMIT] * 2]


def test_the_environment_s_own_limit_is_left_to_it():
    evaluator, _, _ = make(time_limit=5_000)
    assert evaluator.limit > EPISODE_LIMIT


def nan_at(place):
    def fault(result):
        result = list(result)
        result[place] = np.array(result[place], np.float32)
        result[place][1] = np.nan
        return tuple(result)

    return fault


def fails(result):
    raise ZeroDivisionError("somewhere inside")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (nan_at(0), r"lane 1, step 2: in an evaluation the observation is \[nan\]"),
        (nan_at(1), "lane 1, step 2: in an evaluation the reward is not finite"),
        (fails, "lane 0, step 2: step raised ZeroDivisionError"),
        (lambda result: (result[0], True, *result[2:]), "the reward is a bool, no array"),
    ],
)
def test_a_fault_in_an_evaluation_is_one_of_the_simulator(fault, told):
    class Faulty(Countdown):
        def step(self, actions):
            result = super().step(actions)
            return fault(result) if self.steps_taken == 3 else result

    evaluator = Evaluator("Faulty-v0", spec_of(Countdown(1)), lambda n: Faulty(n, True), Still, 0)
    with pytest.raises(SimulatorError, match=told):
        evaluator.returns(PARAMS, [0], 2, Purpose.FINAL)


def test_the_first_observation_of_an_evaluation_is_looked_at():
    class Faulty(Countdown):
        def reset(self, **arguments):
            obs, info = super().reset(**arguments)
            return nan_at(0)((obs,))[0], info

    evaluator = Evaluator("Faulty-v0", spec_of(Countdown(1)), Faulty, Still, 50)
    with pytest.raises(SimulatorError, match="lane 1, step 0: in an evaluation the observation is"):
        evaluator.returns(PARAMS, [0], 2, Purpose.FINAL)


def test_what_a_lane_does_after_its_episode_does_not_count():
    class Late(Countdown):
        def step(self, actions):
            obs, reward, *rest = super().step(actions)
            reward[0] = reward[0] if self.steps_taken == 1 else np.nan
            return obs, reward, *rest

    evaluator = Evaluator("Late-v0", spec_of(Countdown(1)), Late, Still, 50)
    assert evaluator.returns(PARAMS, [0], 3, Purpose.FINAL).tolist() == [[1, 2, 3]]


def test_processes_are_not_started_for_evaluations(monkeypatch):
    from runners import group as groups
    from runners.resolve import make_config

    config = make_config("dqn", "MountainCar-v0", steps=100, backend="async", lanes=1)
    setting = groups.make_setting(config)
    evaluator = setting.evaluator()
    made = evaluator.make_simulator(2)
    assert type(made.unwrapped).__name__ == "SyncVectorEnv"
    made.close()


def test_weights_are_not_touched():
    from tests.agents.test_groups import Training, config_of

    training = Training(config_of("dqn"), [0]).go(4)
    from runners import group as groups

    evaluator = groups.make_setting(config_of("dqn")).evaluator()
    params = training.learner.params()
    before = params.tensors["flat"].clone()
    evaluator.returns(params, [0], 2, Purpose.SCHEDULED)
    assert torch.equal(before, training.learner.params().tensors["flat"])
    evaluator.close()
