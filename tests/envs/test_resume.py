"""States by replay: what an episode began with and its actions bring the same steps in a fresh object.

The states of CartPole's vector class and of classic control are tested in `test_make`.
"""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import NormalizeObservation, TimeLimit

import envs
from envs import native
from envs.check import check_id
from envs.contract import Resumable
from envs.resume import Replayed, ReplayedLanes
from tests.envs.test_make import random_actions, same

PACKAGES = {"Box2D": ("LunarLander", "Bipedal", "CarRacing"), "minigrid": ("MiniGrid", "BabyAI", "Grid"),
            "popgym": ("popgym",), "dm_control": ("dm_control",)}  # fmt: skip


def needs_its_package(env_id):
    package = next(name for name, ids in PACKAGES.items() if env_id.startswith(ids))
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")
    importlib.import_module(package)


@pytest.fixture
def grid_id():
    """Registers a MiniGrid id inside wrappers, for this test."""
    names = []

    def register(inner, *wrappers):
        def made(**options):
            env = gymnasium.make(inner, disable_env_checker=True, **options)
            for wrap in wrappers:
                env = wrap(env)
            return env

        names.append(f"Grid{len(names)}-v0")
        gymnasium.register(names[-1], made)
        return names[-1]

    yield register
    for name in names:
        del gymnasium.registry[name]


def image(env):
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(env)


def goes_on(make, lanes, steps=60):
    """Four trips from a life of many episodes, into fresh objects with a life of their own.

    Two begin within an episode and two right behind an end.
    """
    env, rng, trips = make(lanes, 0), np.random.default_rng(0), 0
    env.reset()
    for step in range(1, 1500):
        _, _, terminated, truncated, _ = env.step(random_actions(env, rng))
        if step < 100 * (trips + 1) or (terminated | truncated).any() != trips % 2:
            continue
        state, fresh = env.get_state(), make(lanes, 1 + trips)
        fresh.reset()
        for _ in range(5):
            fresh.step(random_actions(fresh, rng))
        fresh.set_state(state)
        for _ in range(steps):
            chosen = random_actions(env, rng)
            ours, theirs = env.step(chosen)[:4], fresh.step(chosen.copy())[:4]
            chosen[...] = 0  # whoever keeps the caller's array has lost its actions
            if not same(ours, theirs):
                return False
        trips += 1
        if trips == 4:
            return True
    pytest.fail(f"{trips} trips")


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("LunarLander-v3", {}),
        ("LunarLanderContinuous-v3", {"enable_wind": True}),
        ("BipedalWalker-v3", {"max_episode_steps": 90}),
        ("BipedalWalkerHardcore-v3", {"max_episode_steps": 90}),
        ("MiniGrid-Empty-5x5-v0", {"max_episode_steps": 60}),
        ("MiniGrid-MemoryS7-v0", {}),
        ("BabyAI-GoToRedBall-v0", {}),
        ("dm_control/finger-turn_easy-v0", {"max_episode_steps": 60}),
        ("popgym-RepeatPreviousEasy-v0", {}),
        ("popgym-NoisyPositionOnlyPendulumHard-v0", {}),
    ],
)
def test_a_state_goes_on_in_a_fresh_environment(env_id, options, grid_id):
    needs_its_package(env_id)
    if env_id.startswith(("MiniGrid", "BabyAI")):
        env_id = grid_id(env_id, image)

    def make(lanes, seed):
        env = envs.make(env_id, lanes, seed, "sync", **options)
        assert isinstance(env, ReplayedLanes)
        return env

    assert goes_on(make, 2)


@pytest.mark.slow
def test_car_racing_goes_on_in_a_fresh_environment():
    needs_its_package("CarRacing-v3")

    def make(lanes, seed):
        return envs.make("CarRacing-v3", lanes, seed, max_episode_steps=70)

    assert goes_on(make, 1, steps=80)


