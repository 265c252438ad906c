"""The command line of train: what it makes of flags, files and runs to resume, and of mistakes."""

import io
import json
import subprocess
import sys
import time
from contextlib import redirect_stdout

import pytest

from agents import AGENTS
from agents.hyper import BadValue
from runners import presets
from runners.command_line import parse_train
from runners.config import (
    run_name,
    to_json,
)
from runners.errors import BadInput
from runners.options import Options
from runners.resolve import make_config
from runners.run_folder import Group, create_run
from tests.runners.toys import REFUSED, ToyConfig, toy, toys  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("toys")


def test_no_arguments_at_all():
    config, options, preset, *_ = parse_train([])
    assert (config.agent, config.env, config.until_solved) == ("pqn", "CartPole-v1", True)
    assert (options.seeds, options.seed, options.out) == (5, 0, "runs")
    assert preset == "pqn on CartPole-v1"


def test_options_alone_keep_the_demonstration_and_settings_do_not():
    assert parse_train(["--quiet", "--seeds", "2", "--out", "x"]).config.until_solved
    assert not parse_train(["--lanes", "64"]).config.until_solved
    assert not parse_train(["pqn"]).config.until_solved


def test_flags():
    line = (
        "toy --env Acrobot-v1 --steps 5000 --lr 3e-4 --n-step 3 --no-double --lambda 0.5 --rule max "
        "--hidden 32 16 --lanes=4 --block-size 2 --lag 1 --device cpu --seeds 3 --seed 7"
    )
    config, options, preset, seeds, _ = parse_train(line.split())
    hyper = ToyConfig(lr=3e-4, n_step=3, lambda_=0.5, double=False, rule="max", hidden=(32, 16))
    assert config.hyper == hyper
    assert (config.env, config.steps, config.lanes, config.block_size) == ("Acrobot-v1", 5000, 4, 2)
    assert config.lag == 1
    assert (options.seeds, options.seed, list(seeds)) == (3, 7, [7, 8, 9])
    assert preset is None


def test_underscores_and_repeated_flags():
    config = parse_train(["toy", "--steps", "10", "--n_step", "2", "--n-step", "5"]).config
    assert config.hyper.n_step == 5


def test_env_options():
    pairs = "size=20 is_slippery=false p=0.5 name=abc map=[1] none=null eq=a=b"
    line = ["toytable", "--env", "FrozenLake-v1", "--steps", "100", "--env-options", *pairs.split()]
    config = parse_train(line).config
    assert config.env_options == {
        "size": 20, "is_slippery": False, "p": 0.5, "name": "abc", "map": "[1]", "none": None,
        "eq": "a=b",
    }  # fmt: skip


def test_precedence(tmp_path, monkeypatch):
    monkeypatch.setitem(
        presets.PRESETS, ("toy", "CartPole-v1"), {"lr": 0.1, "n_step": 5, "steps": 77}
    )
    path = tmp_path / "settings.toml"
    path.write_text("eval_episodes = 3\n[hyper]\nn_step = 6\nhidden = [8]\nlambda_ = 1\n")
    config = parse_train(["toy", "--config", str(path), "--lambda", "0"]).config
    assert config.hyper == ToyConfig(lr=0.1, n_step=6, lambda_=0.0, hidden=(8,))
    assert (config.steps, config.eval_episodes) == (77, 3)


def test_a_resolved_configuration_runs_again(tmp_path):
    config = make_config("toytable", "FrozenLake-v1", steps=999, env_options={"is_slippery": False})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(config)))
    again = parse_train(["--config", str(path)])
    assert again.config == config
    assert parse_train(["--config", str(path), "--lr", "0.5"]).config.hyper.lr == 0.5


