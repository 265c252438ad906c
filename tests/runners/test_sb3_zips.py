"""Models that Stable-Baselines3 has saved itself: played as our own, loaded by request alone."""

import pytest

from runners import evaluate, seeding
from runners.errors import BadInput
from runners.evaluation import Purpose
from runners.sb3 import zips


def saved(tmp_path, algorithm="DQN", env="CartPole-v1", steps=100, **settings):
    """A model as Stable-Baselines3 itself trains and saves it."""
    import stable_baselines3

    model = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", env, seed=0, device="cpu", **settings
    )
    model.learn(steps)
    model.save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


def test_it_is_what_evaluate_policy_gives_on_the_same_episodes(tmp_path):
    """SB3's own evaluation, in Gymnasium's scalar environments with the seeds of the lab's lanes."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    from envs.simulator import lane_seeds

    path = saved(tmp_path, steps=600)
    model = zips.load_trusted(path, "dqn")
    found = zips.evaluate(path, "dqn", "CartPole-v1", [4], 6, backend="sync")
    number = seeding.integer(4, seeding.Stream.EVALUATION, Purpose.COMMAND, 0, 0)
    lanes = make_vec_env("CartPole-v1", 6)
    lanes._seeds = lane_seeds(number, 6)
    returns, _ = evaluate_policy(model, lanes, 6, deterministic=True, return_episode_rewards=True)
    assert sorted(found.returns[0]) == sorted(returns)
    assert len(set(returns)) > 1  # else equal would mean nothing


def test_zips_are_loaded_by_request_alone(tmp_path, capsys, monkeypatch):
    path = saved(tmp_path)
    line = [str(path), "--env", "CartPole-v1", "--episodes", "3"]
    monkeypatch.setattr(zips, "load_trusted", None)
    assert evaluate.main(line) == 2
    assert "loading it runs code that it holds; add --trust" in capsys.readouterr().err
    monkeypatch.undo()
    assert evaluate.main([*line, "--trust"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith(f"warning: {path} is trusted: loading it runs code")
    assert "model.zip (dqn) on CartPole-v1, 3 episodes" in told.out
    assert evaluate.main([*line, "--trust", "--quiet"]) == 0
    assert float(capsys.readouterr().out) > 5


@pytest.mark.parametrize(("algorithm", "env"), [
    ("DQN", "CartPole-v1"), ("PPO", "Pendulum-v1"), ("A2C", "CartPole-v1"), ("SAC", "Pendulum-v1"),
    ("TD3", "Pendulum-v1"),
])  # fmt: skip
def test_whose_a_zip_is(algorithm, env, tmp_path):
    path = saved(tmp_path, algorithm, env, 1, **({"n_steps": 64} if algorithm == "PPO" else {}))
    assert zips.algorithm_in(path) == algorithm.lower()
    with pytest.raises(BadInput, match=f"was saved by {algorithm.lower()}"):
        zips.algorithm_in(path, "dqn" if algorithm != "DQN" else "ppo")


def test_zips_that_do_not_fit_are_one_line(tmp_path, capsys):
    path, other = saved(tmp_path), tmp_path / "other.zip"
    other.write_bytes(b"no zip")
    for line, words in [
        ([path, "--trust"], "--env: is missing"),
        ([path, "--trust", "--env", "Acrobot-v1"], "was trained on observations"),
        ([path, "--trust", "--env", "Nothing-v1"], "there is no environment 'Nothing-v1'"),
        ([path, "--trust", "--env", "CartPole-v1", "--last"], "--last: a model.zip has one set"),
        ([other, "--trust", "--env", "CartPole-v1"], "no model of Stable-Baselines3"),
        ([tmp_path / "not.zip", "--trust", "--env", "CartPole-v1"], "No such file"),
        ([tmp_path, "--trust"], "are for a model.zip"),
    ]:
        assert evaluate.main([*map(str, line)]) == 2
        assert words in capsys.readouterr().err
