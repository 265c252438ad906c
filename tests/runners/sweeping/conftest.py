"""Sweeps whose trials are toys."""

from __future__ import annotations

import sys

import pytest

from runners.resolve import make_config
from runners.sweeping.drive import opened
from runners.sweeping.plan import Plan
from runners.sweeping.space import read_space
from tests.runners.sweeping import toy

SET = ("lr=log:1e-4..1e-2", "n_step=1..5")


def toy_command(run, work):
    numbers = map(str, (work.first, work.last, work.until))
    return [sys.executable, "-I", "-S", toy.__file__, str(run), *numbers]


@pytest.fixture(scope="session")
def base():
    return make_config("dqn", "CartPole-v1", steps=900, eval_every=100, learning_starts=50)


@pytest.fixture
def plan_of(base):
    def make(settings=SET, trials=8, seeds=range(2), **more):
        space = read_space("dqn", settings, (), declared=False)
        return Plan(base, space, trials, seeds, **{"final_seeds": 2, **more})

    return make


@pytest.fixture
def swept():
    """Run a sweep of toys to its end; gives it, still able to answer."""

    def run(plan, out, jobs=2, **more):
        with opened(plan, out, jobs, command=toy_command, **more) as sweep:
            sweep.train()
        return sweep

    return run
