"""What is tried: distinct, the same every time, and with TPE where it is better."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from runners.errors import BadInput
from runners.sweep import main, parse
from runners.sweeping.proposals import Told, grid_size, independent, propose_tpe
from runners.sweeping.space import Dimension

LR = Dimension("lr", "log", 1e-4, 1e-2)
GAMMA = Dimension("gamma", "linear", 0.9, 0.999)
N_STEP = Dimension("n_step", "choice", choices=(1, 3, 5))
HIDDEN = Dimension("hidden", "choice", choices=((64, 64), (32,)))


def test_a_grid_is_all_combinations():
    found = independent((N_STEP, HIDDEN), "grid", 0, 0)
    assert [tuple(v.values()) for v in found] == list(
        itertools.product((1, 3, 5), ((64, 64), (32,)))
    )
    assert grid_size((N_STEP, HIDDEN)) == 6
    with pytest.raises(BadInput, match=r"a grid takes values, .*: --set lr=log:0.0001..0.01:5"):
        grid_size((N_STEP, LR))
    many = tuple(Dimension(f"x{i}", "choice", choices=tuple(range(10))) for i in range(5))
    with pytest.raises(BadInput, match="100,000 combinations, takes at most 10,000"):
        grid_size(many)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_more_trials_begin_with_the_same_and_all_are_different(sampler):
    space = (LR, GAMMA, N_STEP)
    many = independent(space, sampler, 70, 3)
    for few in (1, 2, 5, 33):
        assert independent(space, sampler, few, 3) == many[:few]
    assert len({tuple(v.values()) for v in many}) == 70
    assert independent(space, sampler, 5, 4) != many[:5]
    assert all(1e-4 <= v["lr"] <= 1e-2 and v["n_step"] in (1, 3, 5) for v in many)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_where_there_are_few_values_each_is_tried_once(sampler):
    found = independent((N_STEP, HIDDEN), sampler, 50, 0)
    assert len(found) == 6
    assert independent((N_STEP, HIDDEN), sampler, 4, 0) == found[:4]


def test_evenly_spread_trials_leave_no_large_gap():
    # each of 16 parts of the scale has one of 16 places of the sequence
    values = [v["lr"] for v in independent((LR, GAMMA), "qmc", 16, 1)]
    parts = sorted(int(16 * (math.log10(v) + 4) / 2 * (1 - 1e-9)) for v in values)
    assert parts == list(range(16))


def peak(values):
    return -abs(math.log10(values["lr"]) + 3) - abs(values["n_step"] - 3)


def play(space, trials, ahead, score=peak, seed=0):
    """Ask one after the other; each knows the results of those that are ``ahead`` before it."""
    values = []
    for k in range(trials):
        known = max(0, k - ahead + 1)
        told = [Told(v, score(v), 900, True) for v in values[:known]]
        values.append(propose_tpe(space, told, values[known:], seed))
    return values


def test_tpe_proposes_where_it_is_better():
    pytest.importorskip("optuna")
    values = play((LR, N_STEP), 40, 4)
    first, last = values[:10], values[-15:]
    assert np.mean([peak(v) for v in last]) > np.mean([peak(v) for v in first]) + 0.5
    assert sum(v["n_step"] == 3 for v in last) >= 10


def test_tpe_proposes_the_same_for_the_same_past():
    pytest.importorskip("optuna")
    space = (LR, HIDDEN)
    told = [
        Told({"lr": 10 ** -(2 + i / 9), "hidden": (32,)}, float(i), 900, True) for i in range(18)
    ]
    pending = [{"lr": 3e-3, "hidden": (64, 64)}]
    one = propose_tpe(space, told, pending, 5)
    assert propose_tpe(space, told, pending, 5) == one
    assert propose_tpe(space, told, pending, 6) != one
    worse = [t._replace(score=-t.score) for t in told]
    assert propose_tpe(space, worse, pending, 5) != one


def test_tpe_takes_failures_and_pruned_trials_for_bad_ones():
    pytest.importorskip("optuna")
    # below 1e-3 everything fails or was pruned early, above it the score is the same
    told = []
    for i, lr in enumerate(np.geomspace(1e-4, 1e-2, 24)):
        good = lr > 1e-3
        score = 1.0 if good else (None if i % 2 else 0.5)
        told.append(Told({"lr": float(lr)}, score, 900 if good else 100, good))
    asked = [propose_tpe((LR,), told, [], seed)["lr"] for seed in range(12)]
    assert sum(lr > 1e-3 for lr in asked) >= 10


def test_tpe_ends_where_all_has_been_tried():
    pytest.importorskip("optuna")
    space = (N_STEP, HIDDEN)
    values = play(space, 7, 2, score=lambda v: float(v["n_step"]))
    assert values[6] is None
    assert len({tuple(v.values()) for v in values[:6]}) == 6


def test_all_but_tpe_works_without_optuna(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)  # importing it is an error, finding it fails
    argv = ["q_learning", "--env", "FrozenLake-v1", "--set", "lr=0.1,0.5"]
    for sampler, trials in (("qmc", 20), ("random", 20), ("grid", 2)):
        plan, *_ = parse([*argv, "--sampler", sampler])
        assert len(independent(plan.space, plan.sampler, plan.trials, 0)) == trials
    assert main([*argv, "--sampler", "tpe"]) == 2
    assert capsys.readouterr().err == (
        "error: sampler: tpe takes optuna: pip install -c constraints.txt -e '.[sweep]'; or take --sampler qmc\n"
    )
