"""Simulations without learning: what is played, by how many processes, and what is left when they die."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from envs.contract import UnsupportedEnv
from runners import files, jobs, stats, train
from runners.errors import BadInput, DiskFault
from runners.policy import load_policy
from runners.resolve import make_config
from runners.simulate import (
    cell_table,
    main,
    make_plan,
    shared_out,
    simulate,
    trained_otherwise,
    write,
)
from runners.simulation import Unit, play, read_round
from tests.runners.crashing import ID as CRASHING

ROOT = Path(__file__).parents[2]
GRAVITIES = ("gravity=5,9.8,15",)


def plan_of(settings=GRAVITIES, policies=("random",), env="CartPole-v1", **more):
    return make_plan(env, settings, policies, **{"episodes": 12, "lanes": 6, **more})


def bits(plan, out):
    """All that was played, without how long it took."""
    rounds = [read_round(Path(out) / plan.folder_name, unit) for unit in plan.units]
    return [one and (one.returns, one.lengths, one.steps) for one in rounds]


# -- Processes -----------------------------------------------------------------------------------


def test_the_bits_are_the_same_for_one_job_and_for_several(tmp_path, cartpole, monkeypatch):
    monkeypatch.setattr("runners.simulate.JOBS_A_CORE", 1)
    plan = plan_of(("gravity=5,15",), ("random", str(cartpole.path)), episodes=8, lanes=4)
    one = simulate(plan, tmp_path / "one", 1)
    two = simulate(plan, tmp_path / "two", 2)
    assert bits(plan, tmp_path / "one") == bits(plan, tmp_path / "two")
    assert [cell[:4] for cell in one] == [cell[:4] for cell in two]
    here = [play(plan, s, r, load_policy(cartpole) if p.path else None)[:3]
            for s, p in plan.cells for r in range(plan.rounds)]  # fmt: skip
    assert bits(plan, tmp_path / "one") == here
    assert [cell.policy for cell in one] == ["random", cartpole.name] * 2
    assert [cell.setting["gravity"] for cell in one] == [5, 5, 15, 15]


def test_cells_hold_what_was_played_and_how_it_differs(tmp_path):
    plan = plan_of(episodes=11, lanes=6)
    cells = simulate(plan, tmp_path, 2)
    found = bits(plan, tmp_path)
    assert [list(cell.returns) for cell in cells] == [
        (found[2 * i][0] + found[2 * i + 1][0])[:11] for i in range(3)
    ]  # twelve were played
    assert cells[0].difference is None
    assert cells[2].difference == stats.paired_difference(cells[2].returns, cells[0].returns)
    assert cells[1].lengths == cells[1].returns  # CartPole pays 1 a step
    assert cells[1].steps_per_s > 0


def test_a_job_that_is_killed_goes_on_with_the_rounds_that_are_missing(tmp_path, monkeypatch):
    plan = plan_of(episodes=18)  # three rounds of each cell
    # the process dies when it is about to name its fifth file, and so do those that go on
    monkeypatch.setenv("QLAB_FAULT", "round.rename:5")
    monkeypatch.setattr("runners.simulate.JOBS_A_CORE", 1)
    cells = simulate(plan, tmp_path, 1)
    assert not any(cell.error for cell in cells)
    whole = [play(plan, setting, r)[:3] for setting in plan.settings for r in range(3)]
    assert bits(plan, tmp_path) == whole
    assert len(list((tmp_path / plan.folder_name / "rounds").glob(".tmp*"))) == 2  # lives lost


def test_a_simulation_that_is_killed_goes_on(tmp_path):
    argv = [
        "Pendulum-v1", "--set", "g=5,10,15", "--backend", "sync", "--episodes", "24", "--lanes", "2",
        "--jobs", "2", "--out", str(tmp_path), "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "runners.simulate", *argv], cwd=ROOT)
    played = {}
    try:
        limit = time.monotonic() + 60
        while len(played) < 4:
            assert process.poll() is None
            assert time.monotonic() < limit
            played = {p: p.stat().st_ino for p in tmp_path.glob("*/rounds/[0-9]*.json")}
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert len(played) < 36  # else nothing was left to do
    assert main(argv) == 0
    rounds = {p: p.stat().st_ino for p in tmp_path.glob("*/rounds/[0-9]*.json")}
    assert len(rounds) == 36
    assert not list(tmp_path.rglob(".tmp*"))
    assert all(rounds[path] == inode for path, inode in played.items())  # none was played twice
    plan = plan_of(("g=5,10,15",), env="Pendulum-v1", backend="sync", episodes=24, lanes=2)
    assert bits(plan, tmp_path)[7] == play(plan, {"g": 5}, 7)[:3]


def test_asked_to_stop_it_leaves_what_was_played(tmp_path):
    argv = [
        "Pendulum-v1",
        "--episodes",
        "500",
        "--lanes",
        "2",
        "--backend",
        "sync",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "runners.simulate", *argv],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("*/rounds/*.json")):
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 143
    assert said.splitlines()[-1].startswith("error: stopped by SIGTERM: ")
    assert "the same command goes on" in said


def test_what_is_done_is_not_begun_again(tmp_path, monkeypatch):
    plan = plan_of()
    first = simulate(plan, tmp_path, 2)
    monkeypatch.setattr(jobs.Supervisor, "submit", lambda *_: pytest.fail("a job was begun"))
    assert simulate(plan, tmp_path, 2) == first


def test_two_processes_do_not_play_the_same(tmp_path):
    plan = plan_of()
    folder = tmp_path / plan.folder_name
    folder.mkdir()
    with files.locked(folder / "lock", "x"), pytest.raises(BadInput) as busy:
        simulate(plan, tmp_path, 1)
    assert f"is being simulated by process {os.getpid()} on " in str(busy.value)
    assert not any(bits(plan, tmp_path))


def test_a_damaged_round_is_played_again(tmp_path):
    plan = plan_of()
    first = simulate(plan, tmp_path, 2)
    path = tmp_path / plan.folder_name / "rounds" / "1.0.json"
    for damage in ("", "{", '{"returns": [1]}', "[]"):
        path.write_text(damage)
        assert read_round(tmp_path / plan.folder_name, Unit(1, 0)) is None
    assert simulate(plan, tmp_path, 2)[1].returns == first[1].returns


def test_a_setting_that_kills_its_process_costs_no_other(tmp_path, capsys, monkeypatch):
    """Four settings in two jobs: a segmentation fault, an exception, and two that are sound."""
    monkeypatch.setattr("runners.simulate.JOBS_A_CORE", 1)
    monkeypatch.chdir(ROOT)
    argv = [
        CRASHING, "--set", "fault=none,signal,raise,well", "--set", "place=2.5", "--episodes", "4",
        "--lanes", "4", "--jobs", "2", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "fault=signal, place=2.5, random: killed by SIGSEGV" in out
    assert "fault=raise, place=2.5, random: " in out
    assert "raised ZeroDivisionError" in out
    assert out.count("failed") == 2
    assert err.splitlines()[-1].startswith("error: 2 of 4 could not be played: ")
    (folder,) = tmp_path.iterdir()
    rows = list(csv.DictReader((folder / "simulation.csv").open()))
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert [row["mean_return"] != "" for row in rows] == [True, False, False, True]
    assert rows[3]["difference"] == "0.0"  # "well" is as sound as "none"
    assert main(argv) == 1  # what failed is tried again, and fails again


def test_a_full_disk_ends_it(tmp_path, monkeypatch):
    monkeypatch.setenv("QLAB_FAULT", "round.write:2:enospc")
    plan = plan_of(episodes=18)
    with pytest.raises(DiskFault, match="No space left"):
        simulate(plan, tmp_path, 1)
    assert any(bits(plan, tmp_path))
    assert not list(tmp_path.rglob(".tmp*"))


def test_units_are_shared_out_in_their_order():
    units = [Unit(0, i) for i in range(7)]
    assert shared_out(units, 3) == [units[:2], units[2:4], units[4:]]
    assert shared_out(units, 100) == [[unit] for unit in units]


# -- What is refused, before anything is played --------------------------------------------------


def refused(argv, capsys, out):
    assert main([*argv, "--out", str(out)]) == 2
    text, error = capsys.readouterr()
    assert text == ""
    assert not list(Path(out).glob("simulation*"))
    (line,) = error.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["CartPole-v1", "--set", "gravty=5"], "CartPole-v1 has no option 'gravty'; did you mean 'gravity'?"),
        (["CartPole-v1", "--set", "gravity=5,low"], "option gravity: got 'low', takes a number"),
        (["CartPole-v1", "--set", "length=1,0"], "option length: got 0, takes a number above 0"),
        (["CartPole-v1", "--set", "gravity=15..5:3"], "takes the lower end first: 5..15"),
        (["CartPole-v1", "--set", "gravity"], "takes NAME=VALUES"),
        (["CartPole-v1", "--set", "5,9.8=gravity"], "takes NAME=VALUES"),
        (["CartPole-v1", "--set", "max_episode_steps=0.5"], "max_episode_steps: got 0.5"),
        (["CartPol-v1"], "no environment 'CartPol-v1'; did you mean 'CartPole-v1'?"),
        (["CartPole-v1", "--backend", "batched"], "no backend 'batched'"),
        (["CartPole-v1", "--policy", "nobody"], "'nobody': there are no runs in"),
        (["CartPole-v1", "--policy", "random", "--policy", "random"], "random is named twice"),
        (["CartPole-v1", "--episodes", "0"], "got 0, takes a whole number from 1 on"),
        (["CartPole-v1", "--jobs", "-1"], "got -1, takes a whole number from 0 on"),
        ([], "required: ID"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(argv, message, capsys, tmp_path):
    assert message in refused(argv, capsys, tmp_path)


def test_a_policy_of_another_environment(capsys, tmp_path, lake):
    line = refused(["CartPole-v1", "--policy", str(lake.path)], capsys, tmp_path)
    assert line == f"error: policy {lake.name}: was trained on FrozenLake-v1, not on CartPole-v1"


def test_a_policy_that_cannot_read_what_a_setting_shows(capsys, tmp_path, lake):
    argv = ["FrozenLake-v1", "--set", "map_name=4x4,8x8", "--policy", str(lake.path)]
    assert f"policy {lake.name}: was trained on 16 states" in refused(argv, capsys, tmp_path)
    assert (
        main([*argv[:2], "map_name=4x4", *argv[3:], "--episodes", "5", "--out", str(tmp_path)]) == 0
    )


def test_a_policy_without_weights(capsys, tmp_path, cartpole):
    run = tmp_path / "half"
    run.mkdir()
    (run / "config.json").write_text((cartpole.path / "config.json").read_text())
    assert "no seed has been trained" in refused(
        ["CartPole-v1", "--policy", str(run)], capsys, tmp_path
    )


def test_what_a_policy_was_trained_with_is_said(capsys, tmp_path):
    config = make_config(
        "q_learning", "FrozenLake-v1", steps=500, env_options={"is_slippery": False}
    )
    run = train.run(config, [0], tmp_path)
    argv = ["FrozenLake-v1", "--policy", str(run.path), "--episodes", "5", "--out", str(tmp_path)]
    assert main(argv) == 0
    told = f"{run.name} was trained with is_slippery=false: --set is_slippery=false has it here too"
    assert told in capsys.readouterr().out
    plan = plan_of(("is_slippery=false",), [str(run.path)], env="FrozenLake-v1")
    assert trained_otherwise(plan) == []


# -- Plans, and what is written ------------------------------------------------------------------


def test_the_command_prints_a_table_and_leaves_files(tmp_path, capsys, cartpole, monkeypatch):
    monkeypatch.setattr("runners.simulate.JOBS_A_CORE", 1)
    argv = [
        "CartPole-v1", "--set", "gravity=5,15", "--set", "length=0.5,1", "--policy", "random",
        "--policy", str(cartpole.path), "--episodes", "10", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(argv) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"CartPole-v1, random, {cartpole.name}, 10 episodes each"
    assert "difference: beside gravity=5, length=0.5, the same policy" in lines
    folder = Path(lines[-1])
    assert err.splitlines()[0] == "simulate CartPole-v1"
    rows = list(csv.DictReader((folder / "simulation.csv").open()))
    assert [(r["gravity"], r["length"], r["policy"]) for r in rows] == [
        (g, l, p) for g in ("5", "15") for l in ("0.5", "1") for p in ("random", cartpole.name)
    ]
    episodes = list(csv.DictReader((folder / "episodes.csv").open()))
    assert len(episodes) == 80
    for i, row in enumerate(rows):
        returns = [float(e["return"]) for e in episodes[10 * i : 10 * i + 10]]
        assert float(row["mean_return"]) == np.mean(returns)
        assert (float(row["low"]), float(row["high"])) == stats.t_interval(returns)
        assert row["episodes"] == "10"
        first = [float(e["return"]) for e in episodes[10 * (i % 2) : 10 * (i % 2) + 10]]
        if i >= 2:
            assert float(row["difference"]) == np.mean(np.subtract(returns, first))
        else:
            assert row["difference"] == ""
    assert (folder / "simulation.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert main([*argv, "--quiet"]) == 0
    assert capsys.readouterr() == (f"{folder}\n", "")


def test_one_episode_has_no_interval(tmp_path, capsys):
    assert main(["CartPole-v1", "--episodes", "1", "--out", str(tmp_path)]) == 0
    assert "one episode says nothing about chance: no intervals" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [(), ("sutton_barto_reward=false,true",), ("force_mag=log:1..100:3",),
     ("gravity=5,10", "length=0.5,1", "masscart=1,2,3", "tau=0.01,0.02")],
)  # fmt: skip
def test_every_kind_of_plan_has_its_picture(tmp_path, settings):
    plan = plan_of(settings, episodes=2, lanes=2)
    cells = simulate(plan, tmp_path, 2)
    write(plan, cells, tmp_path)
    assert (tmp_path / "simulation.png").stat().st_size > 5000
    assert cell_table(plan, cells).row_count == len(plan.cells)


def test_an_option_that_no_simulator_of_a_process_knows_is_exit_2(tmp_path):
    with pytest.raises((UnsupportedEnv, BadInput)):
        simulate(plan_of(("nothing=1",)), tmp_path, 1)


def test_help_says_what_there_is_without_torch(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--set", "--policy", "--episodes", "--jobs", "gravity=5..15:11", "exit status"):
        assert word in shown
    code = "import sys, runners.simulate; raise SystemExit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, env=os.environ)
    assert done.returncode == 0
