import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import planning
from envs.contract import FiniteMDP, mdp_of


def chain(time_limit=0):
    """Two states. In 0, action 0 stays for 1, action 1 moves to 1 for 0. In 1, action 0 goes back
    for 0; action 1 ends the episode for 10 with probability 1/2 and stays for 2 otherwise.
    """
    return FiniteMDP(
        P=np.array([[[1.0, 0], [1, 0]], [[1, 0], [0.5, 0.5]]]),
        successor=np.array([[[0, 0], [1, 0]], [[0, 0], [1, 1]]]),
        R=np.array([[[1.0, 0], [0, 0]], [[0, 0], [10, 2]]]),
        terminal=np.array([[[False, False], [False, False]], [[False, False], [True, False]]]),
        rho=np.array([1.0, 0.0]),
        time_limit=time_limit,
    )


# gamma = 1/2. Suppose V(1) comes from action 1: V(1) = (10 + 0)/2 + (2 + V(1)/2)/2 = 6 + V(1)/4, so
# V(1) = 8. Then moving is worth 0 + 8/2 = 4 and V(0) = max(1 + V(0)/2, 4) = 4, as staying gives
# 1 + 4/2 = 3. Going back is worth 0 + 4/2 = 2 < 8, so the supposition holds.
CHAIN_Q = [[3, 4], [2, 8]]


def test_q_star_of_the_chain_by_hand():
    assert planning.q_star(chain(), 0.5) == pytest.approx(np.array(CHAIN_Q, float), abs=1e-9)


def test_policy_iteration_of_the_chain_by_hand():
    assert planning.policy_iteration(chain(), 0.5) == pytest.approx(np.array(CHAIN_Q, float))


def test_a_time_limit_does_not_change_q_star():
    assert (planning.q_star(chain(1), 0.5) == planning.q_star(chain(0), 0.5)).all()


def test_gamma_0_sees_the_next_reward_alone():
    # E[R] of (1, 1) is (10 + 2) / 2
    assert planning.q_star(chain(), 0.0).tolist() == [[1, 0], [0, 6]]
    assert planning.policy_iteration(chain(), 0.0).tolist() == [[1, 0], [0, 6]]


# Undiscounted, h steps left. V_1 = (1, 6). V_2(0) = max(1 + 1, 0 + 6) = 6,
# V_2(1) = max(0 + 1, 5 + (2 + 6)/2 = 9) = 9. V_3(0) = max(1 + 6, 0 + 9) = 9.
@pytest.mark.parametrize(("horizon", "value"), [(1, 1), (2, 6), (3, 9)])
def test_optimal_value_of_the_chain_by_hand(horizon, value):
    assert planning.optimal_value(chain(), horizon) == value


def test_the_value_of_a_policy_for_each_step_by_hand():
    """Move, then take the end: 0 + (10 + 2) / 2 = 6. The other way round: in 0 staying for 1 and 1 (the
    action in 1 does not matter). Half of each at the first step, then the end or staying: (6 + 2) / 2.
    """
    moves_then_ends, stays = [[1, 0], [0, 1]], [[0, 1], [0, 0]]
    policies = np.array([moves_then_ends, stays])
    assert planning.stepwise_value(chain(), policies).tolist() == [6.0, 2.0]
    mixed = np.eye(2)[policies[:1]]
    mixed[0, 0, 0] = 0.5
    assert planning.stepwise_value(chain(), mixed).tolist() == [4.0]


def test_the_same_policy_at_every_step_has_the_value_of_a_policy():
    rng, mdp = np.random.default_rng(0), mdp_of(envs.make("Garnet-v0", 1, 0))
    policies = rng.integers(mdp.num_actions, size=(3, mdp.num_states))
    steps = np.repeat(policies[:, None], 7, axis=1)
    found = planning.stepwise_value(mdp, steps)
    assert found == pytest.approx(planning.policy_value(mdp, policies, 7), abs=1e-12)


def test_policy_value_of_the_chain_by_hand():
    stay, move = np.array([0, 0]), np.array([1, 1])
    # staying for 3 steps: 3. Moving: 0, then V_1(1) = 6, V_2(1) = 5 + (2 + 6)/2 = 9
    assert planning.policy_value(chain(), stay, 3) == 3
    assert planning.policy_value(chain(), move, 2) == 6
    assert planning.policy_value(chain(), move, 3) == 9
    # Half of each: V_1 = (1/2, 3). V_2(0) = (1 + 1/2)/2 + (0 + 3)/2 = 9/4
    half = np.full((2, 2), 0.5)
    assert planning.policy_value(chain(), half, 2) == 2.25


def test_policy_value_of_several_policies_is_that_of_each_bit_for_bit():
    mdp = envs.make("Garnet-v0", 1, 0).mdp
    policies = np.random.default_rng(0).integers(4, size=(5, 50))
    together = planning.policy_value(mdp, policies, 100)
    assert together.shape == (5,)
    assert together.tolist() == [float(planning.policy_value(mdp, p, 100)) for p in policies]
    mixed = planning.policy_value(mdp, np.eye(4)[policies], 100)
    assert mixed == pytest.approx(together)


