"""Stable-Baselines3's agents by the lab's commands: the same episodes, files and words as our own."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from runners import evaluate, train, weights
from runners.checked import CheckedSimulator
from runners.config import from_json, run_name, to_json
from runners.errors import Stopped, status_of
from runners.group import make_setting
from runners.policy import load_policy
from runners.resolve import make_config
from runners.run_folder import RunFolder

SMALL = {
    "steps": 400, "eval_every": 200, "eval_episodes": 3, "final_episodes": 4, "learning_starts": 50,
    "train_freq": 8, "gradient_steps": 2, "net_arch": (16,), "batch_size": 8,
}  # fmt: skip
ON_POLICY = {"eval_episodes": 2, "final_episodes": 2, "net_arch": (8,)}


def dqn(**changes):
    return make_config("sb3:dqn", "CartPole-v1", **{**SMALL, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of sb3:dqn."""
    return train.run(dqn(), [0, 1], tmp_path_factory.mktemp("sb3"))


def records(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    clocks = ("seconds", "lane_steps_per_s", "updates_per_s", "time_shares")
    return [{n: v for n, v in line.items() if n not in clocks} for line in lines]


def weights_of(run, seed=0, which="last"):
    return weights.load_weights(run.seed(seed).path / which)


def same(a, b):
    return all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


# -- The run folder ------------------------------------------------------------------------------


def test_the_folder_is_that_of_our_own_agents(trained, cartpole):
    assert trained.name.startswith("sb3-dqn-CartPole-v1-")
    assert set(trained.summary()) == set(cartpole.summary())
    for name in ("metrics", "evals"):
        theirs, ours = (
            json.loads(getattr(run.seed(0), name).read_text().splitlines()[-1])
            for run in (trained, cartpole)
        )
        own = {"q_mean", "target_mean", "td_error", "grad_norm"}  # of our learners' metrics
        assert set(ours) - own <= set(theirs), name
    result = json.loads((trained.seed(0).path / "result.json").read_text())
    ours = json.loads((cartpole.seed(0).path / "result.json").read_text())
    assert set(result) == set(ours)
    assert from_json(trained.config()) == dqn()
    assert trained.provenance()[0]["versions"]["stable_baselines3"]


def test_steps_are_environment_steps_and_updates_are_theirs(trained):
    summary = trained.summary()
    assert summary["env_steps"] == summary["lane_steps"] == 2 * 400
    # trained behind each 8 steps from 56 on, past the 50 of random actions: 44 times 2
    assert summary["updates"] == 2 * 44 * 2
    assert [line["lane_steps"] for line in records(trained.seed(0).evals)] == [200, 400]
    assert records(trained.seed(0).metrics)[-1]["loss"] > 0


def test_training_returns_are_counted_by_episode(tmp_path):
    """CartPole pays 1 a step: all that were paid, but for the episode under way, are its steps."""
    run = train.run(dqn(lanes=2, reward_clip=0.5), [0], tmp_path)
    lines = records(run.seed(0).metrics)
    ended = sum(line["episodes"] * line["train_return"] for line in lines if line["episodes"])
    assert 400 - 2 * 100 < ended <= 400
    assert ended == int(ended)  # what was paid, not what a clip of 0.5 left of it


def test_a_finished_run_is_not_trained_again_and_seeds_can_be_added(tmp_path):
    run = train.run(dqn(), [0], tmp_path)
    before = run.seed(0).evals.read_bytes()
    assert train.run(dqn(), [0, 1], tmp_path).summary()["seeds"] == [0, 1]
    assert run.seed(0).evals.read_bytes() == before


def test_commands_read_it(trained, capsys, tmp_path):
    from runners import watch
    from runners.learning_curve import draw_curve

    assert evaluate.main([str(trained.path), "--episodes", "3"]) == 0
    assert "sb3:dqn on CartPole-v1, best weights" in capsys.readouterr().out
    draw_curve(trained)
    assert trained.curve.stat().st_size > 1_000
    assert watch.watch(trained, 0, episodes=1, out=tmp_path).returns[0] >= 8
    assert load_policy(trained, 1)(np.zeros((2, 4), np.float32)).tolist() in ([0, 0], [1, 1])


# -- Bits ----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(trained, tmp_path):
    np.random.seed(7)  # noqa: NPY002 - what a program does with the global generators is its own
    torch.rand(3)
    again = train.run(dqn(), [1], tmp_path)
    assert same(weights_of(again, 1), weights_of(trained, 1))
    assert records(again.seed(1).evals) == records(trained.seed(1).evals)
    assert records(again.seed(1).metrics) == records(trained.seed(1).metrics)
    assert not same(weights_of(trained, 0), weights_of(trained, 1))


def test_how_often_it_is_evaluated_does_not_change_what_is_learned(tmp_path):
    """A2C draws its actions from torch's global generator, which new networks draw from as well."""
    config = {**ON_POLICY, "steps": 200, "lanes": 2}
    seldom, often = (
        train.run(make_config("sb3:a2c", "CartPole-v1", eval_every=n, **config), [0], tmp_path)
        for n in (200, 50)
    )
    assert len(records(often.seed(0).evals)) == 4
    assert same(weights_of(often), weights_of(seldom))


def test_global_generators_are_put_back(tmp_path):
    import random  # noqa: TID251

    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    def seed():
        random.seed(3), np.random.seed(3), torch.manual_seed(3)  # noqa: NPY002, TID251

    seed()
    expected = drawn()
    seed()
    train.run(dqn(steps=100), [0], tmp_path)
    assert drawn() == expected


def test_saved_weights_act_as_the_model_did_to_the_bit(tmp_path, monkeypatch):
    from runners.sb3 import train as theirs

    kept = []
    make = theirs.make_model
    monkeypatch.setattr(theirs, "make_model", lambda *a: kept.append(make(*a)) or kept[-1])
    for agent, env, more in [
        ("sb3:dqn", "CartPole-v1", SMALL),
        ("sb3:sac", "Pendulum-v1", {**ON_POLICY, "steps": 60, "learning_starts": 40}),
        ("sb3:ppo", "Acrobot-v1", {**ON_POLICY, "steps": 64, "n_steps": 16, "normalize": True}),
    ]:
        run = train.run(make_config(agent, env, **{**more, "lanes": 2}), [0], tmp_path)
        model, policy = kept[-1], load_policy(run, 0, last=True)
        space = model.observation_space
        obs = np.stack([space.sample() for _ in range(64)]).clip(-5, 5)
        normalizer = model.get_vec_normalize_env()
        seen = obs if normalizer is None else normalizer.normalize_obs(obs)
        expected = model.predict(seen, deterministic=True)[0]
        assert policy(obs).tobytes() == expected.tobytes(), agent
        assert env != "Pendulum-v1" or len(np.unique(expected)) > 30


# -- The same evaluation -------------------------------------------------------------------------


def test_evaluations_play_the_episodes_that_our_own_agents_play(trained, cartpole, monkeypatch):
    begun, reset = [], CheckedSimulator.reset

    def noted(self, step, seed=None):
        begun.append(reset(self, step, seed))
        return begun[-1]

    monkeypatch.setattr(CheckedSimulator, "reset", noted)
    for run in (trained, cartpole):
        evaluate.evaluate(run, [0], 5)
    theirs, ours = begun[1][0], begun[3][0]  # the others look at the environment
    assert theirs.shape == (5, 4)
    assert theirs.tobytes() == ours.tobytes()


# -- The loop's end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "updates"),
    [
        (96, 6),  # three whole rollouts of 32, two passes each: the last is learned from
        (100, 6),  # the four steps of the fourth are not: none is taken beyond the budget
    ],
)
def test_whole_rollouts_are_learned_from_and_no_step_is_taken_beyond_the_budget(
    steps, updates, tmp_path
):
    config = make_config(
        "sb3:ppo",
        "CartPole-v1",
        steps=steps,
        n_steps=16,
        lanes=2,
        batch_size=32,
        n_epochs=2,
        **ON_POLICY,
    )
    run = train.run(config, [0], tmp_path)
    assert run.summary()["env_steps"] == steps
    assert run.summary()["updates"] == updates
    assert weights_of(run).version == updates


