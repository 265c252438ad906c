import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs import mdps, native
from envs.contract import FiniteMDP, UnsupportedEnv, mdp_of
from envs.tabular import TabularVectorEnv, outcome, tables_of
from tests.envs.reference_mdp import SlowLanes

TOY_TEXT = [
    ("FrozenLake-v1", {}),
    ("FrozenLake-v1", {"is_slippery": False}),
    ("FrozenLake-v1", {"success_rate": 0.7, "reward_schedule": (10, -1, -0.5)}),
    ("FrozenLake-v1", {"desc": ["SFS", "FHF", "FFG"], "max_episode_steps": 7}),
    ("FrozenLake8x8-v1", {}),
    ("Taxi-v4", {}),
    ("Taxi-v4", {"is_rainy": True}),
    ("CliffWalking-v1", {}),
    ("CliffWalking-v1", {"max_episode_steps": 50}),
    ("CliffWalkingSlippery-v1", {}),
    ("CliffWalkingSlippery-v1", {"max_episode_steps": 1}),
]


@pytest.mark.parametrize(("env_id", "options"), TOY_TEXT)
def test_one_lane_is_gymnasium_with_the_same_seed(env_id, options):
    """20,000 steps with resets and time limits, every number equal."""
    env, scalar = envs.make(env_id, 1, 7, **options), native.scalar(env_id, options)
    assert isinstance(env, TabularVectorEnv)
    actions = np.random.default_rng(1).integers(env.single_action_space.n, size=20_000)
    obs, _ = env.reset()
    assert obs[0] == scalar.reset(seed=7)[0]
    done = False
    for t, action in enumerate(actions):
        reset = (scalar.reset()[0], 0.0, False, False) if done else None
        expected = reset or scalar.step(int(action))[:4]
        got = tuple(array[0] for array in env.step(actions[t : t + 1])[:4])
        assert got == expected, f"step {t + 1}"
        done = expected[2] or expected[3]


@st.composite
def small_mdps(draw):
    """Random MDPs with unused outcomes, terminal outcomes, and sums that round below 1."""
    s, a, z = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.random((s, a, z)) * (rng.random((s, a, z)) < 0.7)
    p[:, :, 0] += 0.1
    # far below 1, where nearly every draw meets it, and exactly 1
    p *= draw(st.sampled_from([0.6, 1.0])) / p.sum(axis=2, keepdims=True)
    rho = rng.random(s)
    return FiniteMDP(
        P=p,
        successor=rng.integers(s, size=(s, a, z)),
        R=rng.normal(size=(s, a, z)),
        terminal=rng.random((s, a, z)) < 0.2,
        rho=rho * draw(st.sampled_from([0.7, 1.0])) / rho.sum(),
        time_limit=draw(st.integers(0, 4)),
    )


@settings(max_examples=60, deadline=None)
@given(small_mdps(), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_kernel_is_its_slow_twin(mdp, lanes, seed):
    fast, slow = TabularVectorEnv(mdp, lanes, seed), SlowLanes(mdp, lanes, seed)
    assert fast.reset()[0].tolist() == slow.reset()
    actions = np.random.default_rng(seed).integers(mdp.num_actions, size=(60, lanes))
    for action in actions:
        got, expected = fast.step(action), slow.step(action)
        assert [array.tolist() for array in got[:4]] == list(expected)


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "RiverSwim-v0", "Garnet-v0"])
def test_frequencies_and_rewards_are_those_of_the_arrays(env_id):
    """Every outcome is as frequent as its probability, within 5 standard errors."""
    env = envs.make(env_id, 1000, 3)
    mdp = mdp_of(env)
    shape = (mdp.num_states, mdp.num_actions, mdp.num_states)
    counts, reward_sums = np.zeros(shape), np.zeros(shape)
    rng = np.random.default_rng(0)
    obs, _ = env.reset()
    done = np.zeros(1000, bool)
    for _ in range(300):
        action = rng.integers(mdp.num_actions, size=1000)
        after, reward, terminated, truncated, _ = env.step(action)
        at = (obs[~done], action[~done], after[~done])
        np.add.at(counts, at, 1)
        np.add.at(reward_sums, at, reward[~done])
        obs, done = after, terminated | truncated
    s, a = np.indices((mdp.num_states, mdp.num_actions))
    p, p_times_r = np.zeros(shape), np.zeros(shape)
    for z in range(mdp.P.shape[2]):
        np.add.at(p, (s, a, mdp.successor[..., z]), mdp.P[..., z])
        np.add.at(p_times_r, (s, a, mdp.successor[..., z]), (mdp.P * mdp.R)[..., z])
    tries = counts.sum(axis=2, keepdims=True)
    assert (tries[mdp.rho > 0] > 0).all()
    error = np.abs(counts - tries * p)
    assert (error <= 5 * np.sqrt(tries * p * (1 - p)) + 1e-6).all()
    seen = counts > 0
    assert np.allclose(reward_sums[seen] / counts[seen], p_times_r[seen] / p[seen])


