"""MinAtar, pgx and gymnax through the JAX adapter."""

import dataclasses
import re
import subprocess
import sys
from functools import partial

import gymnax
import jax
import numpy as np
import pgx
import pytest
from gymnax.registration import registered_envs

import envs
from envs import jax_games, jax_suites
from envs.check import check
from envs.contract import UnsupportedEnv
from envs.jax_lanes import JaxLanes, keys_of

# -- The adapter -----------------------------------------------------------------------------------

# Three lanes and this limit wherever they serve: what is compiled once is used again.
SHORT = {"max_episode_steps": 11}


def actions_of(env, steps, seed=0):
    rng, space = np.random.default_rng(seed), env.single_action_space
    return rng.integers(space.n, size=(steps, env.num_envs))


@pytest.mark.parametrize(
    ("env_id", "backend", "options"),
    [
        ("MinAtar/Breakout", "jax", SHORT),
        ("MinAtar/Seaquest", "minatar", {"max_episode_steps": 60}),
        ("pgx/kuhn_poker", "jax", {}),
        ("gymnax/CartPole-v1", "jax", SHORT),
    ],
)
def test_keeps_the_contract(env_id, backend, options):
    limit = envs.time_limit(env_id, **options)
    made = partial(envs.make, env_id, backend=backend, **options)
    findings = check(made, steps=150, time_limit=limit)
    assert [str(finding) for finding in findings if finding.fault] == []


def test_is_traced_once():
    game = jax_suites.gymnax_game("gymnax/CartPole-v1", (), 20)
    traced = []

    def step(*arguments):
        traced.append(arguments)
        return game.step(*arguments)

    env = JaxLanes(dataclasses.replace(game, step=step), 4, 0, 20)
    env.reset()
    for t, actions in enumerate(actions_of(env, 100)):
        env.step(actions if t % 2 else actions.astype(np.int32))
        if t == 50:
            env.set_state(env.get_state())
            env.reset()
    assert len(traced) == 1


@pytest.mark.parametrize("env_id", ["MinAtar/Breakout", "gymnax/CartPole-v1"])
def test_a_lane_does_not_depend_on_the_others(env_id):
    many, one = envs.make(env_id, 3, 0, **SHORT), envs.make(env_id, 1, 0, **SHORT)
    obs, _ = many.reset(seed=range(100, 103))
    alone, _ = one.reset(seed=[102])
    for actions in actions_of(many, 150):
        assert np.array_equal(obs[2], alone[0])
        obs, *ends, _ = many.step(actions)
        alone, *ends_alone, _ = one.step(actions[2:])
        assert [end[2] for end in ends] == [end[0] for end in ends_alone]


@pytest.mark.parametrize("env_id", ["MinAtar/Breakout", "pgx/kuhn_poker"])
def test_no_later_step_writes_to_what_was_handed_out(env_id):
    env = envs.make(env_id, 3, 0, **SHORT if env_id == "MinAtar/Breakout" else {})
    obs, facts = env.reset()
    rows = [[obs, *facts.values()]]
    copies = [[array.copy() for array in rows[0]]]
    for actions in actions_of(env, 200):
        *arrays, facts = env.step(actions)
        rows.append([*arrays, *facts.values()])
        copies.append([array.copy() for array in rows[-1]])
    for row, copied in zip(rows, copies, strict=True):
        assert all(map(np.array_equal, row, copied))


def test_observations_are_not_copied():
    obs, _ = envs.make("MinAtar/Breakout", 3, 0, **SHORT).reset()
    assert obs.dtype == np.uint8
    assert not obs.flags.owndata
    assert not obs.flags.writeable


@pytest.mark.parametrize("env_id", ["MinAtar/Breakout", "gymnax/CartPole-v1"])
def test_a_fresh_environment_goes_on_from_a_state(env_id):
    """From steps all through a run, some of them behind an end."""
    env, fresh = (envs.make(env_id, 3, seed, **SHORT) for seed in (0, 9))
    env.reset()
    actions, states, rows = actions_of(env, 60), [], []
    for row in actions:
        states.append(env.get_state())
        rows.append(env.step(row)[:4])
    behind_ends = [bool(state["done"].any()) for state in states]
    for t in (*range(0, 60, 10), *np.flatnonzero(behind_ends)[:5]):
        fresh.set_state(states[t])
        for u in range(t, min(t + 8, 60)):
            assert all(map(np.array_equal, fresh.step(actions[u])[:4], rows[u]))
    assert sum(behind_ends) >= 5


