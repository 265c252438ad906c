"""Value health: what is kept of an evaluation, what is measured there and what is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.contract import Params
from agents.dqn import DQNConfig
from runners import health, recorder
from runners.health import Health
from runners.health_picture import draw_health, health_figure
from runners.recorder import LANES, Episode, Recorder
from runners.resolve import make_config
from runners.state_tree import join, split
from runners.train import run

PARAMS = Params(1, 0, {"flat": torch.ones(1, 1)}, {})
UNTRAINED = Params(0, 0, {"flat": torch.zeros(1, 1)}, {})


class Untrained:
    """A learner that has not begun."""

    def params(self):
        return UNTRAINED


def make_health(hyper, actor=None):
    return Health(hyper, lambda generators: actor, Untrained(), [7], lambda text: None)


def play(made, lengths, ended=True, **extra):
    """Lanes whose first episodes take so many steps; step t has the observation and the reward t."""
    lengths = np.array(lengths)
    for t in range(lengths.max()):
        now = np.full((1, len(lengths)), t)
        made.before({"seen": now}, {n: x(t)[None] for n, x in extra.items()}, 0, lengths > t)
        # what comes after a lane's end is of its next episode
        reward = np.where(lengths > t, float(t), 99.0)
        made.after(reward, (lengths == t + 1) & ended, {})
    return made.episodes()


# The recorder.


def test_every_lane_has_its_own_episode():
    one, two = play(Recorder(), [3, 2])
    assert (one.times.tolist(), two.times.tolist()) == ([0, 1, 2], [0, 1])
    assert (one.seen.tolist(), two.seen.tolist()) == ([0, 1, 2], [0, 1])
    assert (one.reward.tolist(), two.reward.tolist()) == ([0, 1, 2], [0, 1])
    assert (one.ended.tolist(), two.ended.tolist()) == ([False, False, True], [False, True])
    assert one.legal is None


@pytest.mark.parametrize(
    ("steps", "times"),
    [
        (4, [0, 1, 2, 3]),
        (5, [0, 2, 4]),  # full before the fifth: every second from now on
        (8, [0, 2, 4, 6]),
        (9, [0, 4, 8]),
        (17, [0, 8, 16]),
    ],
)
def test_a_long_episode_has_its_states_wider_apart(steps, times, monkeypatch):
    monkeypatch.setattr(recorder, "MOMENTS", 4)
    legal = lambda t: np.array([[1, t % 2]])  # noqa: E731
    (episode,) = play(Recorder(), [steps], action_mask=legal)
    assert episode.times.tolist() == times == episode.seen.tolist()
    assert episode.legal.tolist() == [[True, bool(t % 2)] for t in times]
    assert len(episode.reward) == steps  # all of them: returns leave nothing out


def test_only_the_first_lanes_are_kept_and_they_end_the_recording():
    lanes = [2] * LANES + [50]
    made = Recorder()
    assert [len(e.reward) for e in play(made, lanes)] == [2] * LANES
    assert len(made.reward) == 2


@pytest.mark.parametrize("counts", [False, True])
def test_a_lost_life_ends_what_is_expected_where_the_learner_says_so(counts):
    made = Recorder(end_on_life_loss=counts)
    for lost in (False, True, False):
        made.before({"seen": np.zeros((1, 1))}, {}, 0, np.ones(1, bool))
        made.after(np.ones(1), np.zeros(1, bool), {"life_loss": np.array([lost])})
    assert made.episodes()[0].ended.tolist() == [False, counts, False]


# Measures at the states of an evaluation.


class Table:
    """An actor whose values of a state are a row of a table; one hidden layer, the values' own ReLU.

    Before learning it has members, each with a table; 0 unless they are given.
    """

    def __init__(self, table, untrained=None):
        self.table = np.array(table, float)
        self.before = np.zeros((1, *self.table.shape)) if untrained is None else np.array(untrained)

    def load_params(self, params):
        self.trained = bool(params.tensors["flat"].any())

    def members(self, seen):
        assert not self.trained
        return self.before[:, seen[0]][None]

    def values(self, seen):
        assert self.trained
        return self.table[seen]

    def activations(self, seen):
        return [np.maximum(self.table[seen], 0)]


class Paid(Table):
    """The same of a policy that is paid 2 a step for its entropy."""

    def paid(self, seen, generator):
        return np.full(seen.shape[:2], 2.0)


def measure(table, episodes, highest=1.0, untrained=None, **hyper):
    settings = {"gamma": 0.5, "reward_scale": 1.0, "reward_clip": 0.0, **hyper}
    made = make_health(type("Hyper", (), settings), Table(table, untrained))
    made.seeds[7].highest = highest
    return made._at_states(7, PARAMS, episodes)


def episode(rewards, ended, times=None):
    times = np.arange(len(rewards)) if times is None else np.array(times)
    ends = np.zeros(len(rewards), bool)
    ends[-1] = ended
    return Episode(times, times, None, np.array(rewards, float), ends)


def test_values_against_returns_of_an_episode_that_ended():
    # at discount 0.5: G = 1.75, 1.5, 1; the best actions' values are 2, 3, 4
    found = measure([[0, 2], [3, 1], [4, 4]], [episode([1, 1, 1], ended=True)])
    assert found["value"] == pytest.approx(3)
    assert found["monte_carlo"] == pytest.approx(4.25 / 3)
    assert found["overestimation"] == pytest.approx(3 - 4.25 / 3)
    assert found["overestimation_share"] == pytest.approx((3 - 4.25 / 3) / (4.25 / 3 + 1))
    # no policy can have more than 1 / (1 - 0.5)
    assert found["value_share"] == pytest.approx(4 / 2)
    assert found["action_gap"] == pytest.approx((2 + 2 + 0) / 3)
    assert np.isnan(found["churn"])


def test_an_episode_cut_off_counts_where_its_last_value_weighs_little():
    # From the last state, worth 8: 1 + 0.5 * 8 = 5, 3.5, 2.75, 2.375. What is left open weighs a half,
    # a quarter, an eighth, a sixteenth; the last two are at most a fifth.
    table = [[1], [1], [1], [1], [8]]
    found = measure(table, [episode([1] * 5, ended=False)])
    assert found["monte_carlo"] == pytest.approx((2.375 + 2.75) / 2)
    assert found["overestimation"] == pytest.approx(1 - (2.375 + 2.75) / 2)
    assert np.isnan(measure(table, [episode([1] * 3, ended=False)])["overestimation"])


def test_states_apart_have_the_rewards_between_them():
    # G = 1 + 0.5 * (1 + 0.5 * 1) = 1.75 at step 0, 1 at step 2
    found = measure([[0], [0], [0]], [episode([1, 1, 1], ended=True, times=[0, 2])])
    assert found["monte_carlo"] == pytest.approx((1.75 + 1) / 2)


def test_rewards_are_as_the_learner_sees_them_in_raw_units():
    # 30 and 1 scaled by 0.1 are 3 and 0.1, clipped 2 and 0.1, raw again 20 and 1: G = 20.5, 1.
    # Values 4 and 1 are 40 and 10.
    found = measure(
        [[4], [1]], [episode([30, 1], ended=True)], highest=30, reward_scale=0.1, reward_clip=2.0
    )
    assert found["monte_carlo"] == pytest.approx((20.5 + 1) / 2)
    assert found["overestimation"] == pytest.approx(25 - 10.75)
    assert found["value_share"] == pytest.approx(40 / (20 / 0.5))


def test_what_a_policy_is_paid_for_its_entropy_is_in_returns_and_in_the_bound():
    """2 at every successor, at discount 0.5: G = 1 + 1 + 0.5 (1 + 1 + 0.5) = 3.25, 2.5, 1: none behind the end.

    No values are above (1 + 2) / (1 - 0.5).
    """
    made = make_health(type("Hyper", (), {"gamma": 0.5}), Paid([[2], [3], [4]]))
    made.seeds[7].highest = 1.0
    found = made._at_states(7, PARAMS, [episode([1, 1, 1], ended=True)])
    assert found["monte_carlo"] == pytest.approx((3.25 + 2.5 + 1) / 3)
    assert found["overestimation"] == pytest.approx(3 - 6.75 / 3)
    assert found["overestimation_share"] == pytest.approx((3 - 6.75 / 3) / (6.75 / 3 + 3))
    assert found["value_share"] == pytest.approx(4 / (3 / 0.5))


def test_illegal_actions_have_no_value():
    one = episode([1], ended=True)._replace(legal=np.array([[True, False, True]]))
    found = measure([[1, 9, 3]], [one], untrained=[[[1, 8, -2]]])
    assert (found["value"], found["overestimation"], found["action_gap"]) == (3, 2, 2)
    assert (found["value_share"], found["untrained"]) == (3 / 4, 2)


def test_values_as_large_as_the_untrained_network_s_do_not_run_away():
    # Two members, of which the larger counts: 6, and 12 elsewhere. Returns have the bound 0.1 / (1 - 0.5).
    before = [[[0, -6], [0, 0]], [[2, 2], [1, 1]]]
    found = measure([[3, 3], [3, 3]], [episode([0.0, 0.1], ended=True)], 0.1, before)
    assert found["value_share"] == pytest.approx(3 / 12)
    assert found["overestimation_share"] == pytest.approx((3 - 0.075) / 12)


def test_untrained_values_are_of_all_states_so_far_in_raw_units():
    made = make_health(
        type("Hyper", (), {"gamma": 0.5, "reward_scale": 0.1}), Table([[1], [1]], [[[4], [3]]])
    )
    one, two = (
        Episode(np.array([0]), np.array([k]), None, np.ones(1), np.ones(1, bool)) for k in (0, 1)
    )
    assert [made._at_states(7, PARAMS, [e])["untrained"] for e in (two, one, two)] == [30, 40, 40]


def test_the_lowest_and_highest_rewards_are_kept_by_seed():
    made = Health(None, lambda g: None, Untrained(), [7], lambda text: None)
    for rewards in ([[-1.0, 2.0], [0.5, 0.0]], [[-3.0, 1.0], [1.0, 1.0]]):
        made.observe(Rows(np.array(rewards)), [7])
    assert (made.seeds[7].lowest, made.seeds[7].highest) == (-3.0, 2.0)


class Rows:
    def __init__(self, reward):
        self.reward, self.rows = reward, len(reward)


def td_share(low, high, width=6.0, magnitude=1.0, **hyper):
    made = make_health(type("Hyper", (), {"gamma": 0.5, "n_step": 1, **hyper}))
    made.seeds[7].lowest, made.seeds[7].highest = low, high
    return made._td_share(made.seeds[7], {"td_p5": -1.0, "td_p95": width - 1.0}, magnitude)


def test_td_errors_are_held_against_what_rewards_alone_can_do():
    # a reward is anything from -1 to 1, and may be met at every step of a target
    assert td_share(-1.0, 1.0) == pytest.approx(6 / (1 + 2))
    assert td_share(0.0, 1.0) == pytest.approx(6 / (1 + 1))
    # three steps weigh 1, 0.5 and 0.25
    assert td_share(0.0, 1.0, n_step=3) == pytest.approx(6 / (1 + 1.75))
    # all steps weigh 1, 0.25, 0.0625, ...: 4/3
    assert td_share(0.0, 1.0, lambda_=0.5) == pytest.approx(6 / (1 + 4 / 3))
    # clipped at 2, in scaled rewards: 20 raw
    assert td_share(-30.0, 0.0, reward_scale=0.1, reward_clip=2.0) == pytest.approx(6 / 21)
    assert td_share(0.0, 1.0, gamma=1.0, lambda_=1.0) == 0.0  # without end


def test_without_a_reward_there_is_nothing_to_follow():
    assert np.isnan(td_share(0.0, 0.0))


def test_without_discount_values_have_no_bound():
    found = measure([[0], [0]], [episode([1, 1], ended=True)], gamma=1.0)
    assert found["monte_carlo"] == 1.5
    assert np.isnan(found["value_share"])


def test_churn_is_of_the_last_evaluation_s_states():
    one = episode([1, 1, 1, 1], ended=True)
    made = make_health(type("Hyper", (), {"gamma": 0.5}), Table([[1, 0]] * 4))
    made._at_states(7, PARAMS, [one])
    made.actor.table = np.array([[1, 0], [0, 1], [1, 0], [1, 0]])
    # of four states one has the other action now; that only two are seen this time is no matter
    found = made._at_states(7, PARAMS, [episode([1, 1], ended=True)])
    assert found["churn"] == 0.25


def test_features_need_a_few_different_states():
    rng = np.random.default_rng(0)
    states = np.arange(health.FEW_STATES)
    layers = [np.abs(rng.normal(size=(len(states), 6)))]
    layers[0][:, :3] = 0
    found = health._features(layers, states)
    assert found["dead_units"] == 0.5
    assert 1 < found["effective_rank"] <= 3
    assert np.isnan([*health._features(layers, states // 2).values()]).all()
    assert np.isnan([*health._features([], states).values()]).all()


def test_a_feature_map_counts_by_its_mean():
    # two maps over places that differ; by their means all states are multiples of one
    states = np.arange(health.FEW_STATES)
    maps = np.random.default_rng(0).random((len(states), 2, 3, 3))
    maps *= (1 + states)[:, None, None, None] / maps.mean((2, 3), keepdims=True)
    assert health._features([maps], states)["effective_rank"] == 1


def test_features_of_states_that_are_alike_are_not_blamed():
    rng = np.random.default_rng(0)
    away = rng.normal(size=(health.FEW_STATES, 3))
    alike = np.array([1.0, 0.0, 0.0]) + 1e-4 * away  # a pendulum that stands still
    one_direction = [np.outer(1.0 + rng.random(health.FEW_STATES), np.ones(4))]
    assert np.isnan(health._features(one_direction, alike)["effective_rank"])
    assert health._features(one_direction, away)["effective_rank"] == 1


# What is written.


def test_patience_starts_anew_when_the_measure_comes_back():
    made = make_health(DQNConfig())
    away, late = {"churn": 0.95}, {"churn": 0.1}
    given = [made._alarms(7, record, 0) for record in (away, late, away, {}, away, away, away)]
    assert given == [[], [], [], [], [], ["churn"], []]


def test_a_saved_state_brings_back_all_that_decides_later_records():
    made, again = (make_health(DQNConfig()) for _ in "ab")
    made.seeds[7].highest, made.seeds[7].states = 3.0, {"greedy": np.array([1, 0])}
    for _ in range(3):
        made._alarms(7, {"churn": 0.95, "dead_units": 0.9}, 0)
    again.load_state_dict(join(*split(made.state_dict())))
    assert again._alarms(7, {"churn": 0.95}, 0) == []  # given before
    assert vars(again.seeds[7]).keys() == vars(made.seeds[7]).keys()
    assert again.seeds[7].highest == 3.0
    assert again.seeds[7].states["greedy"].tolist() == [1, 0]
    assert made.seeds[7].given == again.seeds[7].given == ["churn", "dead units"]


def test_each_seed_has_its_untrained_network_and_one_that_left_is_kept():
    class Two:
        def params(self):
            return Params(0, 0, {"flat": torch.tensor([[1.0], [2.0]])}, {})

    made = Health(DQNConfig(), lambda g: None, Two(), [7, 9], lambda text: None)
    assert {s: p.tensors["flat"].item() for s, p in made.untrained.items()} == {7: 1.0, 9: 2.0}
    made.seeds[9].highest = 3.0
    again = make_health(DQNConfig())
    again.load_state_dict(made.state_dict())
    assert again.state_dict() == made.state_dict()


def test_a_table_has_no_health(tmp_path):
    config = make_config("q_learning", "FrozenLake-v1", steps=1_000, final_episodes=2)
    folder = run(config, (0,), str(tmp_path))
    assert not folder.seed(0).health.exists()
    assert folder.summary()["alarms"] == {}
    draw_health(folder)
    assert not folder.health_picture.exists()


def test_the_picture_has_a_panel_a_measure_and_marks_alarms(tmp_path):
    record = {"env_steps": 10, "value": 1.0, "monte_carlo": 2.0, "churn": None, "dead_units": 0.9}
    records = [{**record, "alarms": []}, {**record, "env_steps": 20, "alarms": ["dead units"]}]
    figure = health_figure({3: records, 4: []}, "dqn on X")
    titles = [axes.get_title("left") for axes in figure.axes if axes.axison]
    assert titles == ["value and Monte Carlo return (red)", "dead units"]
    assert "1 seed:" in figure.get_suptitle()
    assert figure.get_suptitle().endswith("× an alarm")
    marks = figure.axes[1].lines[-1]
    assert (marks.get_xdata().tolist(), marks.get_ydata().tolist()) == ([20], [0.9])
    assert len(figure.axes[0].lines) == 2


def test_a_run_under_way_draws_its_health(tmp_path):
    config = make_config("pqn", "CartPole-v1", steps=8_192, eval_every=2_048, final_episodes=2)
    folder = run(config, (0,), str(tmp_path))
    assert [r["lane_steps"] for r in folder.seed(0).read_health().records] == [
        2048,
        4096,
        6144,
        8192,
    ]
    last = folder.seed(0).read_health().records[-1]
    assert last["td_p5"] <= last["td_p50"] <= last["td_p95"]
    assert "target_drift" not in last  # there is no target
    draw_health(folder)
    assert folder.health_picture.read_bytes().startswith(b"\x89PNG")
