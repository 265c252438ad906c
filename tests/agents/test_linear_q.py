"""Linear Q-learning: tiles and updates by hand, a slow twin, what is refused, two tasks that are learned."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from agents import linear_q
from agents.contract import Rollout
from agents.linear_q import LinearQConfig
from agents.tiles import active_tiles, make_tiling
from envs.contract import Spec
from runners import group as groups
from runners.resolve import make_config
from runners.train import run
from tests import reference
from tests.agents.tables import cut, random_rows
from tests.runners.toys import REFUSED

LINE = Spec((1,), np.float32, 0, 2, obs_low=np.array([0.0]), obs_high=np.array([1.0]))
PLANE = Spec((2,), np.float32, 0, 3, obs_low=np.array([-1.0, 0.0]), obs_high=np.array([1.0, 6.0]))
HALVES = LinearQConfig(tilings=2, tiles=2, lr=0.5, lr_end=0.5, gamma=0.5)


def tiles_of(tiling, *obs):
    found = np.empty(len(tiling.offset), np.int64)
    active_tiles(tiling, np.array(obs), found)
    return found.tolist()


def make(config, spec, lanes=1, seeds=1):
    return linear_q.make_learner(config, spec, lanes, [None] * seeds, [], None)


# -- Tiles -----------------------------------------------------------------------------------------


def test_tiles_of_a_plane_by_hand():
    """4 tilings of 2 x 2 tiles over [0, 4] x [0, 2]: a tile is 2 wide and 1 high, a grid 3 x 3 tiles.

    Tiling i is shifted by i (1, 3) quarters of a tile, whole tiles left out: (0, 0), (1/4, 3/4),
    (2/4, 6/4 - 1 = 2/4), (3/4, 9/4 - 2 = 1/4). The point (1.7, 0.9) is (0.85, 0.9) tiles from the
    corner, so its tiles are (0, 0), (1.10, 1.65), (1.35, 1.40) and (1.60, 1.15), rounded down: tile
    (x, y) of tiling i has the number 9 i + 3 x + y.
    """
    plane = make_tiling([0.0, 0.0], [4.0, 2.0], tilings=4, tiles=2)
    assert plane.features == 36
    assert tiles_of(plane, 1.7, 0.9) == [0, 9 + 4, 18 + 4, 27 + 4]
    assert tiles_of(plane, 0.0, 0.0) == [0, 9, 18, 27]
    assert tiles_of(plane, 4.0, 2.0) == [8, 17, 26, 35]  # the last tile of each
    assert tiles_of(plane, 9.0, -5.0) == [6, 15, 24, 33] == tiles_of(plane, 4.0, 0.0)


@pytest.mark.parametrize(("tilings", "dimensions"), [(1, 1), (2, 3), (4, 2), (8, 2), (16, 4)])
def test_tiles_are_those_of_the_slow_twin_and_have_numbers_of_their_own(tilings, dimensions):
    rng, known = np.random.default_rng(dimensions), {}
    low = rng.normal(size=dimensions)
    high = low + rng.uniform(0.1, 5.0, dimensions)
    tiling = make_tiling(low, high, tilings, tiles=3)
    for _ in range(2_000):
        obs = rng.uniform(low - 0.5, high + 0.5)
        places = reference.tiles(obs, low, high, tilings, 3)
        for place, number in zip(places, tiles_of(tiling, *obs), strict=True):
            assert known.setdefault(place, number) == number
    assert len(set(known.values())) == len(known) <= tiling.features
    assert set(known.values()) <= set(range(tiling.features))


# -- Updates ---------------------------------------------------------------------------------------


def one_row(truncated=False, terminated=False, ignored=False, legal=None):
    """s = 0.1, action 0, reward 3, s' = 0.6."""
    facts = {} if legal is None else {"action_mask": np.array([[[1, 1]], [legal]])}
    return Rollout(
        np.array([[[0.1]], [[0.6]]], np.float32), np.array([[True], [ignored]]), np.array([[0]]),
        np.array([[3.0]], np.float32), np.array([[terminated]]), np.array([[truncated]]), facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "step"),
    [
        ({}, 0.5),
        ({"truncated": True}, 0.5),
        ({"terminated": True}, -0.5),
        ({"ignored": True}, 0.0),
        ({"legal": [1, 0]}, 0.375),
        ({"legal": [0, 0]}, 0.5),
    ],
    ids=str,
)
def test_an_update_by_hand(row, step):
    """γ = α = 0.5, two tilings of tiles that are 0.5 wide, the second shifted by 0.25.

    s = 0.1 lies in the tiles 0 and 3, s' = 0.6 in 1 and 4: q(s, 0) = 1 + 4 = 5, q(s', ·) = (2 + 5, 5 + 3)
    = (7, 8). The target is 3 + 0.5 · 8 = 7, the error 2, and each of the two weights moves by
    0.5 / 2 · 2 = 0.5. Terminated: 3 - 5 = -2, -0.5. Action 1 not legal at s': 3 + 3.5 - 5 = 1.5, 0.375.
    Where nothing is legal, everything is.
    """
    learner = make(HALVES, LINE)
    before = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 5.0, 0.0, 0.0, 3.0, 0.0]])
    learner.weights[0] = before
    learner.observe(one_row(**row))
    before[0, [0, 3]] += step
    assert learner.weights[0].tolist() == before.tolist()
    metrics = {name: value.tolist() for name, value in learner.metrics().items()}
    goal = 5.0 + 4.0 * step  # α = 0.5 over two tilings: a weight moves by a quarter of the error
    learned = {"loss": abs(4 * step), "td_error": abs(4 * step), "q_mean": 5.0, "target_mean": goal}
    nothing = dict.fromkeys(learned, 0.0)
    assert metrics == {name: [x] for name, x in (nothing if "ignored" in row else learned).items()}


