"""What Stable-Baselines3's agents take, and what is refused in one line before long work."""

import subprocess
import sys

import pytest

from runners import sb3, train
from runners.config import config_id, from_json, to_json
from runners.errors import BadInput
from runners.resolve import make_config
from tests.runners.toys import REFUSED


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


def test_a_configuration_is_the_same_as_json():
    config = make_config("sb3:dqn", "CartPole-v1", train_freq=8, lanes=2)
    assert from_json(to_json(config)) == config
    with pytest.raises(REFUSED, match="rollout_length"):
        from_json({**to_json(config), "rollout_length": 1})


def test_ids_of_our_own_agents_do_not_depend_on_stable_baselines3():
    ours, theirs = (make_config(name, "CartPole-v1") for name in ("dqn", "sb3:dqn"))
    versions = {"torch": "2.0", "gymnasium": "1.0", "mujoco": "3.0"}
    newer = {**versions, "stable_baselines3": "3.0"}
    assert config_id(ours, versions) == config_id(ours, newer)
    assert config_id(theirs, versions) != config_id(theirs, newer)


def test_advice_is_for_our_own_loop():
    from runners.bench_advise import measure

    with pytest.raises(BadInput, match="which no flag of the lab makes faster"):
        next(measure(make_config("sb3:dqn", "CartPole-v1")))


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