@pytest.mark.parametrize(
    "name",
    ["MineSweeperEasy", "ConcentrationEasy", "AutoencodeEasy", "CountRecallEasy", "BattleshipEasy",
     "HigherLowerEasy", "MultiarmedBanditEasy", "RepeatFirstEasy", "VelocityOnlyCartpoleEasy",
     "NoisyPositionOnlyCartPoleEasy", "PositionOnlyPendulumEasy"],
)  # fmt: skip
def test_every_task_of_popgym_is_a_function_of_its_generator_and_actions(name):
    """Single objects, as some have spaces that no lane has."""
    needs_its_package("popgym")
    env = Replayed(gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True))
    env.action_space.seed(0)
    env.reset(seed=0)
    done, trips, rng, fresh = False, 0, np.random.default_rng(0), None
    for step in range(600):
        if rng.random() < 0.04:
            fresh = Replayed(gymnasium.make(f"popgym-{name}-v0", disable_env_checker=True))
            fresh.reset(seed=step)
            fresh.set_state(env.get_state())
            trips += 1
        action = np.asarray(env.action_space.sample())
        rows = [one.reset()[:1] if done else one.step(action)[:4] for one in (env, fresh) if one]
        assert repr(rows[0]) == repr(rows[-1])
        done = not done and (rows[0][2] or rows[0][3])
    assert trips > 10


def test_an_episode_of_bipedal_walker_does_not_depend_on_the_one_before():
    """It does in Gymnasium; here each is the one that a newly made environment plays."""
    needs_its_package("BipedalWalker-v3")
    old = native.scalar("BipedalWalker-v3", {})
    new = gymnasium.make("BipedalWalker-v3")
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (300, 4)).astype(np.float32)

    def episode(env):
        rows = [env.reset(seed=2)[0]]
        for action in actions:
            obs, *rest = env.step(action)[:4]
            rows += [obs, rest]
            if rest[1] or rest[2]:
                break
        return repr(rows)

    expected = episode(new)
    assert [episode(old) for _ in range(3)] == [expected] * 3


def test_a_state_is_plain_and_no_later_step_changes_it():
    needs_its_package("LunarLander-v3")
    env = envs.make("LunarLanderContinuous-v3", 2, 0)
    assert isinstance(env, Resumable)
    with pytest.raises(RuntimeError, match="reset"):
        env.get_state()
    env.reset()
    state = env.get_state()
    assert [lane["actions"].shape for lane in state["lanes"]] == [(0, 2)] * 2
    rows = np.random.default_rng(0).uniform(-1, 1, (30, 2, 2)).astype(np.float32)
    expected = [env.step(row)[:4] for row in rows]
    assert [lane["actions"].shape for lane in env.get_state()["lanes"]] == [(30, 2)] * 2
    assert (env.get_state()["lanes"][1]["actions"] == rows[:, 1]).all()
    env.set_state(state)
    assert all(same(env.step(row)[:4], want) for row, want in zip(rows, expected, strict=True))


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "popgym-RepeatPreviousEasy-v0"])
def test_the_checker_finds_nothing(env_id):
    needs_its_package(env_id)
    found = check_id(env_id, steps=130)
    assert not [str(finding) for finding in found if finding.fault or finding.probe == "state"]


def test_what_outlives_an_episode_is_not_replayed(grid_id):
    """Wrappers that count, average or keep a goal over episodes have a state that is not known."""
    needs_its_package("MiniGrid")
    from minigrid import wrappers

    def resumable(*around):
        env_id = grid_id("MiniGrid-Empty-5x5-v0", *around)
        return isinstance(envs.make(env_id, 1, 0, "sync"), Resumable)

    assert resumable(image)
    assert resumable(wrappers.FullyObsWrapper, image, lambda env: TimeLimit(env, 7))
    assert not resumable(image, NormalizeObservation)
    assert not resumable(wrappers.ActionBonus, image)
    assert not resumable(wrappers.ReseedWrapper, image)
    assert not resumable(wrappers.DirectionObsWrapper, image)
