import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AutoresetMode, VectorEnv

import envs
from envs import native
from envs.adapter import GymnasiumEnv
from envs.contract import Resumable, UnsupportedEnv, spec_of
from envs.simulator import block_seeds, lane_seeds

TABULAR = [env_id for env_id, module in envs.SIMULATORS.items() if module == "tabular"]
CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")


def run(env, steps, seed=None, action_seed=0):
    """All arrays of a run with random actions."""
    rng = np.random.default_rng(action_seed)
    rows = [env.reset(seed=None if seed is None else block_seeds(env, seed))[0]]
    for _ in range(steps):
        rows += list(env.step(random_actions(env, rng))[:4])
    return rows


def random_actions(env, rng):
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=env.num_envs)
    return rng.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(space.dtype)


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("env_id", [*TABULAR, *CLASSIC])
def test_keeps_its_seed_for_the_first_bare_reset(env_id):
    made = run(envs.make(env_id, 3, 11), 50)
    given = run(envs.make(env_id, 3, 12), 50, seed=11)
    assert same(made, given)


def test_the_kept_seed_is_used_once():
    for env_id in ("CartPole-v1", "Acrobot-v1", "Taxi-v4"):
        env = envs.make(env_id, 3, 11)
        assert not same([env.reset()[0]], [env.reset()[0]])


@pytest.mark.parametrize(
    ("env_id", "backend", "resolved"),
    [
        ("FrozenLake-v1", "auto", "tabular"),
        ("FrozenLake-v1", "sync", "sync"),
        ("Garnet-v0", "auto", "tabular"),
        ("CartPole-v1", "auto", "native"),
        ("CartPole-v1", "sync", "sync"),
        ("CartPole-v1", "async", "async"),
        ("Acrobot-v1", "auto", "batched"),
        ("Acrobot-v1", "sync", "sync"),
        ("phys2d/CartPole-v1", "auto", "sync"),
    ],
)
def test_resolve_backend(env_id, backend, resolved):
    assert envs.resolve_backend(env_id, backend) == resolved


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("CartPol-v1", {}, "there is no environment 'CartPol-v1'; did you mean 'CartPole-v1'?"),
        ("cartpole-v1", {}, "there is no environment 'cartpole-v1'; did you mean 'CartPole-v1'?"),
        ("riverswim", {}, "there is no environment 'riverswim'; did you mean 'RiverSwim-v0'?"),
        ("???", {}, "there is no environment '???'"),
        ("Pendulum-v1", {"G": 1}, "Pendulum-v1 has no option 'G'; did you mean 'g'?"),
        (
            "CartPole-v1",
            {"zzz": 1},
            "CartPole-v1 has no option 'zzz'; its options are force_mag, gravity, length, masscart, "
            "masspole, max_episode_steps, render_mode, sutton_barto_reward, tau",
        ),
        ("Garnet-v0", {"backend": "sync"}, "Garnet-v0 has no backend 'sync'; it has tabular"),
        (
            "Acrobot-v1",
            {"max_episode_steps": -1},
            "Acrobot-v1: option max_episode_steps: got -1, takes a whole number of at least 0",
        ),
    ],
)
def test_bad_input_is_one_line_with_the_nearest_right_word(env_id, options, message):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 2, 0, **options)
    assert str(error.value) == message


@pytest.mark.parametrize("lanes", [0, -1, 1.5, True])
def test_lanes_are_counted_in_whole_numbers(lanes):
    with pytest.raises(UnsupportedEnv, match="num_envs"):
        envs.make("CartPole-v1", lanes, 0)


@pytest.mark.parametrize("backend", ["native", "sync"])
@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (0, None)])
def test_max_episode_steps(backend, limit, expected):
    env = envs.make("CartPole-v1", 1, 0, backend, max_episode_steps=limit)
    env.reset()
    first = None
    for step in range(1, 9):  # alternating actions keep the pole up for that long
        _, _, terminated, truncated, _ = env.step(np.array([step % 2]))
        assert not terminated[0]
        first = step if truncated[0] and first is None else first
    assert first == expected


