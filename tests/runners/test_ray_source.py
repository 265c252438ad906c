"""The source of Ray actors in front of a cluster that a test plays: lags, losses, waits, resumes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from envs.contract import SimulatorError
from runners import group as groups
from runners import ray_cluster
from runners.errors import WorkerLost
from runners.sources import Plan, ray_worker
from tests.runners import faulty
from tests.runners.fake_ray import World
from tests.runners.test_process_source import Run
from tests.runners.test_worker_faults import LANES

KEYS = {"env": faulty.KEYS, "eval_episodes": 2, "replay_size": 10**5, "source": "ray", "max_lag": 3}


@pytest.fixture(name="world")
def fake(monkeypatch):
    world = World(one=2, two=2)
    monkeypatch.setattr(ray_cluster, "head_answers", lambda: world.head)
    monkeypatch.setattr(ray_worker, "code_here", lambda: {"torch": "2"})  # else git is asked
    world.source = world.install(monkeypatch)
    yield world
    for name in ("ray", "ray_member"):  # they hold the fake
        sys.modules.pop(f"runners.sources.{name}", None)


@pytest.fixture(name="told")
def messages(monkeypatch):
    told = []
    make = groups.make_source
    monkeypatch.setattr(groups, "make_source", lambda *given: make(*given, told.append))
    return told


def check(run, deaths=0):
    """All is counted once, the replay ratio is kept, no transition joins two episodes, no stream is drawn twice."""
    replay, hyper = run.learner.replay, run.config.hyper
    rows = run.lane_steps // LANES
    assert replay.head == rows
    assert run.learner.updates == int((run.lane_steps - 50) * hyper.replay_ratio)
    assert run.source.replaced == deaths
    compared, cut, begun = faulty.check_ring(replay, hyper.n_step, hyper.gamma)
    assert compared > 0.6 * rows * 2 * LANES
    assert cut <= 2 * LANES * deaths * (hyper.n_step - 1)
    assert len(begun) > 100
    assert len(begun) - len(set(begun)) <= 2  # as by chance


def rest(run):
    """Take what is under way."""
    while run.source.pending:
        run.go(1)
    return run


def lags(run):
    return {learned - acted for learned, acted in run.versions}


@pytest.mark.parametrize(
    ("eager", "expected"), [pytest.param(False, {0}, marks=pytest.mark.slow), (True, {0, 1, 2, 3})]
)
def test_the_lag_is_bounded_and_the_replay_ratio_is_kept(world, told, eager, expected):
    """Eager actors are done with what is ordered before anything newer is there; lazy ones begin when asked."""
    world.eager = eager
    with Run(2, **KEYS) as run:
        run.go(28, pause=False)
        assert lags(run) == expected
        assert run.source.pending == 3
        check(run)
        assert len(world.puts) == run.learner.version + 1  # once a version, and everybody is told
        handed = [number for number, name in world.calls if name == "publish"]
        assert all(handed.count(number) == len(world.puts) for number in range(2))
    assert not told
    assert all(actor.dead for actor in world.actors)


@pytest.mark.slow
def test_the_columns_are_those_of_a_local_source(world):
    """With one version, which nothing learns from, Ray's actors do what a worker here does."""
    quiet = {"learning_starts": 10**6, "env": "Taxi-v4"}
    with Run(0, lag=0, **quiet) as local, Run(2, source="ray", max_lag=2, **quiet) as run:
        assert run.go(20).rollouts == local.go(20).rollouts
        assert len(set(run.rollouts)) == 20


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(world, told):
    with Run(2, **KEYS) as run:
        run.go(20, pause=False)
        world.actors[1].dead = True
        run.go(20)
        check(run, deaths=1)
    assert len(told) == 1
    assert told[0].startswith("worker 1: it died on ")
    assert told[0].endswith("; replaced, its blocks 2-3 begin new episodes")