def points(rows, low, high, seed):
    """Rows of states turned into rows of points of a box and a little beyond; a state is a point."""
    rng = np.random.default_rng(seed)
    of_state = rng.uniform(low - 0.2, high + 0.2, (5, len(low))).astype(np.float32)
    rows.obs = of_state[rows.obs]
    return rows


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_weights_are_those_of_the_slow_twin(lanes):
    config = LinearQConfig(tilings=4, tiles=3, lr=0.4, lr_end=0.4, gamma=0.9)
    low, high = PLANE.obs_low, PLANE.obs_high
    whole = points(random_rows(4, 300, lanes), low, high, 1)
    whole.facts["action_mask"] = np.random.default_rng(2).random((301, lanes, 3)) < 0.7
    learner = make(config, PLANE, lanes)
    learner.observe(whole)
    weights = reference.linear_q(whole, low, high, 4, 3, lr=0.4, gamma=0.9, actions=3)
    actor = linear_q.make_actor(config, PLANE, [np.random.default_rng(0)])
    actor.load_params(learner.params())
    for obs in whole.obs[:50, 0]:
        active = reference.tiles(obs, low, high, 4, 3)
        twin = [sum(weights.get((a, tile), 0.0) for tile in active) for a in range(3)]
        assert actor.values(obs[None, None])[0, 0].tolist() == pytest.approx(twin, abs=1e-12)
    assert np.abs(learner.weights).max() > 0.1


def test_where_rollouts_are_cut_changes_nothing():
    config = LinearQConfig(tilings=4, tiles=3)
    rows = points(random_rows(5, 90, 2), PLANE.obs_low, PLANE.obs_high, 1)
    whole, pieces = make(config, PLANE, 2), make(config, PLANE, 2)
    whole.observe(rows)
    for part in cut(rows, 1, 40, 49):
        pieces.observe(part)
    assert (whole.weights == pieces.weights).all()


# -- Acting ----------------------------------------------------------------------------------------


def acting(weights, level, visits=None, **changes):
    """The actions of 4,000 lanes at 0.1, in tiles 0 and 3."""
    config = dataclasses.replace(HALVES, **changes)
    actor = linear_q.make_actor(config, LINE, [np.random.default_rng(3)])
    learner = make(config, LINE)
    learner.weights[0] = weights
    if visits is not None:
        learner.visits[0] = visits
    actor.load_params(learner.params())
    actor.level = level
    obs = np.full((1, 4_000, 1), 0.1, np.float32)
    return lambda explore, facts: actor.act(obs, None, facts, {}, explore)[0][0]


def test_ties_are_broken_at_random_while_it_learns_and_by_the_lowest_index_after():
    act = acting(np.zeros((2, 6)), level=0.0)
    assert abs(act(True, {}).mean() - 0.5) < 5 * 0.5 / np.sqrt(4_000)  # five standard deviations
    assert not act(False, {}).any()


def test_epsilon_and_masks():
    """The best action is 1; at ε = 0.4 it is taken in 0.6 + 0.4 / 2 = 0.8 of all cases."""
    act = acting(np.array([[0.0] * 6, [1.0] * 6]), level=0.4)
    assert abs(act(True, {}).mean() - 0.8) < 5 * 0.4 / np.sqrt(4_000)
    only = {"action_mask": np.tile([1, 0], (1, 4_000, 1))}
    assert not act(True, only).any()
    assert not act(False, only).any()
    assert act(False, {}).all()


