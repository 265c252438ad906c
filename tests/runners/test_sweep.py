"""The command: what it takes, what it refuses before anything is trained, and one sweep for real."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import files, train
from runners.command_line import parse_train
from runners.run_folder import RunFolder
from runners.sweep import main, parse, sweep
from runners.sweeping.ledger import Ledger

ROOT = Path(__file__).parents[2]


def test_without_flags_an_agents_own_ranges_are_searched():
    plan, asked, preset = parse(["dqn", "--env", "CartPole-v1"])
    assert [one.name for one in plan.space] == [
        "lr", "gamma", "n_step", "target_period", "epsilon_end"
    ]  # fmt: skip
    assert (plan.trials, plan.seeds, plan.final_seeds) == (20, range(3), 5)
    assert (plan.sampler, plan.pruner, plan.rungs) == ("qmc", "none", (102_400,))
    assert preset == "dqn on CartPole-v1"
    assert asked.timeout == float("inf")


def test_what_failed_is_tried_again_when_the_flag_says_so(monkeypatch, tmp_path):
    class Enough(Exception):
        pass

    def stop(self):
        raise Enough

    monkeypatch.setattr(Ledger, "forget_failures", stop)
    plan, *_ = parse(["q_learning", "--env", "FrozenLake-v1", "--steps", "200"])
    with pytest.raises(Enough):
        sweep(plan, str(tmp_path), retry_failed=True)
    assert parse(["dqn", "--env", "CartPole-v1", "--retry-failed"])[1].retry_failed
    assert not parse(["dqn", "--env", "CartPole-v1"])[1].retry_failed


def test_other_flags_are_trains_and_fix_settings():
    argv = [
        "dqn", "--env", "Acrobot-v1", "--lr", "1e-3", "--no-double", "--hidden", "64", "32", "--steps",
        "9000", "--set", "n_step=1,3", "--seeds", "4", "--seed", "7", "--pruner", "sha", "--eval-every", "512",
    ]  # fmt: skip
    plan, *_ = parse(argv)
    assert plan.base.hyper.lr == 1e-3
    assert plan.base.hyper.hidden == (64, 32)
    assert not plan.base.hyper.double
    assert [one.name for one in plan.space] == ["gamma", "n_step", "target_period", "epsilon_end"]
    assert plan.seeds == range(7, 11)
    # every 512 steps: a ninth is 1,000, a third 3,000
    assert plan.base.eval_every == 512
    assert plan.rungs == (1_024, 3_072, 9_000)
    late = dataclasses.replace(
        plan.base, hyper=dataclasses.replace(plan.base.hyper, learning_starts=1_024)
    )
    assert dataclasses.replace(plan, base=late).rungs == (3_072, 9_000)  # before it all are alike
    trial = plan.config({"n_step": 3, "lanes": 4})
    assert (trial.hyper.n_step, trial.lanes, trial.block_size, trial.eval_every) == (3, 4, 4, 512)


def test_a_sweep_has_one_folder_whatever_changes_no_trial():
    argv = ["dqn", "--env", "CartPole-v1"]
    plan, *_ = parse(argv)
    more = parse([*argv, "--trials", "9", "--jobs", "3", "--timeout", "5", "--final-seeds", "1"])[0]
    assert more.trials == 9
    assert more.folder_name == plan.folder_name
    others = [
        dataclasses.replace(plan, **change)
        for change in (
            {"seeds": range(4)}, {"seeds": range(1, 4)}, {"draw_seed": 1}, {"sampler": "random"},
            {"base": dataclasses.replace(plan.base, steps=200_000)}, {"space": plan.space[1:]},
            {"base": plan.config({"gamma": 0.9})}, {"pruner": "sha"}, {"pruner": "asha"},
        )
    ]  # fmt: skip
    names = {other.folder_name for other in others}
    assert len(names | {plan.folder_name}) == 10


CARTPOLE = ["dqn", "--env", "CartPole-v1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "agent: none is named; it comes first"),
        (["--env", "CartPole-v1"], "agent: none is named"),
        (["dqnn"], "agent 'dqnn': unknown; did you mean dqn?"),
        ([*CARTPOLE[:2], "CartPole-v9"], "did you mean 'CartPole-v1'?"),
        ([*CARTPOLE, "--set", "n_steps=1,3"], "no such hyperparameter; did you mean n_step?"),
        ([*CARTPOLE, "--set", "lr=1e-2..1e-4"], "takes the lower end first: 1e-4..1e-2"),
        ([*CARTPOLE, "--set", "lr=log:0..1"], "takes numbers above 0 where they have logarithms"),
        ([*CARTPOLE, "--set", "n_step=1.5"], "n_step: got 1.5, takes a whole number"),
        ([*CARTPOLE, "--set", "lr=1e-4..1e-3", "--lr", "1e-3"], "--lr fixes it; leave one of the two"),
        ([*CARTPOLE, "--set", "lr=1e-4..1e-3", "--set", "lr=1,2"], "lr is set twice"),
        ([*CARTPOLE, "--trails", "5"], "--trails: unknown; did you mean --trials?"),
        ([*CARTPOLE, "--lrr", "5"], "--lrr: unknown; did you mean --lr?"),
        ([*CARTPOLE, "--seeds", "0"], "--seeds: got 0, takes a whole number from 1 on"),
        ([*CARTPOLE, "--trials", "0"], "--trials: got 0, takes a whole number from 1 on"),
        ([*CARTPOLE, "--timeout", "0"], "--timeout: got 0, takes seconds, more than 0"),
        ([*CARTPOLE, "--steps", "-4"], "steps: got -4, takes a number of at least 1"),
        ([*CARTPOLE, "--sampler", "bayes"], "invalid choice: 'bayes'"),
        ([*CARTPOLE, "--sampler", "grid"], "nothing to search: a grid takes only --set"),
        ([*CARTPOLE, "--sampler", "grid", "--set", "lr=1e-3..1e-2"], "--set lr=0.001..0.01:5"),
        ([*CARTPOLE, "--sampler", "grid", "--set", "lr=1,2", "--trials", "3"], "--trials: a grid has"),
        ([*CARTPOLE, "--sampler", "tpe", "--pruner", "sha"], "take asha"),
        ([*CARTPOLE, "--pruner", "sha", "--steps", "900", "--eval-every", "900"],
         "got eval_every 900 of 900 steps: take less, or more --steps"),
        ([*CARTPOLE, "--until-solved"], "until_solved: a sweep trains every trial equally long"),
        ([*CARTPOLE, "--seed", "998"], "seeds: got 998 to 1000; those from 1,000 on are for the best"),
        ([*CARTPOLE, "--fresh"], "--fresh: is for train, not for sweep"),
        (["q_learning", "--env", "CartPole-v1", "--steps", "900"], "q_learning keeps a table of states"),
        (["dqn", "--env", "Blackjack-v1"], "there is no preset of dqn on Blackjack-v1; say how long"),
        ([*CARTPOLE, "--set", "batch_size=64,256", "--set", "replay_size=100,200"],
         "replay_size=200: replay_size: got 200, takes at least batch_size = 256"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_trained(argv, message, tmp_path, capsys):
    assert main([*argv, "--out", str(tmp_path / "runs")] if argv else argv) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("error:") == 1
    assert out == ""
    assert not (tmp_path / "runs").exists()


def test_help_says_it_all_at_once(capsys):
    seconds = []
    for _ in range(6):  # the machine may be busy
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "runners.sweep", "--help"], cwd=ROOT, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - began)
        if seconds[-1] < 1:
            break
    else:
        pytest.fail(f"--help took {min(seconds):.2f} s")
    assert main(["pqn", "--help"]) == 0
    assert capsys.readouterr().out.endswith(
        "pqn searches by itself:\n  lr=log:0.0001..0.01\n  gamma=0.95..0.999\n  lambda_=0.5..1\n"
        "  epochs=1..8\n  epsilon_end=0..0.1\n"
    )
    for word in (
        "--set",
        "--sampler",
        "--pruner",
        "--final-seeds",
        "best.json",
        "examples:",
        "sha",
    ):
        assert word in done.stdout


SMALL = [
    "q_learning", "--env", "FrozenLake-v1", "--steps", "1000", "--seeds", "2", "--final-episodes", "10",
    "--eval-episodes", "5", "--set", "lr=0.1,0.5", "--sampler", "grid",
]  # fmt: skip


def test_a_sweep_for_real_ends_with_a_file_that_train_takes(tmp_path, capsys):
    argv = [*SMALL, "--final-seeds", "0", "--out", str(tmp_path)]
    assert main([*argv, "--jobs", "2"]) == 0
    out, _ = capsys.readouterr()
    folder = Path(out.splitlines()[-1])
    assert out.startswith("q_learning on FrozenLake-v1: 2 trials by grid, 2 seeds of 1,000 steps")
    assert f"train the best: python -m runners.train --config {folder}/best.json" in out
    told = json.loads((folder / "sweep.json").read_text())
    assert [row["ended"] for row in told["rows"]] == ["done"] * 2
    config = parse_train(["--config", str(folder / "best.json")]).config
    assert config.hyper.lr == told["rows"][0]["values"]["lr"]
    # what `train` makes of the file is the run that the sweep has trained, so this trains nothing
    best = ["--config", str(folder / "best.json"), "--seeds", "2", "--out", str(folder / "runs")]
    weights = {path: path.stat().st_ino for path in folder.glob("runs/*/seed-*/last/*")}
    assert train.main([*best, "--quiet"]) == 0
    known = RunFolder(Path(capsys.readouterr().out.strip()))
    assert known.summary()["final_return"]["mean"] == pytest.approx(told["rows"][0]["score"])
    assert weights
    assert weights == {p: p.stat().st_ino for p in folder.glob("runs/*/seed-*/last/*")}
    before = files.read_lines(folder / "trials.jsonl")
    began = time.monotonic()
    assert main([*argv, "--quiet"]) == 0  # the same command prints it again
    assert time.monotonic() - began < 20
    assert capsys.readouterr() == (f"{folder}\n", "")
    assert files.read_lines(folder / "trials.jsonl") == before


@pytest.mark.slow
def test_a_real_sweep_that_is_killed_five_times_ends_with_the_same_trials(tmp_path):
    argv = [
        sys.executable, "-m", "runners.sweep", *SMALL[:-4], "--pruner", "asha", "--trials", "6",
        "--final-seeds", "2", "--jobs", "2", "--quiet", "--out",
    ]  # fmt: skip

    def results(out):
        (ledger,) = Path(out).glob("sweep-*/trials.jsonl")
        return {
            (r["trial"], r.get("until", 0), *r.get("seeds", ())): r.get("scores", r.get("values"))
            for r in files.read_lines(ledger).records
        }

    subprocess.run([*argv, str(tmp_path / "whole")], cwd=ROOT, check=True)
    out = tmp_path / "killed"
    for lines in (7, 8, 9, 11, 13):  # six are values
        process = subprocess.Popen([*argv, str(out)], cwd=ROOT, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 200
        while time.monotonic() < limit:
            ledgers = list(out.glob("sweep-*/trials.jsonl"))
            if ledgers and ledgers[0].read_bytes().count(b"\n") >= lines:
                break
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -9
    subprocess.run([*argv, str(out)], cwd=ROOT, check=True)
    assert results(out) == results(tmp_path / "whole")
    pictures = [path.read_bytes() for path in sorted(tmp_path.glob("*/sweep-*/report.md"))]
    assert len(pictures) == 2
