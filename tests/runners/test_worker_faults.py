"""Worker processes that die, stop, hang or talk nonsense are replaced; what is learned stays true."""

from __future__ import annotations

import copy
import multiprocessing
import re

import numpy as np
import pytest

from envs.contract import SimulatorError
from runners import crash_report, journal, seeding, train
from runners import group as groups
from runners.errors import WorkerLost
from runners.sources import lives as budget
from runners.sources import member
from tests.runners import faulty
from tests.runners.test_process_source import Run

KEYS = {"env": faulty.KEYS, "eval_episodes": 2, "replay_size": 10**5, "lag": 1}
LANES = 8  # of each of two seeds, in blocks of four
ROWS = 8  # in a rollout


@pytest.fixture(name="told")
def messages(monkeypatch):
    """What the sources say."""
    told = []
    make = groups.make_source
    monkeypatch.setattr(groups, "make_source", lambda *given: make(*given, told.append))
    return told


def causes(told):
    return [re.sub(r";.*", "", line) for line in told]


def check(run, rows, workers, deaths, lost=ROWS):
    """The invariants: all is counted once, little is done over, no transition joins two episodes.

    ``deaths``: the numbers of the workers that were replaced, each with ``lost`` rows at most.
    """
    replay, hyper = run.learner.replay, run.config.hyper
    assert run.lane_steps == rows * LANES
    assert replay.head == rows
    assert run.learner.updates == int((run.lane_steps - 50) * hyper.replay_ratio)
    assert run.source.replaced == len(deaths)
    ordered = rows + ROWS * run.source.pending
    for index, counted in enumerate(run.source.beats.bytes.view(np.int64).tolist()):
        assert rows <= counted <= ordered + lost * deaths.count(index)
    compared, cut, begun = faulty.check_ring(replay, hyper.n_step, hyper.gamma)
    assert compared > 0.6 * rows * 2 * LANES
    checkpoints = run.lane_steps // 2_000  # which truncate all lanes
    most = (2 * LANES * checkpoints + 2 * LANES // workers * len(deaths)) * (hyper.n_step - 1)
    assert cut <= most
    # No stream of a block is drawn from again. Of 800 keys below 2^23, 800^2 / 2 / 2^23 = 0.04 pairs
    # are expected to be equal by chance.
    assert len(begun) > 100
    assert len(begun) - len(set(begun)) <= 2


@pytest.mark.parametrize(
    "faults",
    [
        {"worker.row@0.0:20:segv": "killed by signal 11", "worker.row@0.1:13:stop": "hung"},
        pytest.param(
            {
                "worker.start@0.0:1": "killed by signal 9",
                "worker.ready@0.1:1:segv": "killed by signal 11",
                "worker.answer@0.2:2": "killed by signal 9",
                "worker.answered@0.3:2": "killed by signal 9",
                "worker.row@0.4:9:hang": "hung",
                "worker.answer@0.5:5:stop": "hung",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["rows", "everywhere"],
)
def test_a_worker_that_dies_at_its_points_is_replaced(faults, told, monkeypatch):
    monkeypatch.setattr(budget, "LIVES", 10)
    monkeypatch.setattr(member, "HANG_LIMIT", 1.0)
    slow = "worker.row@1.*:30:delay"  # the other one, which is not taken for dead
    monkeypatch.setenv("QLAB_FAULT", ";".join([*faults, slow]))
    with Run(2, **KEYS) as run:
        run.go(40)
        check(run, 314, 2, [0] * len(faults))
    for line, why in zip(told, faults.values(), strict=True):
        assert re.match(
            rf"worker 0: (it )?{why}.*; replaced, its blocks 0-1 begin new episodes", line
        )


@pytest.mark.slow
def test_a_sweep_over_a_worker_s_first_points(told, monkeypatch):
    """Each life dies one point later: at its start, ready, in each row of a rollout, and around the answer."""
    lives = 13
    monkeypatch.setattr(budget, "LIVES", lives)
    monkeypatch.setenv("QLAB_FAULT", ";".join(f"worker.*@1.{n}:{n + 1}" for n in range(lives)))
    with Run(2, **KEYS) as run:
        run.go(40)
        check(run, 314, 2, [1] * lives)
    assert causes(told) == ["worker 1: killed by signal 9 (Killed)"] * lives


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["worker.state@0.0:1", "worker.state@1.0:1"])
def test_a_worker_that_dies_at_a_checkpoint_leaves_one_to_go_on_from(killed, told, monkeypatch):
    """Whoever goes on from it, with whatever workers, does what the run itself does."""
    monkeypatch.setenv("QLAB_FAULT", killed)
    with Run(2, **KEYS) as run:
        run.go(32)
        assert run.lane_steps == 2_000  # the simulators are reset here
        state = run.source.state_dict()
        learner = copy.deepcopy(run.learner.state_dict())
        rows = run.learner.replay.rows(0, run.learner.replay.head)
        run.go(8)
        check(run, 314, 2, [int("@1" in killed)])
        assert state["replaced"] == 1
    with Run(0, **KEYS) as other:
        other.learner.load_state_dict(learner)
        other.learner.replay.load_rows(0, rows)
        other.source.load_state_dict(state)
        other.lane_steps = 2_000
        assert other.go(8).rollouts == run.rollouts[32:]
        assert other.source.replaced == 1


def test_a_life_after_a_resume_is_none_that_was_there_before(told, monkeypatch):
    """Five workers were replaced before the stop; one dies while it takes up its state."""
    monkeypatch.setenv("QLAB_FAULT", "worker.load@0.0:1")
    with Run(0, **KEYS) as before, Run(1, **KEYS) as run:
        run.source.load_state_dict({**before.go(2).source.state_dict(), "replaced": 5})
        assert run.source.replaced == 6
        assert run.source.members[0].task.life == 6


@pytest.mark.slow
def test_async_workers_that_die_keep_the_replay_ratio(told, monkeypatch):
    monkeypatch.setenv("QLAB_FAULT", "worker.row@0.0:20;worker.row@1.0:77;worker.answer@0.1:4")
    with Run(2, **{**KEYS, "lag": 0}, async_=True, max_lag=3) as run:
        run.go(40)
        check(run, 314, 2, [0, 1, 0])
        assert all(0 <= learned - acted <= 3 for learned, acted in run.versions)


@pytest.mark.slow
def test_a_worker_that_talks_nonsense_is_replaced(told, monkeypatch):
    monkeypatch.setattr(member, "main", faulty.babble)
    monkeypatch.setattr(member, "HANG_LIMIT", 1.0)
    monkeypatch.setattr(budget, "LIVES", 10)
    with Run(2, **KEYS) as run:
        run.go(40)
        check(run, 314, 2, [0] * len(faulty.NO_ANSWERS), lost=2 * ROWS)  # one was ahead
    assert causes(told)[0] == "worker 0: it answered what it was not asked: not what was asked"
    assert causes(told)[1].startswith(
        "worker 0: it answered what it was not asked: Collected(number=1"
    )
    assert causes(told)[2].startswith("worker 0: its answer cannot be read: UnpicklingError")
    assert causes(told)[3].startswith("worker 0: its answer cannot be read: BlockingIOError")


@pytest.mark.slow
def test_seeds_leave_while_a_worker_dies(told, monkeypatch):
    monkeypatch.setenv("QLAB_FAULT", "worker.keep@1.0:1;worker.row@1.*:90")
    with Run(2, **KEYS) as run:
        run.go(5)
        run.keep([1]).go(20)
        assert run.learner.replay.head == 200
        compared, _, _ = faulty.check_ring(run.learner.replay, 2, run.config.hyper.gamma)
        assert compared > 0.6 * 200 * LANES
    assert causes(told)[0] == "worker 1: killed by signal 9 (Killed)"


# -- Loops of death, and simulators' own faults --------------------------------------------------


def test_a_simulator_that_kills_its_process_ends_the_run(tmp_path, capfd):
    """Status 5 after three replacements, not a storm of them; the last reason is said."""
    argv = ["dqn", "--env", faulty.KEYS, "--env-options", "fault=segv", "every=1"]
    status = train.main(
        [*argv, "--steps", "1000", "--seeds", "1", "--workers", "1", "--out", str(tmp_path)]
    )
    _, said = capfd.readouterr()
    assert status == 5
    assert said.count("; replaced, its block 0 begins new episodes") == 3
    (newest,) = tmp_path.glob("*/groups/0-0/crash-4.json")  # each life has left one
    assert said.splitlines()[-1] == (
        "error: worker 0: killed by signal 11 (Segmentation fault); "
        f"replay it: python -m runners.replay_crash {newest}; workers were replaced too often, 3 "
        "times: see what the simulator does"
    )


def test_the_report_is_of_the_block_that_killed_the_process(tmp_path, monkeypatch):
    """The first block dies in its first step; the others have been reset for that step, no more."""
    make = groups.make_source
    monkeypatch.setattr(groups, "make_source", lambda *given: make(*given, folder=lambda: tmp_path))
    monkeypatch.setattr(budget, "LIVES", 0)
    with Run(1, **KEYS, env_options={"fault": "segv"}) as run, pytest.raises(WorkerLost):
        run.go(1)
    report = crash_report.read(tmp_path / "crash-1.json")
    assert (report.seed, report.block, report.first_lane, report.step) == (3, 0, 0, 0)
    assert len(report.unpacked_actions()) == 1


def test_a_simulator_that_a_worker_cannot_make_can_be_reported(monkeypatch):
    """Its journal says which one it was, and that nothing came before."""
    with pytest.raises(SimulatorError, match="making it raised RuntimeError") as caught:
        Run(1, **KEYS, env_options={"fault": "making"})
    kept = caught.value.journal
    block = journal.Block(4, seeding.simulator_seed(3, 0), seed=3)
    assert kept.header.tolist() == journal.new_header(block).tolist()
    assert kept.complete


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_ends_the_run_with_its_traceback(monkeypatch):
    """It is ours, so another process would meet it again."""
    monkeypatch.setenv("QLAB_FAULT", "worker.answer@1.0:3:raise")
    with Run(2, **KEYS) as run:
        with pytest.raises(RuntimeError, match="nobody foresaw") as caught:
            run.go(40)
        assert len(run.rollouts) == 2
        assert run.learner.replay.head == 2 * ROWS
    assert "RuntimeError: a fault on purpose at worker.answer" in str(caught.value.__cause__)
    assert not multiprocessing.active_children()


def first_error(workers, options):
    """The simulator's error that ends a run, and how many rows were learned before."""
    with Run(workers, **KEYS, env_options=options) as run:
        with pytest.raises(SimulatorError) as caught:
            run.go(100)
        assert run.learner.replay.head * LANES == run.lane_steps
        return caught.value, run.lane_steps


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("nan obs", "the observation is [nan nan]"),
        pytest.param("nan reward", "the reward is nan", marks=pytest.mark.slow),
        pytest.param("raises", "step raised ZeroDivisionError", marks=pytest.mark.slow),
        pytest.param("shape", "", marks=pytest.mark.slow),
    ],
)
def test_a_simulator_s_fault_is_the_one_that_it_is_without_workers(fault, what):
    """One episode in 200 is bad; lane and step are those of the group, whichever worker has it."""
    options = {"fault": fault, "every": 200}
    local, rows = first_error(0, options)
    assert what in local.what
    assert rows > 0
    error, learned = first_error(2, options)
    assert error.args == local.args
    assert (error.lane, error.step, learned) == (local.lane, local.step, rows)
    assert error.lane >= LANES  # the second worker's
