"""A trial that stops at a rung and goes on is the run that never stopped."""

from __future__ import annotations

import json
import signal

import pytest

from runners import train
from runners.config import run_name, to_json
from runners.errors import Stopped
from runners.resolve import make_config
from runners.run_folder import create_run
from runners.sweeping.trial import scores_at, train_until

RUNGS = (200, 400, 1_200)


@pytest.fixture(scope="module")
def config():
    return make_config(
        "dqn", "CartPole-v1", steps=1_200, eval_every=200, learning_starts=100, lanes=4,
        rollout_length=5, final_episodes=5, eval_episodes=3, hidden=(8,),
    )  # fmt: skip


def folder_of(config, out):
    return create_run(out, run_name(config), to_json(config))


def left(folder, seeds):
    """What seeds left behind, without times."""
    found = []
    for seed in seeds:
        evals = [(r["lane_steps"], r["returns"]) for r in folder.seed(seed).read_evals().records]
        result = json.loads((folder.seed_path(seed) / "result.json").read_text())
        found.append((evals, result["final_returns"], result["updates"]))
    return found


def test_stopped_at_each_rung_it_ends_with_the_bits_of_one_that_was_not(config, tmp_path):
    folder, seeds = folder_of(config, tmp_path / "rungs"), range(2)
    for rung in RUNGS:
        assert scores_at(folder, seeds, rung) is None
        train_until(folder, seeds, rung)
        at = {r["lane_steps"] for s in seeds for r in folder.seed(s).read_evals().records}
        assert max(at) == rung
        steps = [int(p.name.removeprefix("step-")) for p in folder.path.rglob("step-*")]
        assert not steps or max(steps) == rung  # and not a rollout more
    whole = train.run(config, seeds, str(tmp_path / "whole"))
    assert left(folder, seeds) == left(whole, seeds)
    for rung in RUNGS[:2]:  # a score stays what it was when the run stopped there
        means = [
            record["mean"]
            for seed in seeds
            for record in whole.seed(seed).read_evals().records
            if record["lane_steps"] == rung
        ]
        assert scores_at(folder, seeds, rung) == means
    assert scores_at(folder, seeds, 1_200) == [
        sum(returns) / len(returns) for _, returns, _ in left(whole, seeds)
    ]


def test_seeds_of_several_groups_all_come_to_the_rung(config, tmp_path, monkeypatch):
    monkeypatch.setattr("agents.dqn.GROUP", 2)
    folder, seeds = folder_of(config, tmp_path), range(3)
    train_until(folder, seeds, 200)
    assert [(g.first, g.last) for g in folder.groups()] == [(0, 1), (2, 2)]
    assert len(scores_at(folder, seeds, 200)) == 3
    before = sorted(folder.path.rglob("step-*"))
    assert {path.name for path in before} == {"step-000000000000", "step-000000000200"}
    train_until(folder, seeds, 200)  # once more: all are there
    assert sorted(folder.path.rglob("step-*")) == before


def test_a_signal_stops_it_before_the_rung_and_it_goes_on_to_it(config, tmp_path):
    folder, seeds = folder_of(config, tmp_path), range(1)
    with pytest.raises(Stopped, match="SIGTERM"):
        train_until(folder, seeds, 400, stop_asked=lambda: signal.SIGTERM)
    assert scores_at(folder, seeds, 400) is None
    train_until(folder, seeds, 400)
    assert len(scores_at(folder, seeds, 400)) == 1


def test_seeds_that_are_not_trained_have_no_scores(config, tmp_path):
    folder = folder_of(config, tmp_path)
    assert scores_at(folder, range(2), 200) is None
    assert scores_at(folder, range(2), 1_200) is None
    folder.seed(0).add_eval({"lane_steps": 200, "mean": 3.5})
    assert scores_at(folder, range(1), 200) == [3.5]
    assert scores_at(folder, range(2), 200) is None