def test_schedules_span_the_run(tmp_path):
    config = make_config(
        "sb3:a2c", "CartPole-v1", steps=100, lanes=1, n_steps=10, learning_rate_schedule="linear",
        learning_rate=1e-2, **ON_POLICY,
    )  # fmt: skip
    rates = [
        line["learning_rate"]
        for line in records(train.run(config, [0], tmp_path).seed(0).metrics)
        if "learning_rate" in line
    ]
    # told after each rollout of 10 steps but the last line's: 0.9 of it is left, 0.8, ...
    assert sorted(set(np.round(rates, 6)), reverse=True) == [
        round(0.01 * left / 10, 6) for left in range(9, -1, -1)
    ]


def test_until_solved_ends_a_seed_through_the_callback(tmp_path, monkeypatch):
    from runners import resolve

    monkeypatch.setattr(resolve, "threshold", lambda env: 5.0)  # whatever the pole does is enough
    run = train.run(dqn(until_solved=True, steps=10_000), [0], tmp_path)
    assert run.summary()["solved_at"]["env_steps"] == [200]
    assert run.summary()["env_steps"] == 200
    assert weights_of(run).lane_steps == weights_of(run, which="best").lane_steps == 200


def test_continuous_actions(tmp_path):
    config = make_config("sb3:sac", "Pendulum-v1", steps=300, **ON_POLICY)
    summary = train.run(config, [0], tmp_path).summary()
    assert summary["updates"] == 200  # one a step, past the 100 of random actions
    assert -2000 < summary["final_return"]["mean"] < 0