def test_a_state_of_another_kind_is_refused():
    env = envs.make("pgx/kuhn_poker", 3, 0)
    with pytest.raises(RuntimeError, match="reset"):
        env.get_state()
    env.reset()
    state = env.get_state()
    with pytest.raises(ValueError, match="elapsed of the state is int64"):
        env.set_state({**state, "elapsed": state["elapsed"].astype(np.int64)})
    with pytest.raises(
        ValueError, match=r"keys of the state is uint32\(2, 2\), not uint32\(3, 2\)"
    ):
        env.set_state({**state, "keys": state["keys"][:2]})
    del state["game"]["_cards"]
    with pytest.raises(ValueError, match="_cards"):
        env.set_state(state)


def test_keys_are_those_of_jax():
    seeds = [0, 1, 2**31 - 1, 2**32 - 1]
    assert np.array_equal(keys_of(seeds), [jax.random.PRNGKey(np.uint32(seed)) for seed in seeds])
    assert np.array_equal(keys_of([2**32 + 7]), [[1, 7]])


# -- gymnax: ends by its rules and by its limit ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit", "kinds"),
    [
        ("CartPole-v1", 11, {(True, False), (False, True)}),
        ("Catch-bsuite", 9, {(True, False)}),  # its rules end it at its ninth step
        ("Catch-bsuite", 8, {(False, True)}),
        ("MountainCar-v0", 11, {(False, True)}),
    ],
)
def test_terminated_and_truncated_are_told_apart(name, limit, kinds):
    """Against gymnax's own step with an endless clock; an end by the rules at the limit is terminal."""
    game, params = gymnax.make(name)
    endless = params.replace(max_steps_in_episode=10**9)
    structure = jax.tree.structure(game.reset_env(jax.random.PRNGKey(0), params)[1])

    @jax.jit
    @jax.vmap
    def step(key, leaves, action):
        state, drawn = jax.tree.unflatten(structure, leaves), jax.random.split(key)[1]
        obs, _, reward, done, _ = game.step_env(drawn, state, action, endless)
        return obs, reward, done

    env, seen = envs.make(f"gymnax/{name}", 3, 0, max_episode_steps=limit), set()
    env.reset()
    for actions in actions_of(env, 150):
        before = env.get_state()
        twin = step(before["keys"], tuple(before["game"].values()), actions.astype(np.int32))
        obs, reward, terminated, truncated, _ = env.step(actions)
        on = ~before["done"]
        for ours, theirs in zip((obs, reward, terminated), map(np.asarray, twin), strict=True):
            assert np.allclose(ours[on], theirs[on])
        last = on & (before["elapsed"] == limit - 1)
        assert np.array_equal(truncated, last & ~terminated)
        seen |= set(zip(terminated.tolist(), truncated.tolist(), strict=True))
    assert seen == kinds | {(False, False)}


def test_the_share_of_time_in_an_observation_is_that_of_the_limit():
    env = envs.make("gymnax/DiscountingChain-bsuite", 1, 0, max_episode_steps=50)
    env.reset()
    for t in range(1, 51):
        obs, _, terminated, truncated, _ = env.step([0])
        assert obs[0, 1] == pytest.approx(t / 50)
        assert (terminated[0], truncated[0]) == (False, t == 50)


def test_gymnax_options_reach_the_game():
    assert envs.make("gymnax/DeepSea-bsuite", 1, 0, size=5).single_observation_space.shape == (5, 5)
    env = envs.make("gymnax/MemoryChain-bsuite", 1, 0, memory_length=2)
    env.reset()
    assert [bool(env.step([0])[2][0]) for _ in range(3)] == [False, False, True]


# -- pgx: games of two players ---------------------------------------------------------------------


def test_tic_tac_toe_by_hand():
    env = envs.make("pgx/tic_tac_toe", 2, 0)
    _, facts = env.reset()
    begins = facts["to_play"].copy()
    assert facts["action_mask"].dtype == bool
    assert facts["action_mask"].all()
    for t, (won, lost) in enumerate(zip([0, 3, 1, 4, 2], [4, 0, 5, 1, 5], strict=True)):
        obs, reward, terminated, truncated, facts = env.step([won, lost])
        # lane 0: the one who began wins; lane 1: the one who began takes a field that is taken
        assert reward.tolist() == [1.0 * (t == 4), -1.0 * (t == 4)]
        assert terminated.tolist() == [t == 4] * 2
        assert not truncated.any()
        if t < 4:
            assert np.array_equal(facts["to_play"], (begins + t + 1) % 2)
            free = [i not in [0, 3, 1, 4][: t + 1] for i in range(9)]
            assert facts["action_mask"][0].tolist() == free
        if t == 0:  # the other one looks: no stone of its own, one of its opponent
            assert obs[0, :, :, 0].sum() == 0
            assert np.argwhere(obs[0, :, :, 1]).tolist() == [[0, 0]]
    _, reward, terminated, _, facts = env.step([0, 0])
    assert not reward.any()
    assert not terminated.any()
    assert facts["action_mask"].all()