def test_limits_and_thresholds():
    assert envs.time_limit("CartPole-v1") == 500
    assert envs.time_limit("FrozenLake8x8-v1") == 200
    assert envs.time_limit("CliffWalking-v1") == 0
    assert envs.time_limit("RiverSwim-v0") == 20
    assert envs.time_limit("RiverSwim-v0", max_episode_steps=50) == 50
    assert envs.reward_threshold("CartPole-v1") == 475
    assert envs.reward_threshold("CliffWalking-v1") is None
    assert envs.reward_threshold("Garnet-v0") is None


def test_sync_lanes_have_the_seeds_of_the_sequence():
    env = envs.make("Acrobot-v1", 3, 5)
    obs, _ = env.reset()
    for lane, seed in enumerate(lane_seeds(5, 3)):
        alone, _ = native.scalar("Acrobot-v1", {}).reset(seed=seed)
        assert (obs[lane] == alone).all()
    assert not set(lane_seeds(5, 3)) & set(lane_seeds(6, 3))


@pytest.mark.parametrize("env_id", CLASSIC)
@pytest.mark.parametrize("backend", ["auto", "sync"])
def test_state_goes_on_in_another_environment(env_id, backend):
    env, other = envs.make(env_id, 3, 0, backend), envs.make(env_id, 3, 1, backend)
    assert isinstance(env, Resumable)
    rng = np.random.default_rng(0)
    env.reset()
    done = np.zeros(3, np.bool_)
    for step in range(1100):  # until right behind an end, late enough to have seen resets
        _, _, terminated, truncated, _ = env.step(random_actions(env, rng))
        done = terminated | truncated
        if step > 250 and done.any():
            break
    assert done.any()
    state = env.get_state()
    other.set_state(state)
    actions = [random_actions(env, rng) for _ in range(300)]
    expected = [env.step(action)[:4] for action in actions]
    assert all(
        same(other.step(action)[:4], row) for action, row in zip(actions, expected, strict=True)
    )
    env.set_state(state)  # a copy: 300 steps have not changed it
    assert same(env.step(actions[0])[:4], expected[0])


def test_environments_of_unknown_state_are_not_resumable():
    assert not isinstance(envs.make("Taxi-v4", 1, 0, "sync"), Resumable)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: gymnasium.wrappers.FlattenObservation(
            gymnasium.wrappers.FrameStackObservation(env, 4)
        ),
        gymnasium.wrappers.NormalizeReward,
    ],
)
def test_nor_are_wrappers_with_a_state_of_their_own(wrap, request):
    name = f"Wrapped{abs(hash(request.node.name))}-v0"
    gymnasium.register(name, lambda: wrap(CartPoleEnv()), max_episode_steps=10)
    assert not isinstance(envs.make(name, 1, 0, "sync"), Resumable)
    del gymnasium.registry[name]


