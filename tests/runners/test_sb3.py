"""Stable-Baselines3's agents by the lab's commands: the same episodes, files and words as our own."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from runners import evaluate, sb3, train, weights
from runners.checked import CheckedSimulator
from runners.config import config_id, from_json, run_name, to_json
from runners.errors import BadInput, RunFailed, Stopped, status_of
from runners.evaluation import Purpose
from runners.group import make_setting
from runners.policy import load_policy
from runners.resolve import make_config
from runners.run_folder import RunFolder
from runners.sb3 import zips
from tests.runners.toys import REFUSED

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
    from runners.report import draw_curve

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


def test_how_often_it_is_evaluated_does_not_change_what_is_learned(trained, tmp_path):
    often = train.run(dqn(eval_every=56, eval_episodes=2), [0], tmp_path)
    assert len(records(often.seed(0).evals)) == 8
    assert same(weights_of(often), weights_of(trained))


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


def test_it_is_what_evaluate_policy_gives_on_the_same_episodes(tmp_path):
    """SB3's own evaluation, in Gymnasium's scalar environments with the seeds of the lab's lanes."""
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    from envs.simulator import lane_seeds
    from runners import seeding

    path = saved(tmp_path, steps=600)
    model = zips.load_trusted(path, "dqn")
    found = zips.evaluate(path, "dqn", "CartPole-v1", [4], 6, backend="sync")
    number = seeding.integer(4, seeding.Stream.EVALUATION, Purpose.COMMAND, 0, 0)
    lanes = make_vec_env("CartPole-v1", 6)
    lanes._seeds = lane_seeds(number, 6)
    returns, _ = evaluate_policy(model, lanes, 6, deterministic=True, return_episode_rewards=True)
    assert sorted(found.returns[0]) == sorted(returns)
    assert len(set(returns)) > 1  # else equal would mean nothing


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


def test_loss_that_is_not_finite_is_one_line(tmp_path):
    with pytest.raises(RunFailed, match="not finite; try a smaller --learning-rate"):
        train.run(dqn(learning_rate=1e30, max_grad_norm=1e30), [0], tmp_path)


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


# -- Refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sb3:foo", "agent 'sb3:foo': unknown; did you mean sb3:"),
        ("sb3:dqnn", "did you mean sb3:dqn?"),
        ("sb3:dqn --workers 2", "workers: are not for sb3:dqn"),
        ("sb3:dqn --async", "async: is not for sb3:dqn"),
        ("sb3:dqn --lag 1", "lag: is not for sb3:dqn"),
        ("sb3:dqn --compile", "compile: is not for sb3:dqn"),
        ("sb3:dqn --rollout-length 3", "rollout_length: is not for sb3:dqn"),
        ("sb3:dqn --checkpoint-every 100", "checkpoint_every: is not for sb3:dqn"),
        ("sb3:dqn --lanes 2 --block-size 2", "block_size: is not for sb3:dqn"),
        ("sb3:dqn --backend async", "backend: got async, takes sync"),
        ("sb3:dqn --source fused", "source: fused is for tabular agents"),
        ("sb3:dqn --verify-resume", "verify_resume: sb3:dqn cannot go on"),
        ("sb3:dqn --lr 1", "--lr: unknown; it is called --learning-rate here"),
        ("sb3:dqn --gradient-steps 0", "gradient_steps: got 0, takes 1 or more, or -1"),
        ("sb3:dqn --gradient-steps -2", "gradient_steps: got -2, takes a number of at least -1"),
        ("sb3:dqn --frame-stack 4", "frame_stack: CartPole-v1 shows no images"),
        ("sb3:dqn --env Pendulum-v1 --steps 9", "sb3:dqn takes discrete actions; Pendulum-v1's are continuous"),
        ("sb3:sac --steps 9", "sb3:sac takes continuous actions; CartPole-v1's are discrete"),
        ("sb3:sac --env Pendulum-v1 --ent-coef x", "ent_coef: got 'x', takes auto, auto_0.1 or 0.1"),
        ("sb3:ppo --env FrozenLake-v1 --steps 9 --normalize", "observations are whole numbers"),
        ("sb3:dqn --buffer-size 999999999999", "take --buffer-size "),
    ],
)  # fmt: skip
def test_what_is_not_for_them_is_one_line(line, words, tmp_path, capsys):
    assert train.main([*line.split(), "--seeds", "1", "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert words in told
    assert not list(tmp_path.glob("*/seed-*"))


def test_a_config_file_of_a_run_is_taken_as_it_is(trained, tmp_path):
    assert make_config("sb3:dqn", "CartPole-v1", **SMALL) == from_json(trained.config())
    with pytest.raises(REFUSED, match="rollout_length"):
        from_json({**trained.config(), "rollout_length": 1})


def test_ids_of_our_own_agents_do_not_depend_on_stable_baselines3():
    ours, theirs = make_config("dqn", "CartPole-v1"), dqn()
    versions = {"torch": "2.0", "gymnasium": "1.0", "mujoco": "3.0"}
    newer = {**versions, "stable_baselines3": "3.0"}
    assert config_id(ours, versions) == config_id(ours, newer)
    assert config_id(theirs, versions) != config_id(theirs, newer)


def test_every_preset_can_be_configured():
    from runners.sb3.presets import PRESETS

    for agent, env in PRESETS:
        id_ = env.replace("*", "Pong-v5")
        if id_ != "LunarLander-v3":  # its package is an extra
            assert make_config(agent, id_).agent == agent
    assert {agent for agent, _ in PRESETS} == set(sb3.AGENTS)


def test_help_loads_neither_torch_nor_stable_baselines3():
    code = (
        "import sys\nfrom runners import train\n"
        "status = train.main(['sb3:ppo', '--help'])\n"
        "print(status, {'torch', 'stable_baselines3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--gae-lambda" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 set()"


# -- Zips ----------------------------------------------------------------------------------------


def saved(tmp_path, algorithm="DQN", env="CartPole-v1", steps=100, **settings):
    """A model as Stable-Baselines3 itself trains and saves it."""
    import stable_baselines3

    model = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", env, seed=0, device="cpu", **settings
    )
    model.learn(steps)
    model.save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


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
