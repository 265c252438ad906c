"""MinAtar: pgx's games play the original ones, whose own objects step as their Gymnasium class does."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import minatar
import numpy as np
import pytest
from scipy import stats

import envs
from envs import jax_games, jax_suites


class Recorder:
    """A generator that keeps what it has drawn."""

    def __init__(self, seed):
        self.inner, self.drawn = np.random.RandomState(seed), []

    def rand(self, *args):
        return self._keep(self.inner.rand(*args))

    def randint(self, *args, **kwargs):
        return self._keep(self.inner.randint(*args, **kwargs))

    def _keep(self, value):
        self.drawn.append(np.copy(value))  # games write to what they drew
        return value


def breakout_start(drawn):
    return {"ball_start": np.int32(drawn[0])}


def freeway_cars(drawn):
    speeds, signs = drawn or (np.ones(8), np.ones(8))
    return {
        "speeds": np.array(speeds, np.int32),
        "directions": np.array(np.sign(signs - 0.5), np.int32),
    }


def asterix_spawn(free, drawn):
    lr, gold, index = drawn if len(drawn) == 3 else (*drawn, 0, 0, 0)[:3]
    return {
        "lr": np.bool_(lr < 1 / 2),
        "is_gold": np.bool_(gold < 1 / 3),
        "slot": np.int32(free[index] if free else 0),
    }


def seaquest_spawn(enemy, drawn):
    lr, sub, y = drawn[:3] if enemy else (0, 0, 1)
    diver_lr, diver_y = drawn[3 * enemy :] or (0, 1)
    return {
        "enemy_lr": np.bool_(lr < 1 / 2),
        "is_sub": np.bool_(sub < 1 / 3),
        "enemy_y": np.int32(y),
        "diver_lr": np.bool_(diver_lr < 1 / 2),
        "diver_y": np.int32(diver_y),
    }


def choices_of(name, game):
    """What turns the draws of the step that ``game`` makes next into pgx's arguments."""
    if name == "freeway":
        return freeway_cars
    if name == "asterix":
        return partial(asterix_spawn, [i for i, one in enumerate(game.entities) if one is None])
    if name == "seaquest":
        return partial(seaquest_spawn, game.e_spawn_timer == 0)
    return lambda drawn: {}


def shoots_when_hit(name, game):
    """Whether a submarine moves and shoots in this step: what a bullet at it does then differs."""
    return name == "seaquest" and any(sub[3] == 0 and sub[4] == 0 for sub in game.e_subs)


def begun(name, module, game):
    """The first state of an episode on both sides."""
    game.random.drawn.clear()
    game.reset()
    if name == "breakout":
        return module._init_det(**breakout_start(game.random.drawn))
    if name == "freeway":
        return module._init_det(**freeway_cars(game.random.drawn))
    return module.State()


def moved_on(name, game, rng, state):
    """Both sides put where play from the start seldom comes: late in the game, few left to hit."""
    few = np.zeros((10, 10), bool)
    few[rng.integers(1, 4, 2), rng.integers(0, 10, 2)] = True
    values = {
        "asterix": {
            "spawn_speed": rng.integers(1, 11),
            "move_speed": rng.integers(1, 6),
            "ramp_timer": rng.integers(-1, 3),
            "ramp_index": rng.integers(0, 9),
        },
        "breakout": {"brick_map": few & (rng.random() < 0.5)},
        "freeway": {"terminate_timer": rng.integers(0, 60), "pos": rng.integers(1, 3)},
        "seaquest": {
            "diver_count": rng.integers(0, 7),
            "oxygen": rng.integers(0, 201),
            "e_spawn_speed": rng.integers(1, 21),
            "move_speed": rng.integers(2, 6),
            "ramp_index": rng.integers(0, 40),
            "sub_y": rng.integers(1, 4),
            "surface": False,
        },
        "space_invaders": {"alien_map": few, "enemy_move_interval": rng.integers(6, 13)},
    }[name]
    for key, value in values.items():
        setattr(game, key, value * 1.0 if np.ndim(value) else int(value))
    leaves = {f"_{key}": getattr(state, f"_{key}") for key in values}
    return state.replace(
        **{key: jnp.asarray(values[key[1:]], leaf.dtype) for key, leaf in leaves.items()}
    )


def played(name, game, rng):
    """Mostly actions that lead on: after the ball, up and across, shots."""
    if name == "breakout" and rng.random() < 0.9:
        return 1 if game.ball_x < game.pos else 3 if game.ball_x > game.pos else 0
    often = {"freeway": [2], "seaquest": [2, 5], "space_invaders": [5]}.get(name, [])
    return int(rng.choice([0, 1, 2, 3, 4, 5, *often, *often]))