# -- Names, options, pictures ----------------------------------------------------------------------


def test_the_tables_are_those_of_the_packages():
    left_out = {"sparrow_mahjong"} | {one for one in pgx.available_envs() if "minatar" in one}
    assert set(jax_games.PGX.values()) == set(pgx.available_envs()) - left_out
    left_out = {"MNISTBandit-bsuite", "SimpleBandit-bsuite"}
    limits = {
        f"gymnax/{one}": gymnax.make(one)[1].max_steps_in_episode
        for one in registered_envs
        if one not in left_out
    }
    assert limits == jax_games.GYMNAX


@pytest.mark.parametrize(
    ("env_id", "options", "what"),
    [
        ("MinAtar/Brekout", {}, "'MinAtar/Breakout'"),
        ("pgx/go9x9", {}, "'pgx/go_9x9'"),
        ("gymnax/Cartpole", {}, "'gymnax/CartPole-v1'"),
        ("MinAtar/Breakout", {"sticky": 0.2}, "'sticky_action_prob'"),
        ("MinAtar/Breakout", {"sticky_action_prob": 2}, "from 0 to 1"),
        ("pgx/hex", {"size": 3}, "max_episode_steps"),
        ("gymnax/MemoryChain-bsuite", {"memory_len": 3}, "'memory_length'"),
        ("gymnax/MemoryChain-bsuite", {"memory_length": "3"}, "takes a number"),
    ],
)
def test_unknown_names_bring_the_right_one(env_id, options, what):
    with pytest.raises(UnsupportedEnv, match=re.escape(what)):
        envs.make(env_id, 1, 0, **options)


@pytest.mark.parametrize(
    ("env_id", "backend", "package", "extra"),
    [
        ("MinAtar/Breakout", "jax", "pgx", "jax"),
        ("MinAtar/Breakout", "minatar", "minatar", "minatar"),
        ("gymnax/CartPole-v1", "jax", "gymnax", "jax"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, env_id, backend, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedEnv, match=rf"needs {package} .*'\.\[{extra}\]'"):
        envs.make(env_id, 1, 0, backend)


def test_names_are_resolved_without_jax():
    code = (
        "import sys, envs; envs.resolve_backend('MinAtar/Breakout'); envs.time_limit('pgx/hex');"
        "sys.exit(any(one in sys.modules for one in ('jax', 'pgx', 'gymnax', 'minatar')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limits():
    assert envs.time_limit("MinAtar/Breakout") == jax_games.MINATAR_LIMIT
    assert envs.time_limit("MinAtar/Breakout", max_episode_steps=0) == 0
    assert envs.time_limit("gymnax/CartPole-v1") == 500
    assert envs.time_limit("pgx/hex") == 0


def test_one_lane_with_pictures():
    env = envs.scalar("MinAtar/Breakout", render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="reset"):
        env.render()
    obs, info = env.reset(seed=3)
    assert info == {}
    assert env.observation_space.contains(obs)
    picture = env.render()
    assert picture.shape == (320, 320, 3)
    assert picture.dtype == np.uint8
    cells = picture[::32, ::32]
    assert np.array_equal(cells.any(axis=2), obs.any(axis=2))
    assert np.array_equal(picture, cells.repeat(32, axis=0).repeat(32, axis=1))
    # paddle, ball and bricks: a colour each (the trail is under the ball at first)
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) == 4
    obs, reward, terminated, truncated, _ = env.step(1)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert not np.array_equal(env.render(), picture)
    env.close()


def test_facts_of_one_lane():
    _, info = envs.scalar("pgx/tic_tac_toe").reset(seed=0)
    assert info["action_mask"].shape == (9,)
    assert info["to_play"].shape == ()


@pytest.mark.parametrize("env_id", ["gymnax/CartPole-v1", "pgx/kuhn_poker"])
def test_no_picture(env_id):
    with pytest.raises(UnsupportedEnv, match="no renderer"):
        envs.scalar(env_id, render_mode="rgb_array")