def test_a_node_that_is_lost_takes_its_workers_with_it_and_counts_once(world, told, monkeypatch):
    from runners.sources import lives

    monkeypatch.setattr(lives, "LIVES", 1)
    with Run(4, **KEYS) as run:  # two on each
        run.go(20, pause=False)
        world.add_node("three", 2)
        world.lose_node("two")
        run.go(20)
        check(run, deaths=2)
        places = {member.place.address for member in run.source.members}
    assert places == {"one", "three"}
    assert [line.split("; ")[0] for line in told] == [
        f"worker {n}: its node two is gone" for n in (1, 3)
    ]


def test_losses_end_the_run_when_they_come_too_often(world, told):
    with Run(2, **KEYS) as run:
        for deaths in range(4):
            run.go(2, pause=False)
            assert len(told) == deaths
            world.now += 31  # else they would be one event of their node
            run.source.members[0].actor.dead = True
        with pytest.raises(WorkerLost, match=r"replaced too often, 3 times"):
            run.go(2)


def test_a_worker_that_hangs_is_replaced_and_one_that_works_long_is_not(world, told):
    with Run(2, **KEYS) as run:
        run.go(5)
        slow = run.source.members[1]
        rows = iter(range(10**6))
        world.actors[1].hung = True
        slow.actor.rows = None  # its signs of life come all the same
        beats = []

        class Beat:
            def options(self, concurrency_group):
                return self

            def remote(self):
                ref = world.put(next(rows))
                beats.append(world.now)
                return ref

        slow.actor.rows = Beat()
        world.at(200.0, lambda: setattr(world.actors[1], "hung", False))
        run.go(5)
        assert world.now >= 200
        assert not told
        assert len(beats) > 20
        del slow.actor.rows
        world.actors[1].hung = True
        began = world.now
        run.go(5)
        assert 60 < world.now - began < 80
    assert told == ["worker 1: it hung; replaced, its blocks 2-3 begin new episodes"]


def test_what_the_cluster_lacks_is_said_and_a_node_that_joins_supplies_it(world, told):
    del world.nodes["two"]
    world.at(100.0, lambda: world.add_node("three", 1))
    with Run(3, seeds=(3,), lanes=8, block_size=2, **KEYS) as run:
        run.go(5)
        assert {member.place.address for member in run.source.members} == {"one", "three"}
        assert run.source.replaced == 0
    lacks = (
        "ray: 1 of 3 workers have no place yet, for they take a CPU each: of 2 in the cluster (one has "
        "2) 0 are free; another node brings more: `ray start --address=head:6379`; waiting up to 15 minutes"
    )
    assert told == [lacks, lacks, "ray: all workers have a place now"]  # after 5 s and after 65 s
    assert 100 <= world.now < 102


def test_the_wait_for_room_has_an_end(world, told):
    with (
        Run(5, block_size=2, **KEYS) as run,
        pytest.raises(WorkerLost, match=r"1 of 5 .* waited 9"),
    ):
        run.go(1)
    assert 900 < world.now < 1_000
    assert len(told) == 15  # after 5 s and then once a minute


def test_a_simulator_that_raises_ends_the_run_with_its_lane_and_journal(world, told):
    bad = {**KEYS, "env_options": {"fault": "raises", "every": 50}}
    with Run(2, **bad) as run, pytest.raises(SimulatorError, match="ZeroDivisionError") as caught:
        run.go(60)
    assert caught.value.journal is not None
    assert "go_wrong" in str(caught.value.__cause__)
    assert not told


@pytest.mark.slow
def test_who_goes_on_begins_new_episodes_of_its_own(world):
    with Run(2, **KEYS) as run:
        rest(run.go(20))
        state, learner = run.source.state_dict(), run.learner.state_dict()
        replay = run.learner.replay
        tail, rows, steps = replay.tail, replay.rows(replay.tail, replay.head), run.lane_steps
        last = replay.head
    with Run(2, **KEYS) as other:
        other.learner.load_state_dict(learner)
        other.learner.replay.load_rows(tail, rows)
        other.source.load_state_dict(state)
        other.lane_steps = steps
        rest(other.go(20))
        replay, hyper = other.learner.replay, other.config.hyper
        compared, cut, begun = faulty.check_ring(replay, hyper.n_step, hyper.gamma)
        assert replay.head == other.lane_steps // LANES > last
        assert compared > 0.6 * replay.head * 2 * LANES
        assert cut <= 2 * LANES * (hyper.n_step - 1)
        assert len(begun) - len(set(begun)) <= 2  # the first start's keys do not come again
        assert {member.task.life for member in other.source.members} == {1}
        assert other.source.members[0].task.steps_done == other.lane_steps // LANES