def test_reachable_leaves_out_what_is_only_entered_at_an_end():
    mdp = envs.make("FrozenLake-v1", 1, 0).mdp
    labels = np.array(list(envs.make("FrozenLake-v1", 1, 0).layout.labels))
    assert (planning.reachable(mdp) == ((labels == "S") | (labels == "F"))).all()
    # the 37 cells that are neither cliff nor goal
    assert planning.reachable(envs.make("CliffWalking-v1", 1, 0).mdp).sum() == 37
    # passenger at 4 places or aboard, times 4 destinations, less the delivered: 25 * (5 * 4 - 4)
    assert planning.reachable(envs.make("Taxi-v4", 1, 0).mdp).sum() == 400
    # of size 4 the triangle under the start, 1 + 2 + 3 + 4
    assert planning.reachable(envs.make("DeepSea-v0", 1, 0, size=4).mdp).sum() == 10


def test_max_q_error_looks_at_reachable_states_only():
    mdp = envs.make("FrozenLake-v1", 1, 0).mdp
    q = planning.q_star(mdp, 0.9)
    wrong = q.copy()
    wrong[5] += 100  # a hole
    assert planning.max_q_error(mdp, wrong, 0.9) < 1e-9
    wrong[14, 2] -= 0.25  # beside the goal
    errors = planning.max_q_error(mdp, np.stack([q, wrong]), 0.9)
    assert errors == pytest.approx([0, 0.25], abs=1e-9)


@pytest.mark.parametrize("gamma", [0.99999, 1.0])
def test_without_an_end_there_is_a_q_star_below_gamma_1_only(gamma):
    mdp = envs.make("RiverSwim-v0", 1, 0).mdp
    q = np.zeros((mdp.num_states, mdp.num_actions))
    if gamma < 1:
        assert planning.max_q_error(mdp, q, gamma) == pytest.approx(
            planning.policy_iteration(mdp, gamma).max()
        )
    else:
        with pytest.raises(ArithmeticError, match="never terminates"):
            planning.max_q_error(mdp, q, gamma)


@pytest.mark.parametrize(
    ("env_id", "horizon", "value", "digits"),
    [
        ("FrozenLake-v1", 100, 0.7442, 4),
        ("FrozenLake8x8-v1", 200, 0.9132, 4),
        ("Taxi-v4", 200, 7.93, 2),
        ("CliffWalking-v1", 1000, -13, 6),
    ],
)
def test_known_optima(env_id, horizon, value, digits):
    mdp = mdp_of(envs.make(env_id, 1, 0))
    assert round(planning.optimal_value(mdp, horizon), digits) == value


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6), st.floats(0, 0.98), st.booleans()
)
def test_value_iteration_is_policy_iteration(states, actions, mdp_seed, gamma, ends):
    branching = min(3, states)
    options = {"states": states, "actions": actions, "branching": branching, "mdp_seed": mdp_seed}
    mdp = envs.make("Garnet-v0", 1, 0, **options).mdp
    if ends:
        mdp.terminal[:, :, 0] = True
    q, exact = planning.q_star(mdp, gamma), planning.policy_iteration(mdp, gamma)
    assert np.abs(q - exact).max() < 1e-8
    # Bellman's equation, written out once more
    value = exact.max(axis=1)[mdp.successor] * ~mdp.terminal
    assert np.allclose(exact, (mdp.P * (mdp.R + gamma * value)).sum(axis=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_no_policy_beats_the_optimal_value(mdp_seed, horizon):
    mdp = envs.make("Garnet-v0", 1, 0, states=8, actions=2, branching=2, mdp_seed=mdp_seed).mdp
    every = np.array(list(np.ndindex(*[2] * 8)))
    values = planning.policy_value(mdp, every, horizon)
    best = planning.optimal_value(mdp, horizon)
    assert values.max() <= best + 1e-9
    if horizon == 1:
        assert values.max() == pytest.approx(best)


def test_policy_value_is_what_episodes_return():
    """The mean of 4,000 simulated episodes, within 5 standard errors."""
    env = envs.make("FrozenLake-v1", 4000, 0)
    policy = planning.greedy(planning.q_star(env.mdp, 0.99))
    obs, _ = env.reset()
    returns, over = np.zeros(4000), np.zeros(4000, bool)
    for _ in range(100):
        obs, reward, terminated, truncated, _ = env.step(policy[obs])
        returns += reward * ~over
        over |= terminated | truncated
    error = returns.std() / np.sqrt(4000)
    assert abs(returns.mean() - planning.policy_value(env.mdp, policy, 100)) < 5 * error


def test_bad_input(monkeypatch):
    with pytest.raises(ValueError, match="horizon"):
        planning.optimal_value(chain(), 0)
    with pytest.raises(ValueError, match="gamma"):
        planning.policy_iteration(chain(), 1.0)
    # action 0 of the chain pays 1 for ever
    monkeypatch.setattr(planning, "MAX_SWEEPS", 1000)
    with pytest.raises(ArithmeticError, match="never terminates"):
        planning.q_star(chain(), 1.0)
