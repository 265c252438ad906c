"""How far acting is behind learning: logged, bounded, drawn."""

from __future__ import annotations

import pytest

from envs.classic import ClassicControl
from envs.cores import cores, limited
from runners.errors import Stopped
from runners.lag_picture import draw_lag, lag_figure
from runners.progress import Clock
from runners.resolve import make_config
from runners.train import run
from tests.agents.test_groups import bits, config_of

SMALL = {"lanes": 8, "block_size": 4, "steps": 2_048, "eval_every": 1_024, "final_episodes": 2}


def lags(folder):
    return [
        (line["policy_lag"], line["policy_lag_max"])
        for line in folder.seed(0).read_metrics().records
    ]


def test_lag_one_is_one_from_the_second_rollout_on(tmp_path):
    folder = run(config_of("dqn", lag=1, **SMALL), [0], str(tmp_path))
    first, *later = lags(folder)
    assert first == (0, 0)  # nothing newer there
    assert set(later) == {(1, 1)}
    draw_lag(folder)
    assert not folder.lag_picture.exists()  # it is always the same


def test_without_lag_nothing_is_said_of_it(tmp_path):
    folder = run(config_of("dqn", **SMALL), [0], str(tmp_path))
    assert "policy_lag" not in folder.seed(0).read_metrics().records[-1]


def test_the_lag_of_async_workers_stays_within_the_bound_and_is_drawn(tmp_path):
    config = config_of("dqn", async_=True, max_lag=3, checkpoint_every=2_048, **SMALL)
    folder = run(config, [0], str(tmp_path), workers=2)
    found = lags(folder)
    assert found[0] == (0, 0)
    assert max(most for _, most in found) <= 3
    assert all(mean <= most for mean, most in found)
    draw_lag(folder)
    assert folder.lag_picture.read_bytes().startswith(b"\x89PNG")


def test_what_the_picture_shows():
    line = {"env_steps": 100, "policy_lag": 1.5, "policy_lag_max": 2, "train_return": 7.0}
    figure = lag_figure({0: [line, {**line, "env_steps": 200, "train_return": 9.0}]}, "x", 4)
    over_time, by_lag = figure.axes
    assert [list(drawn.get_xdata()) for drawn in over_time.lines] == [[100, 200]] * 2
    assert over_time.get_ylim() == (0, 4.5)
    assert by_lag.collections[0].get_offsets().tolist() == [[1.5, 7.0], [1.5, 9.0]]


def test_simulators_leave_cores_to_others(monkeypatch):
    from envs import atari_engines

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert (cores(), atari_engines.threads(8)) == (4, 4)
    with limited(3):
        assert (cores(), atari_engines.threads(8), atari_engines.threads(2)) == (3, 3, 2)
        with limited(0):
            assert cores() == 1
    assert cores() == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"async_": True, "lag": 1}, "lag: got 1, takes 0: async workers"),
        ({"max_lag": 2}, "max_lag: got 2, is for --async"),
    ],
)
def test_lags_that_make_no_sense(changes, words):
    with pytest.raises(ValueError, match=words):
        make_config("dqn", "CartPole-v1", steps=100, **changes)


def test_async_has_a_bound_of_its_own():
    config = make_config("dqn", "CartPole-v1", steps=100, async_=True)
    assert (config.max_lag, config.ahead) == (4, 4)


# What may be begun before it is asked for.


def following(plan):
    """Rows and checkpoints of the plans that follow one."""
    found = []
    while plan.following is not None:
        plan = plan.following
        found.append((plan.rows, plan.checkpoint))
    return found


def test_nothing_is_begun_beyond_a_checkpoint_the_end_or_where_seeds_may_leave():
    """By hand: 4 lanes, rollouts of 8 rows, 32 lane steps each; evaluations at 64, 128, ... and checkpoints
    at 96 and 192; the end is at 200, six whole rollouts and one of two rows.
    """
    clock = Clock(200, 64, 96, 8, 4, ahead=3)
    assert following(clock.plan(0)) == [(8, None), (8, 1)]  # of three, for the third ends at 96
    assert following(clock.plan(64)) == []  # it ends there itself
    assert following(clock.plan(96)) == [(8, None), (8, 2)]
    assert following(clock.plan(192)) == []  # the last
    leaving = clock._replace(seeds_leave=True)
    assert following(leaving.plan(0)) == [(8, None)]  # up to the evaluation at 64
    assert following(leaving.plan(64)) == []
    assert following(clock._replace(ahead=1).plan(0)) == [(8, None)]
    assert following(clock._replace(ahead=0).plan(0)) == []


@pytest.mark.parametrize("calls", [3, 20])
def test_a_thread_that_simulates_ahead_is_stopped_and_goes_on_to_the_same_bits(
    calls, tmp_path, monkeypatch
):
    """The signal finds a rollout under way, which is learned from before anything is saved."""
    config = config_of("dqn", env="MountainCar-v0", lag=1, checkpoint_every=512, **SMALL)
    plain = run(config, [0, 1], str(tmp_path / "plain"))
    monkeypatch.setattr(ClassicControl, "releases_gil", True)
    asked = iter([0] * calls + [2] * 10)
    with pytest.raises(Stopped, match="saved at lane step"):
        run(config, [0, 1], str(tmp_path / "ahead"), stop_asked=lambda: next(asked))
    assert next(asked) == 2
    resumed = run(config, [0, 1], str(tmp_path / "ahead"))
    for seed in (0, 1):
        assert bits(resumed, seed) == bits(plain, seed)
