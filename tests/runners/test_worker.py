"""The worker against simulators that misbehave, and where it puts facts."""

from __future__ import annotations

import warnings
from contextlib import closing

import numpy as np
import pytest
from gymnasium import spaces

from envs.contract import SimulatorError, spec_of
from runners.sources import Plan
from runners.worker import RolloutWorker
from tests.scripted import RandomActor, ScriptedEnv


class Faulty(ScriptedEnv):
    """Keeps the contract until its step number ``at`` (from 0); then ``fault`` changes the result."""

    def __init__(self, lanes, seed, fault, at=0):
        super().__init__(lanes, seed, limit=100, p_end=0.0)
        self.fault, self.at, self.steps = fault, at, 0

    def step(self, actions):
        result = super().step(actions)
        self.steps += 1
        return self.fault(*result) if self.steps == self.at + 1 else result


def well(*result):
    return result


def worker(make, seeds=(0,), blocks=1, max_rows=4):
    return RolloutWorker(
        "Faulty-v0", spec_of(ScriptedEnv(1, 0, 1, 0.0)), seeds, blocks, make, RandomActor,
        max_rows=max_rows, reward_dtype=np.float32,
    )  # fmt: skip


def raises(obs, *rest):
    raise ZeroDivisionError("somewhere inside")


def nan_obs(obs, *rest):
    obs[1, 0] = np.nan
    return obs, *rest


def nan_reward(obs, reward, *rest):
    reward[1] = np.nan
    return obs, reward, *rest


def infinite_reward(obs, reward, *rest):
    reward[1] = np.inf
    return obs, reward, *rest


BLOCK_FAULTS = {
    "raises": (raises, "ZeroDivisionError: somewhere inside"),
    "obs shape": (lambda obs, *rest: (obs[:, :1], *rest), r"float32\(2, 1\), not float32\(2, 2\)"),
    "obs lanes": (lambda obs, *rest: (obs[:1], *rest), r"float32\(1, 2\), not float32\(2, 2\)"),
    "obs dtype": (lambda obs, *rest: (obs.astype(np.float64), *rest), r"float64\(2, 2\), not f"),
    "obs list": (lambda obs, *rest: (obs.tolist(), *rest), r"a list, no array"),
    "reward shape": (
        lambda obs, reward, *rest: (obs, reward[:1], *rest), r"reward is float64\(1,\)"
    ),
    "reward bool": (
        lambda obs, reward, *rest: (obs, reward > 0, *rest), r"reward is bool\(2,\), not a number"
    ),
    "reward text": (
        lambda obs, reward, *rest: (obs, reward.astype(str), *rest), r"reward is <U\d+\(2,\)"
    ),
    "one flag": (
        lambda obs, reward, terminated, truncated, info: (obs, reward, True, truncated, info),
        "terminated is a bool, no array",
    ),
    "flag shape": (
        lambda obs, reward, terminated, truncated, info:
            (obs, reward, terminated, truncated[:1], info),
        r"truncated is bool\(1,\)",
    ),
    "flag dtype": (
        lambda obs, reward, terminated, truncated, info:
            (obs, reward, np.full(2, np.nan), truncated, info),
        r"terminated is float64\(2,\), not a bool",
    ),
}  # fmt: skip
LANE_FAULTS = {
    "NaN observation": (nan_obs, "observation is"),
    "NaN reward": (nan_reward, "the reward is nan"),
    "infinite reward": (infinite_reward, "the reward is inf"),
}


@pytest.mark.parametrize(("fault", "told"), BLOCK_FAULTS.values(), ids=BLOCK_FAULTS)
def test_a_fault_of_a_block_names_its_first_lane_and_the_step(fault, told):
    """Seed 1, block 1 of 2, two lanes a block: columns 6 and 7. Its sixth step is step 5."""
    made = worker(
        lambda seed, block: Faulty(2, seed, fault if (seed, block) == (1, 1) else well, at=5),
        seeds=(0, 1),
        blocks=2,
    )
    made.collect(Plan(4, None), 0)
    with pytest.raises(SimulatorError, match=told) as caught:
        made.collect(Plan(4, None), 0)
    error = caught.value
    assert (error.env_id, error.lane, error.step) == ("Faulty-v0", 6, 5)
    assert "Faulty-v0: lane 6, step 5" in str(error)


@pytest.mark.parametrize(("fault", "told"), LANE_FAULTS.values(), ids=LANE_FAULTS)
def test_a_bad_number_is_found_in_its_lane_and_step(fault, told):
    made = worker(
        lambda seed, block: Faulty(2, seed, fault if (seed, block) == (1, 1) else well, at=5),
        seeds=(0, 1),
        blocks=2,
    )
    made.collect(Plan(4, None), 0)
    with pytest.raises(SimulatorError, match=told) as caught:
        made.collect(Plan(4, None), 0)
    assert (caught.value.lane, caught.value.step) == (7, 5)


