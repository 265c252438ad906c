"""Sweeps whose trials run on a cluster: the ledger is that of any sweep, whoever trained."""

from __future__ import annotations

import sys

import pytest

from runners.errors import BadInput, Stopped, WorkerLost
from runners.jobs import Job, Supervisor
from runners.ray_jobs import Cluster, Runner, room
from tests.runners.fake_ray import World
from tests.runners.sweeping import toy
from tests.runners.sweeping.test_drive import known


@pytest.fixture(name="world")
def fake(monkeypatch):
    world = World(one=2, two=2)
    world.install(monkeypatch)
    yield world
    for name in ("ray", "ray_member"):  # they hold the fake
        sys.modules.pop(f"runners.sources.{name}", None)


def on_cluster(told=None):
    say = (lambda line: None) if told is None else told.append
    return {"start": Cluster(say), "room": room}


def test_a_sweep_on_a_cluster_finds_what_one_here_finds(world, plan_of, swept, tmp_path):
    """Of three values of n_step one fails, one dies once."""
    settings = ("lr=1e-3,1e-2", f"n_step=1,{toy.DIVERGES},{toy.DIES_ONCE}")
    plan = plan_of(settings, 6, sampler="grid")
    here = swept(plan, tmp_path / "here", jobs=2)
    there = swept(plan, tmp_path / "there", jobs=0, **on_cluster())
    assert known(there.folder) == known(here.folder)
    attempts = [there.result(trial, 0).attempts for trial in range(6)]
    assert sorted(attempts) == [1, 1, 1, 1, 2, 2]
    assert len(world.actors) == 6 + 2 + 2  # trials, two of them again, fresh seeds of two settings
    assert all(actor.dead for actor in world.actors)  # their CPUs are free again
    log = (there.folder / "logs").glob("*.log")
    assert any("not finite" in path.read_text() for path in log)


def test_who_loses_its_machine_is_trained_on_another(world, plan_of, swept, tmp_path, monkeypatch):
    work, lost = Runner.run, []

    def dies_once(self, argv, log):
        if not lost:
            lost.append(world.here.node)
            world.lose_node(world.here.node)
            return None
        return work(self, argv, log)

    monkeypatch.setattr(Runner, "run", dies_once)
    sweep = swept(plan_of(trials=2), tmp_path, jobs=0, **on_cluster())
    assert lost[0] in ("one", "two")
    assert [sweep.result(trial, 0).status for trial in (0, 1)] == ["done", "done"]
    assert sorted(sweep.result(trial, 0).attempts for trial in (0, 1)) in ([1, 2], [2, 2])


def test_a_machine_that_does_not_see_the_folder_is_named(
    world, plan_of, swept, tmp_path, monkeypatch
):
    spot = Runner.spot
    monkeypatch.setattr(Runner, "spot", lambda self, log: spot(self, "/nowhere/x.log"))
    with pytest.raises(
        BadInput, match=r"ray: (one|two) does not see .*/logs; .*share a file system"
    ):
        swept(plan_of(trials=2), tmp_path, jobs=0, **on_cluster())


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_nothing_and_goes_on(world, plan_of, swept, tmp_path):
    asked = iter([0, 0, 0])
    with pytest.raises(Stopped):
        swept(plan_of(trials=3), tmp_path, stop_asked=lambda: next(asked, 15), **on_cluster())
    assert all(actor.dead for actor in world.actors)
    sweep = swept(plan_of(trials=3), tmp_path, jobs=0, **on_cluster())
    assert known(sweep.folder) == known(swept(plan_of(trials=3), tmp_path / "whole").folder)


def test_what_trials_wait_for_is_said_and_not_for_ever(world, tmp_path, monkeypatch):
    """Others have all the CPUs."""
    from runners import ray_jobs

    told = []
    monkeypatch.setattr(ray_jobs.time, "monotonic", lambda: world.now)
    world.nodes = {"one": 0}
    with Supervisor(tmp_path, 2, start=Cluster(told.append)) as supervisor:
        supervisor.submit(Job("a", [sys.executable, "-c", "0"]))

        def pass_time(argument):
            world.now += 1

        monkeypatch.setattr("runners.jobs.time.sleep", pass_time)
        with pytest.raises(WorkerLost, match="1 of 1 trials have no place yet"):
            supervisor.wait_any()
    assert 900 < world.now < 1000
    assert len(told) == 15


def test_there_is_room_for_as_many_as_there_are_cpus(world):
    assert room() == 4
    world.add_node("three", 5)
    assert room() == 9