@pytest.mark.parametrize("kept", [[0], pytest.param([1, 2], marks=pytest.mark.slow)])
def test_seeds_leave(world, told, kept):
    with Run(4, seeds=(3, 4, 7), **KEYS) as run:
        rest(run.go(12)).keep(kept)
        before = len(world.puts)
        run.go(12)
        assert len(run.source.members) == {1: 2, 2: 4}[len(kept)] - (kept == [1, 2])
        assert lags(run) <= {0, 1, 2, 3}
        assert world.puts[before - 1].value.tensors["flat"].shape[0] == len(kept)
        replay, hyper = run.learner.replay, run.config.hyper
        faulty.check_ring(replay, hyper.n_step, hyper.gamma)
        sum_of_lanes = sum(len(m.task.columns) for m in run.source.members) * 4
        assert sum_of_lanes == len(kept) * 8
    assert not told


def test_other_code_on_a_machine_is_said_once(world, told, monkeypatch):
    with Run(4, **KEYS) as run:
        monkeypatch.setattr(ray_worker, "code_here", lambda: {"torch": "1", "commit": "c"})
        run.go(3)
    assert told == [
        f"ray: {address} has other code: commit c there, none here; torch 1 there, 2 here"
        for address in ("one", "two")
    ]


def test_no_more_is_begun_than_the_lag_allows(world):
    """However far a plan looks ahead."""
    plan = Plan(8, None)
    for _ in range(6):
        plan = plan._replace(following=plan)
    with Run(2, **KEYS) as run:
        run.source.publish(run.learner.params())
        for _ in range(2):
            run.source.next(plan)
            assert run.source.pending == 3


def test_a_head_node_that_is_gone_ends_the_run_before_ray_ends_the_process(world, told):
    with Run(2, **KEYS) as run:
        run.go(3)
        world.now += 1_000  # a long evaluation: nothing is known of that time
        world.head = False
        run.go(1)
        for actor in world.actors:
            actor.hung = True
        began = world.now
        with pytest.raises(WorkerLost, match="the head node has not answered for 3"):
            run.go(3)
        assert 30 <= world.now - began < 40
    assert not told


def test_what_is_handed_over_lives_until_the_next_one(world):
    """And no longer: its memory is used again."""
    with Run(2, **KEYS) as run:
        run.go(3)
        plan = run.clock.plan(run.lane_steps)
        first = run.source.next(plan)
        kept = first.obs.copy()
        assert first.obs.flags.writeable
        second = run.source.next(plan._replace(following=None))
        assert np.shares_memory(first.obs, second.obs)
        assert not np.array_equal(kept, second.obs)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tpid: 7\nThe actor is dead because its "
            "worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly "
            "exits with a connection error code 2. End of file. Some common causes include: (1) the",
            "Worker unexpectedly exits with a connection error code 2. End of file",
        ),
        (
            "The actor 87 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: "
            "recvmsg:Connection reset by peer rpc_code: 14. The task may or may not have",
            "recvmsg:Connection reset by peer",
        ),
        (
            "The actor died because of an error raised in its creation task, \x1b[36mray::B\x1b[39m\n   ^^^\n"
            "ModuleNotFoundError: No module named 'runners'",
            "ModuleNotFoundError: No module named 'runners': every machine needs the lab and its simulators "
            "installed",
        ),
        ("", "RuntimeError"),
    ],
)
def test_what_ray_says_of_a_death_becomes_a_line(world, said, told):
    from runners.sources import ray_member

    assert ray_member.gist(RuntimeError(said)) == told