class WrongAtReset(ScriptedEnv):
    """Begins with what ``fault`` makes of its first observations."""

    def __init__(self, fault):
        super().__init__(2, 0, limit=100, p_end=0.0)
        self.fault = fault

    def reset(self, **arguments):
        return self.fault(super().reset(**arguments)[0]), {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (raises, "lane 0, step 0: reset raised ZeroDivisionError"),
        (lambda obs: obs[0], r"lane 0, step 0: the observation is float32\(2,\), not"),
        (lambda obs: nan_obs(obs)[0], "lane 1, step 0: the observation is"),
    ],
)
def test_the_first_observation_is_looked_at(fault, told):
    with pytest.raises(SimulatorError, match=told):
        worker(lambda seed, block: WrongAtReset(fault)).collect(Plan(2, None), 0)


class States(ScriptedEnv):
    """Counts its steps, and says that there are five of them."""

    def __init__(self, first):
        super().__init__(2, 0, limit=100, p_end=0.0)
        self.single_observation_space = spaces.Discrete(5)
        self.at = first

    def reset(self, **arguments):
        super().reset(**arguments)
        return np.array([0, self.at]), {}

    def step(self, actions):
        self.at += 1
        return np.array([0, self.at]), *super().step(actions)[1:]


@pytest.mark.parametrize(("first", "step"), [(3, 1), (5, 0), (-1, 0)])
def test_a_state_that_the_space_does_not_have_goes_no_further(first, step):
    with pytest.raises(SimulatorError, match=r"is (5|-1), not in 0\.\.4") as caught:
        RolloutWorker(
            "States-v0", spec_of(States(0)), [0], 1, lambda seed, block: States(first), RandomActor,
            max_rows=4, reward_dtype=np.float32,
        ).collect(Plan(4, None), 0)  # fmt: skip
    assert (caught.value.lane, caught.value.step) == (1, step)


@pytest.mark.parametrize("columns", [None, range(2, 4)])
def test_an_actor_is_told_which_of_a_seeds_lanes_are_its_own(columns):
    class Placed(RandomActor):
        placed = None

        def place(self, first_lane, lanes):
            self.placed = first_lane, lanes

    made = RolloutWorker(
        "Faulty-v0", spec_of(ScriptedEnv(1, 0, 1, 0.0)), [0, 1], 3,
        lambda seed, block: ScriptedEnv(2, seed, 9, 0.0), Placed,
        max_rows=4, reward_dtype=np.float32, columns=columns,
    )  # fmt: skip
    # three blocks of two lanes a seed; columns 2 and 3 are the first seed's last and the second seed's first
    found = {b: actor.placed for b, actor in made.actors.items()}
    assert found == (
        {0: (0, 6), 1: (2, 6), 2: (4, 6)} if columns is None else {0: (0, 6), 2: (4, 6)}
    )