def test_images_are_stacked_alike_in_training_and_evaluation(tmp_path):
    from stable_baselines3.common.vec_env import VecFrameStack

    from runners.sb3.lanes import make_lanes
    from runners.timing import Times

    config = make_config(
        "sb3:dqn", "ALE/Breakout-v5", steps=100, frame_stack=3, net_arch=(), buffer_size=10
    )
    setting = make_setting(config)
    env, lanes = make_lanes(setting, 0, Times())
    assert isinstance(env, VecFrameStack)
    stacked = [env.reset()]
    actor = setting.make_actor([np.random.default_rng(0)])
    state, seen = actor.initial_state(1), []

    class Noted:
        def predict(self, obs, deterministic):
            seen.append(obs.copy())
            return np.zeros(len(obs), np.int64), None

    actor.policies = [Noted()]
    for t in range(5):
        newest = stacked[-1][:, -1]
        _, state, _ = actor.act(newest[None], np.full((1, 1), t == 0), {}, state, False)
        stacked.append(env.step([2])[0])
    lanes.close()
    assert stacked[0].shape == (1, 3, 84, 84)
    assert (stacked[0][:, :2] == 0).all()
    assert np.stack(seen).tobytes() == np.stack(stacked[:-1]).tobytes()
    assert stacked[4][:, 0].any()


# -- Stopped and killed --------------------------------------------------------------------------


def test_a_signal_ends_the_loop_and_the_seed_begins_again(trained, tmp_path):
    asked = []

    def stop():
        asked.append(1)
        return signal.SIGINT if len(asked) == 12 else 0

    said = Said()
    with pytest.raises(Stopped, match="seed 1 begins again with the same command") as caught:
        train.run(
            dqn(),
            [0, 1],
            tmp_path,
            stop_asked=lambda: stop() if said.seed == 1 else 0,
            console=said,
        )
    assert status_of(caught.value) == 130
    folder = RunFolder(tmp_path / run_name(dqn()))
    assert [(folder.seed_path(seed) / "result.json").exists() for seed in (0, 1)] == [True, False]
    assert 0 < len(records(folder.seed(1).metrics)) < len(records(trained.seed(1).metrics))
    run = train.run(dqn(), [0, 1], tmp_path, console=said)
    assert any("seed 1: begins again" in text for text in said.texts)
    assert records(run.seed(1).evals) == records(trained.seed(1).evals)
    assert same(weights_of(run, 1), weights_of(trained, 1))


class Said:
    """A console that remembers."""

    def __init__(self):
        self.texts, self.seed = [], -1

    def start(self, title, total, seeds):
        self.seed = seeds[0]

    def update(self, status):
        pass

    def message(self, text):
        self.texts.append(text)

    def stop(self):
        pass


@pytest.fixture
def begun(tmp_path):
    """A run in a process of its own that has been evaluated twice; the process, its evals, its configuration."""
    path, config = tmp_path / "config.json", dqn(steps=10**6, eval_every=400)
    path.write_text(json.dumps(to_json(config)))
    command = [sys.executable, "-m", "runners.train", "--config", str(path), "--seeds", "1"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    evals = tmp_path / run_name(config) / "seed-0" / "evals.jsonl"
    try:
        while not (evals.is_file() and evals.read_text().count("\n") > 1):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        yield process, evals, config
    finally:
        process.kill()
        process.communicate()


def test_the_command_stops_at_a_signal(begun):
    process, _, _ = begun
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert told.splitlines()[-1].startswith("error: stopped by SIGTERM: seed 0 begins again")


def test_a_run_that_was_killed_begins_again_and_leaves_no_line_twice(begun, tmp_path):
    process, evals, config = begun
    process.kill()
    process.wait()
    kept = records(evals)[:2]
    with evals.open("a") as file:
        file.write('{"lane_steps": 12')  # a line that broke off
    said = Said()

    def stop():
        return signal.SIGTERM if len(evals.read_bytes().splitlines()) >= 2 else 0

    with pytest.raises(Stopped):
        train.run(config, [0], tmp_path, console=said, stop_asked=stop)
    assert any("begins again" in text for text in said.texts)
    again = records(evals)
    assert [line["lane_steps"] for line in again] == sorted({line["lane_steps"] for line in again})
    assert again == kept  # from the same start to the same bits