def test_resume_takes_the_run_as_it_is(tmp_path):
    config = toy()
    run = create_run(tmp_path, run_name(config), to_json(config))
    begun = ["--resume", "last", "--out", str(tmp_path)]
    assert list(parse_train(begun).seeds) == [0, 1, 2, 3, 4]  # stopped before its first group
    for first, last in ((3, 4), (7, 7)):
        run.group(Group(first, last))
    again = parse_train(begun)
    assert again.config == config
    assert list(again.seeds) == [3, 4, 7]
    more = parse_train(["--resume", "toy", "--out", str(tmp_path), "--seed", "9"])
    assert list(more.seeds) == [9, 10, 11, 12, 13]
    elsewhere = parse_train(["--resume", str(run.path)])
    assert elsewhere.options.out == str(tmp_path)  # not ./runs: it goes on where it is
    assert elsewhere.resumed.path == run.path
    with pytest.raises(BadInput, match=r"lr: 0\.5 here, 0.001 there"):
        parse_train(["--resume", "last", "--out", str(tmp_path), "--lr", "0.5"])
    # not: Acrobot has no native backend, which is what was resolved for CartPole
    with pytest.raises(BadInput, match="env: Acrobot-v1 here, CartPole-v1 there"):
        parse_train([*begun, "--env", "Acrobot-v1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('agent = "toy"\nsteps = 10\n[hyper]\nlrr = 0.1\n', "lrr: toy has no such .*mean lr?"),
        ('agent = "toy"\n[hyper]\nsteps = 10\n', "steps: toy has no such hyperparameter"),
        ('agent = "toy"\nsteps = 10\nstepps = 10\n', "stepps: no such setting; did you mean steps"),
    ],
)
def test_a_file_with_a_name_that_nobody_knows(tmp_path, text, told):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=told):
        parse_train(["--config", str(path)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("doqn", "agent 'doqn': unknown; did you mean dqn?; agents: "),
        ("xyz", "agent 'xyz': unknown; agents: "),
        ("toy --steps 10 --learning-rate 1", "--learning-rate: unknown; it is called --lr here"),
        ("toy --config=", "--config: its value is missing"),
        ("toy --steps 10 --lrr 3", "--lrr: unknown; did you mean --lr?"),
        ("toy --steps 10 --no-lr", "--no-lr: unknown"),
        ("toy --steps 10 --lr x", "--lr: got 'x', takes a number"),
        ("toy --steps 10 --lr", "--lr: its value is missing; takes a number"),
        ("toy --steps 10 --lr --double", "--lr: its value is missing; takes a number"),
        ("toy --steps 10 --lr -1", "lr: got -1.0, takes a number above 0"),
        ("toy --steps 10 --lr nan", "lr: got nan, takes a number"),
        ("toy --steps 10 --lr=inf", "lr: got inf, takes a number"),
        ("toy --steps 1e6", "--steps: got '1e6', takes a whole number"),
        ("toy --steps -5", "steps: got -5, takes a number of at least 1"),
        ("toy", "steps: there is no preset of toy on CartPole-v1; say how long: --steps 100000"),
        (
            "dqn --env MinAtar/Breakout",
            "steps: the preset dqn on MinAtar/* says none; say how long",
        ),
        ("toy --steps 10 --rule min", "--rule: got 'min', takes one of mean, max"),
        (
            "toy --steps 10 --double=false",
            "--double: takes no value; write --double or --no-double",
        ),
        ("toy --steps 10 --double false", "false: not expected here; flags begin with --"),
        ("toy --steps 10 --hidden 64 x", "--hidden: got 'x', takes a whole number"),
        ("toy --steps 10 -x", "-x: not expected here; flags begin with --"),
        ("--steps 10 dqn", "dqn: the agent comes first, before the flags"),
        ("toy --steps 10 --env CartPole-v7", "there is no environment 'CartPole-v7'"),
        ("toy --steps 10 --env-options size", "--env-options: got 'size', takes name=value"),
        ("toy --steps 10 --env-options x=NaN", "env_options.x: got nan, takes a text or a finite"),
        ("toy --steps 10 --seeds 0", "seeds: got 0, takes a number of at least 1"),
        ("toy --steps 10 --seed -1", "seed: got -1, takes a number of at least 0"),
        ("toy --steps 10 --out=", "out: got an empty text"),
        ("toy --steps 10 --config nowhere.json", "nowhere.json: No such file or directory"),
        ("toy --resume nowhere/else", "nowhere/else: no run folder"),
        ("toy --steps 10 --lanes 8 --block-size 3", "block_size: got 3, takes a divisor of lanes"),
        ("toy --steps 10 --env Pendulum-v1 --until-solved", "until_solved: Pendulum-v1 has no"),
        ("toy --steps 10 --", "--: unknown"),
    ],
)
def test_bad_lines_are_one_line(line, message, capsys):
    with pytest.raises(REFUSED) as caught:
        parse_train(line.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_options_refuse_what_excludes_each_other():
    with pytest.raises(BadInput, match="leave --fresh out"):
        Options(resume="last", fresh=True)
    with pytest.raises(BadValue, match="quiet: got 1"):
        Options(quiet=1)


def test_an_agent_and_a_file_of_another(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text('{"agent": "pqn"}')
    with pytest.raises(BadInput, match="agent: toy here, pqn in the file"):
        parse_train(["toy", "--config", str(path)])


def test_agent_help_lists_hyperparameters_with_their_defaults(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, ("toy", "CartPole-v1"), {"n_step": 42})
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as stop:
        parse_train(["toy", "--help"])
    assert stop.value.code == 0
    text = " ".join(out.getvalue().split())
    assert "length of the window" in text
    assert "default: 42" in text
    assert "--seeds" in text
    assert "--no-double" in text
    assert "nobody 2000" in text


def test_general_help_is_quick_and_without_torch():
    program = (
        "import sys\nfrom runners.command_line import parse_train\n"
        "try: parse_train(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'gymnasium', 'numba'} & set(sys.modules)\n"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - begin < 1.0
    for word in (*AGENTS, "--until-solved", "exit status", "arXiv:2407.04811", "--resume"):
        if not word.startswith("toy"):
            assert word in done.stdout


def test_workers_simulate_while_the_learner_learns_unless_somebody_says_otherwise(tmp_path):
    def lag(*more):
        made = parse_train(["dqn", "--env", "CartPole-v1", "--workers", "2", *more])
        return made.options.workers, made.config.lag

    assert lag() == (2, 1)
    assert lag("--lag", "0") == (2, 0)
    assert lag("--async") == (2, 0)
    assert lag("--no-async") == (2, 1)
    file = tmp_path / "c.toml"
    file.write_text("async_ = true\n")
    assert lag("--config", str(file)) == (2, 0)
    table = parse_train(["q_learning", "--env", "Taxi-v4", "--workers", "2"])
    assert table.config.lag == 0  # the refusal that follows speaks of workers, not of lag
