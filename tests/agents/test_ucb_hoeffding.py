"""UCB-Hoeffding: steps by hand, its tables against a slow twin, and what it loses while it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents import planning, ucb_hoeffding
from agents.contract import Params, Rollout
from agents.ucb_hoeffding import UCBHoeffdingConfig
from envs.contract import Spec, mdp_of
from runners import group as groups
from runners.resolve import make_config
from runners.sources import Plan
from runners.train import run
from tests import reference
from tests.agents.tables import cut, random_rows
from tests.agents.test_planning import chain
from tests.runners.toys import REFUSED

SPEC = Spec((), np.int64, 3, 2)
# ι = ln(3 · 2 · T / p) = 1 and H = 2: with c = 1 the bonus of visit t is √(8 / t)
BONUS = math.sqrt(8.0)
CONFIG = UCBHoeffdingConfig(horizon=2, bonus=1.0, total_steps=1, failure=1.0, reward_scale=0.5)


def make(config=CONFIG, spec=SPEC, lanes=1, seeds=1):
    learner = ucb_hoeffding.make_learner(config, spec, lanes, [None] * seeds, [], None)
    learner.numbers = learner.numbers._replace(bonus=BONUS)
    return learner


def rows(obs, first, action, reward, terminated=None, truncated=None, legal=None):
    """One lane."""
    none = [False] * len(reward)
    facts = {} if legal is None else {"action_mask": np.array(legal)[:, None]}
    columns = [np.array(c)[:, None] for c in (obs, first, action)]
    ends = [np.array(none if c is None else c)[:, None] for c in (terminated, truncated)]
    return Rollout(*columns, np.array(reward, np.float64)[:, None], *ends, facts)


def test_the_bonus_is_that_of_the_paper():
    """c √(H³ ι), ι = ln(S A T / p), with S = 3, A = 2."""
    config = UCBHoeffdingConfig(horizon=4, bonus=0.3, total_steps=1_000, failure=0.01)
    expected = 0.3 * math.sqrt(64 * math.log(3 * 2 * 1_000 / 0.01))
    assert config.numbers(SPEC).bonus == pytest.approx(expected, rel=1e-12)


def test_two_episodes_by_hand():
    """H = 2, rewards halved, the bonus √(8 / t), rate 3 / (2 + t): 1, 3/4, 3/5.

    Two equal episodes from state 0: action 1, reward 1, to state 2; action 0, reward 2, the end by the
    time limit, behind which nothing is worth anything. At first everything is H = 2.

    Visit 1: Q_1(0, 1) = 1/2 + min(2, 2) + √8 (rate 1), Q_2(2, 0) = 1 + 0 + √8. As √8 > 1, both are above
    2, so V_2(2) = min(2, 1 + √8) = 2. Visit 2, the rate 3/4, the bonus √4 = 2:
    Q_1(0, 1) = (2.5 + √8) / 4 + 3/4 (1/2 + 2 + 2) and Q_2(2, 0) = (1 + √8) / 4 + 3/4 (1 + 0 + 2).
    """
    learner = make()
    episode = [0, 2, 1]
    learner.observe(
        rows(
            [*episode, *episode], [1, 0, 0, 1, 0, 0], [1, 0, 1, 1, 0], [1, 2, 0, 1, 2],
            truncated=[0, 1, 0, 0, 1],
        )
    )  # fmt: skip
    expected = np.full((2, 3, 2), 2.0)
    expected[0, 0, 1] = (2.5 + BONUS) / 4 + 0.75 * 4.5
    expected[1, 2, 0] = (1 + BONUS) / 4 + 0.75 * 3
    assert learner.q[0] == pytest.approx(expected, abs=1e-12)
    visits = np.zeros((2, 3, 2))
    visits[0, 0, 1] = visits[1, 2, 0] = 2
    assert (learner.visits[0] == visits).all()
    assert learner.metrics()["q_mean"][0] == pytest.approx((2 + 2 + 3.5 + BONUS + BONUS) / 4 / 0.5)


@pytest.mark.parametrize(
    ("more", "value"),
    [
        ({}, 1.5),
        ({"terminated": [True]}, 0.0),
        ({"truncated": [True]}, 1.5),  # before step H: a forced reset
        ({"legal": [[1, 1], [0, 1]]}, 0.7),
        ({"legal": [[1, 1], [0, 0]]}, 1.5),
    ],
    ids=str,
)
def test_what_a_step_expects(more, value):
    """Q_2(2, ·) = (1.5, 0.7); a first visit sets Q_1(0, 1) to 1/2 · 1 + V + √8."""
    learner = make()
    learner.q[0, 1, 2] = [1.5, 0.7]
    learner.observe(rows([0, 2], [1, 0], [1], [1.0], **more))
    assert learner.q[0, 0, 0, 1] == pytest.approx(0.5 + value + BONUS)


def test_no_value_is_above_the_horizon():
    learner = make()
    learner.q[0, 1, 2] = [9.0, 0.7]
    learner.observe(rows([0, 2], [1, 0], [1], [1.0]))
    assert learner.q[0, 0, 0, 1] == pytest.approx(0.5 + 2.0 + BONUS)


def test_step_1_follows_step_h_where_an_episode_goes_on():
    """The third row is again of step 1, the ignored one of none; a new episode begins with step 1."""
    learner = make()
    learner.observe(rows([0, 1, 1, 2], [1, 0, 0, 0], [0, 0, 0], [0, 0, 0]))
    assert learner.visits[0, :, :, 0].tolist() == [[1, 1, 0], [0, 1, 0]]
    learner.observe(rows([2, 0, 0], [0, 1, 0], [1, 1], [0, 0]))
    assert learner.visits[0, :, :, 1].tolist() == [[1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_tables_are_those_of_the_slow_twin(lanes):
    spec, whole = Spec((), np.int64, 5, 3), random_rows(7, 400, lanes)
    whole.facts["action_mask"] = np.random.default_rng(3).random((401, lanes, 3)) < 0.7
    config = UCBHoeffdingConfig(horizon=4, bonus=0.2, total_steps=1_000)
    learner = ucb_hoeffding.make_learner(config, spec, lanes, [None], [], None)
    for part in cut(whole, 1, 150, 249):
        start = {1: 0, 150: 1, 249: 151}[part.rows]
        part.facts["action_mask"] = whole.facts["action_mask"][start : start + part.rows + 1]
        learner.observe(part)
    iota = math.log(5 * 3 * 1_000 / 0.1)
    twin = reference.ucb_hoeffding(whole, horizon=4, states=5, actions=3, c=0.2, iota=iota)
    assert learner.q[0] == pytest.approx(twin, abs=1e-12)


def test_the_actor_knows_the_step():
    """Two seeds, whose tables differ by step: the action is the one of lane and step."""
    q = np.zeros((2, 3, 4, 2))
    q[..., 0] = 0.5
    q[0, [0, 2], :, 1], q[1, 1, :, 1] = 1.0, 1.0
    config = UCBHoeffdingConfig(horizon=3, total_steps=1)
    actor = ucb_hoeffding.make_actor(
        config, Spec((), np.int64, 4, 2), [np.random.default_rng(k) for k in range(2)]
    )
    actor.load_params(Params(0, 0, {"q": torch.from_numpy(q)}, {}))
    state, obs, seen = actor.initial_state(2), np.zeros((2, 2), np.int64), []
    for begins in ([1, 1], [0, 0], [0, 1], [0, 0]):
        first = np.array([begins, begins], bool)
        actions, after, _ = actor.act(obs, first, {}, state, True)
        assert (actions == actor.act(obs, first, {}, state, False)[0]).all()
        state = after
        seen.append(actions.tolist())
    # steps of the lanes: (1, 1), (2, 2), (3, 1), (1, 2)
    assert seen == [[[1, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [0, 0]], [[1, 0], [0, 1]]]


def test_ties_at_random_while_it_learns():
    config = UCBHoeffdingConfig(horizon=1, total_steps=1)
    actor = ucb_hoeffding.make_actor(config, SPEC, [np.random.default_rng(0)])
    obs, first = np.zeros((1, 4_000), np.int64), np.ones((1, 4_000), bool)
    state = actor.initial_state(4_000)
    share = actor.act(obs, first, {}, state, True)[0].mean()
    assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(4_000)  # five standard deviations
    assert not actor.act(obs, first, {}, state, False)[0].any()


# -- Regret ----------------------------------------------------------------------------------------


def test_regret_by_hand():
    """`chain` with 2 steps left is worth 6 at best: move for 0, then end or stay for (10 + 2) / 2.

    The first table stays, 1, then does anything in state 0, best of all 1 for staying again: 1 + 1 = 2.
    The second is optimal. The third has a tie at the first step: (2 + 6) / 2.
    """
    q = np.zeros((3, 2, 2, 2))
    q[:, 1, 0, 0] = q[:, 1, 1, 1] = 1.0
    q[0, 0, 0, 0] = q[1, 0, 0, 1] = 1.0
    params = Params(0, 0, {"q": torch.from_numpy(q)}, {})
    assert ucb_hoeffding.regret(chain(), params).tolist() == [4.0, 0.0, 2.0]


def test_the_regret_is_recorded_where_the_task_is_known(tmp_path):
    config = make_config(
        "ucb_hoeffding", "DeepSea-v0", env_options={"size": 3}, horizon=3, steps=800
    )
    folder = run(config, [0, 1], str(tmp_path))
    evals = folder.seed(1).read_evals().records
    assert all(0 <= line["regret"] <= 1 for line in evals)
    assert evals[0]["regret"] > evals[-1]["regret"] == pytest.approx(0, abs=1e-12)
    assert evals[-1]["mean"] == pytest.approx(0.99)


# -- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "changes", "message"),
    [
        ("DeepSea-v0", {}, "horizon: DeepSea-v0 has no time limit; say how long: --horizon 20"),
        (
            "FrozenLake-v1",
            {"horizon": 50},
            "horizon: got 50, takes the time limit of FrozenLake-v1, 100",
        ),
        ("FrozenLake-v1", {"source": "fused"}, "ucb_hoeffding takes local"),
        ("CartPole-v1", {}, "observations are no finite set"),
    ],
    ids=str,
)
def test_what_has_no_such_tables_is_refused(env, changes, message):
    with pytest.raises(REFUSED) as caught:
        groups.make_setting(make_config("ucb_hoeffding", env, steps=1_000, **changes))
    assert message in str(caught.value)


def test_what_is_left_open_is_the_task_s():
    config = make_config("ucb_hoeffding", "FrozenLake-v1", steps=1_000)
    assert (config.hyper.horizon, config.hyper.total_steps, config.source) == (100, 1_000, "local")


# -- Learning --------------------------------------------------------------------------------------


def total_regret(agent, size, episodes, lost, **settings):
    """[episodes, K]: what was lost up to and with each episode of a dive through ``size`` rows.

    ``lost(mdp, learner)`` is what one episode loses, before it begins: no table that a dive reads
    changes during it.
    """
    rows = size + 1  # the ignored one
    config = make_config(
        agent, "DeepSea-v0", env_options={"size": size}, steps=episodes * rows, source="local",
        **settings,
    )  # fmt: skip
    setting, seeds = groups.make_setting(config), range(3)
    mdp = mdp_of(setting.simulator(1, 0))
    learner = groups.make_learner(setting, seeds)
    source, regret = groups.make_source(setting, seeds, learner), []
    for _ in range(episodes):
        regret.append(lost(mdp, learner))
        for _ in range(rows):
            source.publish(learner.params())
            learner.observe(source.next(Plan(1, None)))
    source.close()
    return np.cumsum(regret, axis=0)


def lost_by_bounds(mdp, learner):
    return ucb_hoeffding.regret(mdp, learner.params())


def lost_by_epsilon_greedy(mdp, learner):
    q, epsilon = learner.q[:, 0], learner.params().scalars["epsilon"]
    best, size = q == q.max(axis=-1, keepdims=True), math.isqrt(mdp.num_states)
    policy = (1 - epsilon) * best / best.sum(axis=-1, keepdims=True) + epsilon / q.shape[-1]
    return planning.optimal_value(mdp, size) - planning.policy_value(mdp, policy, size)


@pytest.mark.learn
def test_regret_stops_growing_where_that_of_epsilon_greedy_does_not():
    """The best dive is worth 0.99 and is 1 of 2^6.

    √T means that the second half of the episodes loses (√2 - 1) times as much as the first; ε-greedy
    loses as much as before.
    """
    episodes = 1_600
    bounds = total_regret(
        "ucb_hoeffding",
        6,
        episodes,
        lambda mdp, l: ucb_hoeffding.regret(mdp, l.params()),
        horizon=6,
    )
    greedy = total_regret(
        "q_learning", 6, episodes, lost_by_epsilon_greedy, gamma=1.0, lr=0.5, lr_end=0.5,
        epsilon_start=0.1, epsilon_end=0.1,
    )  # fmt: skip
    for regret, sublinear in ((bounds, True), (greedy, False)):
        early, late = regret[episodes // 2 - 1], regret[-1] - regret[episodes // 2 - 1]
        assert ((late < (math.sqrt(2) - 1) * early) == sublinear).all(), (early, late)
    assert (bounds[-1] < greedy[-1] / 2).all()
    assert (greedy[-1] > 0.9 * episodes).all()