@pytest.mark.parametrize("name", jax_games.MINATAR.values())
def test_pgx_plays_minatar_exactly(name):
    """The same draws give the same planes, rewards and ends, far beyond what random play reaches."""
    module = importlib.import_module(f"pgx.minatar.{name}")

    @jax.jit
    def step(state, action, choices):
        after = module._step_det(state, action, **choices)
        after = after.replace(observation=module._observe(after))
        if name == "seaquest":
            after = jax_suites._repaired(state, after)
        lives_on = after.replace(terminated=False, _terminal=jnp.bool_(False))
        return lives_on, after.observation, after.rewards[0], after.terminated

    game = minatar.Environment(name).env
    game.random = Recorder(0)
    rng = np.random.default_rng(0)
    state = begun(name, module, game)
    ends, rewards, left_out = 0, 0, 0
    for t in range(1_600 if name == "asterix" else 800):  # few to meet in Asterix
        if t % 250 == 249:
            state = begun(name, module, game)
        elif t % 25 == 24:
            state = moved_on(name, game, rng, state)
        choices, risky = choices_of(name, game), shoots_when_hit(name, game)
        action = played(name, game, rng)
        game.random.drawn.clear()
        reward, terminated = game.act(action)
        state, obs, got_reward, got_terminated = step(
            state, np.int32(action), choices(game.random.drawn)
        )
        if risky and reward > 0:
            state, left_out = begun(name, module, game), left_out + 1
            continue
        assert np.array_equal(np.asarray(obs), game.state()), f"step {t}"
        assert (got_reward, got_terminated) == (reward, terminated), f"step {t}"
        ends, rewards = ends + terminated, rewards + reward
        if terminated and name == "breakout":  # cannot go on without its ball
            state = begun(name, module, game)
        game.terminal = False  # the others play on behind their ends, and so see more
    assert ends >= 5
    assert rewards >= 5
    assert left_out < 10


def random_episodes(env_id, backend, episodes, lanes=50):
    """Returns and lengths of the first few episodes of each lane, so that short ones are no likelier."""
    env, rng = envs.make(env_id, lanes, 0, backend), np.random.default_rng(1)
    env.reset()
    returns, lengths = np.zeros(lanes), np.zeros(lanes, int)
    found = [[] for _ in range(lanes)]
    while min(map(len, found)) < episodes // lanes:
        _, reward, terminated, truncated, _ = env.step(
            rng.integers(env.single_action_space.n, size=lanes)
        )
        returns, lengths = returns + reward, lengths + 1
        for lane in np.flatnonzero(terminated | truncated):
            found[lane].append((returns[lane], lengths[lane]))
            returns[lane], lengths[lane] = 0, -1  # the step that resets is no step of an episode
    return np.array([one for lane in found for one in lane[: episodes // lanes]]).T


@pytest.mark.slow
@pytest.mark.parametrize("env_id", jax_games.MINATAR)
def test_random_play_is_as_good_in_both_backends(env_id):
    """Kolmogorov and Smirnov's test of 500 returns and lengths, at the level 0.001 each."""
    ours, theirs = (random_episodes(env_id, one, 500) for one in ("jax", "minatar"))
    for which, one, two in zip(("return", "length"), ours, theirs, strict=True):
        assert stats.ks_2samp(one, two).pvalue > 0.001, (which, one.mean(), two.mean())


def test_minatar_objects_are_stepped_as_by_their_own_gymnasium_class():
    env = envs.make("MinAtar/Asterix", 2, 0, "minatar", max_episode_steps=0)
    from minatar.gym import BaseEnv

    twin = BaseEnv("asterix", use_minimal_action_set=True)
    obs, _ = env.reset(seed=[5, 6])
    twin_obs, _ = twin.reset(seed=6)
    rng, done, ends = np.random.default_rng(0), False, 0
    for _ in range(1000):
        assert obs.dtype == np.uint8
        assert np.array_equal(obs[1], twin_obs)
        actions = rng.integers(5, size=2)
        obs, reward, terminated, _, _ = env.step(actions)
        if done:
            (twin_obs, _), twin_reward, done = twin.reset(), 0, False
        else:
            twin_obs, twin_reward, done, _, _ = twin.step(actions[1])
        assert (reward[1], terminated[1]) == (twin_reward, done)
        ends += done
    assert ends > 3