class Shifted(gymnasium.Env):
    """Counts 5, 6, 7, ... by the action, which is -2 or -1."""

    observation_space = spaces.Discrete(6, start=5)
    action_space = spaces.Discrete(2, start=-2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 5
        return self.at, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.at += int(action) + 2
        return self.at, 0.0, self.at == 10, False, {}


class Facts(gymnasium.Env):
    """Has a mask where it is not the third step, tells of lives only when they are lost."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        mask = np.array([True, False, True])
        return np.zeros(1, np.float32), {"action_mask": mask, "life_loss": False, "lives": 3}

    def step(self, action):
        self.t += 1
        info = {} if self.t == 3 else {"action_mask": np.array([False, True, self.t == 2])}
        if action == 2:
            info["life_loss"] = True
        return np.zeros(1, np.float32), 0.0, False, False, {**info, "lives": 2}


class SameStepVector(VectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs=1, max_episode_steps=None):
        self.num_envs = num_envs


class ShiftedVector(VectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space = spaces.Box(0, 1, (1,))
    single_action_space = spaces.Discrete(3, start=1)

    def __init__(self, num_envs=1, max_episode_steps=None):
        self.num_envs = num_envs


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gymnasium.register("ShiftedVector-v0", Shifted, vector_entry_point=ShiftedVector)
    gymnasium.register("Shifted-v0", Shifted)
    gymnasium.register("Facts-v0", Facts)
    gymnasium.register("SameStep-v0", Shifted, vector_entry_point=SameStepVector)
    yield
    for env_id in ("Shifted-v0", "ShiftedVector-v0", "Facts-v0", "SameStep-v0"):
        del gymnasium.registry[env_id]


def test_discrete_spaces_begin_at_0():
    env = envs.make("Shifted-v0", 2, 0)
    assert spec_of(env).num_states == 6
    assert env.single_observation_space.start == env.single_action_space.start == 0
    assert env.reset()[0].tolist() == [0, 0]
    assert env.step(np.array([0, 1]))[0].tolist() == [0, 1]


def test_a_vector_class_whose_actions_begin_elsewhere_is_refused():
    message = "counts observations from 0 and actions from 1; use backend='sync'"
    with pytest.raises(UnsupportedEnv, match=message):
        envs.make("ShiftedVector-v0", 2, 0, "native")


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_numpys_integers_are_seeds(backend):
    obs = []
    for seed in (3, np.int64(3)):
        env = envs.make("Pendulum-v1", 2, 0, backend)
        obs.append(env.reset(seed=seed)[0])
        env.close()
    assert np.array_equal(*obs)


def test_making_processes_leaves_their_maker_as_it_was():
    """A child of multiprocessing has a parent of its own, with which it need not end."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(interrupts_stay).result()


def interrupts_stay():
    before = signal.getsignal(signal.SIGINT)
    envs.make("Pendulum-v1", 1, 0, "async").close()
    return signal.getsignal(signal.SIGINT) == before


def test_facts_are_there_at_every_step_and_nothing_else():
    env = envs.make("Facts-v0", 2, 0)
    _, infos = env.reset()
    assert infos.keys() == {"action_mask", "life_loss"}
    assert infos["action_mask"].tolist() == [[True, False, True]] * 2
    *_, infos = env.step(np.array([0, 2]))
    assert infos.keys() == {"action_mask", "life_loss"}
    assert infos["life_loss"].tolist() == [False, True]
    assert infos["action_mask"].tolist() == [[False, True, False]] * 2
    *_, infos = env.step(np.array([0, 0]))
    assert infos["life_loss"].tolist() == [False, False]
    *_, infos = env.step(np.array([0, 0]))
    # no mask in this step: everything is allowed
    assert infos["action_mask"].tolist() == [[True] * 3] * 2


def test_a_lane_without_a_fact_gets_the_neutral_one():
    class Inner(VectorEnv):
        num_envs = 2
        single_action_space = spaces.Discrete(1)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2), {"action_mask": np.zeros((2, 3), np.int8)}

        def step(self, actions):
            mask = np.array([[1, 0, 0], [0, 0, 0]], np.int8)
            infos = {"action_mask": mask, "_action_mask": np.array([True, False])}
            return np.zeros(2), np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), infos

    env = GymnasiumEnv(Inner(), 0, separate_lanes=False)
    env.reset()
    *_, infos = env.step(np.zeros(2, int))
    assert infos["action_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]


def test_taxi_in_gymnasium_shows_its_mask_at_every_step():
    env = envs.make("Taxi-v4", 2, 0, "sync")
    _, infos = env.reset()
    assert infos["action_mask"].shape == (2, 6)
    for _ in range(250):  # past a time limit
        *_, infos = env.step(np.zeros(2, np.int64))
        assert infos.keys() == {"action_mask"}
        assert infos["action_mask"].any(axis=1).all()


def test_vector_class_that_resets_within_the_step_is_refused():
    with pytest.raises(UnsupportedEnv, match="use backend='sync'"):
        envs.make("SameStep-v0", 1, 0)
