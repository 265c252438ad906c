"""The command: what is missing is trained, in parallel; the verdict comes first; bad input is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from runners import compare, comparison, jobs, side_by_side
from runners.config import to_json
from runners.console import SilentConsole
from runners.errors import BadInput
from runners.report import print_table
from runners.scores import Entry, field_of

SMALL = [
    "--steps", "512", "--lanes", "8", "--eval-every", "256", "--eval-episodes", "1",
    "--final-episodes", "2",
]  # fmt: skip
AGENTS = ["q_learning", "sarsa"]


def argv(tmp_path, *more, agents=AGENTS, envs=("FrozenLake-v1",), seeds="2"):
    return [
        *agents, "--envs", *envs, "--seeds", seeds, "--jobs", "2", "--out", str(tmp_path / "runs"),
        *SMALL, *more,
    ]  # fmt: skip


def trained(tmp_path):
    """Every run folder and when its summary was written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (tmp_path / "runs").glob("*/summary.json")
    }


@pytest.mark.slow
def test_what_is_missing_is_trained_and_nothing_twice(tmp_path, capsys):
    assert compare.main(argv(tmp_path)) == 0
    out = capsys.readouterr().out.splitlines()
    assert "q_learning" in out[0]  # the verdict is first
    folder = tmp_path / "runs" / out[-1].rpartition("/")[2]
    record = json.loads((folder / "compare.json").read_text())
    assert record["agents"] == AGENTS
    assert [len(entry["scores"]) for entry in record["entries"]] == [2, 2]
    before = trained(tmp_path)
    assert len(before) == 2
    # once more, with a seed more: only that is trained, in the same folders
    assert compare.main(argv(tmp_path)) == 0
    assert "finished before" in capsys.readouterr().err
    assert trained(tmp_path) == before
    assert compare.main(argv(tmp_path, seeds="3", agents=[*AGENTS, "sarsa --lr 0.3"])) == 0
    told = capsys.readouterr().out
    assert "sarsa (lr 0.3)" in told
    assert len(trained(tmp_path)) == 3
    # the run folders alone, named by hand, say the same as the agents did
    names = sorted(trained(tmp_path))
    assert compare.main([*names, "--out", str(tmp_path / "runs")]) == 0
    assert "sarsa (lr 0.3)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(tmp_path):
    # long enough to be killed in the middle
    command = [
        sys.executable, "-m", "runners.compare",
        *argv(tmp_path, "--quiet", envs=("FrozenLake-v1", "CliffWalking-v1")), "--steps", "200000",
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while first.poll() is None and not list((tmp_path / "runs").glob("*/seed-*/metrics.jsonl")):
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    again = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 0, again.stderr
    assert len(trained(tmp_path)) == 4


def test_seeds_of_a_new_run_are_spread_over_the_cores(tmp_path):
    planned = compare.plan(AGENTS, ["FrozenLake-v1"], 512, [], str(tmp_path))
    folder = planned[0].folder(str(tmp_path))
    assert [list(part) for part in side_by_side._parts(folder, range(5), 2)] == [[0, 1, 2], [3, 4]]
    assert [list(part) for part in side_by_side._parts(folder, range(5), 1)] == [[0, 1, 2, 3, 4]]
    # seeds that train together already stay together
    (folder.path / "groups" / "0-3").mkdir(parents=True)
    assert [list(part) for part in side_by_side._parts(folder, range(5), 2)] == [[0, 1, 2, 3, 4]]


def test_seeds_that_gain_nothing_together_are_begun_only_where_they_are_missing(
    tmp_path, monkeypatch
):
    # what Stable-Baselines3 trains: a process a seed, and starting one takes seconds
    one = compare.plan(["sb3:dqn"], ["CartPole-v1"], 512, [], str(tmp_path))[0]
    for seed in (0, 2):
        folder = one.folder(str(tmp_path)).seed_path(seed)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
    begun = []
    monkeypatch.setattr(jobs, "run_jobs", lambda found, *_, **__: begun.extend(found) or [])
    side_by_side.train([one], range(4), str(tmp_path), 2, SilentConsole())
    assert [job.argv[-4:] for job in begun] == [
        ["--seed", "1", "--seeds", "1"],
        ["--seed", "3", "--seeds", "1"],
    ]
    begun.clear()
    side_by_side.train([one], [0, 2], str(tmp_path), 2, SilentConsole())  # without a summary
    assert len(begun) == 1


def test_the_looks_are_fixed_before_the_first():
    def looks(*words):
        return compare.looks_of(compare._asked(["a", "b", *words])[0])

    assert looks("--seeds", "5") == [5, 10, 15, 20]
    assert looks("--seeds", "5", "--max-seeds", "12") == [5, 10, 12]
    assert looks("--seeds", "5", "--max-seeds", "5") == [5]
    with pytest.raises(BadInput, match="takes at least --seeds = 5"):
        looks("--seeds", "5", "--max-seeds", "4")


def test_seeds_are_added_until_all_is_decided_and_no_longer(tmp_path, monkeypatch, capsys):
    # every seed differs by 9: five pairs never decide, ten of the twenty that were planned do
    trained = []
    monkeypatch.setattr(side_by_side, "train", lambda planned, seeds, *rest: trained.append(seeds))

    def came_to(planned, seeds, out):
        return [
            Entry(
                one.config.agent, one.config.env, tuple(seeds), 9.0 * i + np.array(seeds) % 3, (),
                str(one.folder(out).path),
            )
            for i, one in enumerate(planned)
        ]  # fmt: skip

    monkeypatch.setattr(compare, "entries_of", came_to)
    line = argv(tmp_path, "--until-decided", "--seed", "3", seeds="5")
    assert compare.main(line) == 0
    assert trained == [range(3, 8), range(3, 13)]
    told = capsys.readouterr()
    assert told.out.startswith("sarsa is better than q_learning: IQM higher by 9 ")
    assert "5 seeds: 1 of 1 pairs not decided" in told.err


def test_looks_go_by_the_plan_that_they_began_with(tmp_path):
    plan = {"first": 0, "seeds": [5, 10], "against": "all"}
    compare.keep_looks(tmp_path / "c", plan)
    compare.keep_looks(tmp_path / "c", plan)  # the same command goes on
    for other in ({"seeds": [5, 10, 15]}, {"against": "first"}, {"first": 5}):
        with pytest.raises(BadInput, match="another takes fresh seeds: --seed 10"):
            compare.keep_looks(tmp_path / "c", plan | other)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dqm", "sarsa", "--envs", "CartPole-v1"], "dqm"),
        (["dqn", "--envs", "CartPole-v1"], "takes two agents"),
        (["dqn", "dqn", "--envs", "CartPole-v1"], "the same settings as dqn on CartPole-v1"),
        (["dqn", "pqn"], "envs: none is named"),
        (["dqn", "pqn", "--envs", "CartPole-v0"], "CartPole-v0"),
        (["dqn", "pqn", "--envs", "CartPole-v1", "--stepz", "5"], "stepz"),
        (["dqn", "pqn", "--envs", "CartPole-v1", "--until-solved"], "until_solved: agents are"),
        (["dqn", "pqn --steps 999", "--envs", "CartPole-v1"], "no common budget"),
        (["dqn", "pqn --n-step 3", "--envs", "CartPole-v1"], "n-step"),
        (["sarsa", "dqn", "--envs", "CartPole-v1", "--steps", "500"], "sarsa"),
        (["dqn", "pqn", "--envs", "CartPole-v1", "--max-seeds", "9"], "is for --until-decided"),
        (["dqn", "pqn", "--envs", "CartPole-v1", "--fresh"], "--fresh: is not for an agent"),
        (["dqn", "pqn --no-tensorboard", "--envs", "CartPole-v1"], "--no-tensorboard: is not"),
        (["dqn", "pqn", "--envs", "CartPole-v1", "--env=Acrobot-v1"], "--env: is not for an agent"),
        (["dqn", "pqn --seeds 2", "--envs", "CartPole-v1"], "--seeds: is not for an agent"),
        (["dqn", 'pqn --lr "3', "--envs", "CartPole-v1"], "no closing quotation"),
        (["dqn", "", "--envs", "CartPole-v1"], "agent '': unknown"),
        (
            ["sarsa", "q_learning --env-options is_slippery=false", "--envs", "FrozenLake-v1"],
            "env_options: differ between sarsa on FrozenLake-v1 and q_learning",
        ),
        (["nowhere", "nobody"], "nowhere"),
        (["nowhere", "nobody", "--steps", "10"], "--steps: is for agents that are trained"),
        (["nowhere", "nobody", "--lr", "1"], "--lr: there is no such flag"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(words, told, tmp_path, capsys):
    assert compare.main([*words, "--out", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_one_seed_is_refused(capsys):
    assert compare.main([*AGENTS, "--envs", "FrozenLake-v1", "--seeds", "1"]) == 2
    assert "--seeds: got 1, takes a whole number from 2 on" in capsys.readouterr().err


def test_tables_are_compared_without_training(tmp_path, capsys):
    rows = [
        f"{agent},e,{seed},{score + seed % 3}"
        for agent, score in (("a", 0), ("b", 9))
        for seed in range(8)
    ]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["agent,env,seed,score", *rows]))
    assert compare.main([str(path), "--out", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.startswith("b is better than a: IQM higher by 9 ")


def test_names_are_printed_as_they_are(tmp_path, capsys):
    path = tmp_path / "scores.csv"
    rows = [f"{agent},e,{seed},{seed}" for agent in ("[/red]", "[b]y") for seed in range(8)]
    path.write_text("\n".join(["agent,env,seed,score", *rows]))
    assert compare.main([str(path), "--out", str(tmp_path / "runs")]) == 0
    assert "[/red] - [b]y" in capsys.readouterr().out


def test_no_p_of_one_look_stands_beside_several(capsys):
    entries = [
        Entry(agent, "e", tuple(range(10)), np.arange(10.0) + add, (), agent)
        for agent, add in (("a", 0), ("b", 9))
    ]
    found = comparison.compare(field_of(entries), planned=[5, 10, 20])
    print_table("", compare.pairs_table(found))
    out = capsys.readouterr().out
    assert "at 10 seeds" in out
    assert "Holm" not in out


def test_an_agent_has_one_name_on_all_environments(tmp_path):
    # pqn has 32 lanes on one and 128 on the other
    asked = ["pqn --lanes 4", "pqn"]
    planned = compare.plan(asked, ["CartPole-v1", "MountainCar-v0"], 512, [], str(tmp_path))
    entries = [
        Entry(
            "pqn",
            one.config.env,
            (0, 1),
            np.zeros(2),
            (),
            one.name,
            to_json(one.config),
            asked=one.asked,
        )
        for one in planned
    ]
    assert field_of(entries).agents == tuple(asked)
    assert field_of(entries[:2]).agents == ("pqn", "pqn (lanes 32, block_size 32)")


def test_a_run_that_is_not_done_is_named(tmp_path, capsys):
    for name in ("one", "two"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"agent": "dqn", "env": "CartPole-v1"}))
    assert compare.main(["one", "two", "--out", str(tmp_path / "runs")]) == 2
    assert "one: no seed is done" in capsys.readouterr().err