def test_the_cause_stays_attached():
    made = worker(lambda seed, block: Faulty(2, seed, raises))
    with pytest.raises(SimulatorError) as caught:
        made.collect(Plan(1, None), 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Narrow(ScriptedEnv):
    """Observations are counted upwards; the space says that they stay below 5."""

    def __init__(self, lanes, seed):
        super().__init__(lanes, seed, limit=100, p_end=0.0)
        self.single_observation_space = spaces.Box(0.0, 5.0, (2,), np.float32)


def test_values_outside_the_space_are_told_once():
    made = worker(lambda seed, block: Narrow(1, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.collect(Plan(4, None), 0)  # numbers 1 to 5
    # the rows of the second rollout hold 5 to 9: four numbers are too large
    with pytest.warns(UserWarning, match="Faulty-v0: 4 numbers of a rollout lie outside"):
        made.collect(Plan(4, None), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.collect(Plan(4, None), 0)


class Facts(ScriptedEnv):
    """The mask of every observation is its number; a life was lost in the step to it, its number."""

    def reset(self, **arguments):
        obs, _ = super().reset(**arguments)
        return obs, {"action_mask": np.repeat(obs[:, :1], 3, axis=1), "other": obs}

    def step(self, actions):
        obs, *rest, _ = super().step(actions)
        facts = {"action_mask": np.repeat(obs[:, :1], 3, axis=1), "life_loss": obs[:, 0] + 0.5}
        return obs, *rest, facts


def test_facts_stand_in_the_rows_that_they_describe():
    made = worker(lambda seed, block: Facts(2, seed, limit=3, p_end=0.0), seeds=(0, 1), blocks=2)
    for rows in (4, 1, 3):
        rollout = made.collect(Plan(rows, None), 0)
        assert set(rollout.facts) == {"action_mask"}
        assert set(rollout.step_facts) == {"life_loss"}
        # of an observation: in its own row, row T included, which is row 0 of the next rollout
        assert rollout.facts["action_mask"].shape == (rows + 1, 8, 3)
        assert (rollout.facts["action_mask"] == rollout.obs[..., :1]).all()
        # of a step: in the row of the action that led to the observation
        assert (rollout.step_facts["life_loss"] == rollout.obs[1:, :, 0] + 0.5).all()


class Sees(RandomActor):
    """Remembers what it was shown."""

    stored = True

    def __init__(self, generators):
        super().__init__(generators)
        self.seen = []

    def act(self, obs, first, facts, state, explore):
        self.seen.append((obs.copy(), first.copy(), facts["action_mask"].copy(), explore))
        action, state, _ = super().act(obs, first, facts, state, explore)
        return action, {"count": state.get("count", 0) + 1}, {"log_prob": obs[..., 0] * 2}


def test_the_actor_sees_each_row_and_its_extras_come_with_it():
    spec = spec_of(ScriptedEnv(1, 0, 1, 0.0))
    made = RolloutWorker(
        "x", spec, (0,), 1, lambda seed, block: Facts(2, seed, limit=2, p_end=0.0), Sees,
        max_rows=6, reward_dtype=np.float64,
    )  # fmt: skip
    one = made.collect(Plan(6, None), 5)
    for t, (obs, first, mask, explore) in enumerate(made.actors[0].seen):
        assert explore
        assert (obs[0] == one.obs[t]).all()
        assert (first[0] == one.first[t]).all()
        assert (mask[0] == one.facts["action_mask"][t]).all()
    assert (one.extras["log_prob"] == one.obs[:-1, :, 0] * 2).all()
    assert one.reward.dtype == np.float64
    assert one.version == 5
    assert one.actor_state == {}
    # the state at row 0 of the second rollout is the one that six rows have made
    assert made.collect(Plan(1, None), 6).actor_state == {"0": {"count": 6}}


def test_columns_are_seed_major():
    made = worker(
        lambda seed, block: ScriptedEnv(2, 0, 100, 0.0, base=1000 * seed + 100 * block),
        seeds=(4, 2),
        blocks=2,
    )
    opened = made.collect(Plan(1, None), 0).obs[0, :, 0]
    assert opened.tolist() == [4001, 4002, 4101, 4102, 2001, 2002, 2101, 2102]


def test_a_scheduled_reset_draws_from_block_and_checkpoint():
    """Whoever resumes at checkpoint 3 begins the same episodes as whoever went on."""

    class Seeded(ScriptedEnv):
        def reset(self, *, seed=None, options=None):
            self.given = [*getattr(self, "given", []), seed]
            return super().reset(seed=seed)

    def given(number, lane_rows):
        made = worker(lambda seed, block: Seeded(1, seed, 100, 0.0), seeds=(0, 1), blocks=2)
        made.collect(Plan(lane_rows, number), 0)
        made.collect(Plan(1, None), 0)
        return [block.env.env.given[1:] for block in made.blocks]

    seeds = given(3, 2)
    assert all(len(given) == 1 and given[0] is not None for given in seeds)
    assert len({given[0] for given in seeds}) == 4
    assert given(3, 4) == seeds
    assert given(4, 2) != seeds


class Remembers(RandomActor):
    """Its state is the sum of all that each lane has shown it."""

    stored = True

    def initial_state(self, lanes):
        return {"memory": {"sum": np.zeros((len(self.generators), lanes))}}

    def act(self, obs, first, facts, state, explore):
        action, _, extras = super().act(obs, first, facts, state, explore)
        return action, {"memory": {"sum": state["memory"]["sum"] + obs[..., 0]}}, extras


def test_seeds_that_stay_keep_their_actors_memory():
    def collect(kept):
        made = RolloutWorker(
            "Scripted-v0", spec_of(ScriptedEnv(1, 0, 1, 0.0)), [0, 1, 2], 1,
            lambda seed, block: ScriptedEnv(2, seed, 100, 0.0, base=100 * seed), Remembers,
            max_rows=4, reward_dtype=np.float32,
        )  # fmt: skip
        made.collect(Plan(4, None), 0)
        if kept:
            made.keep(kept)
        made.collect(Plan(4, None), 0)
        return made.actor_states[0]["memory"]["sum"]

    assert (collect([0, 2]) == collect(None)[[0, 2]]).all()


@pytest.mark.parametrize("p_end", [0.0, 1.0])
def test_a_scheduled_reset_truncates_what_has_not_ended(p_end):
    made = worker(lambda seed, block: ScriptedEnv(3, seed, 100, p_end))
    rollout = made.collect(Plan(1, 1), 0)
    assert rollout.terminated.all() == (p_end == 1.0)
    assert (rollout.truncated == ~rollout.terminated).all()
    after = made.collect(Plan(2, None), 0)
    assert after.first.tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert not after.reward[0].any()


def test_physics_that_ran_away_is_named(tmp_path, monkeypatch):
    """MuJoCo would put the lane back to its start, and say so in a file that nobody reads."""
    pytest.importorskip("mujoco")
    from runners.group import make_setting, make_worker
    from runners.resolve import make_config

    monkeypatch.chdir(tmp_path)  # where MuJoCo writes that file
    setting = make_setting(make_config("sac", "Hopper-v5", lanes=2, steps=1_000))
    with closing(make_worker(setting, [0])) as worker:
        worker.collect(Plan(1, None), 0)
        worker.blocks[0].env.env.unwrapped._data[1].qvel[0] = np.nan
        with pytest.raises(SimulatorError, match="Hopper-v5: lane 1, step 1: the reward is nan"):
            worker.collect(Plan(1, None), 0)