def test_a_softmax_by_its_frequencies():
    """T = 2, q = (0, 2 ln 2) from two tiles of ln 2: action 1 twice as often as action 0."""
    weights = np.array([[0.0] * 6, [np.log(2.0)] * 6])
    act = acting(weights, level=2.0, exploration="boltzmann")
    assert abs(act(True, {}).mean() - 2 / 3) < 5 * np.sqrt(2 / 9 / 4_000)
    assert act(False, {}).all()


def test_confidence_bounds_by_hand():
    """Visits of tiles 0 and 3: (10, 6) of action 0, (1, 3) of action 1; so N = 8, 2 and 10, ln 10 = 2.303.

    c = 1: √(2.303 / 8) = 0.537 and √(2.303 / 2) = 1.073, so action 0 is taken where it is worth 0.536 more or less.
    """
    visits = np.zeros((2, 6))
    visits[0, [0, 3]], visits[1, [0, 3]] = (10.0, 6.0), (1.0, 3.0)
    for surplus, action in ((0.53, 1), (0.55, 0)):
        weights = np.array([[surplus / 2] * 6, [0.0] * 6])
        act = acting(weights, 1.0, visits, exploration="ucb")
        assert (act(True, {}) == action).all()
        assert not act(False, {}).any()
    visits[1, [0, 3]] = 0.0  # never taken: before all others
    act = acting(np.array([[9.0] * 6, [0.0] * 6]), 1.0, visits, exploration="ucb")
    assert act(True, {}).all()
    assert not act(True, {"action_mask": np.tile([1, 0], (1, 4_000, 1))}).any()


def test_less_than_one_visit_adds_no_bonus_and_no_nan():
    """Of two tilings one was seen with each action: N = ½ and ½, ln 1 = 0. Of fewer visits ln would be below 0."""
    for times in (1.0, 0.25):
        visits = np.zeros((2, 6))
        visits[:, 0] = times
        for surplus, action in ((0.1, 0), (-0.1, 1)):
            weights = np.array([[surplus / 2] * 6, [0.0] * 6])
            act = acting(weights, 1.0, visits, exploration="ucb")
            assert (act(True, {}) == action).all()


def test_visits_are_counted_by_tiles_and_travel_with_the_weights():
    config = dataclasses.replace(HALVES, exploration="ucb", ucb_c=0.5)
    learner, other = make(config, LINE), make(config, LINE)
    learner.observe(one_row())  # 0.1 is in tiles 0 and 3
    learner.observe(one_row(ignored=True))
    expected = np.zeros((2, 6))
    expected[0, [0, 3]] = 1.0
    assert (learner.visits[0] == expected).all()
    other.load_state_dict(learner.state_dict())
    params = other.params()
    assert (params.tensors["visits"][0].numpy() == expected).all()
    assert params.scalars == {"epsilon": 0.0, "level": 0.5}
    assert make(HALVES, LINE).params().tensors.keys() == {"weights"}


def test_optimism_is_every_actions_value_at_the_start():
    config = dataclasses.replace(HALVES, initial_value=3.0)
    actor = linear_q.make_actor(config, LINE, [np.random.default_rng(3)])
    actor.load_params(make(config, LINE).params())
    assert actor.values(np.array([[[0.1], [0.9]]])).tolist() == [[[3.0, 3.0], [3.0, 3.0]]]


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        (
            "CartPole-v1",
            {"low": (), "high": ()},
            "low: the observations' Box has none in dimension 1, 3",
        ),
        ("MountainCar-v0", {"low": (0.0,)}, "low: got 1 numbers, takes 2"),
        ("MountainCar-v0", {"low": (9.0, 9.0)}, "takes numbers above low = [9.0, 9.0]"),
        (
            "MountainCar-v0",
            {"tiles": 2_000, "tilings": 8},
            "make 96,096,024 weights, takes at most 16,777,216",
        ),
        ("MountainCar-v0", {"tilings": 6}, "tilings: got 6, takes a power of two"),
        ("MountainCar-v0", {"device": "cuda"}, "device: a linear agent computes on the cpu"),
        ("FrozenLake-v1", {}, "takes observations of one row of numbers, got ()"),
    ],
    ids=str,
)
def test_what_has_no_tiles_is_refused(env, changes, message):
    with pytest.raises(REFUSED) as caught:
        groups.make_setting(make_config("linear_q", env, **{"steps": 1_000, **changes}))
    assert message in str(caught.value)


# -- Learning --------------------------------------------------------------------------------------


@pytest.mark.learn
@pytest.mark.parametrize("env", ["CartPole-v1", "MountainCar-v0"])
def test_it_solves_what_it_has_a_preset_for(env, tmp_path):
    """The pole is held for 475 of 500 steps, the car climbs out within 110."""
    config = make_config("linear_q", env, until_solved=True)
    summary = run(config, range(3), str(tmp_path)).summary()
    assert None not in summary["solved_at"]["env_steps"]
