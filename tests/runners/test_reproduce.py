"""Claims: what the table holds, what the command says of them, and what a measurement prints."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from agents import AGENTS, planning
from runners import group, outcome, presets, reproduce, resolve
from runners.claims import CLAIMS, Claim
from runners.console import SilentConsole
from runners.outcome import read_result
from runners.resolve import make_config
from runners.run_folder import RunFolder
from runners.stats import prediction_interval, t_interval

LAKE = {"steps": 2_000, "final_episodes": 5, "eval_episodes": 2}


@pytest.fixture
def small(monkeypatch):
    """Q-learning and SARSA on FrozenLake for so short that nothing is learned."""
    for agent in ("q_learning", "sarsa"):
        monkeypatch.setitem(presets.PRESETS, (agent, "FrozenLake-v1"), LAKE)


def claim(low=-1.0, high=1.0, **changes):
    made = Claim("q_learning", "FrozenLake-v1", "policy_value", low, high, "measured", "a test", 2)
    return made._replace(**changes)


def believe(monkeypatch, *believed):
    monkeypatch.setattr(reproduce, "CLAIMS", believed)


# -- The table -----------------------------------------------------------------------------------


def test_every_claim_can_be_checked():
    assert len({(c.agent, c.env, c.metric) for c in CLAIMS}) == len(CLAIMS)
    for c in CLAIMS:
        assert AGENTS[c.agent], c
        assert make_config(c.agent, c.env).steps  # a budget of its own
        assert c.low <= c.high, c
        assert c.kind != "exact" or c.low == c.high, c
        assert c.source, c
        assert 1 <= c.seeds <= reproduce.FRESH, c  # those that are measured begin there


@pytest.mark.parametrize(
    ("agent", "env", "mean", "deviation"),
    [
        ("sac", "HalfCheetah-v5", 6156.3, 699.8),
        ("sac", "Hopper-v5", 1103.4, 367.8),
        ("crossq", "HalfCheetah-v5", 8112.4, 895.5),
        ("crossq", "Hopper-v5", 2764.4, 781.0),
    ],
)
def test_published_ends_are_where_three_more_seeds_would_lie(agent, env, mean, deviation):
    (c,) = [c for c in CLAIMS if (c.agent, c.env) == (agent, env)]
    ten = np.arange(10.0)
    ten = mean + deviation * (ten - ten.mean()) / ten.std(ddof=1)
    assert (c.low, c.high) == pytest.approx(prediction_interval(ten, c.seeds, 0.99), abs=0.15)


def test_a_verdicts_wall_time_is_of_its_own_seeds(small, monkeypatch, tmp_path):
    believe(monkeypatch, claim())
    (two,) = reproduce.reproduce([claim()], None, str(tmp_path))
    (four,) = reproduce.reproduce([claim()], 4, str(tmp_path))
    summary = four.run.folder.summary()
    assert four.run.wall_s == pytest.approx(summary["wall_s"])
    (again,) = reproduce.reproduce([claim()], None, str(tmp_path))
    steps = [read_result(again.run.folder.seed_path(seed))["env_steps"] for seed in range(4)]
    assert again.run.wall_s == pytest.approx(summary["wall_s"] * sum(steps[:2]) / sum(steps))
    assert two.scores == again.scores


@pytest.mark.parametrize("c", [c for c in CLAIMS if c.kind == "exact"], ids=lambda c: f"{c[:2]}")
def test_exact_claims_are_what_dynamic_programming_gives(c):
    setting = group.make_setting(
        make_config("q_learning", c.env, steps=1)
    )  # whose actor has no state
    steps = outcome.horizon(setting)
    gamma = make_config(c.agent, c.env).hyper.gamma
    policy = planning.greedy(planning.q_star(setting.mdp, gamma))
    assert c.holds(float(planning.policy_value(setting.mdp, policy, steps)))
    if c.source.endswith("optimum"):
        assert c.holds(planning.optimal_value(setting.mdp, steps))


@pytest.mark.parametrize(
    "c", [c for c in CLAIMS if c.metric == "policy_value"], ids=lambda c: f"{c[:2]}"
)
def test_no_policy_is_claimed_to_be_worth_more_than_the_best(c):
    setting = group.make_setting(make_config("q_learning", c.env, steps=1))
    best = planning.optimal_value(setting.mdp, outcome.horizon(setting))
    assert c.low <= c.high <= best + 1e-5


def test_a_claim_holds_between_its_ends():
    assert claim(1.0, 2.0).holds(1.0)
    assert claim(1.0, 2.0).holds(2.0)
    assert not claim(1.0, 2.0).holds(0.99)
    assert not claim(1.0, 2.0).holds(2.01)
    assert not claim(1.0, 2.0).holds(math.nan)


# -- The command ---------------------------------------------------------------------------------


def test_a_claim_that_holds_and_one_that_does_not(small, monkeypatch, tmp_path, capsys):
    believe(monkeypatch, claim(), claim(0.9, 1.0, agent="sarsa"))
    out = ["--out", str(tmp_path)]
    assert reproduce.main(["q_learning", "--env", "FrozenLake-v1", *out]) == 0
    told = capsys.readouterr()
    assert "1 of 1 inside what is claimed" in told.out
    assert "2k x 2" in told.out
    assert "| score [interval] " in told.out
    assert "1 of 1: q_learning on FrozenLake-v1\n" in told.err
    before = (next(tmp_path.iterdir()) / "seed-0" / "metrics.jsonl").read_bytes()
    assert reproduce.main(["--all", *out]) == 1
    told = capsys.readouterr()
    assert "1 of 2: q_learning on FrozenLake-v1: finished before" in told.err
    assert told.err.endswith("error: outside what is claimed: sarsa on FrozenLake-v1\n")
    assert "1 of 2 inside what is claimed" in told.out
    (row,) = (line for line in told.out.splitlines() if line.startswith("| sarsa"))
    assert "], outside " in row
    (kept,) = tmp_path.glob("q_learning*")
    assert (kept / "seed-0" / "metrics.jsonl").read_bytes() == before


def test_a_table_in_markdown(small, monkeypatch, tmp_path, capsys):
    believe(
        monkeypatch,
        claim(),
        claim(2.0, 3.0, metric="final_return", seeds=1, published="elsewhere 9"),
    )
    line = ["--all", "--markdown", "--quiet", "--out", str(tmp_path)]
    assert reproduce.main(line) == 1
    told = capsys.readouterr()
    assert told.err == "error: outside what is claimed: q_learning on FrozenLake-v1\n"
    head, rule, first, second = told.out.splitlines()
    assert head == (
        "| agent | env | steps x seeds | score [interval] | claimed | source | wall time "
        "| published |"
    )
    assert rule == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    verdicts = reproduce.reproduce([claim()], out=str(tmp_path))
    low, high = t_interval(verdicts[0].scores)
    agent, env, size, score, claimed, source, _, published = (
        cell.strip() for cell in first.split("|")[1:-1]
    )
    assert (agent, env, size) == ("q_learning", "FrozenLake-v1", "2k x 2")
    assert score == f"{verdicts[0].score:.4g} [{low:.4g} .. {high:.4g}]"
    assert (claimed, source) == ("policy value -1 .. 1", "measured: a test")
    assert (published, second.split("|")[8].strip()) == ("", "elsewhere 9")
    assert second.split("|")[3].strip() == "2k x 1"
    assert second.split("|")[4].strip().endswith(", outside")
    assert "[" not in second  # one seed has no interval


def test_seeds_that_stop_once_they_have_solved_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(
        presets.PRESETS, ("q_learning", "FrozenLake-v1"), {**LAKE, "eval_every": 500}
    )
    monkeypatch.setattr(resolve, "threshold", lambda env: 0.0)
    believe(monkeypatch, claim(until_solved=True), claim(metric="final_return"))
    assert reproduce.main(["--all", "--markdown", "--quiet", "--out", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()[2:]
    assert first.split("|")[3].strip() == "until solved, <= 2k x 2"
    assert second.split("|")[3].strip() == "2k x 2"
    steps = {
        json.loads((folder / "summary.json").read_text())["lane_steps"]
        for folder in tmp_path.iterdir()
    }
    assert len(steps) == 2
    line = ["q_learning", "--env", "FrozenLake-v1", "--measure", "--until-solved", "--quiet"]
    monkeypatch.setattr(reproduce, "MEASURED", 3)
    assert reproduce.main([*line, "--out", str(tmp_path)]) in (
        0,
        1,
    )  # 1: of one score there is no interval
    told = capsys.readouterr()
    assert "until_solved=True)," in told.out or "without a spread" in told.err
    assert reproduce.main(["--all", "--until-solved", "--out", str(tmp_path)]) == 2


def test_fewer_seeds_than_a_claim_is_for_are_refused(capsys):
    assert reproduce.main(["sarsa", "--env", "Taxi-v4", "--seeds", "4"]) == 2
    assert "--seeds: got 4, takes at least 5" in capsys.readouterr().err


def test_seeds_that_are_asked_for(small, monkeypatch, tmp_path, capsys):
    believe(monkeypatch, claim())
    assert reproduce.main(["--all", "--seeds", "3", "--out", str(tmp_path)]) == 0
    assert "2k x 3" in capsys.readouterr().out


def test_a_measurement_is_a_line_that_holds(small, tmp_path, capsys):
    line = ["q_learning", "--env", "FrozenLake-v1", "--measure", "--seeds", "3", "--quiet"]
    assert reproduce.main([*line, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    (made,) = eval(f"({told.out.strip()})", {"Claim": Claim})
    assert (made.agent, made.env, made.metric, made.kind, made.seeds) == (
        "q_learning", "FrozenLake-v1", "policy_value", "measured", 5,
    )  # fmt: skip
    assert made.source.startswith("seeds 1000-1002, torch 2.")
    folder = RunFolder(next(tmp_path.iterdir()))
    assert folder.seeds() == [1000, 1001, 1002]  # none that a verdict is on
    low, high = prediction_interval(folder.summary()["policy_value"], 5, 0.99)
    assert made.low <= low <= high <= made.high
    assert made[3:5] == pytest.approx((low, high), abs=1e-4)


def test_scores_without_a_spread_are_no_measurement(tmp_path, capsys):
    """R-max walks the best path with every seed; a claim of no width would be of no worth."""
    line = ["r_max", "--env", "CliffWalking-v1", "--measure", "--seeds", "2", "--quiet"]
    assert reproduce.main([*line, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: all 2 seeds score -13: without a spread")


def test_deep_agents_are_measured_by_their_returns(tmp_path):
    config = make_config(
        "dqn", "CartPole-v1", steps=128, lanes=2, hidden=(4,), final_episodes=2, eval_episodes=1
    )
    made = reproduce.measure(config, 2, str(tmp_path), SilentConsole())
    assert made.metric == "final_return"
    folder = RunFolder(next(tmp_path.iterdir()))
    low, high = prediction_interval(folder.summary()["final_return"]["per_seed"], 5, 0.99)
    assert made[3:5] == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "agent: none is named; name one, or write --all or --list"),
        ("q_lerning", "agent 'q_lerning': unknown; did you mean q_learning?"),
        (
            "q_learning --env Taxi-v4",
            "q_learning on Taxi-v4: nothing is claimed; of q_learning there are claims on FrozenLake",
        ),
        ("pqn --env CartPole-v1", "pqn on CartPole-v1: nothing is claimed; see --list"),
        ("--list --env Taxi-v4", "Taxi-v4: nothing is claimed"),
        ("q_learning --all", "--all: q_learning is named; leave one of the two out"),
        ("--measure", "--measure: name the agent and the environment"),
        ("q_learning --measure", "--measure: name the agent and the environment"),
        ("c51 --measure --env Acrobot-v1", "steps: there is no preset of c51 on Acrobot-v1"),
        ("q_learning --measure --env FrozenLake-v1 --seeds 1", "--seeds: got 1, takes at least 2"),
        ("--all --seeds 0", "argument --seeds: got 0, takes a whole number from 1 on"),
        ("--al", "unrecognized arguments: --al"),
    ],
)
def test_bad_lines_are_one_line(line, message, small, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    believe(monkeypatch, claim())
    assert reproduce.main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {message}")
    assert told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_claim_of_an_exact_value_needs_a_finite_mdp(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(
        presets.PRESETS, ("dqn", "CartPole-v1"),
        {"steps": 64, "lanes": 2, "hidden": (4,), "final_episodes": 2, "eval_episodes": 1},
    )  # fmt: skip
    believe(monkeypatch, claim(agent="dqn", env="CartPole-v1"))
    assert reproduce.main(["--all", "--quiet", "--out", str(tmp_path)]) == 2
    assert "has no policy_value; claim its final_return" in capsys.readouterr().err


def test_the_list_needs_no_torch():
    program = (
        "import sys\nfrom runners.reproduce import main\n"
        "assert main(['--list']) == 0\n"
        "assert not {'torch', 'gymnasium', 'numba', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f"{len(CLAIMS)} claims" in done.stdout
    for c in CLAIMS:
        assert c.agent in done.stdout
        assert c.env in done.stdout