def test_lanes_draw_from_one_generator_in_lane_order():
    # Taxi draws its first state alone: the block's first numbers are those of seed 5
    env = envs.make("Taxi-v4", 4, 5)
    one = envs.make("Taxi-v4", 1, 5)
    firsts = [one.reset()[0][0] for _ in range(4)]  # a bare reset goes on with the stream
    assert env.reset()[0].tolist() == firsts


def test_draw_beyond_the_sum_is_outcome_0_as_in_gymnasium():
    # P sums to 0.9: u = 0.95 is above both cumulative entries, and argmax of (no, no) is 0
    one = np.ones((1, 1, 2))
    mdp = FiniteMDP(
        one * 0.45, np.array([[[0, 0]]]), np.array([[[7.0, 8.0]]]), one > 2, one[0, 0, :1], 0
    )
    tables = tables_of(mdp)
    assert [outcome(tables, u, 0, 0)[1] for u in (0.1, 0.44, 0.46, 0.95)] == [7, 7, 8, 7]


def test_state_goes_on_in_another_environment():
    env, other = envs.make("FrozenLake-v1", 5, 0), envs.make("FrozenLake-v1", 5, 99)
    actions = np.random.default_rng(0).integers(4, size=(200, 5))
    env.reset()
    for action in actions[:100]:
        env.step(action)
    other.set_state(env.get_state())
    for action in actions[100:]:
        one, two = env.step(action), other.step(action)
        assert all((a == b).all() for a, b in zip(one[:4], two[:4], strict=True))


def test_actions_are_checked():
    env = envs.make("FrozenLake-v1", 3, 0)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(3, np.int64))
    env.reset()
    with pytest.raises(ValueError, match=r"lane 1: action 4 is not in 0\.\.3"):
        env.step(np.array([0, 4, 0]))
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(TypeError):
        env.step(np.zeros(3))


# The MDPs from the literature


def test_river_swim_has_the_numbers_of_the_paper():
    mdp = envs.make("RiverSwim-v0", 1, 0).mdp
    assert mdp.num_states == 6
    assert mdp.rho.tolist() == [0, 0.5, 0.5, 0, 0, 0]
    dense = np.zeros((6, 2, 6))
    s, a = np.indices((6, 2))
    for z in range(3):
        np.add.at(dense, (s, a, mdp.successor[..., z]), mdp.P[..., z])
    left, right = dense[:, 0], dense[:, 1]
    assert left.tolist() == [np.eye(6)[max(s - 1, 0)].tolist() for s in range(6)]
    assert right[0].tolist() == [0.7, 0.3, 0, 0, 0, 0]
    assert right[3].tolist() == [0, 0, 0.1, 0.6, 0.3, 0]
    assert right[5].tolist() == [0, 0, 0, 0, 0.7, 0.3]
    assert (mdp.P * mdp.R).sum(axis=2).tolist() == [[5, 0], *[[0, 0]] * 4, [0, 3000]]
    assert mdp.time_limit == 20


def test_deep_sea_pays_for_the_treasure_alone():
    size = 6
    env = envs.make("DeepSea-v0", 1, 0, size=size, mdp_seed=3)
    mdp, cost = mdp_of(env), 0.01 / size
    state, _ = env.reset()
    rewards = []
    for row in range(size):
        # right is what costs, and at the treasure what pays
        pays = mdp.R[state[0], :, 0]
        right = pays.argmax() if row == size - 1 else pays.argmin()
        state, reward, terminated, truncated, _ = env.step(np.array([right]))
        rewards.append(reward[0])
    assert rewards == pytest.approx([-cost] * (size - 1) + [1 - cost])
    assert terminated[0]
    assert not truncated[0]
    assert state[0] == size**2


def test_deep_sea_actions_are_drawn_by_the_mdp_seed():
    tables = [envs.make("DeepSea-v0", 1, 0, mdp_seed=seed).mdp.R.tolist() for seed in (0, 0, 1)]
    assert tables[0] == tables[1] != tables[2]


def test_garnet_branches_as_often_as_it_is_told():
    mdp = envs.make("Garnet-v0", 1, 0, states=20, actions=3, branching=5, mdp_seed=2).mdp
    assert mdp.P.shape == (20, 3, 5)
    assert np.allclose(mdp.P.sum(axis=2), 1)
    assert (mdp.P > 0).all()
    assert all(len(set(row)) == 5 for row in mdp.successor.reshape(-1, 5).tolist())
    again = envs.make("Garnet-v0", 1, 9, states=20, actions=3, branching=5, mdp_seed=2).mdp
    assert all(
        np.array_equal(getattr(mdp, field.name), getattr(again, field.name))
        for field in dataclasses.fields(mdp)
    )


@pytest.mark.parametrize(
    ("env_id", "rows", "cols", "labels"),
    [
        ("FrozenLake-v1", 4, 4, "SFFFFHFHFFFHHFFG"),
        ("CliffWalking-v1", 4, 12, "." * 36 + "S" + "C" * 10 + "G"),
        ("DeepSea-v0", 10, 10, "S" + "." * 98 + "G"),
        ("RiverSwim-v0", 1, 6, ".SS..."),
    ],
)
def test_layout(env_id, rows, cols, labels):
    env = envs.make(env_id, 1, 0)
    layout = env.layout
    assert (layout.rows, layout.cols, "".join(layout.labels)) == (rows, cols, labels)
    assert layout.cell.shape == (env.mdp.num_states,)
    assert [layout.labels[layout.cell[s]] for s in np.flatnonzero(env.mdp.rho)] == ["S"] * (
        env.mdp.rho > 0
    ).sum()


def test_states_that_are_more_than_a_place_have_no_layout():
    assert envs.make("Taxi-v4", 1, 0).layout is None
    assert envs.make("Garnet-v0", 1, 0).layout is None


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        ("DeepSea-v0", {"size": 0}, "option size: got 0, takes a whole number of at least 1"),
        ("DeepSea-v0", {"size": 2.0}, "option size: got 2.0"),
        ("DeepSea-v0", {"sise": 3}, "has no option 'sise'; did you mean 'size'?"),
        ("Garnet-v0", {"states": 3, "branching": 4}, "branching 4 is more than the 3 states"),
        ("Taxi-v4", {"fickle_passenger": True}, "use backend='sync'"),
        (
            "Taxi-v4",
            {"render_mode": "human"},
            "render_mode: tables are not drawn; use backend='sync'",
        ),
        ("FrozenLake-v1", {"map_name": None}, "draws a map that no seed decides"),
        ("FrozenLake-v1", {"map_name": "9x9"}, "KeyError('9x9')"),
    ],
)
def test_options_that_no_table_can_express_are_refused(env_id, options, words):
    with pytest.raises(UnsupportedEnv) as error:
        envs.make(env_id, 1, 0, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_own_ids_are_in_the_table():
    assert all(envs.SIMULATORS[env_id] == "tabular" for env_id in mdps.OWN)
